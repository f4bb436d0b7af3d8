"""R2U-Net with Dual Cross-Attention on its skips.

Papers: Alom et al., arXiv 1802.06955; with Dual Cross-Attention arXiv 2303.17696, section 4.
The latter's code: https://github.com/gorkemcanates/Dual-Cross-Attention (MIT). This is an independent implementation,
and differs from the released code in this: 2-D and 3-D, any token grid, no bias that the next BatchNorm removes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.layers.factories import Pool
from torch import nn

from hybrid_nets.blocks.dca import RELEASED_KEYS as DCA_KEYS
from hybrid_nets.blocks.unet import conv_norm_relu
from hybrid_nets.unets.u_shaped import (
    EncoderLevel,
    JoinLevel,
    UShaped,
    by_level,
    check_widths,
    conv,
    finished,
    linear_up,
    norm_relu,
    skip_refiner,
)

__all__ = ["R2UNet"]

# What `convert_released` does to the keys of the authors' checkpoints, in order: (pattern, replacement).
RELEASED_KEYS = (
    *DCA_KEYS,
    (r"^(rconv\d)\.conv\.conv\.", r"\1.body.project."),
    (r"^(rconv\d)\.block\.0\.conv\.conv\.", r"\1.body.recurrent.0.unit.conv."),
    (r"^(rconv\d)\.block\.0\.conv\.norm\.", r"\1.body.recurrent.0.unit.adn.N."),
    (r"^(rconv\d)\.block\.1\.conv\.conv\.", r"\1.body.recurrent.1.unit."),
    (r"^(rconv\d)\.norm_c\.", r"\1.body.enter.N."),
    (r"^(rconv\d)\.norm\.", r"\1.finish.N."),
    (r"^up(\d)\.conv\.conv\.", r"decoder\1.up.1.conv."),
    (r"^up(\d)\.conv\.norm\.", r"decoder\1.up.1.adn.N."),
    (r"^rconv([6-9])\.", r"rconv\1.body."),
    (r"^rconv5\.", "bottom."),
    *by_level(("^rconv", "encoder.", 1, 4), ("^decoder", "decoder.", 1, 4), ("^rconv", "decoder.", 6, 4)),
    (r"^out\.", "head."),
)
# Which running mean takes a bias in that this network has none for.
RELEASED_FOLDS = (
    (r"body\.project\.bias$", "body.enter.N.running_mean"),
    (r"body\.project\.bias$", "finish.N.running_mean"),
)


class R2UNet(UShaped):
    """Recurrent residual U-Net (arXiv 1802.06955), with Dual Cross-Attention (arXiv 2303.17696) on its skips if wanted.

    With the default five levels each side of the input must be a multiple of 16: 224² in, 224² out, the coarsest level
    at 14². A skip is the level's residual sum: before its BatchNorm and ReLU with ``dca``, after them without.

    Args: as :class:`hybrid_nets.unets.UNet` has them.

    Returns:
        Logits of the input's size.

    Raises:
        ValueError: as :class:`hybrid_nets.unets.UNet` does.

    Example::

        >>> net = R2UNet(in_channels=3, out_channels=1, dca=True, grid=4, channels=(4, 8, 16)).eval()
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

        def block(before: int, width: int) -> nn.Module:
            return finished(RecurrentBlock(dims, before, width, bias=False), norm_relu(dims, width))

        super().__init__(
            dims,
            in_channels,
            stride=2 ** (len(widths) - 1),
            encoder=[
                EncoderLevel(
                    RecurrentBlock(dims, before, width, bias=dca),
                    norm_relu(dims, width),
                    Pool[Pool.MAX, dims](2),
                    raw=dca,
                )
                for before, width in pairwise([in_channels, *widths[:-1]])
            ],
            bottom=block(widths[-2], widths[-1]),
            decoder=[
                JoinLevel(linear_up(dims, below, width), block(2 * width, width))
                for below, width in pairwise(widths[::-1])
            ],
            head=conv(dims, widths[0], out_channels, size=1),
            refine=skip_refiner(dims, widths[:-1], dca, grid, dca_options),
        )


class RecurrentBlock(nn.Module):
    """A 1×1 convolution, plus two recurrent convolutions of its normalised output.

    ``bias`` is the 1×1 convolution's, which only matters where no BatchNorm follows the sum.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__()
        self.project = conv(spatial_dims, in_channels, out_channels, size=1, bias=bias)
        self.enter = norm_relu(spatial_dims, out_channels)
        self.recurrent = nn.Sequential(
            RecurrentConv(conv_norm_relu(spatial_dims, out_channels, out_channels)),
            RecurrentConv(conv(spatial_dims, out_channels, out_channels)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.project(x)
        return x + self.recurrent(self.enter(x))


class RecurrentConv(nn.Module):
    """One unit applied three times: to the input, then twice to the input plus its last output."""

    def __init__(self, unit: nn.Module) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.unit(x)
        y = self.unit(x + y)
        return self.unit(x + y)
