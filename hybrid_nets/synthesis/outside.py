"""What surrounds a brain: CSF, the dura, and a random head; or what a program that strips heads leaves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from hybrid_nets.phantoms.fields import chain, column, noise_field, paint, ramp
from hybrid_nets.phantoms.head import SAGITTAL_SINUS, head_layers
from hybrid_nets.synthesis.folded import PHANTOM_ORIGIN
from hybrid_nets.synthesis.warp import smooth_field

__all__ = ["draw_gap", "draw_head", "draw_strip"]

SOFT = 1.0
# The spinal cord in mm of the phantoms' space; it is head, not brain.
CORD = ((0, -30, -78, 7), (0, -38, -130, 7))


def draw_gap(size: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Width of the CSF between brain and dura in mm, 0 or more, for each voxel."""
    return (rng.uniform(-0.5, 2.5) + 0.6 * smooth_field(size, 12, rng)[0]).clamp_min(0)


def draw_strip(brain: torch.Tensor, gap: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """bool: what is kept of a head whose brain is cut out, somewhat inside or outside the fluid's outer border."""
    size = tuple(brain.shape)
    if rng.random() < 0.7:
        return brain < torch.minimum(gap, torch.tensor(rng.uniform(-1.0, 1.5)) + 0.4 * smooth_field(size, 10, rng)[0])
    return brain < rng.uniform(0, 2) + rng.uniform(0, 1) * smooth_field(size, 12, rng)[0]


def draw_head(
    mm: torch.Tensor, brain: torch.Tensor, gap: torch.Tensor, brightness: dict[str, float], rng: np.random.Generator
) -> torch.Tensor:
    """Brightness of what is outside the brain, 0 within it.

    Args:
        mm: places (3, x, y, z) in MNI space.
        brain: distance of each to the brain's surface in mm.
        gap: width of the CSF there.
        brightness: of each tissue in ``contrast.HEAD``.
        rng: draws thicknesses and shapes.
    """
    image = torch.zeros(brain.shape)
    outside = brain > gap - SOFT
    if not outside.any():
        return image
    points = mm[:, outside].numpy() - column(PHANTOM_ORIGIN)
    # Heads are thinner or thicker all round, and bones and scalp each vary along the head.
    stretch = rng.uniform(0.6, 1.5)
    cavity = ((brain - gap)[outside].numpy() * (1 + 0.25 * noise_field(points, 60, rng))) / stretch
    thickness = rng.uniform(-0.3, 2.0)
    painted = np.zeros((1, points.shape[1]), np.float32)
    layers = layers_of_head(points, cavity, thickness, rng)
    paint(painted, layers, {name: [value] for name, value in brightness.items()})
    # Real tissue is not even.
    for wavelength in (8, 25):
        painted *= 1 + rng.uniform(0, 0.15) * noise_field(points, wavelength, rng)
    image[outside] = torch.from_numpy(painted[0])
    return image


def layers_of_head(
    points: np.ndarray, cavity: np.ndarray, dura: float, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    yield "air", np.ones(points.shape[1], np.float32)
    yield from head_layers(points, cavity, rng)
    yield "muscle", ramp(-chain(points, CORD) + 4, SOFT)
    yield "skin", ramp(-chain(points, CORD), SOFT)
    if dura > 0:
        yield "dura", ramp(dura - np.abs(cavity), SOFT)
    if rng.random() < 0.7:
        yield "vessel", ramp(-chain(points, SAGITTAL_SINUS), SOFT)
