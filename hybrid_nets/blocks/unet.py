"""The convolutional units of a plain U-Net: convolution - norm - ReLU, once, twice, and after upsampling."""

from __future__ import annotations

from torch import nn

from hybrid_nets.blocks.fast_conv import FastConvolution
from hybrid_nets.blocks.norm import fuse_norm

__all__ = ["conv_norm_relu", "double_conv", "up_conv"]


def conv_norm_relu(
    spatial_dims: int, in_channels: int, out_channels: int, norm: str | tuple = "batch", kernel_size: int = 3
) -> nn.Module:
    """Convolution - norm - ReLU, size kept; without the bias that the norm would subtract again with the mean.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input ``(b, in_channels, *)``.
        out_channels: channels of the output.
        norm: a norm as MONAI names it; one that subtracts each channel's mean, as "batch" and "channel" do.
        kernel_size: side of the kernel in voxels, odd.

    Example::

        >>> import torch
        >>> conv_norm_relu(2, 3, 8)(torch.zeros(2, 3, 6, 4)).shape
        torch.Size([2, 8, 6, 4])
    """
    unit = FastConvolution(
        spatial_dims,
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        adn_ordering="NA",
        norm=norm,
        act="relu",
        bias=False,
    )
    return fuse_norm(unit)


def double_conv(spatial_dims: int, in_channels: int, out_channels: int, norm: str | tuple = "batch") -> nn.Sequential:
    """Two 3-voxel :func:`conv_norm_relu`, one after the other."""
    return nn.Sequential(
        conv_norm_relu(spatial_dims, in_channels, out_channels, norm),
        conv_norm_relu(spatial_dims, out_channels, out_channels, norm),
    )


def up_conv(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    norm: str | tuple = "batch",
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> nn.Sequential:
    """Twice the resolution by interpolation, then a 3-voxel :func:`conv_norm_relu`.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input ``(b, in_channels, *)``.
        out_channels: channels of the output.
        norm: see :func:`conv_norm_relu`.
        mode: "nearest", "bilinear" (2-D) or "trilinear" (3-D), as ``torch.nn.Upsample`` names them.
        align_corners: for the linear modes, whether the outermost voxels' centres stay where they are.

    Example::

        >>> import torch
        >>> up_conv(3, 8, 4, "channel")(torch.zeros(1, 8, 2, 3, 4)).shape
        torch.Size([1, 4, 4, 6, 8])
    """
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode=mode, align_corners=align_corners),
        conv_norm_relu(spatial_dims, in_channels, out_channels, norm),
    )
