"""Dual Cross-Attention (DCA): refines the skip connections of any U-shaped network, all levels at once.

Paper: Ates, Mohan, Celik, "Dual Cross-Attention for Medical Image Segmentation", arXiv 2303.17696, section 3.
Authors' code: https://github.com/gorkemcanates/Dual-Cross-Attention (MIT). This is an independent implementation, and
differs from the released code in this: 2-D and 3-D; a grid of tokens of any size, for any input size; 1×1 convolutions
run on the token grid, before the upsampling they commute with; an ending without norm and activation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from monai.networks.blocks import ADN
from monai.networks.layers.factories import Conv
from torch import nn

from hybrid_nets.blocks.cross_attention import (
    ChannelCrossAttention,
    CrossAttention,
    ScaleShift,
    SpatialCrossAttention,
)
from hybrid_nets.blocks.dca_cpu import covers_expand, expand_fast
from hybrid_nets.blocks.layout import fast_layout
from hybrid_nets.blocks.pool import GridPool
from hybrid_nets.blocks.products import linear
from hybrid_nets.blocks.sizes import as_grid

__all__ = ["DualCrossAttention"]

# What `convert_released` does to the keys of the authors' checkpoints, in order: (pattern, replacement). In those of a
# network this module's keys start with "DCA.", in ours with "refine.".
RELEASED_KEYS = (
    (r"^DCA\.", "refine."),
    (r"^((refine\.)?(avg_map|attention|upconvs)\..*)\.(proj\.depthwise|conv\.conv)\.", r"\1."),
    (r"^(refine\.)?avg_map\.", r"\1embed."),
    (r"^(refine\.)?attention\.(\d+)\.c_attention\.", r"\1blocks.\2.channel.levels."),
    (r"^(refine\.)?attention\.(\d+)\.s_attention\.", r"\1blocks.\2.spatial.levels."),
    (r"^(refine\.)?attention\.(\d+)\.(channel|spatial)_norm\.", r"\1blocks.\2.\3.norms."),
    (r"\.q_map\.", ".query."),
    (r"\.k_map\.", ".key."),
    (r"\.v_map\.", ".value."),
    (r"\.projection\.", ".proj."),
    (r"^(refine\.)?upconvs\.(\d+)\.", r"\1expand.\2.conv."),
    (r"^(refine\.)?bn_relu\.(\d+)\.0\.", r"\1expand.\2.adn.N."),
)


class DualCrossAttention(nn.Module):
    """Dual Cross-Attention (arXiv 2303.17696): skips in, refined skips of the same shapes out.

    Every skip is pooled to one grid of tokens. There each level reads all levels, first channels reading channels,
    then tokens reading tokens; what comes out is upsampled and added to the skip. Skips may come in any order and
    resolution. Attention costs the square of the number of tokens, which is ``grid`` squared in 2-D and cubed in 3-D:
    28 in 2-D (784 tokens) is the paper's, 6 to 10 in 3-D (216 to 1000 tokens) costs about the same.

    Parameters are the released ones, 110,560 for 32, 64, 128, 256 channels. Among them are biases without effect: of
    the keys of spatial attention (softmax removes them), and with ``post_norm`` those that only add a constant to each
    channel, which the BatchNorm at the end removes: in the last block the biases of the last attention's values
    (spatial attention's only) and output, and those of the 1×1 convolutions.

    Args:
        spatial_dims: 2 as in the paper, or 3.
        channels: channels of each skip ``(b, channels[i], *)``.
        grid: the grid of tokens, one entry per axis; an int is repeated. It need not divide anything.
        blocks: how many times both attentions are applied.
        channel_heads: heads of channel attention; must divide all ``channels``.
        spatial_heads: heads of spatial attention; must divide all ``channels``.
        channel_attention: use attention among channels.
        spatial_attention: use attention among tokens.
        post_norm: end with BatchNorm and ReLU on each output, as in the paper's networks; otherwise an output is the
            skip plus what attention contributes, which is nothing if all parameters are 0.

    Returns:
        A list of as many tensors as went in, of the same shapes.

    Raises:
        ValueError: ``spatial_dims`` is not 2 or 3, ``channels`` is empty, ``grid`` doesn't have ``spatial_dims``
            positive entries, ``blocks`` or a number of heads is less than 1, heads do not divide the channels, or both
            attentions are off; in the forward pass: another number of skips, or of channels or axes in one of them.

    Example::

        >>> refine = DualCrossAttention(spatial_dims=2, channels=(8, 16), grid=4)
        >>> [skip.shape for skip in refine([torch.zeros(1, 8, 30, 40), torch.zeros(1, 16, 15, 20)])]
        [torch.Size([1, 8, 30, 40]), torch.Size([1, 16, 15, 20])]
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: Sequence[int],
        grid: int | Sequence[int],
        blocks: int = 1,
        channel_heads: int = 1,
        spatial_heads: int = 4,
        channel_attention: bool = True,
        spatial_attention: bool = True,
        post_norm: bool = True,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        check_positive("channels", channels)
        cells = as_grid(grid, spatial_dims, "grid")
        check_positive("grid", cells)
        check_positive("blocks", [blocks])
        kinds: dict[str, partial] = {}
        if channel_attention:
            check_heads("channel_heads", channel_heads, channels)
            kinds["channel"] = partial(ChannelCrossAttention, num_heads=channel_heads)
        if spatial_attention:
            check_heads("spatial_heads", spatial_heads, channels)
            kinds["spatial"] = partial(SpatialCrossAttention, num_heads=spatial_heads)
        if not kinds:
            raise ValueError("channel_attention and spatial_attention are both off; turn at least one on.")
        self.num_axes, self.channels = spatial_dims, list(channels)
        self.pool = GridPool(cells)
        self.embed = nn.ModuleList(ScaleShift(own) for own in channels)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: CrossAttention(channels, kind) for name, kind in kinds.items()}) for _ in range(blocks)
        )
        self.expand = nn.ModuleList(Expand(spatial_dims, own, cells, post_norm) for own in channels)

    def forward(self, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        self.check(skips)
        tokens: list[torch.Tensor] = []
        for i, embed in enumerate(self.embed):
            tokens.append(embed(self.pool(skips[i]).flatten(2).transpose(1, 2)))
        for block in self.blocks:
            for attention in block.values():
                tokens = attention(tokens)
        refined: list[torch.Tensor] = []
        for i, expand in enumerate(self.expand):
            refined.append(expand(tokens[i], skips[i]))
        return refined

    def check(self, skips: list[torch.Tensor]) -> None:
        """Refuse skips that this module was not built for."""
        if len(skips) != len(self.channels):
            raise ValueError(f"built for {len(self.channels)} skips, got {len(skips)}; pass one per entry of channels.")
        for i, skip in enumerate(skips):
            if skip.ndim != 2 + self.num_axes or skip.shape[1] != self.channels[i]:
                axes = "height, width" if self.num_axes == 2 else "depth, height, width"
                raise ValueError(
                    f"skip {i} must be (batch, {self.channels[i]}, {axes}), got {list(skip.shape)}; "
                    "pass the skips in the order of channels."
                )


class Expand(nn.Module):
    """A level's tokens as a map, 1×1 convolution, linear upsampling with aligned corners, added to the level's skip."""

    def __init__(self, spatial_dims: int, channels: int, grid: Sequence[int], post_norm: bool) -> None:
        super().__init__()
        self.grid, self.mode = list(grid), "bilinear" if spatial_dims == 2 else "trilinear"
        self.conv = Conv[Conv.CONV, spatial_dims](channels, channels, 1)
        self.adn = ADN("NA", channels, act="relu", norm="batch", norm_dim=spatial_dims) if post_norm else nn.Identity()

    def forward(self, tokens: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(b, P, c) and the skip (b, c, *) to (b, c, *)."""
        tokens = linear(tokens, self.conv.weight.flatten(1), self.conv.bias)
        if torch.jit.is_scripting():
            return self.finish(tokens, skip)
        else:
            if covers_expand(self.adn, skip):
                return expand_fast(tokens, self.grid, skip, self.adn, self.mode)
            return self.finish(tokens, skip)

    def finish(self, tokens: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """What comes after the convolution."""
        cells = fast_layout(tokens.unflatten(1, self.grid).movedim(-1, 1))
        return self.adn(skip + F.interpolate(cells, skip.shape[2:], mode=self.mode, align_corners=True))


def check_positive(name: str, values: Sequence[int]) -> None:
    if not values or min(values) < 1:
        raise ValueError(f"{name} needs numbers of 1 or more, got {list(values)}.")


def check_heads(name: str, heads: int, channels: Sequence[int]) -> None:
    check_positive(name, [heads])
    common = math.gcd(*channels)
    if common % heads:
        fits = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
        raise ValueError(f"{name}={heads} does not divide all channels {list(channels)}; numbers that do: {fits}.")
