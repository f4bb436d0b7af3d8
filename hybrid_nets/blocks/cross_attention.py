"""The two attentions of Dual Cross-Attention, among the channels and among the tokens of all levels of a U-Net."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from hybrid_nets.blocks.dca_cpu import read_channels, read_tokens, reads
from hybrid_nets.blocks.products import attend

__all__ = ["ChannelCrossAttention", "CrossAttention", "ScaleShift", "SpatialCrossAttention"]


class CrossAttention(nn.Module):
    """Every level reads all levels: t_i + attention_i(LayerNorm t_i, all LayerNorm t_j side by side).

    Args:
        channels: channels c_i of each level's tokens ``(b, P, c_i)``.
        attention: makes one level's attention from its own channels and the sum over all levels.

    Example::

        >>> step = CrossAttention((8, 16), ChannelCrossAttention)
        >>> [tokens.shape for tokens in step([torch.zeros(1, 9, 8), torch.zeros(1, 9, 16)])]
        [torch.Size([1, 9, 8]), torch.Size([1, 9, 16])]
    """

    def __init__(self, channels: Sequence[int], attention: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(own, 1e-6) for own in channels)
        self.levels = nn.ModuleList(attention(own, sum(channels)) for own in channels)

    def forward(self, tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        normed: list[torch.Tensor] = []
        for i, norm in enumerate(self.norms):
            normed.append(norm(tokens[i]))
        everything = torch.cat(normed, dim=2)
        if torch.jit.is_scripting():
            read = self.read(normed, everything)
        else:
            read = self.read_python(normed, everything)
        for i, part in enumerate(read):
            read[i] = tokens[i] + part
        return read

    def read(self, normed: list[torch.Tensor], everything: torch.Tensor) -> list[torch.Tensor]:
        """What each level gets from all of them."""
        out: list[torch.Tensor] = []
        for i, level in enumerate(self.levels):
            out.append(level(normed[i], everything))
        return out

    def read_python(self, normed: list[torch.Tensor], everything: torch.Tensor) -> list[torch.Tensor]:
        """What TorchScript can't compile: on a CPU without gradients all levels at once."""
        joint = self.levels[0].joint
        if joint is None or not reads(everything):
            return self.read(normed, everything)
        samples = [joint(self.levels, sample) for sample in everything]
        return [torch.stack(parts) for parts in zip(*samples)]


class ChannelCrossAttention(nn.Module):
    """The level's channels read the channels of all levels; a channel is a vector over the tokens.

    Args:
        own: channels of the level.
        total: channels of all levels.
        num_heads: splits both channel axes; must divide them.

    Example::

        >>> ChannelCrossAttention(8, 24)(torch.zeros(1, 9, 8), torch.zeros(1, 9, 24)).shape
        torch.Size([1, 9, 8])
    """

    def __init__(self, own: int, total: int, num_heads: int = 1) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.joint = read_channels if num_heads == 1 else None
        self.scale = total**-0.5  # for any number of heads
        self.query, self.proj = ScaleShift(own), ScaleShift(own)
        self.key, self.value = ScaleShift(total), ScaleShift(total)

    def forward(self, own: torch.Tensor, everything: torch.Tensor) -> torch.Tensor:
        """The level's tokens (b, P, own) and all levels' (b, P, total) to (b, P, own)."""
        query = split_channels(self.query(own), self.num_heads)
        key = split_channels(self.key(everything), self.num_heads)
        value = split_channels(self.value(everything), self.num_heads)
        mixed = attend(query, key, value, 1, self.scale)
        return self.proj(mixed.unflatten(0, [-1, self.num_heads]).flatten(1, 2).transpose(1, 2))


class SpatialCrossAttention(nn.Module):
    """Tokens read tokens: the channels of all levels say who reads whom, the level's own channels are what is read.

    Args:
        own: channels of the level.
        total: channels of all levels.
        num_heads: splits both channel axes; must divide them.

    Example::

        >>> SpatialCrossAttention(8, 24, num_heads=4)(torch.zeros(1, 9, 8), torch.zeros(1, 9, 24)).shape
        torch.Size([1, 9, 8])
    """

    def __init__(self, own: int, total: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.joint = num_heads, read_tokens
        self.scale = (total // num_heads) ** -0.5
        self.query, self.key = ScaleShift(total), ScaleShift(total)
        self.value, self.proj = ScaleShift(own), ScaleShift(own)

    def forward(self, own: torch.Tensor, everything: torch.Tensor) -> torch.Tensor:
        """The level's tokens (b, P, own) and all levels' (b, P, total) to (b, P, own)."""
        query, key, value = self.query(everything), self.key(everything), self.value(own)
        return self.proj(attend(query, key, value, self.num_heads, self.scale))


class ScaleShift(nn.Module):
    """What a depthwise 1×1 convolution computes, for channels on the last axis: one factor and one bias per channel.

    Starts as PyTorch starts such a convolution: both uniform in [-1, 1].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.bias, x, self.weight)


def split_channels(tokens: torch.Tensor, num_heads: int) -> torch.Tensor:
    """(b, P, c) to (b · heads, c / heads, P): a channel is what reads and is read."""
    return tokens.transpose(1, 2).unflatten(1, [num_heads, -1]).flatten(0, 1)
