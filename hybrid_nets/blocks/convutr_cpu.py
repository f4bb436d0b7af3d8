"""The large-kernel convolution block of 3-D MobileUtr on a CPU without gradients: its modules' numbers, in few passes.

The wide maps between the pointwise convolutions never exist as a whole: slabs of them are made once for the sums that
the norm needs and again for what comes after it, which takes less time than fresh memory for them would. See
:mod:`hybrid_nets.blocks.slabs`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from hybrid_nets.blocks.norm import ChannelNorm
from hybrid_nets.blocks.slabs import Moments, NormAct, as_images, channels_last, new_map, slabs

__all__ = ["conv_utr"]


def conv_utr(x: torch.Tensor, spatial: nn.Module, pointwise: nn.Sequential) -> torch.Tensor:
    """x + spatial(x), then the same with pointwise; ``(b, c, d, h, w)`` that ``covers`` accepts to the same shape.

    Args:
        x: the block's input, which stays as it is.
        spatial: a depthwise ``Convolution`` with GELU and ChannelNorm.
        pointwise: two 1×1 ones.
    """
    x = channels_last(x)
    out = channels_last(spatial.conv(x))
    thin = new_map(x.shape)
    for index in range(len(x)):
        mix(*(as_images(part, index) for part in (x, out, thin)), spatial, *pointwise)
    return out


def mix(
    x: torch.Tensor, out: torch.Tensor, thin: torch.Tensor, spatial: nn.Module, widen: nn.Module, narrow: nn.Module
) -> None:
    """One sample as images ``(d, c, h, w)``: ``out`` comes with the raw depthwise convolution, ``thin`` empty."""
    moments = Moments(x.shape[1])
    for slab in slabs(x, widen.conv.out_channels):
        moments.add(torch.ops.aten.gelu_(out[slab]))
    norm, moments = normaliser(spatial, moments), Moments(widen.conv.out_channels)
    for slab in slabs(x, widen.conv.out_channels):
        moments.add(pointwise_gelu(norm.apply(out[slab], out[slab]).add_(x[slab]), widen.conv))
    norm, moments = normaliser(widen, moments), Moments(x.shape[1])
    for slab in slabs(x, widen.conv.out_channels):
        wide = pointwise_gelu(out[slab], widen.conv)
        thin[slab] = pointwise_gelu(norm.apply(wide, wide), narrow.conv)
        moments.add(thin[slab])
    norm = normaliser(narrow, moments)
    for slab in slabs(x, widen.conv.out_channels):
        out[slab] += norm.apply(thin[slab], thin[slab])


def normaliser(unit: nn.Module, moments: Moments) -> NormAct:
    norm: ChannelNorm = unit.adn.N
    return NormAct(moments, norm.weight, norm.bias, norm.eps, None)


def pointwise_gelu(images: torch.Tensor, conv: nn.Module) -> torch.Tensor:
    return torch.ops.aten.gelu_(F.conv2d(images, conv.weight[..., 0], conv.bias))
