"""DICOM series as cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hybrid_nets.cli.cases import Case, Wanted
from hybrid_nets.cli.names import repeated, safe_name
from hybrid_nets.dicom.series import Series, find_series, is_dicom
from hybrid_nets.errors import InputError

__all__ = ["dicom_files", "listed_series", "series_cases"]

# What lies beside DICOM files and is none; other files are looked into, as many have no ending.
OTHERS = (".nii", ".nii.gz", ".json", ".csv", ".txt", ".md", ".pdf", ".html", ".xml", ".zip", ".png", ".jpg", ".gz")


def dicom_files(root: Path) -> list[Path]:
    """DICOM files below ``root``, in a fixed order; hidden ones and links to folders are left alone."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(folder, name) for name in sorted(files) if not name.startswith("."))
        found += [path for path in paths if not path.name.lower().endswith(OTHERS) and is_dicom(path)]
    return found


def series_cases(files: Sequence[Path], wanted: Wanted) -> tuple[list[Case], list[str]]:
    """A case per series among ``files``, for networks of one channel.

    Raises:
        InputError: the network takes several channels, which only a list can tell apart; or no series is left.
    """
    if len(wanted.channels) > 1:
        raise InputError(
            f"the network takes {len(wanted.channels)} series per case; list them in a CSV with the columns "
            f"{', '.join(wanted.channels)} and the folder of a series in each, and give that with -i."
        )
    found, notes = find_series(files, wanted.modality)
    if not found:
        raise InputError(f"there is no {wanted.modality} series to segment: {' '.join(notes) or 'no DICOM images.'}")
    names = [case_name(series, wanted) for series in found]
    double = repeated(names)
    names = [f"{n}_{s.uid.replace('.', '')[-24:]}" if n.casefold() in double else n for n, s in zip(names, found)]
    return [Case(name, series=(series,), problem=series.problem) for name, series in zip(names, found)], notes


def case_name(series: Series, wanted: Wanted) -> str:
    if wanted.names == "patient":
        return safe_name(f"{series.patient.replace('/', '_')}_{series.name}")
    return series.name


def listed_series(name: str, folders: Sequence[Sequence[Path]], wanted: Wanted) -> Case:
    """The case ``name`` of one series in each of ``folders``, which hold DICOM files."""
    chosen: list[Series] = []
    for files in folders:
        found, notes = find_series(files, wanted.modality)
        if len(found) != 1:
            reason = f"its folder holds {len(found)} {wanted.modality} series, one is needed. {' '.join(notes)}".strip()
            return Case(name, problem=reason)
        chosen += found
    problems = [f"{series.name}: {series.problem}" for series in chosen if series.problem]
    if not problems and not all(same_grid(series, chosen[0]) for series in chosen):
        problems = ["its series lie on different grids; resample them to one, for example in 3D Slicer."]
    return Case(name, series=tuple(chosen), problem=problems[0] if problems else None)


def same_grid(series: Series, other: Series) -> bool:
    return series.shape == other.shape and bool(np.allclose(series.affine, other.affine, atol=1e-2))  # type: ignore[arg-type]
