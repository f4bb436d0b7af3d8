"""Distances, random fields and imperfections that phantoms are drawn with, and how their layers are painted.

Points are float32 ``(3, n)`` in mm, x to the right, y to the front, z up. Distances are in mm and negative inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy import fft, ndimage

__all__ = ["chain", "column", "ellipsoid", "mirror", "noise_field", "paint", "ramp", "rician", "smooth_union"]

# Side of the periodic grid that random fields are interpolated from, and its samples per wavelength.
GRID, SAMPLES = 48, 6


def ellipsoid(points: np.ndarray, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Distance ``(n,)`` to an ellipsoid: exact at its surface, close to exact near it."""
    scaled = (points - column(centre)) / column(radii)
    length = np.linalg.norm(scaled, axis=0) + 1e-6
    return length * (length - 1) / (np.linalg.norm(scaled / column(radii), axis=0) + 1e-6)


def chain(points: np.ndarray, nodes: Sequence[Sequence[float]]) -> np.ndarray:
    """Distance ``(n,)`` to a tube through ``nodes``, each of them (x, y, z, radius)."""
    distance = np.full(points.shape[1], np.inf, np.float32)
    for start, end in pairwise(nodes):
        axis = column(end[:3]) - column(start[:3])
        offset = points - column(start[:3])
        along = np.clip((axis * offset).sum(0) / (axis * axis).sum(), 0, 1)
        radius = start[3] + (end[3] - start[3]) * along
        np.minimum(distance, np.linalg.norm(offset - axis * along, axis=0) - radius, out=distance)
    return distance


def mirror(points: np.ndarray) -> np.ndarray:
    """The points with the left half folded onto the right one, for organs that come in pairs."""
    return np.stack([np.abs(points[0]), points[1], points[2]])


def smooth_union(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Distance to two shapes whose seam is filled over about ``width`` mm."""
    blend = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - blend * blend * (width / 4)


def ramp(depth: np.ndarray, width: float) -> np.ndarray:
    """0 to 1 over ``width`` mm around depth 0: how much of a voxel a shape fills, for ``depth`` mm inside it."""
    return np.clip(0.5 + depth / width, 0, 1, dtype=np.float32)


def noise_field(points: np.ndarray, wavelength: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field ``(n,)`` with about zero mean, unit variance and waves of ``wavelength`` mm.

    It repeats after 8 wavelengths.
    """
    # Shape white noise to a ring of frequencies: with a wider one, some folds would be far wider than others.
    frequency = np.linalg.norm(np.meshgrid(*[fft.fftfreq(GRID)] * 2, fft.rfftfreq(GRID), indexing="ij"), axis=0)
    ring = np.exp(-(((frequency * SAMPLES - 1) / 0.3) ** 2))
    grid = fft.irfftn(fft.rfftn(rng.standard_normal((GRID, GRID, GRID))) * ring).astype(np.float32)
    indices = points * np.float32(SAMPLES / wavelength)
    return ndimage.map_coordinates(grid / grid.std(), indices, order=1, mode="grid-wrap", output=np.float32)


def paint(
    image: np.ndarray, layers: Iterable[tuple[str, np.ndarray]], signal: Mapping[str, Sequence[float]]
) -> np.ndarray:
    """Paint stacked layers over ``image``, float32 ``(channels, n)``, which is changed in place.

    Args:
        image: brightness of n points.
        layers: tissues ``(name, alpha (n,))``; each covers a share ``alpha`` (0 to 1) of what the earlier ones left.
        signal: brightness of each tissue in each channel.

    Returns:
        uint8 ``(n,)``: the place in ``signal`` of what each point mostly is, 0 where no layer covers more than half.
    """
    tissues = list(signal)
    tissue = np.zeros(image.shape[1], np.uint8)
    for name, alpha in layers:
        image += alpha * (np.float32(signal[name])[:, None] - image)
        tissue[alpha > 0.5] = tissues.index(name)
    return tissue


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """The magnitude of ``signal`` with complex Gaussian noise, as MR scanners record it."""
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.hypot(real, sigma * rng.standard_normal(signal.shape, dtype=np.float32))


def column(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None]
