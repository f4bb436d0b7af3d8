"""V-Net with Dual Cross-Attention on its skips.

Papers: Milletari et al., 3DV 2016, arXiv 1606.04797; with Dual Cross-Attention arXiv 2303.17696, section 4.
The latter's code: https://github.com/gorkemcanates/Dual-Cross-Attention (MIT). This is an independent implementation,
and differs from the released code in this: 2-D and 3-D; any token grid; no bias that the next BatchNorm removes; the
first level's 1×1 convolution, which the released network without Dual Cross-Attention has but doesn't use, is left out
there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.blocks import ADN, Convolution
from monai.networks.layers.factories import Conv
from torch import nn

from hybrid_nets.blocks.dca import RELEASED_KEYS as DCA_KEYS
from hybrid_nets.unets.u_shaped import (
    EncoderLevel,
    UShaped,
    by_level,
    check_widths,
    conv,
    finished,
    skip_refiner,
)

__all__ = ["VNet"]

# What `convert_released` does to the keys of the authors' checkpoints, in order: (pattern, replacement).
RELEASED_KEYS = (
    *DCA_KEYS,
    (r"^conv1\.conv\.", "encoder.0.body."),
    (r"^conv1\.conv_skip\.", "encoder.0.shortcut."),
    (r"^(conv2|up3)\.conv\.1\.conv\.", r"\1.last."),
    (r"^(conv[345]|up[12])\.conv\.2\.conv\.", r"\1.last."),
    (r"^up4\.conv\.", "up4.last."),
    (r"^((?:conv|up)\d)\.conv\.(\d)\.conv\.", r"\1.convs.\2.conv."),
    (r"^((?:conv|up)\d)\.conv\.(\d)\.bn\.", r"\1.convs.\2.adn.N."),
    (r"^((?:conv|up)\d)\.conv\.(\d)\.prelu\.", r"\1.convs.\2.adn.A."),
    (r"^(conv\d)\.(down|convs|last)\.", r"\1.body.\2."),
    (r"^((?:conv|up)\d)\.bn\.", r"\1.finish.N."),
    (r"^((?:conv|up)\d)\.prelu\.", r"\1.finish.A."),
    (r"^(up\d)\.bn_in\.", r"\1.enter.N."),
    (r"^(up\d)\.prelu_in\.", r"\1.enter.A."),
    (r"^conv5\.", "bottom."),
    *by_level(("^conv", "encoder.", 1, 4), ("^up", "decoder.", 1, 4)),
    (r"^out\.", "head."),
)
# Which running mean takes a bias in that this network has none for.
RELEASED_FOLDS = (
    (r"^encoder\.0\.body\.bias$", "encoder.0.finish.N.running_mean"),
    (r"(body\.)?last\.bias$", "finish.N.running_mean"),
    (r"^(decoder\.\d)\.up\.bias$", r"\1.finish.N.running_mean"),
    (r"^(decoder\.\d)\.up\.bias$", r"\1.enter.N.running_mean"),
)
# What this network may have been built without.
RELEASED_OPTIONAL = r"^encoder\.0\.shortcut\."


class VNet(UShaped):
    """V-Net (arXiv 1606.04797), with Dual Cross-Attention (arXiv 2303.17696) on its skips if wanted.

    With the default five levels each side of the input must be a multiple of 16: 224² in, 224² out, the coarsest level
    at 14². A skip is the level's residual sum: before its BatchNorm and PReLU with ``dca``, after them without. The
    first level has a residual sum with ``dca`` only, for the skip alone. Level i has min(i, 3) convolutions of side 5.

    Args: as :class:`hybrid_nets.unets.UNet` has them.

    Returns:
        Logits of the input's size.

    Raises:
        ValueError: as :class:`hybrid_nets.unets.UNet` does.

    Example::

        >>> net = VNet(in_channels=3, out_channels=1, dca=True, grid=4, channels=(4, 8, 16)).eval()
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
        first = FirstLevel(dims, in_channels, widths[0], raw=dca)
        down = [
            EncoderLevel(
                DownBlock(dims, before, width, min(level, 3), bias=dca), norm_prelu(dims, width), nn.Identity(), raw=dca
            )
            for level, (before, width) in enumerate(pairwise(widths[:-1]), start=2)
        ]
        bottom = DownBlock(dims, widths[-2], widths[-1], min(len(widths), 3), bias=False)
        up = [UpLevel(dims, widths[level], widths[level - 1], min(level, 3)) for level in range(len(widths) - 1, 0, -1)]
        super().__init__(
            dims,
            in_channels,
            stride=2 ** (len(widths) - 1),
            encoder=[first, *down],
            bottom=finished(bottom, norm_prelu(dims, widths[-1])),
            decoder=up,
            head=conv(dims, widths[0], out_channels, size=1),
            refine=skip_refiner(dims, widths[:-1], dca, grid, dca_options),
        )


class FirstLevel(nn.Module):
    """A convolution, finished by norm and activation; the skip is that, or raw, with a 1×1 convolution added."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, raw: bool) -> None:
        super().__init__()
        self.body = conv(spatial_dims, in_channels, out_channels, size=5, bias=raw)
        self.shortcut = conv(spatial_dims, in_channels, out_channels, size=1) if raw else None
        self.finish = norm_prelu(spatial_dims, out_channels)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        body = self.body(x)
        y = self.finish(body)
        return (y if self.shortcut is None else body + self.shortcut(x)), y


class DownBlock(nn.Module):
    """Half the resolution by a strided convolution, plus convolutions of that.

    ``bias`` is the last convolution's, which only matters where no BatchNorm follows the sum.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, depth: int, bias: bool) -> None:
        super().__init__()
        self.down = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, 2, stride=2)
        self.convs, self.last = conv_chain(spatial_dims, out_channels, out_channels, depth, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        return x + self.last(self.convs(x))


class UpLevel(nn.Module):
    """Twice the resolution by a transposed convolution, plus convolutions of that joined with the skip."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, depth: int) -> None:
        super().__init__()
        self.up = Conv[Conv.CONVTRANS, spatial_dims](in_channels, out_channels, 2, stride=2, bias=False)
        self.enter = norm_prelu(spatial_dims, out_channels)
        self.convs, self.last = conv_chain(spatial_dims, 2 * out_channels, out_channels, depth, bias=False)
        self.finish = norm_prelu(spatial_dims, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        joined = torch.cat([skip, self.enter(x)], dim=1)
        return self.finish(x + self.last(self.convs(joined)))


def conv_chain(
    spatial_dims: int, in_channels: int, out_channels: int, depth: int, bias: bool
) -> tuple[nn.Sequential, nn.Module]:
    """``depth`` convolutions: all but the last with BatchNorm and PReLU, and the last, with a bias if wanted."""
    widths = [in_channels] + [out_channels] * depth
    convs = nn.Sequential(
        *(
            Convolution(spatial_dims, before, after, kernel_size=5, adn_ordering="NA", norm="batch", bias=False)
            for before, after in pairwise(widths[:-1])
        )
    )
    return convs, conv(spatial_dims, widths[-2], out_channels, size=5, bias=bias)


def norm_prelu(spatial_dims: int, channels: int) -> nn.Module:
    """BatchNorm - PReLU with one slope."""
    return ADN("NA", channels, act="prelu", norm="batch", norm_dim=spatial_dims)
