"""Attention windows on a 3-D grid: how they tile it, shift, and what belongs together inside them."""

from __future__ import annotations

import torch

__all__ = ["bias_index", "clamp_window", "far_padding", "join_windows", "shift_mask", "split_windows"]


def clamp_window(grid: list[int], window_size: int) -> tuple[list[int], list[int]]:
    """Window and shift per axis: on an axis no longer than the window, one window covers it and nothing shifts."""
    window = [min(side, window_size) for side in grid]
    return window, [window_size // 2 if side > window_size else 0 for side in grid]


def far_padding(grid: list[int], window: list[int]) -> list[int]:
    """Zeros to append so that windows tile the grid, in the order ``F.pad`` takes for (b, d, h, w, c)."""
    padding = [0, 0]
    for axis in (2, 1, 0):
        padding += [0, -grid[axis] % window[axis]]
    return padding


def split_windows(x: torch.Tensor, window: list[int]) -> torch.Tensor:
    """(b, d, h, w, c) to (b, windows, voxels of a window, c)."""
    b, d, h, w, c = x.shape
    wd, wh, ww = window
    x = x.reshape(b, d // wd, wd, h // wh, wh, w // ww, ww, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, -1, wd * wh * ww, c)


def join_windows(x: torch.Tensor, window: list[int], grid: list[int]) -> torch.Tensor:
    """The inverse of :func:`split_windows`."""
    (d, h, w), (wd, wh, ww) = grid, window
    x = x.reshape(x.shape[0], d // wd, h // wh, w // ww, wd, wh, ww, x.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape[0], d, h, w, x.shape[-1])


def bias_index(window: list[int], window_size: int, sliced: bool, device: torch.device) -> torch.Tensor:
    """Row of the bias table for every pair of voxels in a window: (n, n), int64."""
    extent = [window_size] * 3 if sliced else window
    axes = [torch.arange(side, device=device) for side in extent]
    coordinates = torch.stack(torch.meshgrid(axes[0], axes[1], axes[2], indexing="ij")).flatten(1)
    offset = coordinates[:, :, None] - coordinates[:, None, :] + window_size - 1
    span = 2 * window_size - 1
    index = (offset[0] * span + offset[1]) * span + offset[2]
    n = window[0] * window[1] * window[2]
    return index[:n, :n]


def shift_mask(
    grid: list[int], window: list[int], shift: list[int], device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """For the shifted, padded grid, what is added to the attention logits of a pair of voxels: (windows, 1, n, n).

    0 for voxels that were neighbours before the shift, -100 for those it brought together from the grid's two ends.
    """
    region = torch.zeros(1, 1, 1, dtype=torch.long, device=device)
    for axis in range(3):
        side = grid[axis] + -grid[axis] % window[axis]
        place = torch.arange(side, device=device)
        label = (place >= side - window[axis]).long() + (place >= side - shift[axis]).long()
        shape = [1, 1, 1]
        shape[axis] = side
        region = 3 * region + label.reshape(shape)
    windows = split_windows(region[None, ..., None], window)[0, :, :, 0]
    apart = windows[:, None, :, None] != windows[:, None, None, :]
    return torch.zeros(apart.shape, dtype=dtype, device=device).masked_fill(apart, -100.0)
