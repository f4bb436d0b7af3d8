"""How much memory a training step takes, without taking it, and how much there is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

__all__ = ["available_memory", "ram", "step_memory"]

# The optimizer keeps two numbers per weight beside weight and gradient.
COPIES = 4
# Of what is kept for the backward pass: gradients on their way, and what allocators can't use.
OVERHEAD = 1.5


def step_memory(build: Callable[[], nn.Module], channels: int, roi_size: Sequence[int]) -> tuple[int, int]:
    """Bytes that training takes whatever the batch, and bytes per window of it, in single precision.

    The network runs on PyTorch's meta device, which has shapes and no numbers; what autograd keeps for the backward
    pass is counted, each storage once. It is an estimate: libraries take workspace of their own.

    Args:
        build: makes the network.
        channels: of its input.
        roi_size: of a window.

    Example::

        >>> fixed, window = step_memory(lambda: nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU()), 1, (10, 10, 10))
        >>> fixed == 4 * 4 * (2 * 27 + 2), window > 4 * (10**3 + 2 * 8**3)
        (True, True)
    """
    with torch.device("meta"):
        network = build()
    network = network.to("meta").train()
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    # Two windows, as normalisation over the batch of one voxel at the bottom can't be with one.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.empty(2, channels, *roi_size, device="meta"))
    weights = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    own = {weight.untyped_storage()._cdata for weight in network.parameters()}
    activations = sum(storage.nbytes() for key, storage in kept.items() if key not in own)
    return COPIES * weights, int(OVERHEAD * activations / 2)


def available_memory() -> tuple[int, str]:
    """Bytes of the first GPU, or what is free of the machine's memory without one, and which of them it is."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory, "GPU"
    return ram(), "CPU"


def ram() -> int:
    """Bytes of memory that programs may still take."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
