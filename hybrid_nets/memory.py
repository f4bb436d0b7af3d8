"""Keep memory that layers give back, where the C library would return it to the system and fetch it anew each time."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch

__all__ = ["keep_memory", "keep_small_memory"]

# Names and numbers of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """From now on, keep freed memory in this process for its next allocation; returns whether that could be set.

    With glibc's defaults each large tensor is mapped anew and the kernel fills its pages on first touch, which on a CPU
    takes half of the time of many networks (``tools/benchmark.py --keep_memory``). The price: memory once used is not
    given back before the process ends. The bundles call this when they start. It does nothing on other systems than
    Linux with glibc, or to memory of a GPU.
    """
    keep_small_memory()  # now, as it would undo this later
    return mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_TOP_PAD, 2**28)


@cache
def keep_small_memory() -> bool:
    """The same for blocks below 32 MiB, and no more than half a GiB of them: what slab after slab asks for."""
    # Where glibc's bounds are still its own, a freed block of nearly 32 MiB raises the size from which it maps blocks.
    torch.empty(2**23 - 2**16)
    return mallopt(M_TRIM_THRESHOLD, 2**29)


def mallopt(name: int, value: int) -> bool:
    """glibc's mallopt(3); returns whether there is one and it took the value."""
    function = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return function is not None and bool(function(name, value))
