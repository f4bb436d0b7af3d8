"""Where the voxels of a drawn scan lie in an anatomy: a random position, pose, size and bend."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from hybrid_nets.synthesis.anatomy import CHANNELS

__all__ = ["Pose", "draw_pose", "sample", "smooth_field"]

# Of each wave of the bend: its length in mm, and the largest standard deviation of the shift in mm.
WAVES = ((70, 5.0), (28, 2.5), (12, 1.0))
REACH = 12.0  # mm around the ventricles within which tissue gives way to them


class Pose:
    """Places ``mm`` (3, x, y, z) in the anatomy's space of the voxels of a scan, and the linear part of that map."""

    def __init__(self, mm: torch.Tensor, matrix: np.ndarray) -> None:
        self.mm, self.matrix = mm, matrix

    def widen_ventricles(self, anatomy: torch.Tensor, affine: np.ndarray, rng: np.random.Generator) -> None:
        """Move the ventricles' walls by -1.5 to 6 mm, and with them what is near."""
        index, (zero, scale) = list(CHANNELS).index("ventricles"), CHANNELS["ventricles"]
        distance = (sample(anatomy[index : index + 1], affine, self.mm)[0] - zero) / scale
        if distance.min() > 2 * REACH:
            return
        amount = rng.uniform(-1.5, 1.5) if rng.random() < 0.6 else rng.uniform(0, 6)
        slope = torch.stack(torch.gradient(distance))
        slope /= slope.norm(dim=0).clamp_min(0.3)
        push = amount * torch.exp(-(distance.clamp_min(0) / REACH)) * (distance < 2.9 * REACH)
        # Deep inside the slope has no direction; there nothing moves.
        push = push * (1 - (-distance / 4).clamp(0, 1)) if amount > 0 else push
        self.mm = self.mm - torch.einsum("ij,jxyz->ixyz", torch.from_numpy(self.matrix), push * slope)


def draw_pose(centre: np.ndarray, size: tuple[int, ...], rng: np.random.Generator) -> Pose:
    """A scan of ``size`` voxels of 1 mm around ``centre`` (3,), in mm of the anatomy's space."""
    angles = rng.uniform(-0.35, 0.35, 3)
    scale = rng.uniform(0.85, 1.15) * rng.uniform(0.93, 1.07, 3)
    shear = np.eye(3) + np.triu(rng.uniform(-0.1, 0.1, (3, 3)), 1)
    matrix = rotation(angles) @ shear @ np.diag(1 / scale) @ turn(rng)
    axes = [torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in size]
    offset = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    matrix = matrix.astype(np.float32)
    mm = torch.einsum("ij,jxyz->ixyz", torch.from_numpy(matrix), offset)
    mm += torch.from_numpy(centre.astype(np.float32))[:, None, None, None]
    strength = rng.uniform(0, 1, len(WAVES))
    for (length, shift), share in zip(WAVES, strength):
        mm += share * shift * smooth_field(size, length / 2, rng, 3)
    return Pose(mm, matrix)


def turn(rng: np.random.Generator) -> np.ndarray:
    """A mirror image in half of the draws; in a fifth any of the 48 ways to lay axes along axes."""
    signs = np.array([rng.choice([-1, 1]), 1, 1])
    if rng.random() < 0.8:
        return np.diag(signs).astype(float)
    return np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)


def rotation(angles: np.ndarray) -> np.ndarray:
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        step = np.eye(3)
        a, b = [i for i in range(3) if i != axis]
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        out = out @ step
    return out


def smooth_field(size: tuple[int, ...], step: float, rng: np.random.Generator, channels: int = 1) -> torch.Tensor:
    """Normal random numbers at nodes ``step`` voxels apart, and in between by interpolation: ``(channels, *size)``."""
    nodes = [max(2, int(np.ceil(side / step)) + 1) for side in size]
    coarse = torch.from_numpy(rng.standard_normal((1, channels, *nodes), dtype=np.float32))
    return F.interpolate(coarse, size=tuple(size), mode="trilinear", align_corners=True)[0]


def sample(anatomy: torch.Tensor, affine: np.ndarray, mm: torch.Tensor) -> torch.Tensor:
    """Bytes ``(c, *)`` of a decoded anatomy at the places ``mm`` (3, x, y, z), as float; its border goes on outside."""
    inverse = np.linalg.inv(affine).astype(np.float32)
    voxel = torch.einsum("ij,jxyz->ixyz", torch.from_numpy(inverse[:3, :3]), mm)
    voxel += torch.from_numpy(inverse[:3, 3])[:, None, None, None]
    # Only what lies around these places is turned to float.
    low, high = [], []
    for axis, side in zip(voxel, anatomy.shape[1:]):
        first = min(max(int(axis.min()), 0), side - 2)
        low.append(first)
        high.append(min(max(int(axis.max()) + 2, first + 2), side))
    part = anatomy[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]].float()
    shape = torch.tensor(part.shape[1:], dtype=torch.float32)[:, None, None, None]
    relative = 2 * (voxel - torch.tensor(low, dtype=torch.float32)[:, None, None, None]) / (shape - 1) - 1
    grid = relative.flip(0).permute(1, 2, 3, 0)[None]
    return F.grid_sample(part[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]
