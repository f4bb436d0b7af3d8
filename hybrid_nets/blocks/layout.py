"""Memory formats: the order of a map's numbers in memory, which its shape does not show."""

from __future__ import annotations

import torch

from hybrid_nets.blocks.slabs import captured, covers
from hybrid_nets.memory import keep_small_memory

__all__ = ["fast_layout", "is_plain"]


def fast_layout(x: torch.Tensor, in_training: bool = False) -> torch.Tensor:
    """``x`` in the memory format that 2-D networks run fastest in: on a CPU channels innermost, which all layers keep.

    Convolution, pooling and upsampling read and write whole pixels then, and maps are tokens without a copy. Maps in
    3-D and those on other devices stay as they are. On Linux freed maps are kept for the next ones from then on, see
    :func:`hybrid_nets.memory.keep_small_memory`.

    Args:
        x: what a network gets.
        in_training: also where gradients are recorded: dense convolutions have slower backward passes in this format,
            depthwise ones faster ones.

    Example::

        >>> with torch.no_grad():
        ...     fast_layout(torch.zeros(1, 8, 6, 4)).stride()
        (192, 1, 32, 8)
    """
    if x.ndim == 4 and x.device.type == "cpu" and (in_training or not torch.is_grad_enabled()):
        if not torch.jit.is_scripting():
            keep_maps()
        return x.contiguous(memory_format=torch.channels_last)
    return x


def keep_maps() -> None:
    """For a network that runs; not where its code is taken down for another runtime."""
    if not captured():
        keep_small_memory()


def is_plain(x: torch.Tensor) -> bool:
    """Whether ``x`` ``(b, c, h, w)`` or ``(b, c, d, h, w)`` is eager float32 on a CPU, outside any capture of a graph.

    Only then do our networks leave PyTorch's modules for ways to the same result that are faster there.
    """
    return covers(x if x.ndim == 5 else x[..., None])
