"""HyLT: hybrid ladder transformer with parallel cross attention for medical image segmentation.

Paper: Luo, Changdong, Selvan, MIDL 2022 (https://openreview.net/forum?id=swvVpnzro9q).
The authors' released code carries no licence of its own; this implementation was written from the paper and from
measurements of what that code computes, and shares no code with it. It differs in this: 2-D and 3-D; any input whose
sides are multiples of 16; no parameter that cannot change the output (a 1×1 ``neck`` that the forward pass never uses,
biases that the next normalisation or softmax removes); tokens that are voxels and heads that are heads in
``variant="paper"``, where the released code reshapes tensors without permuting them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Pool
from torch import nn

from hybrid_nets.blocks.attention import SelfAttention, TransformerBlock, init_linear
from hybrid_nets.blocks.layout import fast_layout
from hybrid_nets.blocks.plain import PlainInput
from hybrid_nets.blocks.pool import GridPool
from hybrid_nets.blocks.sizes import as_grid, check_input
from hybrid_nets.blocks.unet import conv_norm_relu, double_conv, up_conv

__all__ = ["HyLT"]

# What `convert_released` does to the keys of the authors' checkpoints, in order: (pattern, replacement); None drops.
RELEASED_KEYS = (
    (r"^neck\.", None),  # the forward pass never uses it
    (r"^token$", "tokens"),
    (r"^Conv_1x1\.", "head."),
    (r"^block1\.", "encoder.0."),
    (r"^block2\.0\.", "encoder.1."),
    (r"^block3\.0\.", "encoder.2."),
    (r"^block4\.0\.", "encoder.3."),
    (r"^block5\.0\.", "encoder.4."),
    (r"^Up(\w*)5\.", r"Up\1.0."),
    (r"^Up(\w*)4\.", r"Up\1.1."),
    (r"^Up(\w*)3\.", r"Up\1.2."),
    (r"^Up(\w*)2\.", r"Up\1.3."),
    (r"^Up\.(\d)\.up\.1\.", r"decoder.\1.up.1.conv."),
    (r"^Up\.(\d)\.up\.2\.", r"decoder.\1.up.1.adn.N."),
    (r"^Up_conv\.(\d)\.conv\.", r"decoder.\1.convs."),
    (r"\.inconv\.conv\.", ".convs."),
    (r"\.convs\.0\.", ".convs.0.conv."),
    (r"\.convs\.1\.", ".convs.0.adn.N."),
    (r"\.convs\.3\.", ".convs.1.conv."),
    (r"\.convs\.4\.", ".convs.1.adn.N."),
    (r"\.mixconv\.conv1\.", ".squeeze."),
    (r"\.mixconv\.conv2\.", ".local."),
    (r"\.mixconv\.conv3\.", ".expand."),
    (r"\.(squeeze|local|expand)\.0\.", r".\1.conv."),
    (r"\.(squeeze|local|expand)\.1\.", r".\1.adn.N."),
    (r"\.mixconv\.Conv2Fromer\.adjust_dim_pool\.", ".read_map.pool.1."),
    (r"\.mixconv\.Conv2Fromer\.to_q\.", ".read_map.query."),
    (r"\.mixconv\.Conv2Fromer\.to_out\.0\.", ".read_map.proj."),
    (r"\.mixconv\.Former2Conv\.to_k\.", ".read_tokens.key."),
    (r"\.mixconv\.Former2Conv\.to_v\.", ".read_tokens.value."),
    (r"\.mixconv\.Former2Conv\.to_out\.0\.", ".read_tokens.proj."),
    (r"\.mixconv\.former\.layers\.0\.0\.norm\.", ".transformer.norm1."),
    (r"\.mixconv\.former\.layers\.0\.0\.fn\.to_qkv\.", ".transformer.attn.qkv."),
    (r"\.mixconv\.former\.layers\.0\.0\.fn\.to_out\.0\.", ".transformer.attn.proj."),
    (r"\.mixconv\.former\.layers\.0\.1\.norm\.", ".transformer.norm2."),
    (r"\.mixconv\.former\.layers\.0\.1\.fn\.net\.0\.", ".transformer.mlp.linear1."),
    (r"\.mixconv\.former\.layers\.0\.1\.fn\.net\.3\.", ".transformer.mlp.linear2."),
)


class HyLT(PlainInput):
    """HyLT (MIDL 2022): a U-Net whose encoder exchanges features with a short sequence of learned global tokens.

    At every level the tokens read the convolutional features and the features read the tokens back, by cross attention
    in both directions; the decoder is a plain U-Net decoder. With the default five levels each side of the input must
    be a multiple of 16, square or not: 224² in, 224² out, with levels at 224², 112², 56², 28² and 14².

    Args:
        spatial_dims: 2 as in the paper, or 3.
        in_channels: channels of the input ``(b, in_channels, *)``.
        out_channels: channels of the logits ``(b, out_channels, *)``.
        channels: channels per level, full resolution first; with n levels, sides must be multiples of 2^(n-1).
        token_grid: the grid that features are pooled to for the tokens, one entry per axis; an int is repeated. The
            number of tokens is the product. The default stands for 5 per axis: (5, 5, 5) when ``spatial_dims`` is 3.
        token_dim: size of a token; attention runs in ``min(channels, token_dim)`` channels.
        num_heads: attention heads, everywhere.
        dropout: dropout in the transformer blocks of the tokens.
        variant: ``"paper"``, or ``"released"`` (2-D only) to reproduce the authors' released code, for their
            checkpoints. As released, feature maps become tokens, and tokens become heads, by reshaping without
            permuting, so that a "voxel" is a run of memory across neighbouring voxels of one channel. This also makes
            the biases of ``read_tokens.key`` matter, which are parameters of this variant only.

    Returns:
        Logits of the input's size.

    Raises:
        ValueError: a side of the input is not a multiple of the stride, the input's channels are not ``in_channels``,
            ``token_grid`` does not have ``spatial_dims`` entries, ``variant`` is unknown, or it is ``"released"`` in
            3-D.

    Example::

        >>> net = HyLT(spatial_dims=2, in_channels=3, out_channels=1, channels=(8, 16, 32, 64, 128)).eval()
        >>> net(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 1, 64, 96])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        token_grid: int | Sequence[int] = (5, 5),
        token_dim: int = 192,
        num_heads: int = 2,
        dropout: float = 0.3,
        variant: str = "paper",
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if variant not in ("paper", "released"):
            raise ValueError(f'variant must be "paper" or "released", got {variant!r}.')
        if variant == "released" and spatial_dims == 3:
            raise ValueError('variant "released" exists for spatial_dims=2 only; use variant="paper" in 3-D.')
        if not isinstance(token_grid, int) and tuple(token_grid) == (5, 5):
            token_grid = 5  # the default, whatever the number of axes
        grid = as_grid(token_grid, spatial_dims, "token_grid")
        self.in_channels, self.num_axes = in_channels, spatial_dims
        self.stride = 2 ** (len(channels) - 1)  # voxels of input per voxel of the deepest grid
        self.tokens = nn.Parameter(torch.randn(1, math.prod(grid), token_dim))
        self.pool = Pool[Pool.MAX, spatial_dims](2)
        self.encoder = nn.ModuleList(
            LadderLevel(spatial_dims, before, width, grid, token_dim, num_heads, dropout, variant == "released")
            for before, width in zip([in_channels, *channels[:-1]], channels)
        )
        self.decoder = nn.ModuleList(
            DecoderLevel(spatial_dims, below, width) for width, below in zip(channels[-2::-1], channels[::-1])
        )
        self.head = Conv[Conv.CONV, spatial_dims](channels[0], out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_input(x, self.num_axes, self.in_channels, self.stride)
        x = fast_layout(x)
        tokens = self.tokens.expand(x.shape[0], -1, -1)
        skips: list[torch.Tensor] = []
        for i, level in enumerate(self.encoder):
            x, tokens = level(x if i == 0 else self.pool(x), tokens)
            skips.append(x)
        for i, level in enumerate(self.decoder):
            x = level(x, skips[-2 - i])
        return self.head(x)


class LadderLevel(nn.Module):
    """Encoder level: two convolutions, then one rung of the ladder in ``min(out_channels, token_dim)`` channels."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        token_grid: Sequence[int],
        token_dim: int,
        num_heads: int,
        dropout: float,
        released: bool,
    ) -> None:
        super().__init__()
        mid = min(out_channels, token_dim)
        self.convs = double_conv(spatial_dims, in_channels, out_channels)
        self.squeeze = conv_norm_relu(spatial_dims, out_channels, mid, kernel_size=1)
        self.read_map = ReadMap(spatial_dims, mid, token_grid, token_dim, num_heads, released)
        attention = SelfAttention(token_dim, num_heads, head_dim=64, dropout=dropout)
        self.transformer = TransformerBlock(token_dim, attention, 2 * token_dim, dropout)
        self.local = conv_norm_relu(spatial_dims, mid, mid)
        self.read_tokens = ReadTokens(mid, token_dim, num_heads, released)
        self.expand = conv_norm_relu(spatial_dims, mid, out_channels)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, c, *) and the tokens (b, m, d) to (b, out_channels, *) and the tokens for the next level."""
        x = self.convs(x)
        squeezed = self.squeeze(x)
        tokens = self.transformer(self.read_map(squeezed, tokens))
        mixed = self.read_tokens(self.local(squeezed), tokens)
        return F.relu(self.expand(mixed) + x), tokens


class ReadMap(nn.Module):
    """Tokens take up the feature map: pooled to their grid first, then by cross attention to all of its voxels."""

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        token_grid: Sequence[int],
        token_dim: int,
        num_heads: int,
        released: bool,
    ) -> None:
        super().__init__()
        self.num_heads, self.released = num_heads, released
        self.pool = nn.Sequential(GridPool(token_grid), Conv[Conv.CONV, spatial_dims](channels, token_dim, 1))
        self.query = nn.Linear(token_dim, num_heads * channels)
        self.proj = nn.Linear(num_heads * channels, token_dim)
        init_linear(self)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(b, c, *) and the tokens (b, m, d) to tokens (b, m, d)."""
        tokens = tokens + self.pool(x).flatten(2).transpose(1, 2)
        voxels = shared_heads(x, self.num_heads, self.released)
        queries = split_heads(self.query(tokens), self.num_heads, self.released)
        return tokens + self.proj(merge_heads(F.scaled_dot_product_attention(queries, voxels, voxels)))


class ReadTokens(nn.Module):
    """The feature map takes up the tokens: every voxel reads them by cross attention."""

    def __init__(self, channels: int, token_dim: int, num_heads: int, released: bool) -> None:
        super().__init__()
        self.num_heads, self.released = num_heads, released
        # A bias of the keys adds the same to all logits of a query, which softmax removes; unless, as released, the
        # keys of one head come from both halves of the bias.
        self.key = nn.Linear(token_dim, num_heads * channels, bias=released)
        self.value = nn.Linear(token_dim, num_heads * channels)
        self.proj = nn.Linear(num_heads * channels, channels)
        init_linear(self)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(b, c, *) and the tokens (b, m, d) to (b, c, *)."""
        keys = split_heads(self.key(tokens), self.num_heads, self.released)
        values = split_heads(self.value(tokens), self.num_heads, self.released)
        voxels = shared_heads(x, self.num_heads, self.released)
        read = self.proj(merge_heads(F.scaled_dot_product_attention(voxels, keys, values)))
        return x + (read if self.released else read.transpose(1, 2)).reshape(x.shape)


