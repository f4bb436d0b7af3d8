"""Dilated feature aggregator convolutional block of GLIMS (arXiv 2404.17854, section 3.2)."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from torch import nn

from hybrid_nets.blocks.conv import conv_norm_act
from hybrid_nets.blocks.dacb_cpu import DACBFunction
from hybrid_nets.blocks.norm import ChannelNorm
from hybrid_nets.blocks.recompute import recompute
from hybrid_nets.blocks.slabs import covers

__all__ = ["DACB"]


class DACB(nn.Module):
    """Three depthwise convolutions of growing reach, mixed by two pointwise ones, around a residual connection.

    Dilations 1, 2 and 3 see 3, 5 and 7 voxels per axis; ``(b, channels, *)`` in, the same shape out.

    Args:
        spatial_dims: 2 or 3.
        channels: channels of input and output.
        use_checkpoint: keep only the block's input in training and recompute the rest in the backward pass; on a CPU it
            is always so.
        in_place: on a CPU where no gradients are kept, the result takes the memory of the input, which must not be
            needed any more.

    Example::

        >>> DACB(3, 12)(torch.zeros(1, 12, 8, 8, 8)).shape
        torch.Size([1, 12, 8, 8, 8])
    """

    def __init__(self, spatial_dims: int, channels: int, use_checkpoint: bool = False, in_place: bool = False) -> None:
        super().__init__()
        self.use_checkpoint, self.in_place = use_checkpoint, in_place
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

    def on_cpu(self, x: torch.Tensor) -> torch.Tensor:
        """The same by :class:`DACBFunction`."""
        in_place = self.in_place and not torch.is_grad_enabled()
        units = [(unit.conv.weight, unit.adn.N.weight, unit.adn.N.bias, unit.adn.A.weight) for unit in self.branches]
        pairs = [weight for unit in (self.widen, self.narrow) for weight in (unit.conv.weight, unit.adn.A.weight)]
        weights = [*(weight for kind in zip(*units) for weight in kind), *pairs, self.act.weight]
        return DACBFunction.apply(x, self.norm.eps, in_place, *weights)

    def aggregate(self, x: torch.Tensor) -> torch.Tensor:
        mixed = torch.cat([branch(x) for branch in self.branches], dim=1)
        return self.act(self.norm(self.narrow(self.widen(mixed)) + x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self.aggregate(x)
        else:
            return self.on_cpu(x) if covers(x) else recompute(self.use_checkpoint, self.aggregate, x)
