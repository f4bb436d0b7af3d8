"""Learned absolute position embedding that follows the network to other grid sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["PositionEmbedding", "resize_grid"]


def resize_grid(embedding: torch.Tensor, grid: list[int]) -> torch.Tensor:
    """``embedding`` (1, c, *) resampled to ``grid``, linearly and without aligning corners; float32 inside."""
    if embedding.shape[2:] == torch.Size(grid):
        return embedding
    mode = "trilinear" if len(grid) == 3 else "bilinear"
    return F.interpolate(embedding.float(), list(grid), mode=mode, align_corners=False).to(embedding.dtype)


class PositionEmbedding(nn.Module):
    """Adds a learned vector to every voxel of ``(b, channels, *grid)``.

    The embedding is learned at ``grid``. On another grid at call time, or from a checkpoint of another grid, it is
    resampled, so one set of weights serves every region of interest.

    Args:
        channels: channels of the feature map.
        grid: voxels per axis at which the embedding is learned.

    Example::

        >>> PositionEmbedding(8, (6, 6, 6))(torch.zeros(1, 8, 4, 6, 8)).shape
        torch.Size([1, 8, 4, 6, 8])
    """

    def __init__(self, channels: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, *grid))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.register_load_state_dict_pre_hook(resize_checkpoint)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + resize_grid(self.weight, x.shape[2:])


def resize_checkpoint(module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    """Before loading: bring a checkpoint's embedding to the grid of ``module``, in place in ``state_dict``."""
    loaded, own = state_dict.get(prefix + "weight"), module.weight
    if loaded is not None and loaded.ndim == own.ndim and loaded.shape[:2] == own.shape[:2]:
        state_dict[prefix + "weight"] = resize_grid(loaded, own.shape[2:])
