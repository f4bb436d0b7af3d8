"""The large-kernel convolution block of MobileUtr on a CPU without gradients: its modules' numbers, in few passes.

The wide maps between the pointwise convolutions never exist as a whole: slabs of them are made once for the sums that
the norm needs and again for what comes after it, which takes less time than fresh memory for them would. In 2-D, where
the norms' statistics are known, once is enough. See :mod:`hybrid_nets.blocks.slabs`.
"""

from __future__ import annotations

import torch
from torch import nn

from hybrid_nets.blocks.layout import is_plain
from hybrid_nets.blocks.norm import ChannelNorm, scale_and_shift
from hybrid_nets.blocks.products import linear
from hybrid_nets.blocks.slabs import Moments, NormAct, as_tokens, channels_last, new_map, sample_tokens, slabs

__all__ = ["conv_utr", "covers_conv_utr"]

WIDE = 2**20  # numbers of the wide map in a slab of 2-D: 4 MiB


def covers_conv_utr(x: torch.Tensor, spatial: nn.Module) -> bool:
    """Whether :func:`conv_utr` applies; not to a BatchNorm that takes its statistics from the batch."""
    return not torch.is_grad_enabled() and is_plain(x) and (x.ndim == 5 or not spatial.training)


def conv_utr(x: torch.Tensor, spatial: nn.Module, pointwise: nn.Sequential) -> torch.Tensor:
    """x + spatial(x), then the same with pointwise; ``(b, c, *)`` that ``covers_conv_utr`` accepts to the same shape.

    Args:
        x: the block's input, which stays as it is.
        spatial: a depthwise ``Convolution`` with GELU and a norm: ChannelNorm in 3-D, BatchNorm in 2-D.
        pointwise: two 1×1 ones.
    """
    if x.ndim == 4:
        return conv_utr_2d(x, spatial, *pointwise)
    x = channels_last(x)
    out = channels_last(spatial.conv(x))
    thin = new_map(x.shape)
    for index in range(len(x)):
        mix(*(sample_tokens(part, index) for part in (x, out, thin)), spatial, *pointwise)
    return out


def conv_utr_2d(x: torch.Tensor, spatial: nn.Module, widen: nn.Module, narrow: nn.Module) -> torch.Tensor:
    """The norm of the wide map goes into the weights of what reads it."""
    x = x.contiguous(memory_format=torch.channels_last)
    out = spatial.conv(x).contiguous(memory_format=torch.channels_last)
    (scale, shift), (wide_scale, wide_shift), (thin_scale, thin_shift) = (
        scale_and_shift(unit.adn.N) for unit in (spatial, widen, narrow)
    )
    weight = narrow.conv.weight.flatten(1)
    bias = narrow.conv.bias + weight @ wide_shift
    step = max(1, WIDE // widen.conv.out_channels)
    for own, goal in zip(as_tokens(x).split(step), as_tokens(out).split(step)):
        torch.addcmul(shift, torch.ops.aten.gelu_(goal), scale, out=goal).add_(own)
        wide = torch.ops.aten.gelu_(linear(goal, widen.conv.weight.flatten(1), widen.conv.bias))
        thin = torch.ops.aten.gelu_(linear(wide, weight * wide_scale, bias))
        goal += torch.addcmul(thin_shift, thin, thin_scale, out=thin)
    return out


def mix(
    x: torch.Tensor, out: torch.Tensor, thin: torch.Tensor, spatial: nn.Module, widen: nn.Module, narrow: nn.Module
) -> None:
    """One sample as tokens ``(n, c)``: ``out`` comes with the raw depthwise convolution, ``thin`` empty."""
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


def pointwise_gelu(tokens: torch.Tensor, conv: nn.Module) -> torch.Tensor:
    return torch.ops.aten.gelu_(linear(tokens, conv.weight.flatten(1), conv.bias))
