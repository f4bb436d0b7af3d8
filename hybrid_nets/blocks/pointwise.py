"""A pointwise convolution of maps side by side on a CPU, without a copy of them together.

Forward and backward pass are matrix products, slab by slab (:mod:`hybrid_nets.blocks.slabs`).
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable

from hybrid_nets.blocks.slabs import channels_last, new_map, project, sample_tokens, slabs

__all__ = ["PointwiseFunction"]


class PointwiseFunction(torch.autograd.Function):
    """``apply(weight, bias, *maps)``, ``(o, Σ c_i, …)``, ``(o,)`` or None and ``(b, c_i, d, h, w)``.

    The maps are such that ``covers`` accepts; the result is ``(b, o, d, h, w)``.
    """

    @staticmethod
    def forward(ctx, weight: torch.Tensor, bias: torch.Tensor | None, *maps: torch.Tensor) -> torch.Tensor:
        maps = [channels_last(part) for part in maps]
        out = new_map((len(maps[0]), len(weight), *maps[0].shape[2:]))
        for index in range(len(out)):
            parts, goal = [sample_tokens(part, index) for part in maps], sample_tokens(out, index)
            for slab in slabs(goal, max(weight.shape[:2])):
                project([part[slab] for part in parts], weight.flatten(1), goal[slab], bias)
        ctx.save_for_backward(weight, *maps)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple:
        weight, *maps = ctx.saved_tensors
        needs_weight, needs_bias, *needs_maps = ctx.needs_input_grad
        grad, weights = channels_last(grad), weight.flatten(1).split([part.shape[1] for part in maps], 1)
        grad_weights = [torch.zeros_like(part) for part in weights]
        grad_bias = torch.zeros(len(weight)) if needs_bias else None
        grad_maps = [new_map(part.shape) if needed else None for part, needed in zip(maps, needs_maps)]
        for index in range(len(grad)):
            pull = sample_tokens(grad, index)
            for slab in slabs(pull, max(weight.shape[:2])):
                if needs_bias:
                    grad_bias += pull[slab].sum(0)
                for i, part in enumerate(maps):
                    grad_weights[i] += pull[slab].T @ sample_tokens(part, index)[slab]
                    if needs_maps[i]:
                        torch.mm(pull[slab], weights[i], out=sample_tokens(grad_maps[i], index)[slab])
        return torch.cat(grad_weights, 1).view(weight.shape) if needs_weight else None, grad_bias, *grad_maps
