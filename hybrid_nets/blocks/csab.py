"""Channel and spatial attention block of GLIMS (arXiv 2404.17854, section 3.4)."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import nn

__all__ = ["CSAB"]


class CSAB(nn.Module):
    """Scales features by a gate per channel and a gate per voxel, both read from the block's input.

    ``(b, channels, *)`` in, the same shape out.

    Args:
        spatial_dims: 2 or 3.
        channels: channels of input and output.
        constant_spatial_gate: compute the spatial gate as the authors' released code does. It normalises the gate's
            single channel with a LayerNorm over that channel, whose output is its bias whatever comes in: one constant
            for all voxels. The convolution's weights are then kept for their checkpoints but never used.

    Example::

        >>> CSAB(3, 12)(torch.zeros(1, 12, 8, 8, 8)).shape
        torch.Size([1, 12, 8, 8, 8])
    """

    def __init__(self, spatial_dims: int, channels: int, constant_spatial_gate: bool = False) -> None:
        super().__init__()
        self.constant_spatial_gate = constant_spatial_gate
        self.axes = list(range(2, 2 + spatial_dims))
        self.mlp = nn.Sequential(nn.Linear(channels, channels // 2), nn.ReLU(), nn.Linear(channels // 2, channels))
        self.conv = Conv[Conv.CONV, spatial_dims](2, 1, kernel_size=7, padding=3, bias=False)
        self.norm = nn.GroupNorm(1, 1)
        self.act = nn.PReLU()

    def channel_gate(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.mlp(x.mean(self.axes)) + self.mlp(x.amax(self.axes)))
        return gate.reshape(list(gate.shape) + [1] * len(self.axes))

    def spatial_gate(self, x: torch.Tensor) -> torch.Tensor:
        if self.constant_spatial_gate:
            return torch.sigmoid(self.act(self.norm.bias))
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.act(self.norm(self.conv(pooled))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.channel_gate(x) * self.spatial_gate(x)
