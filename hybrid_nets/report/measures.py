"""A case compared with its reference, by MONAI's metrics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from hybrid_nets.evaluation import CaseMetrics
from hybrid_nets.report.volumes import Grid

__all__ = ["METRICS", "compare"]

# Keys of what is measured.
METRICS = ("dice", "surface_dice", "hd95")


def compare(labels: Grid, reference: Grid, structures: Mapping[int, str], case: str, tolerance: float) -> list[dict]:
    """Per structure a row with Dice, surface Dice, HD95 and voxel counts, as :class:`CaseMetrics` measures them.

    Distances are in mm by the voxels' sides, in pixels for pictures. Structures are compared one at a time, each in
    the box that holds it in either of the two, as distances take much memory.

    Args:
        labels: label map.
        reference: label map on the same grid.
        structures: label value → name.
        case: name for the rows.
        tolerance: surface Dice counts surface points closer than this.
    """
    unit = "px" if labels.picture else "mm"
    measure = CaseMetrics(".", list(structures.values()), tolerance, unit)
    rows = []
    for value, name in structures.items():
        pair = [labels.voxels == value, reference.voxels == value]
        box = find_box(pair[0] | pair[1])
        maps = (torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None] for mask in pair)
        found = measure.compare(*maps, labels.spacing)
        found["hd95"] = found.pop(f"hd95_{unit}")
        rows.append({"case": case, "class": name, "label": value, **found})
    return rows


def find_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box with all of ``mask``, and a voxel around it that is none."""
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        first, last = (inside[0], inside[-1]) if inside.size else (0, 0)
        box.append(slice(max(int(first) - 1, 0), int(last) + 2))
    return tuple(box)
