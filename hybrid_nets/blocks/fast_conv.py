"""3-D convolution on a CPU: by oneDNN also where PyTorch would not take it, and with faster gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import nn

from hybrid_nets.blocks.depthwise import weight_grad_2d
from hybrid_nets.blocks.layout import is_plain
from hybrid_nets.blocks.slabs import captured, channels_last

__all__ = ["FastConv3d", "FastConvolution", "conv3d", "fast_conv"]


class FastConv3d(nn.Conv3d):
    """PyTorch's ``Conv3d`` with zero padding, ``(b, in_channels, d, h, w)`` in, ``(b, out_channels, *)`` out.

    PyTorch takes its slow native kernel where batch · channels · depth · height, without the width, is at most 20480,
    a rule made for 2-D: with 32 channels at 24³ that is 27 ms instead of 2 (two cores, PyTorch 2.13). And oneDNN's
    gradients of pointwise and of depthwise 3-D convolutions are slow, so these are matrix products and sums of 2-D
    ones here.

    Example::

        >>> FastConv3d(2, 4, kernel_size=3, padding=1)(torch.zeros(1, 2, 6, 4, 5)).shape
        torch.Size([1, 4, 6, 4, 5])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self._conv_forward(x, self.weight, self.bias)
        else:
            return convolve(self, x)


class FastConvolution(Convolution):
    """MONAI's ``Convolution``, not transposed; its 3-D convolution is that of :class:`FastConv3d`.

    Example::

        >>> FastConvolution(3, 2, 4, kernel_size=3)(torch.zeros(1, 2, 6, 4, 5)).shape
        torch.Size([1, 4, 6, 4, 5])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self.adn(self.conv(x))
        else:
            return self.adn(convolve(self.conv, x))


def fast_conv(spatial_dims: int) -> type[nn.Conv2d | nn.Conv3d]:
    """The convolution of so many axes, 2 or 3."""
    return nn.Conv2d if spatial_dims == 2 else FastConv3d


def convolve(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """``conv(x)``."""
    if not isinstance(conv, nn.Conv3d):
        return conv(x)
    weight, bias = conv.weight, conv.bias
    if x.device.type != "cpu" or type(x) is not torch.Tensor or captured() or not torch.backends.mkldnn.is_available():
        return conv._conv_forward(x, weight, bias)
    if torch.is_grad_enabled() and (is_pointwise(conv) or is_depthwise(conv)):
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        if is_depthwise(conv):
            out = DepthwiseFunction.apply(x, weight)
            return out if bias is None else out + bias[:, None, None, None]
        return pointwise(x, weight.flatten(1), bias)
    return conv3d(x, weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)


def conv3d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    padding: Sequence[int] = (0, 0, 0),
    stride: Sequence[int] = (1, 1, 1),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> torch.Tensor:
    """``F.conv3d``, by oneDNN wherever that can be."""
    if is_plain(x) and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, groups)
    return F.conv3d(x, weight, bias, stride, padding, dilation, groups)


def is_pointwise(conv: nn.Conv3d) -> bool:
    return conv.kernel_size == conv.stride == (1, 1, 1) and conv.groups == 1 and set(conv.padding) == {0}


def is_depthwise(conv: nn.Conv3d) -> bool:
    """One kernel for each channel, whose result has the input's size."""
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.stride == conv.dilation == (1, 1, 1)
        and all(side == 2 * pad + 1 for side, pad in zip(conv.kernel_size, conv.padding))
    )


def pointwise(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """By a matrix product, in the memory format that ``x`` has."""
    if not x.is_contiguous():
        return F.linear(x.movedim(1, -1), weight, bias).movedim(-1, 1)
    out = (weight @ x.flatten(2)).unflatten(2, x.shape[2:])
    return out if bias is None else out + bias[:, None, None, None]


class DepthwiseFunction(torch.autograd.Function):
    """Depthwise convolution of ``(b, c, d, h, w)`` by ``(c, 1, *sides)``, zero padded to keep its size.

    Computed with the channels innermost in memory; results have the memory format of what came in.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.was_contiguous = x.is_contiguous()
        x = channels_last(x)
        ctx.save_for_backward(x, weight)
        out = same_size(x, weight)
        return out.contiguous() if ctx.was_contiguous else out

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = channels_last(grad)
        needs_input, needs_weight = ctx.needs_input_grad
        pulled = same_size(grad, weight.flip(2, 3, 4)) if needs_input else None
        if pulled is not None and ctx.was_contiguous:
            pulled = pulled.contiguous()
        return pulled, weight_grad(x, grad, weight) if needs_weight else None


def same_size(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv3d(x, weight, padding=[side // 2 for side in weight.shape[2:]], groups=len(weight))


def weight_grad(x: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Slice by slice of the kernel, whose place in the volume is a shift along the depth."""
    out, depth, middle = torch.zeros_like(weight), x.shape[2], weight.shape[2] // 2
    for tap in range(weight.shape[2]):
        shift = tap - middle
        first, last = max(0, -shift), min(depth, depth - shift)
        if first < last:
            images = x[:, :, first + shift : last + shift].transpose(1, 2).flatten(0, 1)
            seen = grad[:, :, first:last].transpose(1, 2).flatten(0, 1)
            out[:, :, tap] = weight_grad_2d(images, seen, weight[:, :, tap])
    return out
