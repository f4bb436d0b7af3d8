"""From what a data set is to how a bundle trains on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybrid_nets.errors import InputError
from hybrid_nets.plan.survey import Survey

__all__ = ["choose_batch", "choose_cache", "choose_intensities", "choose_roi", "choose_spacing"]

PERCENTILES = (0.5, 99.5)


def choose_spacing(found: Survey) -> list[float]:
    """The median spacing, to three digits."""
    return [float(f"{side:.3g}") for side in found.spacing]


def choose_roi(shape: Sequence[int], step: int, budget: int) -> list[int]:
    """Sides of windows: as the median image's ``shape``, multiples of ``step``, ``budget`` voxels at most.

    The longest side gives way first. Two steps are the least, as normalisation needs several voxels at the bottom.

    Example::

        >>> choose_roi((300, 280, 40), 16, 96**3), choose_roi((30, 30, 30), 16, 96**3)
        ([128, 144, 48], [32, 32, 32])
    """
    roi = [max(2 * step, math.ceil(side / step) * step) for side in shape]
    while math.prod(roi) > budget and max(roi) > 2 * step:
        longest = max(range(len(roi)), key=lambda axis: roi[axis])
        roi[longest] -= step
    return roi


def choose_batch(batch: int, samples: int, fixed: int, window: int, memory: int) -> tuple[int, int] | None:
    """``batch`` cases with ``samples`` windows each, or fewer if they don't fit into ``memory``; None if none does.

    Example::

        >>> choose_batch(2, 2, 100, 50, 1000), choose_batch(2, 2, 100, 50, 220), choose_batch(2, 2, 100, 50, 120)
        ((2, 2), (2, 1), None)
    """
    fitting = (memory - fixed) // window
    while batch * samples > fitting and samples > 1:
        samples -= 1
    while batch * samples > fitting and batch > 1:
        batch -= 1
    return (batch, samples) if batch * samples <= fitting else None


def choose_intensities(found: Survey, config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that bring intensities to what networks like.

    CT has a scale of its own: one window for all cases, from percentiles over labelled voxels. Other images are scaled
    one by one and channel by channel, between percentiles of their own.
    """
    if [name.upper() for name in found.channels] == ["CT"]:
        low, high = found.percentiles(*PERCENTILES)[0]
        if not high > low:
            raise InputError("all labelled voxels have one intensity; are these the right images?")
        return {"intensity_range": [round(float(low)), math.ceil(float(high))]}
    space = [t for t in config["space_transforms"] if t["_target_"] != "ScaleIntensityRanged"]
    if min(fact.intensities.min(initial=0) for fact in found.facts) < 0:  # its box is of what is above 0
        space = [t for t in space if t["_target_"] != "CropForegroundd"]
    scale = {"_target_": "ScaleIntensityRangePercentilesd", "keys": "image", "b_min": 0.0, "b_max": 1.0, "clip": True}
    scale |= {"lower": PERCENTILES[0], "upper": PERCENTILES[1], "channel_wise": True}
    return {"space_transforms": space, "intensity_transforms": [scale]}


def choose_cache(cached: int, cases: int, voxels: int, channels: int, classes: int, memory: int) -> int:
    """How many cases to keep in ``memory`` bytes, prepared: images in single precision and labels."""
    case = voxels * (4 * channels + max(4, classes))
    return int(np.clip(memory // case, 0, min(cached, cases)))
