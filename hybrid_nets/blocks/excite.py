"""Squeeze and excitation: channels weighted by what the whole map holds."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Scales each channel of ``(b, channels, *)`` by a gate in (0, 1) that two linear layers make of all means.

    Args:
        channels: channels of input and output.
        reduction: how many times smaller the hidden layer is, which has at least one unit.

    Example::

        >>> SqueezeExcite(32, reduction=8)(torch.zeros(1, 32, 6, 4)).shape
        torch.Size([1, 32, 6, 4])
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate(x.flatten(2).mean(2))
        return x * gate.view(gate.shape + (1,) * (x.ndim - 2))
