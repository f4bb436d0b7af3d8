"""CSV files that are whole or not there, whose text a spreadsheet takes for text."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hybrid_nets.atomic import replacing

__all__ = ["write_csv"]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write ``rows`` below a line of ``columns``, in UTF-8; what UTF-8 can't hold is written with backslashes."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as f,
    ):
        writer = csv.DictWriter(f, fieldnames=columns)
        writer.writeheader()
        writer.writerows({key: harmless(value) for key, value in row.items()} for row in rows)


def harmless(value: object) -> object:
    """Text that a spreadsheet takes for text: what begins like a formula gets an apostrophe.

    Example::

        >>> harmless("=1+1"), harmless("scan"), harmless(-1.5)
        ("'=1+1", 'scan', -1.5)
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else value
