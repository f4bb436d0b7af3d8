"""MultiResUNet with Dual Cross-Attention on its skips.

Papers: Ibtehaz, Rahman, Neural Networks 2020, arXiv 1902.04049; with Dual Cross-Attention arXiv 2303.17696, section 4.
The latter's code: https://github.com/gorkemcanates/Dual-Cross-Attention (MIT). This is an independent implementation,
and differs from the released code in this: 2-D and 3-D; any token grid; no bias that the next BatchNorm removes; the
last BatchNorm of each Res path, which the released network with Dual Cross-Attention has but doesn't use, is left out
there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Norm, Pool
from torch import nn

from hybrid_nets.blocks.dca import RELEASED_KEYS as DCA_KEYS
from hybrid_nets.blocks.unet import conv_norm_relu
from hybrid_nets.unets.u_shaped import (
    JoinLevel,
    UShaped,
    by_level,
    check_widths,
    conv,
    norm_relu,
    skip_refiner,
)

__all__ = ["MultiResUNet"]

# What `convert_released` does to the keys of the authors' checkpoints, in order: (pattern, replacement).
RELEASED_KEYS = (
    *DCA_KEYS,
    (r"^(mr\d)\.skip\.conv\.", r"\1.body.shortcut.conv."),
    (r"^(mr\d)\.skip\.norm\.", r"\1.body.shortcut.adn.N."),
    *by_level((r"^(mr\d)\.c", r"\1.body.convs.", 1, 3)),
    (r"^(mr\d\.body\.convs\.\d)\.norm\.", r"\1.adn.N."),
    (r"^(mr\d)\.bn1\.", r"\1.body.norm."),
    (r"^respath(\d)\.bns\.(\d)\.", r"mr\1.path.\2.finish.N."),
    (r"^respath(\d)\.skips\.(\d)\.conv\.", r"mr\1.path.\2.shortcut."),
    (r"^respath(\d)\.convs\.(\d)\.conv\.", r"mr\1.path.\2.body."),
    (r"^up(\d)\.0\.", r"decoder\1.up.conv."),
    (r"^up(\d)\.1\.", r"decoder\1.up.adn.N."),
    (r"^mr5\.body\.", "bottom."),
    *by_level(("^mr", "encoder.", 1, 4), ("^decoder", "decoder.", 1, 4), ("^mr", "decoder.", 6, 4)),
    (r"^out\.", "head."),
)
# Which running mean takes a bias in that this network has none for.
RELEASED_FOLDS = ((r"(path\.\d)\.(body|shortcut)\.bias$", r"\1.finish.N.running_mean"),)
# What this network may have been built without.
RELEASED_OPTIONAL = r"^encoder\.\d\.path\.\d\.finish\."


class MultiResUNet(UShaped):
    """MultiResUNet (arXiv 1902.04049), with Dual Cross-Attention (arXiv 2303.17696) on its skips if wanted.

    With the default five levels each side of the input must be a multiple of 16: 224² in, 224² out, the coarsest level
    at 14². A skip is what the level's Res path makes of its MultiRes block: with ``dca`` before the last BatchNorm and
    ReLU, after them without. ``channels`` are the widths of the skips; a MultiRes block has 1.67 times as many.

    Args: as :class:`hybrid_nets.unets.UNet` has them.

    Returns:
        Logits of the input's size.

    Raises:
        ValueError: as :class:`hybrid_nets.unets.UNet` does.

    Example::

        >>> net = MultiResUNet(in_channels=3, out_channels=1, dca=True, grid=4, channels=(4, 8, 16)).eval()
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
        wide = [sum(multires_widths(width)) for width in widths]
        levels = range(len(widths) - 1)
        super().__init__(
            dims,
            in_channels,
            stride=2 ** (len(widths) - 1),
            encoder=[
                MultiResLevel(dims, before, width, len(levels) - i, raw=dca)
                for i, before, width in zip(levels, [in_channels, *wide], widths)
            ],
            bottom=MultiResBlock(dims, wide[-2], widths[-1]),
            decoder=[
                JoinLevel(transposed_up(dims, wide[i + 1], widths[i]), MultiResBlock(dims, 2 * widths[i], widths[i]))
                for i in reversed(levels)
            ],
            head=conv(dims, wide[0], out_channels, size=1),
            refine=skip_refiner(dims, widths[:-1], dca, grid, dca_options),
        )


class MultiResLevel(nn.Module):
    """A MultiRes block, pooled for the next level; a Res path of ``steps`` steps makes the skip of it."""

    def __init__(self, spatial_dims: int, in_channels: int, width: int, steps: int, raw: bool) -> None:
        super().__init__()
        self.body = MultiResBlock(spatial_dims, in_channels, width)
        before = [sum(multires_widths(width))] + [width] * (steps - 1)
        self.path = nn.Sequential(
            *(ResStep(spatial_dims, before[i], width, raw and i == steps - 1) for i in range(steps))
        )
        self.down = Pool[Pool.MAX, spatial_dims](2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x)
        return self.path(x), self.down(x)


class MultiResBlock(nn.Module):
    """Three convolutions in a chain, side by side, plus a 1×1 convolution of the input."""

    def __init__(self, spatial_dims: int, in_channels: int, width: int) -> None:
        super().__init__()
        widths = multires_widths(width)
        self.convs = nn.ModuleList(
            conv_norm_relu(spatial_dims, before, after) for before, after in pairwise([in_channels, *widths])
        )
        self.norm = Norm[Norm.BATCH, spatial_dims](sum(widths))
        self.shortcut = Convolution(
            spatial_dims, in_channels, sum(widths), kernel_size=1, adn_ordering="N", norm="batch", bias=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, in_channels, *) to (b, the sum of :func:`multires_widths`, *)."""
        chain, y = [], x
        for conv_unit in self.convs:
            y = conv_unit(y)
            chain.append(y)
        return F.relu(self.norm(torch.cat(chain, dim=1)) + self.shortcut(x))


class ResStep(nn.Module):
    """A convolution plus a 1×1 convolution, then BatchNorm - ReLU unless ``raw``; biases only where that is missing."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, raw: bool) -> None:
        super().__init__()
        self.body = conv(spatial_dims, in_channels, out_channels, bias=raw)
        self.shortcut = conv(spatial_dims, in_channels, out_channels, size=1, bias=raw)
        self.finish = nn.Identity() if raw else norm_relu(spatial_dims, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.finish(self.body(x) + self.shortcut(x))


def multires_widths(width: int) -> list[int]:
    """Channels of the three convolutions of a MultiRes block: about 1/6, 1/3 and 1/2 of 1.67 times ``width``."""
    return [max(1, int(1.67 * width * part)) for part in (0.167, 0.333, 0.5)]


def transposed_up(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Twice the resolution by a transposed convolution, BatchNorm, ReLU."""
    return Convolution(
        spatial_dims,
        in_channels,
        out_channels,
        kernel_size=2,
        strides=2,
        padding=0,
        output_padding=0,
        is_transposed=True,
        adn_ordering="NA",
        norm="batch",
        act="relu",
        bias=False,
    )
