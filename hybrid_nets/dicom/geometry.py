"""Put the slices of a DICOM series in order, and refuse series that are no regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hybrid_nets.errors import InputError

__all__ = ["Slice", "order_slices", "series_affine"]

# How far a slice may lie from its place, in mm; positions in files are rounded.
POSITION_TOLERANCE = 0.05
DIRECTION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Slice:
    """What a slice's header says of its place; directions as ImageOrientationPatient has them, lengths in mm."""

    file: str
    uid: str
    position: tuple[float, ...]
    directions: tuple[float, ...]
    spacing: tuple[float, ...]
    rows: int
    columns: int

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.directions[:3], self.directions[3:])


def order_slices(slices: Sequence[Slice]) -> list[Slice]:
    """``slices`` along their normal, whatever their order was and whatever numbers and names they have.

    Raises:
        InputError: the series is no regular grid: sizes, pixel spacings or orientations differ, two slices lie in one
            place, some are missing, or each is shifted against the one before, as with a tilted gantry.

    Example::

        >>> place = dict(directions=(1, 0, 0, 0, 1, 0), spacing=(1, 1), rows=8, columns=8)
        >>> found = [Slice(f"{z}.dcm", f"1.{z}", position=(0, 0, z), **place) for z in (4, 0, 2)]
        >>> [item.file for item in order_slices(found)]
        ['0.dcm', '2.dcm', '4.dcm']
        >>> order_slices(found[:2] + [Slice("9.dcm", "1.9", position=(0, 0, 10), **place)])
        Traceback (most recent call last):
        ...
        hybrid_nets.errors.InputError: 1 slice(s) are missing or slices are unevenly spaced: gaps of 4 to 6 mm; ...
    """
    first = slices[0]
    for item in slices[1:]:
        if (item.rows, item.columns) != (first.rows, first.columns):
            raise InputError("its slices differ in rows or columns; export the series again, in one size.")
        if not np.allclose(item.spacing, first.spacing, rtol=1e-3):
            raise InputError("its slices differ in pixel spacing; export the series again, or resample it.")
        if not np.allclose(item.directions, first.directions, atol=DIRECTION_TOLERANCE):
            raise InputError("its slices differ in orientation; it holds several stacks, which must be separated.")
    ordered = sorted(slices, key=lambda item: float(np.dot(item.position, first.normal)))
    places = np.array([item.position for item in ordered], dtype=float)
    steps = np.diff(places @ first.normal)
    repeated = int((steps < POSITION_TOLERANCE / 5).sum())
    if repeated:
        raise InputError(
            f"{repeated} slice(s) lie where another one does: it holds several phases, echoes or copies; separate them."
        )
    check_even(steps)
    expected = np.linspace(places[0], places[-1], len(places))
    along = (places - places[0]) @ first.normal
    shifted = np.abs(places - places[0] - along[:, None] * first.normal).max()
    if np.abs(places - expected).max() > max(POSITION_TOLERANCE, 0.02 * steps.mean()) or shifted > POSITION_TOLERANCE:
        raise InputError(
            f"its slices are shifted against each other by up to {shifted:.1f} mm, as with a tilted gantry; "
            "resample it to a straight grid first."
        )
    return ordered


def check_even(steps: np.ndarray) -> None:
    """Refuse distances between slices that differ."""
    step = float(np.median(steps)) if len(steps) > 2 else float(steps.min())
    if np.abs(steps - step).max() > max(POSITION_TOLERANCE, 0.02 * step):
        missing = int(np.round(steps / step - 1).clip(min=0).sum())
        raise InputError(
            f"{max(missing, 1)} slice(s) are missing or slices are unevenly spaced: gaps of {steps.min():.3g} to "
            f"{steps.max():.3g} mm; export the whole series again, or resample it."
        )


def series_affine(ordered: Sequence[Slice]) -> np.ndarray:
    """Voxel (column, row, slice) to millimetres, in NIfTI's orientation (RAS), of slices in order: (4, 4)."""
    first, last = ordered[0], ordered[-1]
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.directions[:3]) * first.spacing[1]  # DICOM states the distance of rows first
    affine[:3, 1] = np.array(first.directions[3:]) * first.spacing[0]
    affine[:3, 2] = (np.array(last.position) - first.position) / (len(ordered) - 1)
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
