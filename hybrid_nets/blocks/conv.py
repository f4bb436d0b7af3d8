"""Convolution, per-channel normalisation and PReLU: the unit most of our 3-D blocks are made of."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import nn

from hybrid_nets.blocks.norm import fuse_norm
from hybrid_nets.blocks.pointwise import PointwiseFunction
from hybrid_nets.blocks.slabs import (
    Moments,
    as_images,
    as_tokens,
    channels_last,
    covers,
    new_map,
    project,
    sample_tokens,
    slabs,
    work_maps,
)

__all__ = ["PatchUnit", "PointwiseConv", "conv_norm_act", "upsample_and_fuse"]


class PatchUnit(Convolution):
    """MONAI's ``Convolution`` with ``kernel_size == stride``, which sees no voxel twice; see :func:`conv_norm_act`."""

    def forward(self, x: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
        """The unit of ``x`` ``(b, c, *)``, or of ``x`` and ``beside`` as further channels."""
        if torch.jit.is_scripting():
            return self.adn(self.conv(x if beside is None else torch.cat([x, beside], dim=1)))
        else:
            return self.forward_python(x, beside)

    def forward_python(self, x: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
        """What TorchScript can't compile: other ways to the same on a CPU."""
        maps = [x] if beside is None else [x, beside]
        if covers(x) and self.conv.kernel_size == (1, 1, 1):
            return self.adn(PointwiseFunction.apply(self.conv.weight, None, *maps))
        x = x if beside is None else torch.cat(maps, dim=1)
        if torch.is_grad_enabled() or not covers(x) or self.is_transposed:
            return self.adn(self.conv(x))
        x = channels_last(x)
        out = new_map((len(x), self.out_channels, *(side // self.conv.stride[0] for side in x.shape[2:])))
        for index in range(len(x)):
            moments = self.convolve(as_images(x, index), as_images(out, index))
            self.adn.apply_(sample_tokens(out, index), moments)
        return out

    def convolve(self, images: torch.Tensor, out: torch.Tensor) -> Moments:
        """One sample's raw convolution into ``out``, by 2-D ones, whose kernels are faster; returns its moments."""
        step, moments = self.conv.stride[0], Moments(self.out_channels)
        walked, pieces = (images, self.upsample) if self.is_transposed else (images[::step], self.downsample)
        for slab in slabs(walked, max(self.in_channels, self.out_channels) * step):
            for place, part in pieces(images, slab):
                out[place] = part
                moments.add(as_tokens(part))
        return moments

    def upsample(self, images: torch.Tensor, slab: slice) -> Iterator[tuple[slice, torch.Tensor]]:
        """Of a slab of ``images``: where a piece of the result lies, and the piece."""
        weight, step = self.conv.weight, self.conv.stride[0]
        for tap in range(step):
            part = F.conv_transpose2d(images[slab], weight[:, :, tap], stride=step)
            yield slice(slab.start * step + tap, slab.stop * step, step), part

    def downsample(self, images: torch.Tensor, slab: slice) -> Iterator[tuple[slice, torch.Tensor]]:
        """The same for a slab of the result."""
        weight, step = self.conv.weight, self.conv.stride[0]
        reads = (images[slab.start * step + tap : slab.stop * step : step] for tap in range(step))
        taps = [F.conv2d(read, weight[:, :, tap], stride=step) for tap, read in enumerate(reads)]
        yield slab, sum(taps[1:], taps[0])


def upsample_and_fuse(up: PatchUnit, fuse: PatchUnit, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """``fuse(up(x), skip)`` on a CPU without gradients; the result takes the memory of ``skip`` (b, c, d, h, w).

    What ``up`` makes only lives before its norm, in memory that is there already, and is normalised where it is read.
    """
    x, skip = channels_last(x), channels_last(skip)
    for index in range(len(x)):
        (raw,) = work_maps(as_images(skip, index), [up.out_channels])
        norm = up.adn.measured(up.convolve(as_images(x, index), raw))
        tokens, goal, moments = as_tokens(raw), sample_tokens(skip, index), Moments(fuse.out_channels)
        for slab in slabs(goal, fuse.in_channels):
            part = torch.empty_like(goal[slab])
            project([norm.apply(tokens[slab]), goal[slab]], fuse.conv.weight.flatten(1), part)
            moments.add(part)
            goal[slab] = part
        fuse.adn.apply_(goal, moments)
    return skip


class PointwiseConv(nn.Conv3d):
    """A 1×1×1 convolution with bias; ``(b, in_channels, d, h, w)`` in, ``(b, out_channels, d, h, w)`` out."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self._conv_forward(x, self.weight, self.bias)
        else:
            return PointwiseFunction.apply(self.weight, self.bias, x) if covers(x) else super().forward(x)


def conv_norm_act(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    transposed: bool = False,
) -> nn.Module:
    """Convolution - norm - PReLU with one slope; ``kernel_size == stride`` gives non-overlapping down- or upsampling.

    The convolution has no bias: the norm that follows subtracts each channel's mean, and any bias with it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input ``(b, in_channels, *)``.
        out_channels: channels of the output.
        kernel_size: side of the kernel in voxels.
        stride: step of the kernel; the upsampling factor when ``transposed``.
        transposed: upsample with a transposed convolution.

    Example::

        >>> conv_norm_act(3, 4, 8, kernel_size=2, stride=2)(torch.zeros(1, 4, 8, 8, 8)).shape
        torch.Size([1, 8, 4, 4, 4])
    """
    unit = PatchUnit(
        spatial_dims,
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        strides=stride,
        padding=0,
        output_padding=0 if transposed else None,
        is_transposed=transposed,
        adn_ordering="NA",
        norm="channel",
        act="prelu",
        bias=False,
    )
    return fuse_norm(unit)
