"""Input sizes a network can take, and the error that says how to get there."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["as_grid", "check_input", "check_multiple"]


def as_grid(size: int | Sequence[int], spatial_dims: int, name: str) -> tuple[int, ...]:
    """``size`` as a tuple of ``spatial_dims`` ints; one int is repeated.

    Args:
        size: side length, or one per axis.
        spatial_dims: number of spatial axes.
        name: what the caller calls this argument, for the error.

    Raises:
        ValueError: the number of entries is not ``spatial_dims``.

    Example::

        >>> as_grid(96, 3, "img_size")
        (96, 96, 96)
    """
    grid = (int(size),) * spatial_dims if isinstance(size, int) else tuple(int(s) for s in size)
    if len(grid) != spatial_dims:
        raise ValueError(f"{name} needs {spatial_dims} entries, one per axis, got {len(grid)}: {tuple(grid)}.")
    return grid


def check_multiple(size: list[int], factor: int, name: str) -> None:
    """Refuse sizes that are not positive multiples of ``factor`` on every axis.

    Args:
        size: voxels per axis, two or three of them, in array order.
        factor: what every side must be a multiple of.
        name: what has this size, for the error.

    Raises:
        ValueError: names the first bad axis, its size and the nearest sizes that work.

    Example::

        >>> check_multiple([96, 97, 96], 32, "input")
        Traceback (most recent call last):
        ValueError: input: axis 1 (height) has size 97, not a multiple of 32; crop to 96 or pad to 128.
    """
    if torch.jit.is_tracing():  # sizes are tensors there, and the example input has been run before
        return
    for axis in range(len(size)):
        side = size[axis]
        if side <= 0 or side % factor != 0:
            low, high = side // factor * factor, (side // factor + 1) * factor
            fix = f"crop to {low} or pad to {high}" if low > 0 else f"pad to {factor}"
            label = ["depth", "height", "width"][axis + 3 - len(size)]
            raise ValueError(f"{name}: axis {axis} ({label}) has size {side}, not a multiple of {factor}; {fix}.")


def check_input(x: torch.Tensor, spatial_dims: int, in_channels: int, stride: int) -> None:
    """Refuse inputs that a network can't take.

    Args:
        x: the input, to be ``(b, in_channels, *)`` with ``spatial_dims`` sides that are multiples of ``stride``.
        spatial_dims: 2 or 3.
        in_channels: channels the network takes.
        stride: what every side must be a multiple of.

    Raises:
        ValueError: another number of axes or channels, or a side that doesn't fit; see :func:`check_multiple`.

    Example::

        >>> check_input(torch.zeros(1, 3, 64, 64), 2, 4, 32)
        Traceback (most recent call last):
        ValueError: input must be (batch, 4, height, width), got [1, 3, 64, 64].
    """
    if x.ndim != 2 + spatial_dims or x.shape[1] != in_channels:
        axes = "height, width" if spatial_dims == 2 else "depth, height, width"
        raise ValueError(f"input must be (batch, {in_channels}, {axes}), got {list(x.shape)}.")
    check_multiple(x.shape[2:], stride, "input")
