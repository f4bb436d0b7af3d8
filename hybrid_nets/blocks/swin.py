"""Swin transformer stage on a 3-D grid: windowed self-attention, every other block shifted (arXiv 2103.14030).

The same layout as MONAI's SwinUNETR blocks, with what GLIMS needs and those don't offer: the true relative offsets in
windows clamped to a small grid, any grid at call time, a PReLU in the MLP, and attention by one fused call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers import DropPath
from torch import nn

from hybrid_nets.blocks.position import PositionEmbedding
from hybrid_nets.blocks.recompute import recompute
from hybrid_nets.blocks.windows import (
    bias_index,
    clamp_window,
    far_padding,
    join_windows,
    shift_mask,
    split_windows,
)

__all__ = ["SwinStage"]


class SwinStage(nn.Module):
    """Position embedding, then ``depth`` Swin blocks; ``(b, channels, d, h, w)`` in, the same shape out.

    Args:
        channels: channels of input and output.
        depth: number of blocks; blocks 1, 3, … are shifted by half a window.
        num_heads: attention heads; must divide ``channels``.
        grid: voxels per axis at which the position embedding is learned. Other grids work at call time.
        window_size: side of the attention window in voxels, clamped to the grid where that is smaller.
        drop_rate: dropout after the embedding, the attention's projection and the MLP's layers.
        attn_drop_rate: dropout of attention weights.
        drop_path_rates: stochastic depth, one rate per block.
        sliced_bias: in clamped windows, read the position bias as the authors' released code does: the corner of the
            full window's index matrix, which are not the clamped window's offsets.
        use_checkpoint: keep only each block's input in training and recompute the rest in the backward pass.

    Example::

        >>> SwinStage(24, depth=2, num_heads=3, grid=(6, 6, 6))(torch.zeros(1, 24, 6, 6, 6)).shape
        torch.Size([1, 24, 6, 6, 6])
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        num_heads: int,
        grid: Sequence[int],
        window_size: int = 7,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rates: Sequence[float] | None = None,
        sliced_bias: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.window_size, self.sliced_bias = window_size, sliced_bias
        rates = [0.0] * depth if drop_path_rates is None else drop_path_rates
        self.position = PositionEmbedding(channels, grid)
        self.dropout = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(
            SwinBlock(channels, num_heads, window_size, i % 2 == 1, drop_rate, attn_drop_rate, rates[i], use_checkpoint)
            for i in range(depth)
        )

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Add the position embedding."""
        return self.dropout(self.position(x))

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        """Run the blocks."""
        x = x.permute(0, 2, 3, 4, 1)
        grid = list(x.shape[1:4])
        window, shift = clamp_window(grid, self.window_size)
        index = bias_index(window, self.window_size, self.sliced_bias, x.device)
        mask = shift_mask(grid, window, shift, x.device, x.dtype)
        for block in self.blocks:
            x = block(x, window, shift, index, mask)
        return x.permute(0, 4, 1, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.transform(self.embed(x))


class SwinBlock(nn.Module):
    """LayerNorm, windowed attention, LayerNorm, MLP, each pair around a residual; channels-last tokens."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        window_size: int,
        shifted: bool,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        use_checkpoint: bool,
    ) -> None:
        super().__init__()
        self.shifted, self.use_checkpoint = shifted, use_checkpoint
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, num_heads, window_size, drop_rate, attn_drop_rate)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.PReLU(),
            nn.Dropout(drop_rate),
            nn.Linear(4 * channels, channels),
            nn.Dropout(drop_rate),
        )
        self.drop_path = DropPath(drop_path_rate)
        for layer in (self.attn.qkv, self.attn.proj, self.mlp[0], self.mlp[3]):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def attend(
        self, x: torch.Tensor, window: list[int], shift: list[int], index: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Cut ``x`` (b, d, h, w, c) into windows, attend inside each, put it back together."""
        grid = list(x.shape[1:4])
        x = F.pad(x, far_padding(grid, window))
        padded = list(x.shape[1:4])
        if self.shifted and max(shift) > 0:
            x = torch.roll(x, [-s for s in shift], [1, 2, 3])
            x = join_windows(self.attn(split_windows(x, window), index, mask), window, padded)
            x = torch.roll(x, shift, [1, 2, 3])
        else:
            x = join_windows(self.attn(split_windows(x, window), index, None), window, padded)
        return x[:, : grid[0], : grid[1], : grid[2]]

    def transform(
        self, x: torch.Tensor, window: list[int], shift: list[int], index: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        x = x + self.drop_path(self.attend(self.norm1(x), window, shift, index, mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def forward(
        self, x: torch.Tensor, window: list[int], shift: list[int], index: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self.transform(x, window, shift, index, mask)
        else:
            return recompute(self.use_checkpoint, self.transform, x, window, shift, index, mask)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside each window, with a learned bias per head and relative offset."""

    def __init__(
        self, channels: int, num_heads: int, window_size: int, drop_rate: float, attn_drop_rate: float
    ) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(
                f"num_heads must divide the stage's channels, got {num_heads} heads for {channels} channels."
            )
        self.num_heads, self.attn_drop_rate = num_heads, attn_drop_rate
        self.bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 3, num_heads))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(drop_rate)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: torch.Tensor, index: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """``x`` (b, windows, n, c), ``index`` (n, n) into the bias table, ``mask`` (windows, 1, n, n) or None."""
        b, windows, n, c = x.shape
        qkv = self.qkv(x).reshape(b, windows, n, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        bias = self.bias_table[index].permute(2, 0, 1).contiguous()[None].to(q.dtype)  # (1, heads, n, n)
        drop = self.attn_drop_rate if self.training else 0.0
        # The fused kernels take four dimensions, so windows join the samples where all windows have one bias, and the
        # heads where all samples have the same.
        axis = 0
        if mask is not None:
            axis, bias = 1, (bias + mask.to(q.dtype)).flatten(0, 1)[None]
        q, k, v = q.flatten(axis, axis + 1), k.flatten(axis, axis + 1), v.flatten(axis, axis + 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)
        out = out.reshape(b, windows, self.num_heads, n, -1).transpose(2, 3).reshape(b, windows, n, c)
        return self.dropout(self.proj(out))
