"""MobileUtr (Mobile U-ViT): a light U-shaped network of large-kernel convolutions and few transformer blocks.

Papers: MobileUtr, arXiv 2312.01740; its successor Mobile U-ViT, Tang et al., ACM MM 2025, arXiv 2508.01064.
Authors' code: https://github.com/FengheTan9/Mobile-U-ViT (Apache 2.0); the MobileUtr repository redirects there, and
the two are one network. This is an independent implementation, and differs from the released code in this: one class
for 2-D and 3-D; ``in_channels`` says what comes in (the released 2-D network repeats one channel to three); no bias
that the next normalisation removes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.networks.layers import DropPath
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from torch import nn

from hybrid_nets.blocks.attention import SelfAttention, TransformerBlock
from hybrid_nets.blocks.convutr_cpu import conv_utr, covers_conv_utr
from hybrid_nets.blocks.fast_conv import FastConvolution, fast_conv
from hybrid_nets.blocks.layout import fast_layout
from hybrid_nets.blocks.plain import PlainInput
from hybrid_nets.blocks.sizes import check_input
from hybrid_nets.blocks.unet import conv_norm_relu, double_conv, up_conv

__all__ = ["MobileUtr"]

# Per size: channels of the three stages and of the transformer, and attention heads.
SIZES = {"base": ((16, 32, 64, 128), 4), "large": ((32, 64, 128, 256), 8)}
# What `convert_released` does to the keys of the authors' checkpoints, in order: (pattern, replacement); None drops.
RELEASED_KEYS = (
    (r"^patch_embeddings\.stem\.0\.", "stem.conv."),
    (r"^patch_embeddings\.stem\.1\.", "stem.adn.N."),
    (r"^patch_embeddings\.layer(\d)\.", r"stage\1."),
    (r"\.block\.(\d)\.0\.fn\.0\.", r".blocks.\1.spatial.conv."),
    (r"\.block\.(\d)\.0\.fn\.2\.", r".blocks.\1.spatial.adn.N."),
    (r"\.block\.(\d)\.1\.fn\.0\.", r".blocks.\1.pointwise.0.conv."),
    (r"\.block\.(\d)\.1\.fn\.2\.", r".blocks.\1.pointwise.0.adn.N."),
    (r"\.block\.(\d)\.1\.fn\.3\.", r".blocks.\1.pointwise.1.conv."),
    (r"\.block\.(\d)\.1\.fn\.5\.", r".blocks.\1.pointwise.1.adn.N."),
    (r"^(stage\d)\.up\.0\.", r"\1.widen.conv."),
    (r"^(stage\d)\.up\.1\.", r"\1.widen.adn.N."),
    (r"^lklgl_bottleneck\.(\d)\.LocalAgg\.", r"local_global.\1.0."),
    (r"^lklgl_bottleneck\.(\d)\.SelfAttn\.", r"local_global.\1.1."),
    (r"^transformer_bottleneck\.(\d)\.SelfAttn\.", r"transformer.\1."),
    (r"^(local_global\.\d\.0)\.pos_embed\.", r"\1.embed."),
    (r"^(local_global\.\d\.0)\.norm1\.", r"\1.mix.0."),
    (r"^(local_global\.\d\.0)\.conv1\.", r"\1.mix.1."),
    (r"^(local_global\.\d\.0)\.attn\.", r"\1.mix.2."),
    (r"^(local_global\.\d\.0)\.conv2\.", r"\1.mix.3."),
    (r"^(local_global\.\d\.0)\.norm2\.", r"\1.mlp.0."),
    (r"^(local_global\.\d\.0)\.mlp\.fc1\.", r"\1.mlp.1."),
    (r"^(local_global\.\d\.0)\.mlp\.fc2\.", r"\1.mlp.3."),
    (r"\.pos_embed\.", ".embed."),
    (r"\.(attn\.qkv|attn\.proj|attn\.norm|norm1|norm2)\.", r".block.\1."),
    (r"\.attn\.LocalProp\.", ".block.attn.spread."),
    (r"\.mlp\.fc(\d)\.", r".block.mlp.linear\1."),
    (r"^expend_dims\.conv\.", "expand."),
    (r"^reduce_dims\.conv\.", "reduce."),
    (r"^Up_conv4\.conv\.", "fuse3."),
    (r"^Up_conv3\.conv\.", "fuse2."),
    (r"^Up_conv2\.conv\.", "fuse1."),
    (r"^(expand|reduce|fuse\d)\.0\.", r"\1.0.conv."),
    (r"^(expand|reduce|fuse\d)\.1\.", r"\1.0.adn.N."),
    (r"^(expand|reduce|fuse\d)\.3\.", r"\1.1.conv."),
    (r"^(expand|reduce|fuse\d)\.4\.", r"\1.1.adn.N."),
    (r"^Up(\d)\.up\.1\.", r"up\1.1.conv."),
    (r"^Up(\d)\.up\.2\.", r"up\1.1.adn.N."),
)


class MobileUtr(PlainInput):
    """MobileUtr (arXiv 2312.01740, 2508.01064): a U-shaped network for small devices, 1.39 M parameters in 2-D.

    Large-kernel convolutions embed the image in three stages; at an eighth of the resolution, blocks that alternate
    local aggregation and attention on a subsampled grid, then transformer blocks, spread information over the whole
    image; a convolutional decoder joins pooled skips. Each side of the input must be a multiple of 16, square or not:
    256² in, 256² out, with the transformer at 32².

    Args:
        spatial_dims: 2 (BatchNorm, bilinear upsampling with aligned corners) or 3 (InstanceNorm, trilinear upsampling
            without).
        in_channels: channels of the input ``(b, in_channels, *)``.
        out_channels: channels of the logits ``(b, out_channels, *)``.
        size: ``"base"`` or ``"large"``: 16 or 32 channels at full resolution, 128 or 256 in the transformer.
        drop_path_rate: stochastic depth in the blocks of local aggregation and subsampled attention.

    Returns:
        Logits of the input's size.

    Raises:
        ValueError: a side of the input is not a multiple of 16, the input's channels are not ``in_channels``, ``size``
            is unknown, or ``spatial_dims`` is not 2 or 3.

    Example::

        >>> net = MobileUtr(spatial_dims=2, in_channels=3, out_channels=1, size="base").eval()
        >>> net(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 1, 64, 96])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        size: str = "base",
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(map(repr, SIZES))}, got {size!r}.")
        (d0, d1, d2, d3), num_heads = SIZES[size]
        dims, norm = spatial_dims, "batch" if spatial_dims == 2 else "channel"
        interpolation = ("bilinear", True) if spatial_dims == 2 else ("trilinear", False)
        self.in_channels, self.num_axes = in_channels, spatial_dims
        self.stride = 16  # voxels of input per voxel of the grid of subsampled attention
        self.stem = conv_norm_relu(dims, in_channels, d0, norm)
        self.stage1 = Stage(dims, d0, d0, norm, depth=1, kernel_size=3)
        self.stage2 = Stage(dims, d0, d1, norm, depth=1, kernel_size=3)
        self.stage3 = Stage(dims, d1, d2, norm, depth=3, kernel_size=7)
        self.pool = Pool[Pool.MAX, dims](2)
        self.local_global = nn.Sequential(
            *(
                nn.Sequential(
                    LocalAggregation(dims, d2, norm, drop_path_rate),
                    ConvTransformer(dims, d2, SampledAttention(dims, d2, num_heads), drop_path_rate),
                )
                for _ in range(3)
            )
        )
        self.expand = double_conv(dims, d2, d3, norm)
        self.transformer = nn.Sequential(
            *(
                ConvTransformer(dims, d3, SelfAttention(d3, num_heads, qkv_bias=True))
                for _ in range(3 if size == "base" else 4)
            )
        )
        self.reduce = double_conv(dims, d3, d2, norm)
        self.fuse3 = double_conv(dims, 2 * d2, d2, norm)
        self.up3 = up_conv(dims, d2, d1, norm, *interpolation)
        self.fuse2 = double_conv(dims, 2 * d1, d1, norm)
        self.up2 = up_conv(dims, d1, d0, norm, *interpolation)
        self.fuse1 = double_conv(dims, 2 * d0, d0, norm)
        self.up1 = up_conv(dims, d0, d0, norm, *interpolation)
        self.head = fast_conv(dims)(d0, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_input(x, self.num_axes, self.in_channels, self.stride)
        x = fast_layout(x, in_training=True)
        # The skips are pooled: each is also what the next stage reads.
        skip1 = self.pool(self.stage1(self.stem(x)))
        skip2 = self.pool(self.stage2(skip1))
        skip3 = self.pool(self.stage3(skip2))
        x = self.reduce(self.transformer(self.expand(self.local_global(skip3))))
        x = self.up3(self.fuse3(torch.cat([x, skip3], dim=1)))
        x = self.up2(self.fuse2(torch.cat([x, skip2], dim=1)))
        x = self.up1(self.fuse1(torch.cat([x, skip1], dim=1)))
        return self.head(x)


class Stage(nn.Module):
    """``depth`` ConvUtr blocks, then a convolution to the stage's width; the resolution stays."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, norm: str, depth: int, kernel_size: int
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ConvUtr(spatial_dims, in_channels, norm, kernel_size) for _ in range(depth)))
        self.widen = conv_norm_relu(spatial_dims, in_channels, out_channels, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.widen(self.blocks(x))


class ConvUtr(nn.Module):
    """What a transformer block does, by convolution: a depthwise one, then two pointwise ones, with residuals."""

    def __init__(self, spatial_dims: int, channels: int, norm: str, kernel_size: int) -> None:
        super().__init__()

        def conv(before: int, after: int, side: int, groups: int = 1) -> nn.Module:
            """Convolution - GELU - norm: the bias comes before the GELU, so it stays."""
            return FastConvolution(
                spatial_dims, before, after, kernel_size=side, groups=groups, adn_ordering="AN", act="gelu", norm=norm
            )

        self.spatial = conv(channels, channels, kernel_size, groups=channels)
        self.pointwise = nn.Sequential(conv(channels, 4 * channels, 1), conv(4 * channels, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self.mix(x)
        else:
            fast = covers_conv_utr(x, self.spatial)
            return conv_utr(x, self.spatial, self.pointwise) if fast else self.mix(x)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.spatial(x)
        return x + self.pointwise(x)


class LocalAggregation(nn.Module):
    """Scales features by gates that see 9 voxels around each: between ½ and 1½ times, three times over."""

    def __init__(self, spatial_dims: int, channels: int, norm: str, drop_path_rate: float) -> None:
        super().__init__()
        conv, c = fast_conv(spatial_dims), channels
        self.embed = conv(c, c, 9, padding=4, groups=c)
        self.mix = nn.Sequential(
            get_norm_layer(norm, spatial_dims, c), conv(c, c, 1), conv(c, c, 9, padding=4, groups=c), conv(c, c, 1)
        )
        self.mlp = nn.Sequential(
            get_norm_layer(norm, spatial_dims, c),
            conv(c, 4 * c, 3, padding=1, groups=c),
            nn.GELU(),
            conv(4 * c, c, 3, padding=1, groups=c),
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = gate(x, self.embed(x))
        x = gate(x, self.drop_path(self.mix(x)))
        return gate(x, self.drop_path(self.mlp(x)))


class ConvTransformer(nn.Module):
    """A transformer block on the voxels of (b, channels, *), which know their place by a depthwise convolution."""

    def __init__(self, spatial_dims: int, channels: int, attn: nn.Module, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.embed = fast_conv(spatial_dims)(channels, channels, 3, padding=1, groups=channels)
        self.block = TransformerBlock(channels, attn, 4 * channels, drop_path_rate=drop_path_rate, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block((x + self.embed(x)).movedim(1, -1)).movedim(-1, 1)


class SampledAttention(SelfAttention):
    """Attention among every second voxel of each axis, spread to the others by a transposed convolution.

    Channels last: (b, *, dim) in, the same shape out.
    """

    def __init__(self, spatial_dims: int, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads, qkv_bias=True)
        self.sample = Pool[Pool.AVG, spatial_dims](1, stride=2)
        self.spread = Conv[Conv.CONVTRANS, spatial_dims](dim, dim, 2, stride=2, groups=dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sampled = self.mix(self.sample(x.movedim(-1, 1)).movedim(1, -1))
        return self.proj(self.norm(self.spread(sampled.movedim(-1, 1)).movedim(1, -1)))


def gate(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """``x`` scaled by ½ + sigmoid: unchanged where ``logits`` is 0."""
    return x + x * (torch.sigmoid(logits) - 0.5)


def released_options(weights: Mapping[str, torch.Tensor]) -> dict:
    """What the authors' checkpoints show of how their network was built."""
    stem, head = weights["patch_embeddings.stem.0.weight"], weights["head.weight"]
    return {
        "spatial_dims": head.ndim - 2,
        "in_channels": stem.shape[1],
        "out_channels": head.shape[0],
        "size": "base" if stem.shape[0] == SIZES["base"][0][0] else "large",
    }
