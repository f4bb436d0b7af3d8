"""Writes a data set's folder all or nothing, several cases at a time."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["check_numbers", "is_complete", "publish_folder", "write_cases"]

# A case needs a few hundred MB while it is drawn, so more threads than this would cost more than they save.
MAX_THREADS = 4


def publish_folder(output_dir: str | Path, name: str, write: Callable[[Path], None]) -> Path:
    """Have ``write`` fill the folder ``output_dir``; nothing is done if that already holds a ``dataset.json``.

    The data set is built in a hidden sibling folder that is renamed when complete. So ``output_dir`` never holds half
    a data set, and of several processes that write the same one, the first to finish wins and all return normally.

    Args:
        output_dir: the data set's folder. It and its parents are created if need be.
        name: of the data set, to suggest as a folder name.
        write: writes all files, ``dataset.json`` included, to a folder that does not exist yet.

    Returns:
        The absolute path of ``output_dir``.

    Raises:
        FileExistsError: ``output_dir`` is a file, or a folder with other files in it.

    Example::

        publish_folder("/data/phantom", "phantom", lambda folder: write_files(folder, about))
    """
    folder = Path(output_dir).expanduser().resolve()
    if is_complete(folder):
        return folder
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists and is not a data set (no dataset.json). Nothing was changed. "
            f"Give a new or empty folder instead, for example {folder / name}."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        write(building)
        publish(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def is_complete(folder: Path) -> bool:
    return (folder / "dataset.json").is_file()


def publish(building: Path, folder: Path) -> None:
    """Rename ``building`` to ``folder``, unless another process was faster."""
    try:
        os.replace(building, folder)
    except OSError:
        if not is_complete(folder):
            raise


def write_cases(write_case: Callable[[int, bool], str], num_training: int, num_test: int) -> list[str]:
    """``write_case(index, training)`` for all cases, training cases first, in several threads; what it returned."""
    count = num_training + num_test
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(write_case, range(count), [index < num_training for index in range(count)]))


def check_numbers(num_training: int, num_test: int) -> None:
    if num_training < 1 or num_test < 0:
        raise ValueError(f"a data set needs num_training >= 1 and num_test >= 0, got {num_training} and {num_test}.")
