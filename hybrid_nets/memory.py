"""Keep memory that layers give back, where the C library would return it to the system and fetch it anew each time."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_memory"]

# Names and numbers of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """From now on, keep freed memory in this process for its next allocation; returns whether that could be set.

    With glibc's defaults each large tensor is mapped anew and the kernel fills its pages on first touch, which on a CPU
    took two fifths of the time of a training step of MobileUtr (64³). The price: memory once used is not given back
    before the process ends. The bundles call this when they start. It does nothing on other systems than Linux with
    glibc, or to memory of a GPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1), mallopt(M_TOP_PAD, 2**28)])
