"""Batch normalisation over all processes on CPUs, where PyTorch's own is for GPUs only."""

from __future__ import annotations

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["SyncBatchNorm", "synchronize_norms"]


class SyncBatchNorm(_BatchNorm):
    """``torch.nn.SyncBatchNorm`` for tensors on the CPU; options, state and results are the same.

    Shapes: ``(b, c, *)`` in and out; b and * may differ between processes.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        dtype = x.dtype
        # MONAI's MetaTensor refuses to be indexed like what follows; statistics of half precision need single.
        x = x.as_subclass(torch.Tensor).to(torch.promote_types(dtype, torch.float32))
        axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = Sum.apply(torch.cat([x.sum(axes), count]))
        count = sums[-1]
        mean = (sums[:-1] / count).view(shape)
        centred = x - mean  # the mean first, then the variance: one pass would lose digits where the mean is large
        variance = Sum.apply((centred * centred).sum(axes)) / count
        if self.track_running_stats:
            self.update(mean.detach().flatten(), variance.detach() * count.detach() / (count.detach() - 1))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(dtype)

    def _check_input_dim(self, x: torch.Tensor) -> None:
        """Any number of spatial dimensions will do."""

    @torch.no_grad()
    def update(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics as ``BatchNorm`` does."""
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> torch.Tensor:
        return Sum.apply(grad.contiguous())


def synchronize_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """``network`` with each BatchNorm replaced by one over all processes that has its weights and statistics.

    On a GPU that is PyTorch's own, elsewhere :class:`SyncBatchNorm`.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if isinstance(network, _BatchNorm):
        norm = SyncBatchNorm(
            network.num_features, network.eps, network.momentum, network.affine, network.track_running_stats
        )
        norm.load_state_dict(network.state_dict(), assign=True)  # as they are: dtype and device too
        return norm.train(network.training)
    for name, child in network.named_children():
        setattr(network, name, synchronize_norms(child, device))
    return network
