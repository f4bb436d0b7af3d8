"""A lesion in a picture of the breast: smooth and oval if benign, angular and upright if malignant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hybrid_nets.phantoms.fields import noise_field, ramp

__all__ = ["LesionPlan", "lesion_depth", "lesion_layers"]


@dataclass(frozen=True)
class LesionPlan:
    """What to draw: ``kind`` is "benign" or "malignant".

    Attributes:
        kind: see above.
        centre: its place across and below the skin, in mm.
        area: in mm².
        aspect: width by height.
        angle: by which its width is turned, in radians.
    """

    kind: str
    centre: tuple[float, float]
    area: float
    aspect: float
    angle: float


def lesion_depth(points: np.ndarray, plan: LesionPlan, pixel: float, rng: np.random.Generator) -> np.ndarray:
    """How far inside of the lesion points ``(3, n)`` are, in mm: about that ``(n,)``, negative outside.

    The area is met to a pixel of side ``pixel`` mm.
    """
    offset = points[:2] - np.float32(plan.centre)[:, None]
    cosine, sine = np.cos(plan.angle), np.sin(plan.angle)
    across = (cosine * offset[0] + sine * offset[1]) / plan.aspect**0.5
    below = (cosine * offset[1] - sine * offset[0]) * plan.aspect**0.5
    around = np.arctan2(below, across)
    distance = np.hypot(across, below) / outline(around, plan.kind, rng)
    count = min(max(round(plan.area / pixel**2), 1), len(distance) - 1)
    edge = np.partition(distance, count)[count]
    return (edge - distance).astype(np.float32)


def outline(around: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The radius at each angle, for a radius of about 1."""
    if kind == "benign":
        return 1 + ripples(around, (2, 3, 4), (0.05, 0.05, 0.02), rng)
    corners = rng.integers(9, 14)
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
    radii = np.where(np.arange(corners) % 2, rng.uniform(0.72, 0.95, corners), rng.uniform(0.9, 1.2, corners))
    rough = ripples(around, (13, 17, 22, 29), (0.04, 0.03, 0.025, 0.02), rng)
    return np.interp(around, angles, radii, period=2 * np.pi) + rough


def ripples(around: np.ndarray, waves: Sequence[int], heights: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """A sum of waves, so many each around the circle and up to so high."""
    drawn = zip(waves, rng.uniform(-1, 1, len(waves)) * heights, rng.uniform(0, 2 * np.pi, len(waves)), strict=True)
    return sum(height * np.cos(wave * around + shift) for wave, height, shift in drawn)


def lesion_layers(
    points: np.ndarray, depth: np.ndarray, kind: str, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """Tissues ``(name, alpha (n,))`` of a lesion and its margin; ``depth`` is :func:`lesion_depth` of the points."""
    uneven = noise_field(points, 6, rng)
    if kind == "benign":
        yield "capsule", ramp(depth + 0.5, 0.5) * 0.7
        yield "benign", ramp(depth, 0.4)
    else:
        yield "halo", ramp(depth + 1.4 + 0.6 * uneven, 1.6) * 0.6
        yield "malignant", ramp(depth, 1.1)
