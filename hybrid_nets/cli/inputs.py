"""Find the cases in what was given as input: a file, a folder, or a list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hybrid_nets.cli.cases import Case, Wanted
from hybrid_nets.cli.lists import read_csv, read_json_list
from hybrid_nets.cli.names import file_names
from hybrid_nets.cli.series_cases import dicom_files, series_cases
from hybrid_nets.conventions import canonical_name
from hybrid_nets.errors import InputError
from hybrid_nets.folders import PICTURES, VOLUMES, describe, find_files, read_folder, suffix_name

__all__ = ["find_inputs"]


def find_inputs(path: Path, wanted: Wanted) -> tuple[list[Case], list[str]]:
    """The cases in ``path``, and notes on what there is but isn't taken.

    Raises:
        InputError: nothing there, or nothing of a kind that can be segmented.
    """
    if not path.exists():
        raise InputError(f"there is no {str(path)!r}; give a file, a folder or a list with -i.")
    if path.is_dir():
        listing = path / "dataset.json"
        return read_json_list(listing, wanted) if listing.is_file() else scan_folder(path, wanted)
    name = path.name.lower()
    if name.endswith(".json"):
        return read_json_list(path, wanted)
    if name.endswith(".csv"):
        return read_csv(path, wanted)
    if name.endswith(endings(wanted)):
        return [Case(file_names([str(path)], path.parent)[0], (str(path),))], []
    raise InputError(
        f"{path.name} is not of a kind that can be segmented here: {', '.join(endings(wanted))}, or a CSV or JSON "
        "list; for DICOM give the folder of the series."
    )


def endings(wanted: Wanted) -> tuple[str, ...]:
    return PICTURES if wanted.pictures else VOLUMES


def scan_folder(root: Path, wanted: Wanted) -> tuple[list[Case], list[str]]:
    files = [file for file in find_files(root, endings(wanted)) if os.path.abspath(file) not in wanted.avoid]
    dicom = [] if wanted.pictures else dicom_files(root)
    if files and dicom:
        raise InputError(
            f"{root} holds {len(files)} NIfTI file(s) and {len(dicom)} DICOM file(s); give the folder of one kind."
        )
    if dicom:
        return series_cases(dicom, wanted)
    images, notes = leave_out_labels(root, files)
    notes += note_links(root)
    if not images:
        what = "pictures (PNG, JPEG, TIFF, BMP)" if wanted.pictures else "NIfTI files or DICOM series"
        raise InputError(f"there are no {what} to segment in {root}.")
    grouped = [group for folder in sorted({f.parent for f in images}) for group in group_folder(folder, images, wanted)]
    names = file_names([str(group[0]) for group in grouped], root)
    return [make_case(name, group, wanted) for name, group in zip(names, grouped)], notes


def note_links(root: Path) -> list[str]:
    """Links to files are read; those to folders may lead in circles."""
    count = sum(os.path.islink(os.path.join(folder, name)) for folder, names, _ in os.walk(root) for name in names)
    return [f"{count} link(s) to folders are not followed; give these folders with -i."] if count else []


def leave_out_labels(root: Path, files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """``files`` without those whose name or folder says that they are segmentations."""
    labels = {file for file in files if describe(file.relative_to(root), False)[0]}
    notes = [f"{len(labels)} file(s) skipped, by their names or folders they are segmentations."] if labels else []
    return [file for file in files if file not in labels], notes


def group_folder(folder: Path, images: Sequence[Path], wanted: Wanted) -> list[list[Path]]:
    """The files of ``folder`` by case: those whose names differ only in the channel at the end are one."""
    listed = [file for file in images if file.parent == folder]
    channels = {canonical_name(name) for name in wanted.channels}
    named = [file for file in listed if suffix_name(file)[1] in channels] if len(channels) > 1 else []
    groups: dict[str, list[Path]] = {}
    for file in named:
        groups.setdefault(file.name[: max(file.name.rfind("_"), file.name.rfind("-"))], []).append(file)
    if len({suffix_name(file)[1] for file in named}) == len(named):  # one case, however the files begin
        groups = {"": named} if named else {}
    return [*groups.values(), *([file] for file in listed if file not in named)]


def make_case(name: str, group: list[Path], wanted: Wanted) -> Case:
    files = tuple(str(file) for file in group)
    if len(wanted.channels) < 2 or suffix_name(group[0])[1] not in {canonical_name(c) for c in wanted.channels}:
        return Case(name, files)
    try:
        return Case(name, tuple(read_folder(group[0].parent, group, wanted.channels, None)["image"]))
    except InputError as error:
        return Case(name, files, problem=str(error))
