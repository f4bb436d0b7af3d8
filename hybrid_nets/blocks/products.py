"""Matrix products at the speed of convolutions.

On a CPU PyTorch computes products of float32 matrices by one library and convolutions by another, which is twice as
fast at products of some hundred rows and columns (two AVX-512 cores: 80 and 170 GMAC/s for 784 × 120 × 784).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hybrid_nets.blocks.layout import is_plain

__all__ = ["attend"]


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention, softmax(scale · query · keyᵀ) · value.

    ``(b, heads, n, d)``, ``(b, heads, m, d)`` and ``(b, heads, m, e)`` to ``(b, heads, n, e)``. For ``d`` and
    ``e`` that differ, which PyTorch has no fused CPU kernel for; elsewhere this is PyTorch's.

    Example::

        >>> attend(torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 7, 8), torch.zeros(1, 2, 7, 3), 1.0).shape
        torch.Size([1, 2, 5, 3])
    """
    if torch.jit.is_scripting():
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    else:
        return attend_python(query, key, value, scale)


def attend_python(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """What TorchScript can't compile."""
    if not is_plain(query):
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    heads = zip((query * scale).flatten(0, 1), key.flatten(0, 1), value.transpose(2, 3).flatten(0, 1))
    mixed = [product(product(q, k).softmax(1), v) for q, k, v in heads]
    return torch.stack(mixed).unflatten(0, query.shape[:2])


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a · bᵀ, ``(n, d)`` and ``(m, d)`` to ``(n, m)``: a 1×1 convolution of an image of n pixels with d channels."""
    image = a.contiguous()[None, :, None].permute(0, 3, 1, 2)
    return F.conv2d(image, b[:, :, None, None])[0, :, :, 0].T
