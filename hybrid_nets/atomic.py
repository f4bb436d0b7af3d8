"""Files that are whole or not there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["remove_leftovers", "replacing"]

UMASK = os.umask(0o077)  # it can't be asked for without being set
os.umask(UMASK)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to, with the same ending; it becomes ``path`` when the block ends well.

    After an error, a kill or a full disk ``path`` is what it was before. The folder is made if it is missing. Until it
    is ``path`` only its owner can read the file.

    Example::

        with replacing("out/table.csv") as temporary:
            temporary.write_text("case,volume\\n")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    temporary.unlink(missing_ok=True)  # of a killed process with the same id
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield temporary
        with suppress(PermissionError):  # of file systems without owners
            os.chmod(temporary, 0o666 & ~UMASK)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove the temporary files that killed processes left of ``path``; for whoever alone writes it."""
    path = Path(path)
    name = re.compile(rf"\.\d+-{re.escape(path.name)}")
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        if name.fullmatch(file.name):
            file.unlink(missing_ok=True)
