"""What scanners do to a picture: uneven coils, thick slices, blur, noise, motion."""

from __future__ import annotations

import numpy as np
import torch
from monai.networks.layers.convutils import gaussian_1d
from monai.networks.layers.simplelayers import separable_filtering
from torch.nn import functional as F

from hybrid_nets.synthesis.warp import smooth_field

__all__ = ["add_noise", "spoil"]

# Blur of a slice as a share of its thickness: the standard deviation whose half width is that of the slice.
PROFILE = 0.42


def spoil(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """``image`` (x, y, z) in voxels of 1 mm, 0 to about 1, as a scanner gives it, resampled to the same voxels."""
    size = tuple(image.shape)
    image = image * torch.exp(rng.uniform(0, 0.3) * smooth_field(size, rng.uniform(30, 60), rng)[0])
    if rng.random() < 0.3:
        image = image.clamp_min(0) ** rng.uniform(0.7, 1.5)
    if rng.random() < 0.12:
        image = ghost(image, rng)
    spacing = draw_spacing(rng)
    sigma = [(PROFILE * mm if mm > 1 else 0) + extra for mm, extra in zip(spacing, rng.uniform(0, 0.6, 3))]
    image = blur(image, sigma)
    coarse = tuple(max(2, round(side / mm)) if mm > 1.05 else side for side, mm in zip(size, spacing))
    if coarse != size:
        image = resize(image, coarse)
    image = add_noise(image, rng)
    return resize(image, size) if coarse != size else image


def draw_spacing(rng: np.random.Generator) -> np.ndarray:
    """Voxel sides in mm: fine in three of five draws, else coarse, or thick in one direction."""
    kind = rng.random()
    if kind < 0.6:
        return np.ones(3)
    if kind < 0.75:
        return np.full(3, rng.uniform(1, 3))
    spacing = rng.uniform(0.8, 1.6, 3)
    spacing[rng.integers(3)] = rng.uniform(2, 5)
    return spacing


def blur(image: torch.Tensor, sigma: list[float]) -> torch.Tensor:
    kernels = [gaussian_1d(torch.tensor(max(value, 0.05))) for value in sigma]
    return separable_filtering(image[None, None], kernels, mode="replicate")[0, 0]


def resize(image: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    return F.interpolate(image[None, None], size=size, mode="trilinear")[0, 0]


def add_noise(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The magnitude of the image with complex noise: little in most draws, a lot in some."""
    level = rng.uniform(0, 0.05) if rng.random() < 0.85 else rng.uniform(0.05, 0.14)
    noise = torch.from_numpy(rng.standard_normal((2, *image.shape), dtype=np.float32)) * level
    return torch.hypot(image + noise[0], noise[1])


def ghost(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Copies of the image along one axis, as from motion between the lines of k-space."""
    axis, share = int(rng.integers(3)), rng.uniform(0.03, 0.15)
    shift = int(image.shape[axis] * rng.uniform(0.15, 0.5))
    return (1 - share) * image + share * (image.roll(shift, axis) + image.roll(-shift, axis)) / 2
