"""DoubleU-Net with Dual Cross-Attention on its skips.

Papers: Jha et al., CBMS 2020, arXiv 2006.04868; with Dual Cross-Attention arXiv 2303.17696, section 4.
The latter's code: https://github.com/gorkemcanates/Dual-Cross-Attention (MIT). This is an independent implementation.
The released class never ran: its forward pass reads variables that only a misspelt branch sets. Its layers are all
here, with every bias they have, so that parameters agree; :class:`DoubleUNet` says what was decided for what they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.layers.factories import Pool
from torch import nn

from hybrid_nets.blocks.excite import SqueezeExcite
from hybrid_nets.blocks.layout import fast_layout
from hybrid_nets.blocks.sizes import check_input
from hybrid_nets.unets.u_shaped import (
    Decoder,
    Encoder,
    EncoderLevel,
    JoinLevel,
    check_widths,
    conv,
    finished,
    norm_relu,
    skip_refiner,
)

__all__ = ["DoubleUNet"]


class DoubleUNet(nn.Module):
    """DoubleU-Net (arXiv 2006.04868), with Dual Cross-Attention (DCA, arXiv 2303.17696) on its skips if wanted.

    A first network with the VGG-19 encoder makes a mask per input channel; a second one, which also reads the first
    encoder's skips, sees the masked input. Its output is the result; the mask is not. With the default four levels
    each side of the input must be a multiple of 16: 224² in, 224² out, the coarsest level at 14².

    29,683,556 parameters for 3 channels in and 1 out, 30,584,516 with ``dca``, as released. Where the released code
    doesn't run, this was decided: all skips are handed over without norm and activation, with DCA or without; two
    DCA modules in sequence refine those of the VGG encoder, the first decoder reads the first module's output and the
    second decoder the second's; a third module refines the second encoder's; without DCA both decoders read the VGG
    encoder's skips as they are. Kept as released are biases without effect, of convolutions with a BatchNorm next.

    Args:
        spatial_dims: 2 as in the paper, or 3.
        in_channels: channels of the input ``(b, in_channels, *)``. The released training feeds ImageNet-normalised RGB.
        out_channels: channels of the logits ``(b, out_channels, *)``.
        dca: refine the skips.
        grid: DCA's grid of tokens, see :class:`hybrid_nets.unets.UNet`.
        channels: channels of the second encoder and of both decoders per level, full resolution first; the VGG encoder
            has twice as many, and one level more. With n entries, sides must be multiples of 2^n.
        dca_options: further arguments of :class:`hybrid_nets.DualCrossAttention`, by name.

    Returns:
        Logits of the input's size.

    Raises:
        ValueError: as :class:`hybrid_nets.unets.UNet` does; ``channels`` needs 1 or more entries.

    Example::

        >>> net = DoubleUNet(in_channels=3, out_channels=1, dca=True, grid=4, channels=(4, 8)).eval()
        >>> net(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 1, 32, 48])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        dca: bool = False,
        grid: int | Sequence[int] = 28,
        channels: Sequence[int] = (32, 64, 128, 256),
        dca_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_widths(spatial_dims, channels, fewest=1)
        dims, widths = spatial_dims, list(channels)
        vgg_widths = [2 * width for width in widths]
        self.in_channels, self.num_axes = in_channels, dims
        self.stride = 2 ** len(widths)  # voxels of input per voxel of the coarsest grid
        self.vgg = Encoder(
            *(
                EncoderLevel(vgg_convs(dims, before, width, 2 if i < 2 else 4), nn.ReLU(), max_pool(dims), raw=True)
                for i, (before, width) in enumerate(pairwise([in_channels, *vgg_widths]))
            )
        )
        deep, narrow = vgg_widths[-1], vgg_widths[0]
        self.bottom1 = nn.Sequential(vgg_convs(dims, deep, deep, 4), nn.ReLU(), ConcatenatedPyramid(dims, deep, narrow))
        self.refine1 = skip_refiner(dims, vgg_widths, dca, grid, dca_options)
        self.decoder1 = decoder(dims, narrow, widths, vgg_widths)
        self.mask = nn.Sequential(conv(dims, widths[0], in_channels, size=1), nn.Sigmoid())
        self.encoder2 = Encoder(
            *(
                EncoderLevel(block(dims, before, width), finish(dims, width), max_pool(dims), raw=True)
                for before, width in pairwise([in_channels, *widths])
            )
        )
        self.bottom2 = ConcatenatedPyramid(dims, widths[-1], narrow)
        self.refine_again = skip_refiner(dims, vgg_widths, dca, grid, dca_options)
        self.refine2 = skip_refiner(dims, widths, dca, grid, dca_options)
        self.decoder2 = decoder(dims, narrow, widths, [3 * width for width in widths])
        self.head = conv(dims, widths[0], out_channels, size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_input(x, self.num_axes, self.in_channels, self.stride)
        x = fast_layout(x)
        skips, y = self.vgg(x)
        skips = self.refine1(skips)
        mask = self.mask(self.decoder1(self.bottom1(y), skips))
        own_skips, y = self.encoder2(x * mask)
        skips, own_skips = self.refine_again(skips), self.refine2(own_skips)
        both: list[torch.Tensor] = []
        for i, skip in enumerate(skips):
            both.append(torch.cat([skip, own_skips[i]], dim=1))
        return self.head(self.decoder2(self.bottom2(y), both))


class ConcatenatedPyramid(nn.Module):
    """A 1×1 convolution and four of different dilation, side by side, then a 1×1 one; BatchNorm and ReLU after each."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        dims, before, after = spatial_dims, in_channels, out_channels
        convs = [conv(dims, before, after, size=1)]
        convs += [conv(dims, before, after, dilation=d, bias=False) for d in (1, 6, 12, 18)]
        self.branches = nn.ModuleList(finished(branch, norm_relu(dims, after)) for branch in convs)
        self.join = finished(conv(dims, len(convs) * after, after, size=1, bias=False), norm_relu(dims, after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: list[torch.Tensor] = []
        for branch in self.branches:
            outputs.append(branch(x))
        return self.join(torch.cat(outputs, dim=1))


def decoder(spatial_dims: int, in_channels: int, widths: Sequence[int], skip_widths: Sequence[int]) -> Decoder:
    """Levels of the given widths, full resolution first, which are joined with skips of the given widths."""
    before = [*widths[1:], in_channels]
    mode = "bilinear" if spatial_dims == 2 else "trilinear"
    up = nn.Upsample(scale_factor=2, mode=mode, align_corners=True)
    levels = [
        JoinLevel(up, finished(block(spatial_dims, before[i] + skip_widths[i], width), finish(spatial_dims, width)))
        for i, width in enumerate(widths)
    ]
    return Decoder(*levels[::-1])


def block(spatial_dims: int, in_channels: int, width: int) -> nn.Module:
    """Convolution - BatchNorm - ReLU - convolution."""
    return nn.Sequential(
        conv(spatial_dims, in_channels, width), norm_relu(spatial_dims, width), conv(spatial_dims, width, width)
    )


def finish(spatial_dims: int, width: int) -> nn.Module:
    """BatchNorm - ReLU - squeeze and excitation."""
    return nn.Sequential(norm_relu(spatial_dims, width), SqueezeExcite(width, reduction=8))


def vgg_convs(spatial_dims: int, in_channels: int, width: int, depth: int) -> nn.Module:
    """``depth`` convolutions with ReLU in between."""
    layers: list[nn.Module] = [conv(spatial_dims, in_channels, width)]
    for _ in range(depth - 1):
        layers += [nn.ReLU(), conv(spatial_dims, width, width)]
    return nn.Sequential(*layers)


def max_pool(spatial_dims: int) -> nn.Module:
    """Half the resolution."""
    return Pool[Pool.MAX, spatial_dims](2)
