"""Channel and spatial attention block of GLIMS (arXiv 2404.17854, section 3.4)."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from hybrid_nets.blocks.csab_cpu import GateFunction, PoolFunction
from hybrid_nets.blocks.folded_conv import folded_conv3d
from hybrid_nets.blocks.slabs import covers

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
        in_place: in 3-D on a CPU where no gradients are kept, the result takes the memory of the input, which must not
            be needed any more.

    Example::

        >>> CSAB(3, 12)(torch.zeros(1, 12, 8, 8, 8)).shape
        torch.Size([1, 12, 8, 8, 8])
    """

    def __init__(
        self, spatial_dims: int, channels: int, constant_spatial_gate: bool = False, in_place: bool = False
    ) -> None:
        super().__init__()
        self.constant_spatial_gate, self.in_place = constant_spatial_gate, in_place
        self.axes = list(range(2, 2 + spatial_dims))
        self.mlp = nn.Sequential(nn.Linear(channels, channels // 2), nn.ReLU(), nn.Linear(channels // 2, channels))
        self.conv = Conv[Conv.CONV, spatial_dims](2, 1, kernel_size=7, padding=3, bias=False)
        self.norm = nn.GroupNorm(1, 1)
        self.act = nn.PReLU()

    def channel_gate(self, mean: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
        """From each channel's mean and maximum (b, c), a gate (b, c, 1, …)."""
        gate = torch.sigmoid(self.mlp(mean) + self.mlp(largest))
        return gate.reshape(list(gate.shape) + [1] * len(self.axes))

    def spatial_gate(self, pooled: torch.Tensor) -> torch.Tensor:
        """From each voxel's maximum and mean (b, 2, *), a gate (b, 1, *); constant as released."""
        if self.constant_spatial_gate:
            return torch.sigmoid(self.act(self.norm.bias))
        return torch.sigmoid(self.act(self.norm(self.convolve(pooled))))

    def convolve(self, pooled: torch.Tensor) -> torch.Tensor:
        """The convolution; on a CPU with its voxels as channels."""
        if torch.jit.is_scripting():
            return self.conv(pooled)
        else:
            return folded_conv3d(pooled, self.conv.weight) if covers(pooled) else self.conv(pooled)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self.gate(x)
        else:
            return self.on_cpu(x) if covers(x) else self.gate(x)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * self.channel_gate(x.mean(self.axes), x.amax(self.axes)) * self.spatial_gate(pooled)

    def on_cpu(self, x: torch.Tensor) -> torch.Tensor:
        """The same by functions of their own."""
        mean, largest, pooled = PoolFunction.apply(x)
        gates = self.channel_gate(mean, largest).flatten(1), self.spatial_gate(pooled).expand(len(x), 1, *x.shape[2:])
        return GateFunction.apply(x, *gates, self.in_place and not torch.is_grad_enabled())
