"""Normalisation of each channel over its own voxels, exact and fast in the memory format our 3-D networks run in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Norm
from torch import nn

__all__ = ["ChannelNorm"]


class ChannelNorm(nn.Module):
    """InstanceNorm: zero mean and unit variance per sample and channel of ``(b, channels, *)``.

    On a CPU in float32 the result of a volume is in ``channels_last_3d`` memory, the one format in which depthwise 3-D
    convolution has a fast CPU kernel: convolutions keep it, and those that don't are put right here. PyTorch's own
    norms either copy such a tensor to another layout (InstanceNorm) or sum a channel's voxels one by one in float32
    (GroupNorm: errors up to 1e-3 at 96³, measured). This one sums in chunks, by matrix products. Everywhere else it is
    PyTorch's GroupNorm with one channel a group.

    Args:
        num_channels: channels of input and output.
        affine: learn a scale and a shift per channel.
        eps: added to the variance.

    Example::

        >>> ChannelNorm(8)(torch.ones(1, 8, 4, 4, 4)).abs().max()
        tensor(0.)
    """

    def __init__(self, num_channels: int, affine: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_channels, self.eps = num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if affine else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda or x.dtype != torch.float32 or x.ndim != 5:
            return F.group_norm(x, self.num_channels, self.weight, self.bias, self.eps)
        if torch.jit.is_scripting():
            return normalise(channels_last(x), self.weight, self.bias, self.eps)[0]
        else:
            return self.forward_python(x)

    def forward_python(self, x: torch.Tensor) -> torch.Tensor:
        """What TorchScript can't compile: a graph capture keeps its own layout, everything else may need gradients."""
        if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
            return F.group_norm(x, self.num_channels, self.weight, self.bias, self.eps)
        if torch.jit.is_tracing():
            return normalise(channels_last(x), self.weight, self.bias, self.eps)[0]
        return NormFunction.apply(channels_last(x), self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, affine={self.weight is not None}"


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """``x`` (b, c, d, h, w) with channels innermost in memory, copied only where it is not so already."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def as_tokens(x: torch.Tensor) -> torch.Tensor:
    """(b, c, d, h, w) in channels-last memory to (b, voxels, c), without a copy."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def as_map(tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`as_tokens`."""
    return tokens.unflatten(1, like.shape[2:]).permute(0, 4, 1, 2, 3)


def sums(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Per sample and channel of tokens (b, n, c): the sums of ``x`` and of ``x · y``, (b, 1, c) in float64."""
    b, n, c = x.shape
    size = 1024  # tokens summed in float32 before the sums are added in float64
    while n % size != 0:
        size = size // 2
    x_chunks, y_chunks = x.reshape(-1, size, c), y.reshape(-1, size, c)
    ones = torch.ones(1, 1, 1, dtype=x.dtype, device=x.device).expand(x_chunks.shape[0], 1, size)
    total = torch.bmm(ones, x_chunks).reshape(b, -1, c)
    product = torch.bmm(x_chunks.transpose(1, 2), y_chunks).diagonal(dim1=1, dim2=2).reshape(b, -1, c)
    return total.double().sum(1, keepdim=True), product.double().sum(1, keepdim=True)


def normalise(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The normalised map, and for the backward pass mean and 1 / standard deviation, (b, 1, c) float64."""
    tokens = as_tokens(x)
    total, square = sums(tokens, tokens)
    mean = total / tokens.shape[1]
    inverse_std = (torch.clamp(square / tokens.shape[1] - mean * mean, min=0.0) + eps).rsqrt()
    scale = inverse_std if weight is None else inverse_std * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return as_map(torch.addcmul(shift.to(x.dtype), tokens, scale.to(x.dtype)), x), mean, inverse_std


class NormFunction(torch.autograd.Function):
    """Keeps the input alone for the backward pass, and makes one new map in each direction."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        y, mean, inverse_std = normalise(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, inverse_std)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, inverse_std = ctx.saved_tensors
        tokens = as_tokens(x)
        grad = as_tokens(channels_last(grad))
        total, with_x = sums(grad, tokens)
        with_normalised = (with_x - mean * total) * inverse_std
        scale = inverse_std if weight is None else inverse_std * weight
        slope = -scale * inverse_std * with_normalised / tokens.shape[1]
        shift = -scale * total / tokens.shape[1] - slope * mean
        out = torch.addcmul(shift.to(x.dtype), tokens, slope.to(x.dtype)).addcmul_(grad, scale.to(x.dtype))
        affine = (
            (None, None) if weight is None else (with_normalised.sum((0, 1)).to(x.dtype), total.sum((0, 1)).to(x.dtype))
        )
        return as_map(out, x), *affine, None


@Norm.factory_function("channel")
def channel_norm_factory(dim: int) -> type[ChannelNorm]:
    """Lets MONAI blocks name this norm: ``norm=("channel", {"affine": True})``."""
    return ChannelNorm
