"""U-Net with Dual Cross-Attention on its skips.

Papers: Ronneberger et al., MICCAI 2015, arXiv 1505.04597; with Dual Cross-Attention arXiv 2303.17696, section 4.
The latter's code: https://github.com/gorkemcanates/Dual-Cross-Attention (MIT). This is an independent implementation,
and differs from the released code in this: 2-D and 3-D, any token grid, no bias that the next BatchNorm removes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from monai.networks.layers.factories import Pool
from torch import nn

from hybrid_nets.blocks.dca import RELEASED_KEYS as DCA_KEYS
from hybrid_nets.blocks.unet import conv_norm_relu, double_conv
from hybrid_nets.unets.u_shaped import (
    EncoderLevel,
    JoinLevel,
    UShaped,
    by_level,
    check_widths,
    conv,
    linear_up,
    norm_relu,
    skip_refiner,
)

__all__ = ["UNet"]

# What `convert_released` does to the keys of the authors' checkpoints, in order: (pattern, replacement).
RELEASED_KEYS = (
    *DCA_KEYS,
    (r"^conv5\.conv1\.conv\.", "bottom.0.conv."),
    (r"^conv5\.conv1\.norm\.", "bottom.0.adn.N."),
    (r"^conv5\.conv2\.conv\.", "bottom.1.conv."),
    (r"^conv5\.conv2\.norm\.", "bottom.1.adn.N."),
    (r"^conv(\d)\.conv1\.conv\.", r"conv\1.body.0.conv."),
    (r"^conv(\d)\.conv1\.norm\.", r"conv\1.body.0.adn.N."),
    (r"^conv(\d)\.conv2\.conv\.", r"conv\1.body.1."),
    (r"^norm(\d)\.", r"conv\1.finish.N."),
    (r"^up(\d)\.conv\.conv\.", r"upconv\1.up.1.conv."),
    (r"^up(\d)\.conv\.norm\.", r"upconv\1.up.1.adn.N."),
    (r"^upconv(\d)\.conv1\.conv\.", r"upconv\1.body.0.conv."),
    (r"^upconv(\d)\.conv1\.norm\.", r"upconv\1.body.0.adn.N."),
    (r"^upconv(\d)\.conv2\.conv\.", r"upconv\1.body.1.conv."),
    (r"^upconv(\d)\.conv2\.norm\.", r"upconv\1.body.1.adn.N."),
    *by_level(("^conv", "encoder.", 1, 4), ("^upconv", "decoder.", 1, 4)),
    (r"^out\.conv\.", "head."),
)


class UNet(UShaped):
    """U-Net with bilinear upsampling, and Dual Cross-Attention (DCA, arXiv 2303.17696) on its skips if wanted.

    With the default five levels each side of the input must be a multiple of 16: 224² in, 224² out, the coarsest level
    at 14². A skip is the level's second convolution, before the BatchNorm, ReLU and pooling on the way down; so it is
    joined as it is without DCA, and ends with DCA's own BatchNorm and ReLU with it.

    Args:
        spatial_dims: 2 as in the paper, or 3.
        in_channels: channels of the input ``(b, in_channels, *)``.
        out_channels: channels of the logits ``(b, out_channels, *)``.
        dca: refine the skips.
        grid: DCA's grid of tokens, one entry per axis; an int is repeated. Any grid fits any input; the default is the
            paper's in 2-D. In 3-D tokens grow with the cube: take 6 to 10.
        channels: channels per level, full resolution first; with n levels, sides must be multiples of 2^(n-1).
        dca_options: further arguments of :class:`hybrid_nets.DualCrossAttention`, by name.

    Returns:
        Logits of the input's size.

    Raises:
        ValueError: a side of the input is not a multiple of the stride, the input's channels are not ``in_channels``,
            ``spatial_dims`` is not 2 or 3, ``channels`` has fewer than 2 entries, or DCA refuses its arguments.

    Example::

        >>> import torch
        >>> net = UNet(in_channels=3, out_channels=1, dca=True, grid=4, channels=(4, 8, 16)).eval()
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
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        dca_options: Mapping[str, Any] | None = None,
    ) -> None:
        check_widths(spatial_dims, channels, fewest=2)
        dims, widths = spatial_dims, list(channels)

        def down(before: int, width: int) -> nn.Module:
            body = nn.Sequential(conv_norm_relu(dims, before, width), conv(dims, width, width))
            return EncoderLevel(body, norm_relu(dims, width), Pool[Pool.MAX, dims](2), raw=True)

        super().__init__(
            dims,
            in_channels,
            stride=2 ** (len(widths) - 1),
            encoder=[down(before, width) for before, width in pairwise([in_channels, *widths[:-1]])],
            bottom=double_conv(dims, widths[-2], widths[-1]),
            decoder=[
                JoinLevel(linear_up(dims, below, width), double_conv(dims, 2 * width, width))
                for below, width in pairwise(widths[::-1])
            ],
            head=conv(dims, widths[0], out_channels, size=1),
            refine=skip_refiner(dims, widths[:-1], dca, grid, dca_options),
        )
