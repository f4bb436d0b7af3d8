"""ResUNet++ with Dual Cross-Attention on its skips.

Papers: Jha et al., ISM 2019, arXiv 1911.07067; with Dual Cross-Attention arXiv 2303.17696, section 4.
The latter's code: https://github.com/gorkemcanates/Dual-Cross-Attention (MIT). This is an independent implementation,
and differs from the released code in this: 2-D and 3-D, any token grid, no bias that the next BatchNorm removes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Pool
from torch import nn

from hybrid_nets.blocks.dca import RELEASED_KEYS as DCA_KEYS
from hybrid_nets.blocks.excite import SqueezeExcite
from hybrid_nets.blocks.unet import conv_norm_relu
from hybrid_nets.unets.u_shaped import UShaped, by_level, check_widths, conv, norm_relu, skip_refiner

__all__ = ["ResUNetPlusPlus"]

# What `convert_released` does to the keys of the authors' checkpoints, in order: (pattern, replacement); None drops.
RELEASED_KEYS = (
    *DCA_KEYS,
    (r"^attn\d\.norm\d\.", None),  # a second name of what follows
    (r"^attn(\d)\.conv_encoder\.0\.", r"up\1.gate.from_skip.0.N."),
    (r"^attn(\d)\.conv_encoder\.2\.", r"up\1.gate.from_skip.1."),
    (r"^attn(\d)\.conv_decoder\.0\.", r"up\1.gate.from_x.0.N."),
    (r"^attn(\d)\.conv_decoder\.2\.", r"up\1.gate.from_x.1."),
    (r"^attn(\d)\.conv_attn\.0\.", r"up\1.gate.score.0.N."),
    (r"^attn(\d)\.conv_attn\.2\.", r"up\1.gate.score.1."),
    (r"^up_residual_conv(\d)\.", r"up\1.residual."),
    (r"^squeeze_excite(\d)\.fc\.", r"down\1.excite.gate."),
    (r"^residual_conv(\d)\.", r"down\1.residual."),
    (r"\.residual\.conv\.([02])\.bn\.", r".residual.convs.\1.N."),
    (r"\.residual\.conv\.", ".residual.convs."),
    (r"\.residual\.skip\.", ".residual.shortcut."),
    *by_level(("^down", "encoder.", 1, 3), ("^up", "decoder.", 1, 3)),
    (r"^input_layer\.0\.conv\.", "encoder.0.stem.convs.0.conv."),
    (r"^input_layer\.0\.norm\.", "encoder.0.stem.convs.0.adn.N."),
    (r"^input_layer\.1\.", "encoder.0.stem.convs.1."),
    (r"^input_skip\.0\.", "encoder.0.stem.shortcut."),
    (r"^aspp_bridge\.", "bottom."),
    (r"^aspp_out\.", "head.0."),
    *by_level((r"^(bottom|head\.0)\.block", r"\1.branches.", 1, 4)),
    (r"^(bottom|head\.0)\.out\.", r"\1.join."),
    (r"^(bottom|head\.0)\.(.*)\.norm\.", r"\1.\2.adn.N."),
    (r"^output_layer\.", "head.1."),
)
# Which running mean takes a bias in that this network has none for.
RELEASED_FOLDS = (
    (r"residual\.convs\.1\.bias$", "residual.convs.2.N.running_mean"),
    (r"gate\.from_(skip|x)\.1\.bias$", "gate.score.0.N.running_mean"),
)


class ResUNetPlusPlus(UShaped):
    """ResUNet++ (arXiv 1911.07067), with Dual Cross-Attention (arXiv 2303.17696) on its three skips if wanted.

    The last two of the n ``channels`` share a resolution, so each side of the input must be a multiple of 2^(n-2),
    with the default five of 8: 224² in, 224² out, the coarsest level at 28². A skip is the level's input (the first
    one's after the stem), without norm or activation; attention gates read the refined skips.

    Biases of the BatchNorms in the branches of the coarsest level's spatial pyramid have no effect: they add a constant
    to each channel, which the BatchNorm at its end removes.

    Args: as :class:`hybrid_nets.unets.UNet` has them. The released network has a finer ``grid`` than the others, a
        quarter of the input: 56 at 224².

    Returns:
        Logits of the input's size.

    Raises:
        ValueError: as :class:`hybrid_nets.unets.UNet` does; ``channels`` needs 3 or more entries.

    Example::

        >>> net = ResUNetPlusPlus(in_channels=3, out_channels=1, dca=True, grid=4, channels=(4, 8, 16, 32)).eval()
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
        check_widths(spatial_dims, channels, fewest=3)
        dims, widths = spatial_dims, list(channels)
        skips = widths[:-2]
        stems = [stem(dims, in_channels, widths[0])] + [nn.Identity()] * (len(skips) - 1)
        reductions = [8] + [16] * (len(skips) - 1)
        super().__init__(
            dims,
            in_channels,
            stride=2 ** len(skips),
            encoder=[
                ExcitedLevel(
                    stems[i],
                    SqueezeExcite(width, reductions[i]),
                    residual(dims, width, widths[i + 1], stride=2),
                )
                for i, width in enumerate(skips)
            ],
            bottom=PyramidPooling(dims, widths[-2], widths[-1], act=None),
            decoder=[GatedLevel(dims, widths[i + 2], skips[i], widths[i + 1]) for i in reversed(range(len(skips)))],
            head=nn.Sequential(
                PyramidPooling(dims, widths[1], widths[0], act="relu"), conv(dims, widths[0], out_channels, size=1)
            ),
            refine=skip_refiner(dims, skips, dca, grid, dca_options),
        )


