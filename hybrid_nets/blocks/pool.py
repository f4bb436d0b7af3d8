"""Pooling of a feature map to a grid of fixed size, whatever the size of the map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["GridPool"]


class GridPool(nn.Module):
    """Adaptive average pooling of (b, c, *) to a fixed grid, in 3-D as two steps in 2-D: ONNX has no 3-D one.

    Args:
        grid: cells per axis; may be more than the map has voxels.

    Example::

        >>> GridPool((2, 3, 4))(torch.zeros(1, 8, 9, 9, 9)).shape
        torch.Size([1, 8, 2, 3, 4])
    """

    def __init__(self, grid: Sequence[int]) -> None:
        super().__init__()
        self.grid = list(grid)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 4:
            return F.adaptive_avg_pool2d(x, self.grid)
        slices = F.adaptive_avg_pool2d(x.flatten(1, 2), self.grid[1:])
        slices = slices.unflatten(1, x.shape[1:3]).flatten(3)
        return F.adaptive_avg_pool2d(slices, [self.grid[0], slices.shape[3]]).unflatten(3, self.grid[1:])
