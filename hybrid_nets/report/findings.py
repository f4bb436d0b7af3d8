"""What somebody should look at: structures that are empty, cut off at the border, or unlike those of the cohort."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from hybrid_nets.report.volumes import Grid

__all__ = ["find_outliers", "look_at"]

# A volume is far off when it is this many robust standard deviations from the median, of so many cases at least.
FAR, ENOUGH = 3.5, 5
# Of a normal distribution: standard deviation over median absolute deviation.
ROBUST = 1.4826
# Structures vary by this part of their median at least, also in cohorts where most happen to be alike.
LEAST_SPREAD = 0.05


def look_at(labels: Grid, structures: Mapping[int, str]) -> list[str]:
    """Warnings on one label map, by itself."""
    found = []
    empty = [name for value, name in structures.items() if not (labels.voxels == value).any()]
    if len(empty) == len(structures):
        found.append("nothing was segmented")
    elif empty:
        found.append(f"empty: {', '.join(empty)}")
    faces = [labels.voxels.take(end, axis) for axis in range(labels.voxels.ndim) for end in (0, -1)]
    values = {int(value) for face in faces for value in np.unique(face)}
    touching = [name for value, name in structures.items() if value in values]
    if touching:
        found.append(f"touches the image's border: {', '.join(touching)}")
    return found


def find_outliers(sizes: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """Case → warnings on volumes far from the cohort's median; empty structures count for neither.

    Args:
        sizes: structure → case → volume.

    Example::

        >>> find_outliers({"liver": {"a": 1400, "b": 1500, "c": 1600, "d": 1450, "e": 300}})
        {'e': ["liver is far from the cohort's median: 0.21 times it"]}
    """
    warnings: dict[str, list[str]] = {}
    for structure, volumes in sizes.items():
        present = {case: volume for case, volume in volumes.items() if volume > 0}
        if len(present) < ENOUGH:
            continue
        middle = statistics.median(present.values())
        spread = ROBUST * spread_of(list(present.values()), middle)
        for case, volume in present.items():
            if abs(volume - middle) > FAR * max(spread, LEAST_SPREAD * middle):
                text = f"{structure} is far from the cohort's median: {volume / middle:.2g} times it"
                warnings.setdefault(case, []).append(text)
    return warnings


def spread_of(values: Sequence[float], middle: float) -> float:
    """Median absolute deviation from ``middle``."""
    return statistics.median(abs(value - middle) for value in values)
