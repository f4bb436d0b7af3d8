"""Convolution, per-channel normalisation and PReLU: the unit most of our 3-D blocks are made of."""

from __future__ import annotations

from monai.networks.blocks import Convolution
from torch import nn

import hybrid_nets.blocks.norm  # noqa: F401  # makes "channel" a norm that MONAI's blocks know

__all__ = ["conv_norm_act"]


def conv_norm_act(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    transposed: bool = False,
) -> nn.Module:
    """Convolution - norm - PReLU with one slope; ``kernel_size == stride`` gives non-overlapping down- or upsampling.

    The convolution has no bias: the norm that follows subtracts each channel's mean, and any bias with it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input ``(b, in_channels, *)``.
        out_channels: channels of the output.
        kernel_size: side of the kernel in voxels.
        stride: step of the kernel; the upsampling factor when ``transposed``.
        transposed: upsample with a transposed convolution.

    Example::

        >>> import torch
        >>> conv_norm_act(3, 4, 8, kernel_size=2, stride=2)(torch.zeros(1, 4, 8, 8, 8)).shape
        torch.Size([1, 8, 4, 4, 4])
    """
    return Convolution(
        spatial_dims,
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        strides=stride,
        padding=0,
        output_padding=0 if transposed else None,
        is_transposed=transposed,
        adn_ordering="NA",
        norm="channel",
        act="prelu",
        bias=False,
    )
