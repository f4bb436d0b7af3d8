"""Cases from a list: CSV, a plain JSON list, or ``dataset.json`` as MSD and nnU-Net have it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybrid_nets.cli.cases import Case, Wanted
from hybrid_nets.cli.names import file_names, repeated, safe_name
from hybrid_nets.cli.series_cases import dicom_files, listed_series
from hybrid_nets.conventions import canonical_name
from hybrid_nets.datalist import read_meaning
from hybrid_nets.errors import InputError
from hybrid_nets.folders import VOLUMES, find_files, pair_files

__all__ = ["read_csv", "read_json_list"]


def read_json_list(path: Path, wanted: Wanted) -> tuple[list[Case], list[str]]:
    """The cases of a list, or of an object with ``test``, or else ``training``, as the bundle's inference takes them.

    An entry is a file, a list of them, one per channel, or an object with ``image`` and, if wanted, ``case``.

    Raises:
        InputError: no JSON, or it lists no cases.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); mend it.") from error
    if isinstance(content, list):
        content = {"test": content}
    if not isinstance(content, dict):
        raise InputError(f"{path} must be a list of cases, or an object with a test or training list.")
    extra = read_meaning(content, wanted.channels if len(wanted.channels) > 1 else None, None, None)
    listed = content.get("test")
    for section in () if listed else ("training", "validation"):
        part = content.get(section) or []
        if not isinstance(part, list):
            raise InputError(f'{path}: "{section}" must be a list of cases.')
        listed = [*(listed or []), *part]
    if not listed and "file_ending" in content:  # nnU-Net's names files by their channel's number
        root = path.parent
        listed = [case["image"] for case in pair_files(root, find_files(root, VOLUMES), True) if "label" not in case]
    if not isinstance(listed, list) or not listed:
        raise InputError(f'{path} lists no cases; it needs a "test" or a "training" list of {{"image": …}} entries.')
    rows = [row if isinstance(row, dict) else {"image": row} for row in listed]
    return build_cases([(row.get("image"), row.get("case")) for row in rows], path.parent, wanted, extra), []


def read_csv(path: Path, wanted: Wanted) -> tuple[list[Case], list[str]]:
    """The cases of a table with a column ``image``, or one per channel by its name, and if wanted ``case``.

    Raises:
        InputError: no such columns, or no rows.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as text in UTF-8 ({error}); save it again.") from error
    separator = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
    rows = list(csv.DictReader(lines, delimiter=separator))
    columns = {canonical_name(name.strip()): name for name in (rows[0] if rows else []) if name}
    several = [columns.get(canonical_name(channel)) for channel in wanted.channels]
    if "image" in columns:
        found = [row[columns["image"]] for row in rows]
    elif rows and len(several) > 1 and None not in several:
        found = [[row[name] for name in several] for row in rows]
    else:
        needs = f", or the columns {', '.join(wanted.channels)}" if len(several) > 1 else ""
        raise InputError(f"{path} needs a first line with the column image{needs}, and a row per case below.")
    return build_cases([(image, row.get("case")) for image, row in zip(found, rows)], path.parent, wanted, {}), []


def build_cases(rows: Sequence[tuple[Any, Any]], root: Path, wanted: Wanted, extra: dict) -> list[Case]:
    """Cases of (image or images, name) rows; paths start at ``root``. A bad row is a case with a problem."""
    texts = [image if isinstance(image, list) else [image] for image, _ in rows]
    files = [tuple(str(root / text) for text in row if isinstance(text, str) and text) for row in texts]
    found = file_names([row[0] if row else str(root / f"row_{i}") for i, row in enumerate(files, start=1)], root)
    names = [safe_name(str(name)) if name else own for (_, name), own in zip(rows, found)]
    double = repeated(names)
    if double:
        raise InputError(f"the list has the case {sorted(double)[0]!r} more than once; give each a name of its own.")
    cases = []
    for name, row, given in zip(names, files, texts):
        if not given or len(row) < len(given):
            cases.append(Case(name, row, problem="an image is missing in the list; fill the empty place."))
        elif any(Path(file).is_dir() and not file.lower().endswith(VOLUMES) for file in row):
            cases.append(listed_series(name, [dicom_files(Path(file)) for file in row], wanted))
        else:
            cases.append(Case(name, row, extra=extra))
    return cases
