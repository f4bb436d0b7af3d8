"""Matrix products at the speed of convolutions.

On a CPU PyTorch computes products of float32 matrices by one library and convolutions by another, which is twice as
fast at products of some hundred rows and columns (two AVX-512 cores: 75 and 150 GMAC/s for 1024 × 128 × 512).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from hybrid_nets.blocks.layout import is_plain

__all__ = ["FastLinear", "attend", "attend_sample", "by_head", "linear", "product", "runs", "weigh"]

FEWEST = 256  # rows from which on a convolution wins, though it brings the weights into an order of its own first
# Where scores lie far apart, softmax gives less than float32's least normal number, 1.2e-38. On some processors a
# convolution takes a hundred times as long over such weights.
LEAST = 1e-30
SCORES = 2**22  # scores of all heads at a time, 16 MiB


class FastLinear(nn.Linear):
    """PyTorch's ``Linear``, ``(*, in_features)`` to ``(*, out_features)``.

    Example::

        >>> FastLinear(8, 4)(torch.zeros(2, 9, 8)).shape
        torch.Size([2, 9, 4])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``F.linear``, by convolution where that is faster."""
    if torch.jit.is_scripting():
        return F.linear(x, weight, bias)
    else:
        return linear_python(x, weight, bias)


def linear_python(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What TorchScript can't compile."""
    if torch.is_grad_enabled() or not runs(x) or x.numel() < FEWEST * x.shape[-1]:
        return F.linear(x, weight, bias)
    return product(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int, scale: float | None = None
) -> torch.Tensor:
    """Multi-head attention, softmax(scale · query · keyᵀ) · value in each head.

    Args:
        query: ``(b, n, num_heads · d)``.
        key: ``(b, m, num_heads · d)``.
        value: ``(b, m, num_heads · e)``.
        num_heads: how many.
        scale: of the scores; 1 / √d if not given.

    Returns:
        ``(b, n, num_heads · e)``.

    Example::

        >>> attend(torch.zeros(1, 5, 16), torch.zeros(1, 7, 16), torch.zeros(1, 7, 6), num_heads=2).shape
        torch.Size([1, 5, 6])
    """
    if torch.jit.is_scripting():
        return attend_plain(query, key, value, num_heads, scale)
    else:
        return attend_python(query, key, value, num_heads, scale)


def attend_plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int, scale: float | None
) -> torch.Tensor:
    """By PyTorch's attention."""
    q, k, v = split_heads(query, num_heads), split_heads(key, num_heads), split_heads(value, num_heads)
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)


def split_heads(tokens: torch.Tensor, num_heads: int) -> torch.Tensor:
    """(b, n, c) to (b, heads, n, c / heads)."""
    return tokens.unflatten(2, [num_heads, -1]).transpose(1, 2)


def attend_python(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int, scale: float | None
) -> torch.Tensor:
    """What TorchScript can't compile. PyTorch has a fused kernel only for values that are as wide as keys."""
    fused = key.shape[2] == value.shape[2] and (torch.is_grad_enabled() or query.shape[1] < FEWEST)
    if fused or not runs(query):
        return attend_plain(query, key, value, num_heads, scale)
    scale = (key.shape[2] // num_heads) ** -0.5 if scale is None else scale
    samples = zip(query * scale, key, value)
    return torch.stack([attend_sample(q, by_head(k, num_heads), v, num_heads) for q, k, v in samples])


def attend_sample(query: torch.Tensor, keys: torch.Tensor, value: torch.Tensor, num_heads: int) -> torch.Tensor:
    """One sample's tokens, ``keys`` :func:`by_head`; so many queries at a time that the scores take little memory."""
    mixed = []
    for part in query.split(max(1, SCORES // len(keys))):
        scores = product(part, keys, groups=num_heads).unflatten(1, [num_heads, -1])
        mixed.append(product(weigh(scores).flatten(1), value.T, groups=num_heads))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def weigh(scores: torch.Tensor) -> torch.Tensor:
    """Softmax along the last axis; weights too small to matter are 0."""
    weights = scores.softmax(-1)
    return F.threshold(weights, LEAST, 0, inplace=not weights.requires_grad)


def by_head(tokens: torch.Tensor, num_heads: int) -> torch.Tensor:
    """``(n, num_heads · d)`` to ``(num_heads · n, d)``."""
    return tokens.unflatten(1, [num_heads, -1]).transpose(0, 1).flatten(0, 1)


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None, groups: int = 1) -> torch.Tensor:
    """a · bᵀ + bias, ``(n, groups · d)`` and ``(m, d)`` to ``(n, m)``; ``m / groups`` rows of b belong to each group.

    As a 1×1 convolution of an image of n pixels.
    """
    image, weight = a.contiguous()[None, None].permute(0, 3, 1, 2), b.contiguous()[:, :, None, None]
    out = torch.mkldnn_convolution(image, weight, bias, [0, 0], [1, 1], [1, 1], groups)
    return out[0, :, 0].T


def runs(tokens: torch.Tensor) -> bool:
    """Whether these convolutions can stand in for PyTorch's products; see :func:`is_plain`."""
    return is_plain(tokens.flatten(0, -2)[None, None]) and torch.backends.mkldnn.is_available()
