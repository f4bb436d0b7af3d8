"""Dilated feature aggregator convolutional block of GLIMS (arXiv 2404.17854, section 3.2)."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from torch import nn

from hybrid_nets.blocks.conv import conv_norm_act
from hybrid_nets.blocks.norm import ChannelNorm
from hybrid_nets.blocks.recompute import recompute

__all__ = ["DACB"]


class DACB(nn.Module):
    """Three depthwise convolutions of growing reach, mixed by two pointwise ones, around a residual connection.

    Dilations 1, 2 and 3 see 3, 5 and 7 voxels per axis; ``(b, channels, *)`` in, the same shape out.

    Args:
        spatial_dims: 2 or 3.
        channels: channels of input and output.
        use_checkpoint: keep only the block's input in training and recompute the rest in the backward pass.

    Example::

        >>> DACB(3, 12)(torch.zeros(1, 12, 8, 8, 8)).shape
        torch.Size([1, 12, 8, 8, 8])
    """

    def __init__(self, spatial_dims: int, channels: int, use_checkpoint: bool = False) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.branches = nn.ModuleList(
            Convolution(
                spatial_dims,
                channels,
                channels,
                kernel_size=3,
                dilation=dilation,
                groups=channels,
                adn_ordering="NA",
                norm=("channel", {"affine": True}),
                act="prelu",
                bias=False,
            )
            for dilation in (1, 2, 3)
        )
        self.widen = conv_norm_act(spatial_dims, 3 * channels, 2 * channels)
        self.narrow = conv_norm_act(spatial_dims, 2 * channels, channels)
        self.norm = ChannelNorm(channels)
        self.act = nn.PReLU()

    def aggregate(self, x: torch.Tensor) -> torch.Tensor:
        mixed = torch.cat([branch(x) for branch in self.branches], dim=1)
        return self.act(self.norm(self.narrow(self.widen(mixed)) + x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self.aggregate(x)
        else:
            return recompute(self.use_checkpoint, self.aggregate, x)
