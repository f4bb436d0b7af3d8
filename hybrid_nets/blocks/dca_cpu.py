"""Dual Cross-Attention on a CPU without gradients: its modules' numbers, all levels at once, in few operations.

Per-channel factors and biases go into whatever is smallest. The keys' are moved to the queries, which leaves the same
keys for all levels; the values' and the output's to the attention weights or to what attention returns. Maps at the
skips' resolution are made once, and finished in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from hybrid_nets.blocks.layout import fast_layout, is_plain
from hybrid_nets.blocks.norm import scale_and_shift
from hybrid_nets.blocks.products import attend_sample, by_head, product, runs, weigh

__all__ = ["covers_expand", "expand_fast", "read_channels", "read_tokens", "reads"]


def reads(tokens: torch.Tensor) -> bool:
    """Whether the attentions here apply to tokens ``(b, P, c)``."""
    return not torch.is_grad_enabled() and runs(tokens)


def read_channels(levels: Sequence[nn.Module], tokens: torch.Tensor) -> list[torch.Tensor]:
    """Channel attention of one head: one sample's normalised tokens of all levels ``(P, total)``, to each level's.

    All scores are sums over the same products of two channels, and each row of the attention weights, scaled by the
    values' factors, reads the bare tokens.
    """
    channels, sums = tokens.T.contiguous(), tokens.sum(0)
    sizes = [len(level.proj.weight) for level in levels]
    weights, biases = [], []
    for level, products, own in zip(levels, product(channels, channels).split(sizes), sums.split(sizes)):
        query, key, value, proj = level.query, level.key, level.value, level.proj
        scores = torch.addcmul(query.bias[:, None] * sums, products, query.weight[:, None]) * (level.scale * key.weight)
        totals = torch.addcmul(len(tokens) * query.bias, own, query.weight)
        mix = weigh(scores.addcmul_(totals[:, None], level.scale * key.bias))
        biases.append(torch.addcmul(proj.bias, mix @ value.bias, proj.weight))
        weights.append(mix * value.weight * proj.weight[:, None])
    return list(product(tokens, torch.cat(weights), torch.cat(biases)).split(sizes, dim=1))


def read_tokens(levels: Sequence[nn.Module], tokens: torch.Tensor) -> list[torch.Tensor]:
    """Spatial attention: one sample's normalised tokens of all levels ``(P, total)``, to each level's.

    The keys' biases add the same to all scores of a query, which softmax removes; a constant passes through it.
    """
    num_heads, read = levels[0].num_heads, []
    keys = by_head(tokens, num_heads)
    for level, own in zip(levels, tokens.split([len(level.proj.weight) for level in levels], dim=1)):
        query, value, proj = level.query, level.value, level.proj
        factor = level.scale * level.key.weight
        queries = torch.addcmul(query.bias * factor, tokens, query.weight * factor)
        shift = torch.addcmul(proj.bias, value.bias, proj.weight)
        mixed = attend_sample(queries, keys, own, num_heads)
        read.append(torch.addcmul(shift, mixed, value.weight * proj.weight))
    return read


def covers_expand(adn: nn.Module, skip: torch.Tensor) -> bool:
    """Whether :func:`expand_fast` applies: with a BatchNorm that uses its running statistics."""
    return not torch.is_grad_enabled() and not adn.training and hasattr(adn, "N") and is_plain(skip)


def expand_fast(tokens: torch.Tensor, grid: list[int], skip: torch.Tensor, adn: nn.Module, mode: str) -> torch.Tensor:
    """relu(norm(skip + tokens upsampled)); the norm commutes with upsampling, whose weights sum to 1 everywhere."""
    scale, shift = scale_and_shift(adn.N)
    cells = torch.addcmul(shift, tokens, scale).unflatten(1, grid).movedim(-1, 1)
    out = F.interpolate(fast_layout(cells), skip.shape[2:], mode=mode, align_corners=True)
    return out.addcmul_(skip, scale.view(-1, *[1] * len(grid))).relu_()
