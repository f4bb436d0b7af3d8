"""Dilated depthwise 3-D convolution of three voxels a side, as dense ones on every n-th voxel.

PyTorch's CPU library has no fast kernel for dilated depthwise 3-D convolution, but one for dense ones; and none for the
gradient of the weights of either, but one in 2-D. See :mod:`hybrid_nets.blocks.slabs` for the layout.
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


def phases(dilation: int) -> Iterator[Index]:
    """Where every ``dilation``-th voxel of images ``(d, c, h, w)`` lies, from each voxel that this can start from."""
    for start in product(range(dilation), repeat=3):
        depth, height, width = (slice(first, None, dilation) for first in start)
        yield depth, EVERY, height, width


def depthwise(images: torch.Tensor, weight: torch.Tensor, dilation: int) -> Iterator[tuple[Index, torch.Tensor]]:
    """The convolution of ``images`` ``(d, c, h, w)`` by ``weight`` ``(c, 1, 3, 3, 3)``, zero padded, in pieces.

    Yields where a piece lies in the result, and the piece, channels innermost in memory.
    """
    channels = images.shape[1]
    if dilation > 1:
        for place in phases(dilation):
            part = images[place]
            if part.numel():
                yield place, convolve(part.contiguous(memory_format=torch.channels_last), weight, 1)
        return
    for slab in slabs(images, channels):
        low, high = max(slab.start - 1, 0), min(slab.stop + 1, len(images))
        read = images[low:high]
        if len(read) < slab.stop - slab.start + 2:  # no slice there: pad with zeros
            read = F.pad(read, (0, 0, 0, 0, 0, 0, low - slab.start + 1, slab.stop + 1 - high))
        yield (slab, EVERY, EVERY, EVERY), convolve(read, weight, 0)


def convolve(images: torch.Tensor, weight: torch.Tensor, depth_padding: int) -> torch.Tensor:
    """Dense depthwise convolution of the volume that channels-last ``images`` make, as channels-last images."""
    out = F.conv3d(as_volume(images), weight, padding=(depth_padding, 1, 1), groups=images.shape[1])
    return out[0].transpose(0, 1).contiguous(memory_format=torch.channels_last)


def depthwise_weight_grad(
    images: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor, dilation: int
) -> torch.Tensor:
    """The gradient of ``weight`` from that of the result, ``grad`` ``(d, c, h, w)``."""
    out = torch.zeros_like(weight)
    for place in phases(dilation):
        x, g = images[place], grad[place]
        for slab in slabs(x, 2 * x.shape[1]) if x.numel() else ():
            low = max(slab.start - 1, 0)
            read = x[low : slab.stop + 1].contiguous(memory_format=torch.channels_last)
            part = g[slab].contiguous(memory_format=torch.channels_last)
            for tap in range(3):  # the slice before, the same, the one after
                start, stop = max(slab.start + tap - 1, 0), min(slab.stop + tap - 1, len(x))
                if start < stop:
                    seen = part[start - tap + 1 - slab.start : stop - tap + 1 - slab.start]
                    out[:, :, tap] += weight_grad_2d(read[start - low : stop - low], seen, weight[:, :, tap])
    return out


def weight_grad_2d(images: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Of a dense depthwise convolution in 2-D by ``weight`` ``(c, 1, h, w)``, padded to keep the size."""
    padding = [side // 2 for side in weight.shape[2:]]
    options = (None, [1, 1], padding, [1, 1], False, [0, 0], len(weight), [False, True, False])
    return torch.ops.aten.convolution_backward(grad, images, weight.contiguous(), *options)[1]
