"""The dilated aggregator of GLIMS on a CPU: the same numbers as its modules, in few passes over memory.

Forward and backward pass walk over the volume in slabs (:mod:`hybrid_nets.blocks.slabs`). Normalisation needs sums over
the whole volume, so each norm ends a pass. For the backward pass only the block's input is kept; what lies between is
computed again, which takes less time than fresh memory for it would.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from hybrid_nets.blocks.depthwise import depthwise, depthwise_weight_grad
from hybrid_nets.blocks.slabs import (
    Moments,
    NormAct,
    as_images,
    as_tokens,
    channels_last,
    new_map,
    project,
    slabs,
    work_maps,
)

__all__ = ["DACBFunction"]


class Weights(NamedTuple):
    """What the block learns; ``kernel``, ``weight``, ``bias`` and ``slope`` of the branches with dilation 1, 2, 3."""

    kernel1: torch.Tensor
    kernel2: torch.Tensor
    kernel3: torch.Tensor
    weight1: torch.Tensor
    weight2: torch.Tensor
    weight3: torch.Tensor
    bias1: torch.Tensor
    bias2: torch.Tensor
    bias3: torch.Tensor
    slope1: torch.Tensor
    slope2: torch.Tensor
    slope3: torch.Tensor
    widen: torch.Tensor
    widen_slope: torch.Tensor
    narrow: torch.Tensor
    narrow_slope: torch.Tensor
    slope: torch.Tensor


class DACBFunction(torch.autograd.Function):
    """``apply(x, eps, in_place, *Weights)`` for ``x`` (b, c, d, h, w) that ``covers`` accepts.

    With ``in_place`` the result takes the memory of ``x``; there is no backward pass then.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, eps: float, in_place: bool, *weights: torch.Tensor) -> torch.Tensor:
        x = channels_last(x)
        out = x if in_place else new_map(x.shape)
        ctx.norms = []
        for index in range(len(x)):
            run = Run(as_images(x, index), Weights(*weights))
            ctx.norms.append(run.forward(as_images(out, index), eps))
        ctx.save_for_backward(x, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple:
        x, *weights = ctx.saved_tensors
        grad, grad_x = channels_last(grad), new_map(x.shape)
        total = [torch.zeros_like(weight) for weight in weights]
        for index, norms in enumerate(ctx.norms):
            run = Run(as_images(x, index), Weights(*weights))
            run.repeat(norms)
            for goal, part in zip(total, run.backward(as_images(grad, index), as_images(grad_x, index))):
                goal += part.reshape(goal.shape)
        return grad_x, None, None, *total


class Run:
    """One sample's pass: ``x`` (d, c, h, w) and, as tokens, the raw maps before their norms of the stages after it."""

    def __init__(self, x: torch.Tensor, weights: Weights) -> None:
        self.images, self.x, self.weights, self.channels = x, as_tokens(x), weights, x.shape[1]

    def slabs(self) -> Iterator[slice]:
        return slabs(self.x, 3 * self.channels)

    def forward(self, out: torch.Tensor, eps: float) -> list[NormAct]:
        """The block's result in ``out``, which may be ``x``; returns the norms, which ``repeat`` needs."""
        c, w = self.channels, self.weights
        *self.raw, wide = work_maps(self.images, [c, c, c, 2 * c])
        # By the time that the thin map is made, those of the branches are no longer needed.
        self.wide, self.thin, self.total = as_tokens(wide), as_tokens(self.raw[0]), as_tokens(out)
        self.norms = [NormAct(m, w[3 + i], w[6 + i], eps, w[9 + i]) for i, m in enumerate(self.convolve(True))]
        self.wide_norm = NormAct(self.widen(True), None, None, eps, w.widen_slope)
        self.thin_norm = NormAct(self.narrow(True), None, None, eps, w.narrow_slope)
        self.norm_out = NormAct(self.add(True), None, None, eps, w.slope)
        for slab in self.slabs():
            self.norm_out.apply(self.total[slab], self.total[slab])
        return [*self.norms, self.wide_norm, self.thin_norm, self.norm_out]

    def repeat(self, norms: list[NormAct]) -> None:
        """Make the raw maps again, for the backward pass."""
        c = self.channels
        *self.raw, self.spare, wide, thin, total, grad_wide = work_maps(self.images, [c, c, c, c, 2 * c, c, c, 2 * c])
        self.wide, self.thin, self.total, self.grad_wide = map(as_tokens, (wide, thin, total, grad_wide))
        *self.norms, self.wide_norm, self.thin_norm, self.norm_out = (norm.again() for norm in norms)
        self.convolve(False), self.widen(False), self.narrow(False), self.add(False)

    def convolve(self, measure: bool) -> list[Moments]:
        """The three branches' raw maps, images ``(d, c, h, w)``."""
        moments = [Moments(self.channels) for _ in self.raw]
        for i, goal in enumerate(self.raw):
            for place, part in depthwise(self.images, self.weights[i], i + 1):
                if measure:
                    moments[i].add(as_tokens(part))
                goal[place] = part
        return moments

    def branches(self) -> list[tuple[NormAct, torch.Tensor]]:
        """Each branch's norm and raw map, as tokens."""
        return [(norm, as_tokens(raw)) for norm, raw in zip(self.norms, self.raw)]

    def widen(self, measure: bool) -> Moments:
        moments, branches, weight = Moments(2 * self.channels), self.branches(), self.weights.widen.flatten(1)
        for slab in self.slabs():
            project([norm.apply(raw[slab]) for norm, raw in branches], weight, self.wide[slab])
            if measure:
                moments.add(self.wide[slab])
        return moments

    def narrow(self, measure: bool) -> Moments:
        moments, weight = Moments(self.channels), self.weights.narrow.flatten(1)
        for slab in self.slabs():
            project([self.wide_norm.apply(self.wide[slab])], weight, self.thin[slab])
            if measure:
                moments.add(self.thin[slab])
        return moments

    def add(self, measure: bool) -> Moments:
        """The residual connection's sum."""
        moments = Moments(self.channels)
        for slab in self.slabs():
            torch.add(self.thin_norm.apply(self.thin[slab]), self.x[slab], out=self.total[slab])
            if measure:
                moments.add(self.total[slab])
        return moments

    def backward(self, grad: torch.Tensor, grad_x: torch.Tensor) -> list[torch.Tensor]:
        """The gradient of ``x`` in ``grad_x`` ``(d, c, h, w)``; returns those of the weights, in their order."""
        w, grad, goal = self.weights, as_tokens(grad), as_tokens(grad_x)
        for slab in self.slabs():
            goal[slab] = grad[slab]
            self.norm_out.pull(self.total[slab], goal[slab])
        self.norm_out.finish()

        for slab in self.slabs():
            self.total[slab] = self.norm_out.push(self.total[slab], goal[slab])
            self.thin_norm.pull(self.thin[slab], self.total[slab])
        self.thin_norm.finish()

        narrow, grad_narrow = w.narrow.flatten(1), 0
        for slab in self.slabs():
            part = self.thin_norm.push(self.thin[slab], self.total[slab])
            project([part], narrow.T, self.grad_wide[slab])
            grad_narrow += part.T @ self.wide_norm.apply(self.wide[slab])
            self.wide_norm.pull(self.wide[slab], self.grad_wide[slab])
        self.wide_norm.finish()

        widen, grad_widen = w.widen.flatten(1).chunk(3, 1), [0, 0, 0]
        # What two of these held is no longer needed.
        grads, branches = [self.thin, self.total, as_tokens(self.spare)], self.branches()
        for slab in self.slabs():
            part = self.wide_norm.push(self.wide[slab], self.grad_wide[slab])
            for i, (norm, raw) in enumerate(branches):
                project([part], widen[i].T, grads[i][slab])
                grad_widen[i] += part.T @ norm.apply(raw[slab])
                norm.pull(raw[slab], grads[i][slab])

        grad_kernels = []
        for i, (norm, raw) in enumerate(branches):
            norm.finish()
            for slab in self.slabs():
                norm.push(raw[slab], grads[i][slab])
            images = like_images(grads[i], self.images)
            grad_kernels.append(depthwise_weight_grad(self.images, images, w[i], i + 1))
            for place, part in depthwise(images, w[i].flip(2, 3, 4), i + 1):
                grad_x[place] += part
        return [
            *grad_kernels,
            *(norm.grad_weight for norm in self.norms),
            *(norm.grad_bias for norm in self.norms),
            *(norm.grad_slope for norm in self.norms),
            torch.cat(grad_widen, 1),
            self.wide_norm.grad_slope,
            grad_narrow,
            self.thin_norm.grad_slope,
            self.norm_out.grad_slope,
        ]


def like_images(tokens: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Tokens as images of the shape of ``images``; the inverse of ``as_tokens``."""
    d, c, h, w = images.shape
    return tokens.view(d, h, w, c).permute(0, 3, 1, 2)
