"""What there is to segment: a case is what gets one label map."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybrid_nets.dicom.series import Series

__all__ = ["Case", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """What a bundle takes, for those who look for it.

    Attributes:
        channels: names of the images of one case, in order.
        modality: as DICOM writes it, such as ``CT``.
        pictures: PNG, JPEG and such instead of volumes.
        names: of DICOM cases: ``series`` or ``patient``.
        avoid: files that are results of ours, not images.
    """

    channels: Sequence[str]
    modality: str
    pictures: bool = False
    names: str = "series"
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """One image to segment, of one file, of one per channel, or of DICOM series.

    Attributes:
        name: of its outputs, with folders: ``site1/scan`` gives ``site1/scan_seg.nii.gz``.
        image: the file of each channel, or one file with all; for DICOM empty.
        series: for DICOM the series of each channel.
        extra: what else MONAI's dictionary of the case has, such as ``channel_order``.
        problem: why it can't be segmented, where that is known before it is read.
    """

    name: str
    image: tuple[str, ...] = ()
    series: tuple[Series, ...] = ()
    extra: dict = field(default_factory=dict)
    problem: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return self.image + tuple(file for series in self.series for file in series.files)

    @property
    def entry(self) -> dict:
        """The case in a MONAI data list."""
        files = self.image or tuple(series.files[0] for series in self.series)
        return {**self.extra, "image": files[0] if len(files) == 1 else list(files)}

    def images(self) -> list[str]:
        """Paths of its files, for the report; not of DICOM, whose folders may name a patient."""
        return [os.path.abspath(file) for file in self.image]

    def source(self) -> str:
        """A digest of which files these are."""
        return digest(os.path.abspath(file) for file in self.files)

    def fingerprint(self) -> str:
        """A digest that changes with the files: sizes and times of all."""
        return digest(stamp(file) for file in self.files)


def stamp(file: str) -> str:
    try:
        found = Path(file).stat()
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


def digest(lines: object) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()  # type: ignore[arg-type]
