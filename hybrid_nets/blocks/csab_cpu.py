"""The pooling and the product of GLIMS's attention gates on a CPU, in few passes over memory.

Both walk over the volume in slabs (:mod:`hybrid_nets.blocks.slabs`). What lies between them, the gates, is small.
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

from hybrid_nets.blocks.slabs import FOLD, affine, as_rows, channels_last, new_map, sample_tokens, slabs

__all__ = ["GateFunction", "PoolFunction"]


class PoolFunction(torch.autograd.Function):
    """``apply(x)`` for ``x`` (b, c, d, h, w) that ``covers`` accepts.

    Returns:
        Each channel's mean and maximum (b, c), and each voxel's maximum and mean (b, 2, d, h, w).
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, c = channels_last(x), x.shape[1]
        pooled = x.new_empty(len(x), 2, *x.shape[2:])
        mean, largest = torch.zeros(x.shape[:2]), torch.full(x.shape[:2], -torch.inf)
        for index in range(len(x)):
            tokens, place = sample_tokens(x, index), pooled[index].flatten(1)
            for slab in slabs(tokens, c):
                rows = as_rows(tokens[slab])
                place[0, slab], place[1, slab] = tokens[slab].amax(1), tokens[slab].mean(1)
                mean[index] += rows.sum(0).view(-1, c).sum(0) / len(tokens)
                largest[index] = torch.maximum(largest[index], rows.amax(0).view(-1, c).amax(0))
        ctx.save_for_backward(x, largest, pooled)
        return mean, largest, pooled

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: torch.Tensor) -> torch.Tensor:
        x, largest, pooled = ctx.saved_tensors
        out = new_map(x.shape)
        for index in range(len(x)):
            own = (part[index] for part in grads)
            unpool(
                sample_tokens(x, index), largest[index], pooled[index, 0].view(-1, 1), *own, sample_tokens(out, index)
            )
        return out


def unpool(
    tokens: torch.Tensor,
    largest: torch.Tensor,
    top: torch.Tensor,
    grad_mean: torch.Tensor,
    grad_largest: torch.Tensor,
    grad_pooled: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """One sample's gradient. As for ``amax``, the gradient of a maximum is shared evenly by all that reach it."""
    n, c = tokens.shape
    grad_top, grad_middle = grad_pooled.flatten(1)[..., None]
    largest, ones = largest.repeat(FOLD), torch.ones(c, 1)

    def hits(slab: slice) -> torch.Tensor:
        """1 where a channel has its maximum, 0 elsewhere, in rows."""
        rows = as_rows(tokens[slab])
        return torch.eq(rows, largest[: rows.shape[1]], out=torch.empty_like(rows))

    ties = sum(hits(slab).sum(0).view(-1, c).sum(0) for slab in slabs(tokens, c))
    scale, shift = (grad_largest / ties).repeat(FOLD), (grad_mean / n).repeat(FOLD)
    for slab in slabs(tokens, c):
        part = torch.eq(tokens[slab], top[slab], out=torch.empty_like(tokens[slab]))
        torch.addcmul(grad_middle[slab] / c, part, grad_top[slab] / (part @ ones), out=out[slab])
        as_rows(out[slab]).add_(affine(shift, hits(slab), scale))


class GateFunction(torch.autograd.Function):
    """``apply(x, channel_gate, spatial_gate, in_place)``, the product of (b, c, d, h, w), (b, c) and (b, 1, d, h, w).

    With ``in_place`` the result takes the memory of ``x``; there is no backward pass then.
    """

    @staticmethod
    def forward(
        ctx, x: torch.Tensor, channel_gate: torch.Tensor, spatial_gate: torch.Tensor, in_place: bool
    ) -> torch.Tensor:
        x = channels_last(x)
        out = x if in_place else new_map(x.shape)
        for index in range(len(x)):
            tokens, goal, voxels = sample_tokens(x, index), sample_tokens(out, index), spatial_gate[index].view(-1, 1)
            for slab in slabs(tokens, x.shape[1]):
                scale_channels(tokens[slab], channel_gate[index], goal[slab]).mul_(voxels[slab])
        ctx.save_for_backward(x, channel_gate, spatial_gate)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple:
        x, channel_gate, spatial_gate = ctx.saved_tensors
        grad, out = channels_last(grad), new_map(x.shape)
        grad_channels, grad_voxels = torch.zeros_like(channel_gate), torch.empty_like(spatial_gate)
        for index in range(len(x)):
            tokens, goal, voxels = sample_tokens(x, index), sample_tokens(grad, index), spatial_gate[index].view(-1, 1)
            place, pull = sample_tokens(out, index), grad_voxels[index].view(-1, 1)
            for slab in slabs(tokens, x.shape[1]):
                product = torch.mul(tokens[slab], goal[slab])
                torch.mm(product, channel_gate[index][:, None], out=pull[slab])
                grad_channels[index] += (product.T @ voxels[slab]).flatten()
                scale_channels(goal[slab], channel_gate[index], place[slab]).mul_(voxels[slab])
        return out, grad_channels, grad_voxels, None


def scale_channels(tokens: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Tokens ``(n, c)`` times ``gate`` ``(c,)``."""
    rows = as_rows(tokens)
    torch.mul(rows, gate.repeat(rows.shape[1] // len(gate)), out=as_rows(out))
    return out
