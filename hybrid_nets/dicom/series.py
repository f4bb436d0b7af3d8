"""Find the DICOM series in a folder, by what is in the files and not by how they are called."""

from __future__ import annotations

import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_nets.dicom.geometry import Slice, order_slices, series_affine
from hybrid_nets.errors import InputError

__all__ = ["Series", "find_series", "is_dicom"]

TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "ImageType", "PatientID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames"),
    "SamplesPerPixel",
]


@dataclass(frozen=True)
class Series:
    """A series that can be segmented, or says why not.

    Attributes:
        name: for its outputs: of its number and the end of its UID.
        patient: the PatientID, for names where these are asked for.
        files: in order, first the slice at the low end of the normal.
        shape: columns, rows, slices.
        affine: of voxels in this order to millimetres (RAS), (4, 4).
        problem: why it can't be segmented, or None.
    """

    uid: str
    name: str
    patient: str
    files: tuple[str, ...]
    shape: tuple[int, ...] = ()
    affine: np.ndarray | None = None
    problem: str | None = None


def is_dicom(file: Path) -> bool:
    """Whether ``file`` has DICOM's mark, which stands behind 128 bytes of anything."""
    try:
        with open(file, "rb") as content:
            content.seek(128)
            return content.read(4) == b"DICM"
    except OSError:
        return False


def find_series(files: Iterable[Path], modality: str) -> tuple[list[Series], list[str]]:
    """The series of ``modality`` among DICOM ``files``, and a note for each one that is left out.

    Left out are other modalities, localisers and single images. A series that ought to be segmented and can't be is in
    the list, with its problem.

    Raises:
        InputError: pydicom is not installed.
    """
    groups, notes = read_groups(files)
    found = []
    for uid, headers in sorted(groups.items()):
        name = series_name(uid, headers[0])
        reason = reason_to_skip(headers, modality)
        if reason:
            notes.append(f"{name}: skipped, {reason}.")
        else:
            found.append(build_series(uid, name, headers))
    return found, notes


def read_groups(files: Iterable[Path]) -> tuple[dict[str, list[Any]], list[str]]:
    """Headers by their series; copies of one file count once."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError('DICOM needs pydicom and highdicom: pip install "hybrid-nets[dicom]".') from error
    # What it has to say of values that are not as the standard has them repeats these, the patient's among them.
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    groups: dict[str, dict[str, Any]] = defaultdict(dict)
    unreadable = 0
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
                header.path = str(file)
                if "SeriesInstanceUID" in header:  # a DICOMDIR has none
                    groups[str(header.SeriesInstanceUID)].setdefault(str(header.SOPInstanceUID), header)
        except Exception:  # whatever is in a broken file
            unreadable += 1
    notes = [f"{unreadable} DICOM file(s) skipped, their headers can't be read."] if unreadable else []
    return {uid: list(headers.values()) for uid, headers in groups.items()}, notes


def series_name(uid: str, header: Any) -> str:
    """A name without anything of the patient's: numbers only."""
    number = re.sub(r"\D", "", str(header.get("SeriesNumber") or "")) or "0"
    return f"series_{number}_{re.sub(r'[^0-9]', '', uid)[-8:]}"


def reason_to_skip(headers: list[Any], modality: str) -> str | None:
    found = str(headers[0].get("Modality", "none"))
    if found != modality:
        return f"its modality is {re.sub('[^A-Z]', '', found) or 'none'} and the bundle takes {modality}"
    if any("LOCALIZER" in str(header.get("ImageType", "")).upper() for header in headers):
        return "a localiser"
    if len(headers) == 1 and int(headers[0].get("NumberOfFrames") or 1) == 1:
        return "a single image"
    return None


def build_series(uid: str, name: str, headers: list[Any]) -> Series:
    files = tuple(sorted(header.path for header in headers))
    patient = str(headers[0].get("PatientID", "") or "unknown")
    try:
        ordered = order_slices([read_slice(header) for header in headers])
    except InputError as error:
        return Series(uid, name, patient, files, problem=str(error))
    shape = (ordered[0].columns, ordered[0].rows, len(ordered))
    return Series(uid, name, patient, tuple(s.file for s in ordered), shape, series_affine(ordered))


def read_slice(header: Any) -> Slice:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError("it is an enhanced (multi-frame) image; export it as single frames, or convert it to NIfTI.")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise InputError("it is a colour image; give the original series.")
    try:
        lists = (header.ImagePositionPatient, header.ImageOrientationPatient, header.PixelSpacing)
        position, directions, spacing = (tuple(float(value) for value in values) for values in lists)
        if [len(position), len(directions), len(spacing)] != [3, 6, 2] or min(spacing) <= 0:
            raise ValueError("geometry")
        return Slice(
            header.path,
            str(header.SOPInstanceUID),
            position,
            directions,
            spacing,
            int(header.Rows),
            int(header.Columns),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            "a slice does not say where it lies (position, orientation or pixel spacing); give the original series."
        ) from error
