"""Convolution with few channels and a large kernel in 3-D, as one with many channels and a small kernel.

A CPU computes many output channels at a time, and leaves most of its width unused where there is one. So blocks of 4×4
voxels in the plane become channels: what was a kernel of 7 voxels a side sees the block and its neighbours. A third of
the products then are with zeros, and it takes a sixth of the time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hybrid_nets.blocks.fast_conv import conv3d

__all__ = ["folded_conv3d"]

SIDE = 4  # of a block; a kernel of up to 2 · SIDE + 1 voxels reaches into neighbours only


def folded_conv3d(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``F.conv3d(x, weight, padding="same")``, ``(b, c, d, h, w)`` by ``(o, c, k, k, k)`` to ``(b, o, d, h, w)``.

    ``k`` is odd and at most 9.

    Example::

        >>> folded_conv3d(torch.zeros(1, 2, 5, 6, 7), torch.zeros(1, 2, 7, 7, 7)).shape
        torch.Size([1, 1, 5, 6, 7])
    """
    height, width = x.shape[3:]
    x = F.pad(x, (0, -width % SIDE, 0, -height % SIDE))
    x = x.unflatten(4, (-1, SIDE)).unflatten(3, (-1, SIDE))  # (b, c, d, h, SIDE, w, SIDE)
    x = x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).permute(0, 4, 1, 2, 3)
    out = conv3d(x, fold_weight(weight), padding=(weight.shape[2] // 2, 1, 1))
    out = out.permute(0, 2, 3, 4, 1).unflatten(4, (-1, SIDE, SIDE))  # (b, d, h, w, o, SIDE, SIDE)
    out = out.permute(0, 4, 1, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
    return out[:, :, :, :height, :width]


def fold_weight(weight: torch.Tensor) -> torch.Tensor:
    """``(o, c, k, k, k)`` to ``(o · SIDE², c · SIDE², k, 3, 3)``."""
    k, voxel = weight.shape[-1], torch.arange(SIDE, device=weight.device)
    block = torch.arange(-1, 2, device=weight.device)[:, None, None] * SIDE
    place = block + voxel - voxel[:, None] + k // 2  # in the kernel: of each neighbour, for each voxel out and in
    inside = (place >= 0) & (place < k)
    place = place.clamp(0, k - 1)
    weight = weight[:, :, :, place] * inside[..., None]  # (o, c, k, block, out, in, k)
    weight = weight[..., place] * inside  # and the same for the last axis
    return weight.permute(0, 4, 7, 1, 5, 8, 2, 3, 6).flatten(0, 2).flatten(1, 3)
