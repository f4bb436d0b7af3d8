"""What the U-Nets share: an encoder, skips that Dual Cross-Attention may refine, and a decoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.blocks import ADN
from monai.networks.layers.factories import Conv
from torch import nn

from hybrid_nets.blocks.dca import DualCrossAttention
from hybrid_nets.blocks.layout import fast_layout
from hybrid_nets.blocks.sizes import check_input
from hybrid_nets.blocks.unet import up_conv

__all__ = [
    "Decoder",
    "Encoder",
    "EncoderLevel",
    "JoinLevel",
    "UShaped",
    "by_level",
    "check_widths",
    "conv",
    "finished",
    "linear_up",
    "norm_relu",
    "skip_refiner",
]


class UShaped(nn.Module):
    """Encoder levels from fine to coarse, a bottom, and decoder levels from coarse to fine.

    The base of the networks here, which build the parts. All skips are known before the decoder starts, which is
    where Dual Cross-Attention refines them.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        stride: what every side of the input must be a multiple of.
        encoder: levels that turn x into (skip, x of the next level).
        bottom: turns the last of these x into what the decoder starts from.
        decoder: as many levels, which turn (x, skip) into x of twice the resolution.
        head: turns the last x into logits.
        refine: takes the list of skips and returns the list of those that the decoder reads.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        stride: int,
        encoder: Sequence[nn.Module],
        bottom: nn.Module,
        decoder: Sequence[nn.Module],
        head: nn.Module,
        refine: nn.Module,
    ) -> None:
        super().__init__()
        self.in_channels, self.num_axes, self.stride = in_channels, spatial_dims, stride
        self.encoder, self.bottom = Encoder(*encoder), bottom
        self.refine = refine
        self.decoder, self.head = Decoder(*decoder), head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_input(x, self.num_axes, self.in_channels, self.stride)
        skips, x = self.encoder(fast_layout(x))
        return self.head(self.decoder(self.bottom(x), self.refine(skips)))


class Encoder(nn.Sequential):
    """Levels that turn x into (skip, x of the next level), one after the other."""

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """(b, c, *) to the skips, from fine to coarse, and the last level's x."""
        skips: list[torch.Tensor] = []
        for level in self:
            skip, x = level(x)
            skips.append(skip)
        return skips, x


class Decoder(nn.Sequential):
    """Levels that turn (x, skip) into x of twice the resolution, one after the other."""

    def forward(self, x: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        """(b, c, *) and the skips, from fine to coarse, to x at the resolution of the finest."""
        for i, level in enumerate(self):
            x = level(x, skips[-1 - i])
        return x


class EncoderLevel(nn.Module):
    """A body, the norm and activation that finish it, and what makes the next level's input of that.

    ``raw`` says what the skip is: the body's output as it is, or finished.
    """

    def __init__(self, body: nn.Module, finish: nn.Module, down: nn.Module, raw: bool) -> None:
        super().__init__()
        self.body, self.finish, self.down, self.raw = body, finish, down, raw

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, c, *) to the skip and the next level's input."""
        skip = self.body(x)
        x = self.finish(skip)
        return (skip if self.raw else x), self.down(x)


class JoinLevel(nn.Module):
    """Upsampling, joined with the skip along the channels, then a body."""

    def __init__(self, up: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.up, self.body = up, body

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.body(torch.cat([self.up(x), skip], dim=1))


class KeepSkips(nn.Module):
    """Stands for Dual Cross-Attention in a network without it."""

    def forward(self, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        return skips


def skip_refiner(
    spatial_dims: int,
    channels: Sequence[int],
    dca: bool,
    grid: int | Sequence[int],
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Dual Cross-Attention on skips of these channels, or what keeps them as they are."""
    return DualCrossAttention(spatial_dims, channels, grid, **(options or {})) if dca else KeepSkips()


def check_widths(spatial_dims: int, channels: Sequence[int], fewest: int) -> None:
    """Refuse dimensions and widths that a network can't be built with."""
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
    if len(channels) < fewest or min(channels) < 1:
        raise ValueError(f"channels needs {fewest} or more positive entries, one per level, got {list(channels)}.")


def norm_relu(spatial_dims: int, channels: int) -> nn.Module:
    """BatchNorm - ReLU."""
    return ADN("NA", channels, act="relu", norm="batch", norm_dim=spatial_dims)


def linear_up(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Twice the resolution by linear interpolation with aligned corners, then convolution - BatchNorm - ReLU."""
    mode = "bilinear" if spatial_dims == 2 else "trilinear"
    return up_conv(spatial_dims, in_channels, out_channels, mode=mode, align_corners=True)


def finished(body: nn.Module, finish: nn.Module) -> nn.Sequential:
    """A body and what finishes it, under the names they have in :class:`EncoderLevel`."""
    return nn.Sequential(OrderedDict(body=body, finish=finish))


def conv(
    spatial_dims: int, in_channels: int, out_channels: int, size: int = 3, dilation: int = 1, **options: Any
) -> nn.Module:
    """A convolution that keeps the size, if it has no stride."""
    padding = size // 2 * dilation
    return Conv[Conv.CONV, spatial_dims](in_channels, out_channels, size, padding=padding, dilation=dilation, **options)


def by_level(*rules: tuple[str, str, int, int]) -> tuple[tuple[str, str], ...]:
    """Rules for keys that number levels: ("^conv", "encoder.", 1, 4) makes encoder.0. of conv1., and so up to conv4."""
    return tuple((rf"{old}{first + i}\.", f"{new}{i}.") for old, new, first, count in rules for i in range(count))
