"""How a scanner's voxel grid lies in a patient: shape, spacing, orientation and tilt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

__all__ = ["Grid", "Scan", "draw_scan", "voxel_points"]

# Towards which side the three array axes run, and by how many degrees the grid is tilted (0: not oblique).
ORIENTATIONS = (("RAS", 0), ("LPS", 0), ("RAS", 12), ("PIR", 0), ("LPS", 9), ("LAS", 0), ("RIA", 15))
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
BODY_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


@dataclass(frozen=True)
class Grid:
    """Limits of the voxels that are drawn: the side in mm that two axes share (``pixel``) and that of the third
    (``slice``), which body axis that is (0 right, 1 front, 2 up; None: any), and the least and most voxels per axis.
    """

    pixel: tuple[float, float]
    slice: tuple[float, float]
    slice_axis: int | None
    sides: tuple[int, int]


BRAIN_GRID = Grid(pixel=(1.85, 2.05), slice=(1.65, 2.2), slice_axis=None, sides=(80, 112))


@dataclass(frozen=True)
class Scan:
    """Attributes:
    shape: voxels along each array axis.
    affine: float64 (4, 4), voxel indices to RAS+ world coordinates in mm.
    body: float64 (4, 4), voxel indices to the body's own coordinates (right, front, up) in mm, from its middle.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    body: np.ndarray


def draw_scan(
    index: int, field_of_view: tuple[float, float, float], rng: np.random.Generator, grid: Grid = BRAIN_GRID
) -> Scan:
    """A scan of the field of view (width, length, height in mm, give or take 2%) with the index-th orientation."""
    codes, tilt = ORIENTATIONS[index % len(ORIENTATIONS)]
    order = [BODY_AXIS[code] for code in codes]
    # Two axes share a pixel size, the third is the slice thickness; which body axis that is, varies.
    spacing = np.full(3, rng.uniform(*grid.pixel))
    thickness = rng.uniform(*grid.slice)
    spacing[rng.integers(3) if grid.slice_axis is None else grid.slice_axis] = thickness
    spacing = np.round(spacing[order], 3)
    extent = np.asarray(field_of_view)[order] * rng.uniform(0.99, 1.03, 3)
    shape = np.clip(np.ceil(extent / spacing).astype(int), *grid.sides)

    columns = np.transpose([DIRECTIONS[code] for code in codes])
    axis = rng.standard_normal(3)
    tilted = Rotation.from_rotvec(np.radians(tilt) * axis / np.linalg.norm(axis)).as_matrix() @ columns * spacing
    # The patient lies neither quite straight nor in the scanner's origin.
    pose = Rotation.from_euler("xyz", rng.normal(0, (4, 2, 2)), degrees=True).as_matrix()
    affine = centred(tilted, shape)
    affine[:3, 3] += rng.uniform(-15, 15, 3)
    return Scan(tuple(map(int, shape)), affine, centred(pose @ tilted, shape))


def centred(matrix: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The affine of ``matrix`` (3, 3) whose origin is the middle of the grid."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -matrix @ (shape - 1) / 2
    return affine


def voxel_points(scan: Scan) -> np.ndarray:
    """The body coordinates of all voxels, float32 ``(3, n)`` in C order, in mm."""
    points = scan.body[:3, 3].reshape(3, 1, 1, 1).astype(np.float32)
    for axis, count in enumerate(scan.shape):
        steps = np.arange(count).reshape([-1 if a == axis else 1 for a in range(3)])
        points = points + scan.body[:3, axis].reshape(3, 1, 1, 1).astype(np.float32) * steps.astype(np.float32)
    return points.reshape(3, -1)
