"""Normalisation of each channel over its own voxels, exact and fast in the memory format our 3-D networks run in."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Norm
from torch import nn
from torch.autograd.function import once_differentiable

from hybrid_nets.blocks.slabs import Moments, NormAct, channels_last, covers, new_map, sample_tokens, slabs

__all__ = ["ChannelNorm", "NormActivation", "fuse_norm", "scale_and_shift"]


class ChannelNorm(nn.Module):
    """InstanceNorm: zero mean and unit variance per sample and channel of ``(b, channels, *)``.

    On a CPU in float32 the result of a volume is in ``channels_last_3d`` memory, the one format in which depthwise 3-D
    convolution has a fast CPU kernel: convolutions keep it, and those that don't are put right here. PyTorch's own
    norms either copy such a tensor to another layout (InstanceNorm) or sum a channel's voxels one by one in float32
    (GroupNorm: errors up to 1e-3 at 96³, measured). This one sums slab by slab. Everywhere else it is PyTorch's
    GroupNorm with one channel a group.

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
            return normalise(x, self.weight, self.bias, self.eps)
        else:
            return self.forward_python(x)

    def forward_python(self, x: torch.Tensor) -> torch.Tensor:
        """What TorchScript can't compile: a graph capture keeps its own layout, everything else may need gradients."""
        if covers(x):
            return NormFunction.apply(x, self.weight, self.bias, None, self.eps)
        if torch.jit.is_tracing():
            return normalise(x, self.weight, self.bias, self.eps)
        return F.group_norm(x, self.num_channels, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, affine={self.weight is not None}"


class NormActivation(nn.Sequential):
    """A ChannelNorm ``N`` and a ReLU or PReLU ``A``, on a CPU done in one go, and in place where no gradients are kept.

    ``(b, channels, *)`` in, the same shape out. What comes in must not be needed any more.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self.A(self.N(x))
        else:
            return self.forward_python(x)

    def forward_python(self, x: torch.Tensor) -> torch.Tensor:
        if not covers(x):
            return self.A(self.N(x))
        if torch.is_grad_enabled():
            return NormFunction.apply(x, self.N.weight, self.N.bias, self.slope(), self.N.eps)
        x = channels_last(x)
        for index in range(len(x)):
            tokens = sample_tokens(x, index)
            self.apply_(tokens, Moments.of(tokens))
        return x

    def slope(self) -> torch.Tensor:
        """Of the activation, below zero."""
        return self.A.weight if isinstance(self.A, nn.PReLU) else torch.zeros(1)

    def measured(self, moments: Moments) -> NormAct:
        """The same for a map of these moments."""
        return NormAct(moments, self.N.weight, self.N.bias, self.N.eps, self.slope())

    def apply_(self, tokens: torch.Tensor, moments: Moments) -> None:
        """The result of one sample's raw map ``(n, c)`` in its place, without gradients."""
        norm = self.measured(moments)
        for slab in slabs(tokens, tokens.shape[1]):
            norm.apply(tokens[slab], tokens[slab])


def fuse_norm(unit: nn.Module) -> nn.Module:
    """``unit``, a MONAI ``Convolution`` with ``adn_ordering="NA"``, its norm and activation as one module.

    Names of parameters stay. Units with another norm than ChannelNorm stay as they are.
    """
    # By name: a packed bundle brings its own copy of this package, which registers its own class with MONAI.
    if type(unit.adn.N).__name__ == ChannelNorm.__name__:
        unit.adn = NormActivation(OrderedDict(unit.adn.named_children()))
    return unit


def scale_and_shift(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What a BatchNorm in evaluation multiplies each channel by, and what it adds to that."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


class NormFunction(torch.autograd.Function):
    """Norm and activation; keeps the input alone for the backward pass, and makes one new map in each direction."""

    @staticmethod
    def forward(
        ctx,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        slope: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        x = channels_last(x)
        out, norms = new_map(x.shape), []
        for index in range(len(x)):
            tokens, goal = sample_tokens(x, index), sample_tokens(out, index)
            norms.append(NormAct(Moments.of(tokens), weight, bias, eps, slope))
            for slab in slabs(tokens, x.shape[1]):
                norms[-1].apply(tokens[slab], goal[slab])
        ctx.norms = norms
        ctx.save_for_backward(x)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        grad, out = channels_last(grad), new_map(x.shape)
        norms = [norm.again() for norm in ctx.norms]
        for index, norm in enumerate(norms):
            tokens, goal = sample_tokens(x, index), sample_tokens(out, index)
            for slab in slabs(tokens, x.shape[1]):
                norm.pull(tokens[slab], goal[slab].copy_(sample_tokens(grad, index)[slab]))
            norm.finish()
            for slab in slabs(tokens, x.shape[1]):
                norm.push(tokens[slab], goal[slab])
        sums = [sum(parts) for parts in zip(*((n.grad_weight, n.grad_bias, n.grad_slope) for n in norms))]
        return out, *(part if needed else None for part, needed in zip(sums, ctx.needs_input_grad[1:4])), None


def normalise(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """What TorchScript runs on a CPU: sums of 1024 voxels by matrix products, then in float64."""
    x = x.contiguous(memory_format=torch.channels_last_3d)
    tokens = x.permute(0, 2, 3, 4, 1).flatten(1, 3)
    b, n, c = tokens.shape
    size = 1024
    while n % size != 0:
        size = size // 2
    chunks = tokens.reshape(-1, size, c)
    ones = torch.ones(1, 1, 1, dtype=x.dtype, device=x.device).expand(chunks.shape[0], 1, size)
    mean = torch.bmm(ones, chunks).reshape(b, -1, c).double().sum(1, keepdim=True) / n
    square = torch.bmm(chunks.transpose(1, 2), chunks).diagonal(dim1=1, dim2=2).reshape(b, -1, c)
    square = square.double().sum(1, keepdim=True) / n
    scale = (torch.clamp(square - mean * mean, min=0.0) + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias
    out = torch.addcmul(shift.to(x.dtype), tokens, scale.to(x.dtype))
    return out.unflatten(1, x.shape[2:]).permute(0, 4, 1, 2, 3)


@Norm.factory_function("channel")
def channel_norm_factory(dim: int) -> type[ChannelNorm]:
    """Lets MONAI blocks name this norm: ``norm=("channel", {"affine": True})``."""
    return ChannelNorm
