"""Trade compute for memory: keep a block's input only, and run the block again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

__all__ = ["recompute"]


def recompute(enabled: bool, block: Callable, *args: object) -> torch.Tensor:
    """``block(*args)``; when ``enabled`` and gradients are recorded, without keeping what it computes on the way.

    Random state is kept, so dropout draws the same mask both times. Not for TorchScript: guard the call with
    ``torch.jit.is_scripting()``.
    """
    if enabled and torch.is_grad_enabled():
        return checkpoint(block, *args, use_reentrant=False)
    return block(*args)
