"""Dilated depthwise 3-D convolution of three voxels a side, as dense ones on every n-th voxel.

PyTorch's CPU library has no fast kernel for dilated depthwise 3-D convolution, but one for dense ones; and none for the
gradient of the weights of either, but one in 2-D. See :mod:`hybrid_nets.blocks.slabs` for the layout. Every n-th slice
and every n-th row make a lane, whose rows are copied whole; along a row, the n voxels from which every n-th can start
are taken as n times the channels, which needs no copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F

from hybrid_nets.blocks.slabs import as_volume, slabs

__all__ = ["depthwise", "depthwise_weight_grad", "weight_grad_2d"]

Index = tuple[slice, slice, slice, slice]
EVERY = slice(None)


def depthwise(images: torch.Tensor, weight: torch.Tensor, dilation: int) -> Iterator[tuple[Index, torch.Tensor]]:
    """The convolution of ``images`` ``(d, c, h, w)`` by ``weight`` ``(c, 1, 3, 3, 3)``, zero padded, in pieces.

    Yields where a piece lies in the result, and the piece, channels innermost in memory.
    """
    width, weight = images.shape[3], weight.repeat(dilation, 1, 1, 1, 1)
    for first, row, lane in lanes(images, dilation):
        # Slabs of lanes are twice as long, as each reads two slices beyond its own.
        for slab in slabs(lane, max(1, lane.shape[1] // min(dilation, 2))):
            low = max(slab.start - 1, 0)
            volume = as_volume(gather(lane[low : slab.stop + 1], dilation))
            ends = int(slab.start == 0 or slab.stop == len(lane))  # only there are zeros needed beyond what was read
            out = F.conv3d(volume, weight, padding=(ends, 1, 1), groups=len(weight))[0].permute(1, 2, 3, 0)
            out = out[slab.start - low - 1 + ends :][: slab.stop - slab.start]
            part = out.unflatten(3, (dilation, -1)).flatten(2, 3)[:, :, :width].contiguous().permute(0, 3, 1, 2)
            depth = slice(first + slab.start * dilation, first + (slab.stop - 1) * dilation + 1, dilation)
            yield (depth, EVERY, row, EVERY), part


def lanes(images: torch.Tensor, dilation: int) -> Iterator[tuple[int, slice, torch.Tensor]]:
    """Every ``dilation``-th slice and row: the first slice, which rows, and these of ``images`` ``(d, c, h, w)``."""
    for first, start in product(range(dilation), repeat=2):
        row = slice(start, None, dilation)
        if first < len(images) and start < images.shape[2]:
            yield first, row, images[first::dilation, :, row]


def gather(slab: torch.Tensor, dilation: int) -> torch.Tensor:
    """A lane's slab ``(s, c, h, w)`` as channels-last images ``(s, n · c, h, w / n)``, ``w`` filled up with zeros."""
    if slab.shape[3] % dilation:
        slab = F.pad(slab, (0, -slab.shape[3] % dilation))
    rows = slab.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return rows.unflatten(2, (-1, dilation)).flatten(3).permute(0, 3, 1, 2)


def depthwise_weight_grad(
    images: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor, dilation: int
) -> torch.Tensor:
    """The gradient of ``weight`` from that of the result, ``grad`` ``(d, c, h, w)``."""
    weight = weight.repeat(dilation, 1, 1, 1, 1)
    out = torch.zeros_like(weight)
    for (_, _, x), (_, _, goal) in zip(lanes(images, dilation), lanes(grad, dilation)):
        for slab in slabs(x, x.shape[1]):
            low = max(slab.start - 1, 0)
            read, part = gather(x[low : slab.stop + 1], dilation), gather(goal[slab], dilation)
            for tap in range(3):  # the slice before, the same, the one after
                start, stop = max(slab.start + tap - 1, 0), min(slab.stop + tap - 1, len(x))
                if start < stop:
                    seen = part[start - tap + 1 - slab.start : stop - tap + 1 - slab.start]
                    out[:, :, tap] += weight_grad_2d(read[start - low : stop - low], seen, weight[:, :, tap])
    return out.unflatten(0, (dilation, -1)).sum(0)


def weight_grad_2d(images: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Of a dense depthwise convolution in 2-D by ``weight`` ``(c, 1, h, w)``, padded to keep the size."""
    padding = [side // 2 for side in weight.shape[2:]]
    options = (None, [1, 1], padding, [1, 1], False, [0, 0], len(weight), [False, True, False])
    return torch.ops.aten.convolution_backward(grad, images, weight.contiguous(), *options)[1]