class ExcitedLevel(nn.Module):
    """The level's input is the skip; squeeze and excitation and a strided residual block make the next one's of it."""

    def __init__(self, stem: nn.Module, excite: nn.Module, residual: nn.Module) -> None:
        super().__init__()
        self.stem, self.excite, self.residual = stem, excite, residual

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        return x, self.residual(self.excite(x))


class GatedLevel(nn.Module):
    """Attention gate at the lower resolution, upsampling, joined with the skip, residual block."""

    def __init__(self, spatial_dims: int, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.gate = Gate(spatial_dims, in_channels, skip_channels)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.residual = residual(spatial_dims, in_channels + skip_channels, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(b, in_channels, *) and the skip (b, skip_channels, 2·*) to (b, out_channels, 2·*)."""
        return self.residual(torch.cat([self.up(self.gate(x, skip)), skip], dim=1))


class Gate(nn.Module):
    """Scales every voxel of x by one number that the skip and x decide; any number, there is no sigmoid."""

    def __init__(self, spatial_dims: int, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.from_skip = nn.Sequential(
            norm_relu(spatial_dims, skip_channels),
            conv(spatial_dims, skip_channels, channels, bias=False),
            Pool[Pool.MAX, spatial_dims](2),
        )
        self.from_x = nn.Sequential(
            norm_relu(spatial_dims, channels), conv(spatial_dims, channels, channels, bias=False)
        )
        self.score = nn.Sequential(norm_relu(spatial_dims, channels), conv(spatial_dims, channels, 1, size=1))

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return x * self.score(self.from_skip(skip) + self.from_x(x))


class PyramidPooling(nn.Module):
    """Four convolutions of different dilation, summed, then a 1×1 convolution; each with BatchNorm and ``act``."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, act: str | None) -> None:
        super().__init__()

        def unit(before: int, **options: int) -> nn.Module:
            return Convolution(
                spatial_dims, before, out_channels, adn_ordering="NA", norm="batch", act=act, bias=False, **options
            )

        self.branches = nn.ModuleList(unit(in_channels, kernel_size=3, dilation=d) for d in (1, 6, 12, 18))
        self.join = unit(out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.branches[0](x)
        for i, branch in enumerate(self.branches):
            if i > 0:
                total = total + branch(x)
        return self.join(total)


class ShortcutSum(nn.Module):
    """Convolutions of x plus one convolution of x."""

    def __init__(self, convs: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.convs, self.shortcut = convs, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x) + self.shortcut(x)


def stem(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Two convolutions plus one; norm and activation after the first only."""
    convs = nn.Sequential(
        conv_norm_relu(spatial_dims, in_channels, out_channels), conv(spatial_dims, out_channels, out_channels)
    )
    return ShortcutSum(convs, conv(spatial_dims, in_channels, out_channels))


def residual(spatial_dims: int, in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """Two convolutions with BatchNorm and ReLU before each, plus a 1×1 one, without."""
    convs = nn.Sequential(
        norm_relu(spatial_dims, in_channels),
        conv(spatial_dims, in_channels, out_channels, stride=stride, bias=False),
        norm_relu(spatial_dims, out_channels),
        conv(spatial_dims, out_channels, out_channels),
    )
    return ShortcutSum(convs, conv(spatial_dims, in_channels, out_channels, size=1, stride=stride))
