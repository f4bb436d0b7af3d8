"""Anatomies of brains that are drawn by formulas, with sharp folds such as one person has and an average has not."""

from __future__ import annotations

import numpy as np

from hybrid_nets.phantoms.fields import ellipsoid, paint
from hybrid_nets.phantoms.head import brain_layers, cavity_distance, ventricle_distance
from hybrid_nets.synthesis.anatomy import REGIONS, encode_anatomy

__all__ = ["PHANTOM_ORIGIN", "folded_anatomy"]

# The phantoms' middle of the brain in MNI space.
PHANTOM_ORIGIN = (0, -16, 0)
LOW, HIGH = (-78, -102, -76), (79, 96, 90)
FLOOR = -74  # below it is the spinal cord, which is no brain
# Shares of grey and white matter in what a phantom's brain is made of.
SHARES = {
    "fluid": (0, 0),
    "sulcus": (0, 0),
    "vessel": (0, 0),
    "stem": (0.3, 0.7),
    "grey": (1, 0),
    "white": (0, 1),
    "deep grey": (0.9, 0.1),
}


def folded_anatomy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Anatomy number ``seed``, uint8 of 157 × 198 × 166 voxels of 1 mm, and its affine to MNI space; takes about 3 s.

    The brain is all that is in the skull, CSF between the two included.
    """
    rng = np.random.default_rng(seed)
    axes = [np.arange(low, high, dtype=np.float32) for low, high in zip(LOW, HIGH)]
    grid = np.meshgrid(*axes, indexing="ij")
    points = np.stack([axis.ravel() for axis in grid])
    cavity = cavity_distance(points, rng)
    brain = (cavity < 0) & (points[2] > FLOOR)
    inside = points[:, brain]
    shares = np.zeros((2, inside.shape[1]), np.float32)
    paint(shares, brain_layers(inside, cavity[brain], rng), SHARES)
    region = np.zeros(inside.shape[1], np.uint8)
    region[ellipsoid(inside, (0, -48, -40), (53, 35, 27)) < 0] = REGIONS.index("cerebellum")
    region[(np.hypot(inside[0], inside[1] + 26) < 15) & (inside[2] < -12)] = REGIONS.index("brain stem")
    deep = (ellipsoid(np.abs(inside), (16, 8, 4), (15, 22, 13)) < 0) & (shares[0] > 0.3)
    region[deep] = REGIONS.index("deep grey")
    region[(ventricle_distance(inside) < 3) & (shares.sum(0) < 0.5)] = REGIONS.index("ventricles")
    code = np.zeros(points.shape[1], np.uint8)
    code[brain] = encode_anatomy(*shares, region, np.ones(inside.shape[1], bool))
    affine = np.eye(4)
    affine[:3, 3] = np.add(LOW, PHANTOM_ORIGIN)
    return code.reshape(grid[0].shape), affine