class DecoderLevel(nn.Module):
    """Twice the resolution and half the channels, joined with the skip, then two convolutions."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = up_conv(spatial_dims, in_channels, out_channels)
        self.convs = double_conv(spatial_dims, 2 * out_channels, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(b, in_channels, *) and the skip (b, out_channels, 2·*) to (b, out_channels, 2·*)."""
        return self.convs(torch.cat([skip, self.up(x)], dim=1))


def shared_heads(x: torch.Tensor, num_heads: int, released: bool) -> torch.Tensor:
    """A map (b, c, *) as tokens (b, heads, voxels, c), the same for all heads; as released, see :class:`HyLT`."""
    if released:
        rows = x.reshape(x.shape[0], -1, x.shape[1])
        return rows.repeat(1, 1, num_heads).reshape(x.shape[0], num_heads, -1, x.shape[1])
    return x.flatten(2).transpose(1, 2).unsqueeze(1).expand(-1, num_heads, -1, -1)


def split_heads(tokens: torch.Tensor, num_heads: int, released: bool) -> torch.Tensor:
    """(b, m, heads · c) to (b, heads, m, c); as released, without permuting."""
    b, m, size = tokens.shape
    if released:
        return tokens.reshape(b, num_heads, m, size // num_heads)
    return tokens.reshape(b, m, num_heads, size // num_heads).transpose(1, 2)


def merge_heads(tokens: torch.Tensor) -> torch.Tensor:
    """(b, heads, m, c) to (b, m, heads · c)."""
    return tokens.transpose(1, 2).flatten(2)


def released_options(weights: Mapping[str, torch.Tensor]) -> dict:
    """What the authors' checkpoints show of how their network was built; their token grids are square."""
    first, head, tokens = (weights[key] for key in ("block1.inconv.conv.0.weight", "Conv_1x1.weight", "token"))
    return {
        "spatial_dims": head.ndim - 2,
        "in_channels": first.shape[1],
        "out_channels": head.shape[0],
        "token_grid": math.isqrt(tokens.shape[1]),
        "variant": "released",
    }
