"""Multi-head attention among tokens, and the pre-norm transformer block around it."""

from __future__ import annotations

import torch
from monai.networks.blocks import MLPBlock
from monai.networks.layers import DropPath
from torch import nn

from hybrid_nets.blocks.products import FastLinear, attend

__all__ = ["SelfAttention", "TransformerBlock", "init_linear"]


class TransformerBlock(nn.Module):
    """LayerNorm and attention, LayerNorm and a two-layer GELU MLP, each pair around a residual.

    ``(b, *, dim)`` in, the same shape out; ``*`` are the axes that tokens lie on, one or more.

    Args:
        dim: size of a token.
        attn: what mixes the tokens, ``(b, *, dim)`` to the same shape.
        mlp_dim: size of the MLP's hidden layer.
        dropout: dropout after each layer of the MLP.
        drop_path_rate: stochastic depth of both residuals.
        eps: added to the LayerNorms' variance.

    Example::

        >>> TransformerBlock(32, SelfAttention(32, num_heads=4), mlp_dim=64)(torch.zeros(1, 5, 7, 32)).shape
        torch.Size([1, 5, 7, 32])
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp_dim: int,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = MLPBlock(dim, mlp_dim, dropout)
        self.mlp.linear1, self.mlp.linear2 = FastLinear(dim, mlp_dim), FastLinear(mlp_dim, dim)
        self.drop_path = DropPath(drop_path_rate)
        init_linear(self.mlp)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SelfAttention(nn.Module):
    """Every token reads every other one; ``(b, *, dim)`` in, the same shape out.

    Args:
        dim: size of a token.
        num_heads: attention heads.
        head_dim: size of a head; ``dim / num_heads`` if not given.
        qkv_bias: learn a bias of queries, keys and values.
        dropout: dropout after the output projection.

    Raises:
        ValueError: ``head_dim`` is not given and ``num_heads`` does not divide ``dim``.

    Example::

        >>> SelfAttention(32, num_heads=2, head_dim=64)(torch.zeros(1, 9, 32)).shape
        torch.Size([1, 9, 32])
    """

    def __init__(
        self, dim: int, num_heads: int, head_dim: int | None = None, qkv_bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if head_dim is None and dim % num_heads:
            raise ValueError(f"num_heads must divide the size of a token, got {num_heads} heads for {dim}.")
        self.num_heads = num_heads
        head_dim = dim // num_heads if head_dim is None else head_dim
        self.qkv = FastLinear(dim, 3 * num_heads * head_dim, bias=qkv_bias)
        self.proj = FastLinear(num_heads * head_dim, dim)
        self.dropout = nn.Dropout(dropout)
        init_linear(self)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        """The attention alone, before the output projection: (b, *, dim) to (b, *, num_heads · head_dim)."""
        q, k, v = self.qkv(x).flatten(1, -2).chunk(3, dim=-1)
        return attend(q, k, v, self.num_heads).unflatten(1, x.shape[1:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.proj(self.mix(x)))


def init_linear(module: nn.Module) -> None:
    """Give all linear layers inside ``module`` the weights transformers start from: normal, σ = 0.02, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
