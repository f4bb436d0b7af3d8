"""The anatomy of the MNI152 average brain, from the maps of grey and white matter that nilearn ships.

The maps are those of the ICBM 2009a non-linear symmetric average (Fonov et al., NeuroImage 2011). nilearn's image of
this brain is opened to be segmented, never to train.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from hybrid_nets.errors import InputError
from hybrid_nets.phantoms.fields import chain, ellipsoid, mirror
from hybrid_nets.synthesis.anatomy import REGIONS, encode_anatomy

__all__ = ["atlas_anatomy", "atlas_file", "tissue_labels"]

# Where the fluid belongs to the ventricles, in mm of MNI space: a box that holds all four, and a point in each.
VENTRICLE_BOX = ((-42, 42), (-62, 42), (-48, 34))
VENTRICLE_SEEDS = ((9, 12, 12), (-9, 12, 12), (20, -38, 12), (-20, -38, 12), (0, -16, 0), (0, -43, -32))
STEM = ((0, -16, -8, 13), (0, -26, -32, 15), (0, -36, -52, 10), (0, -44, -76, 9))


def atlas_file(name: str) -> Path:
    """nilearn's file of ``"t1"``, ``"gm"`` or ``"wm"``.

    Raises:
        InputError: nilearn is not installed, or does not ship it any more.
    """
    spec = find_spec("nilearn")
    if spec is None:
        raise InputError(
            "nilearn is not installed, whose files hold the brain that this bundle trains on and shows; run "
            "pip install nilearn, or give scans of your own (--dataset_dir, or -i of hybrid-nets segment)."
        )
    path = Path(spec.origin).parent / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise InputError(f"nilearn has no {path.name}; install a version of nilearn that ships it, such as 0.14.1.")
    return path


def atlas_anatomy() -> tuple[np.ndarray, np.ndarray]:
    """The anatomy, uint8 of 197 × 233 × 189 voxels of 1 mm, and its affine to MNI space.

    The brain is what holds grey or white matter by more than half, with all that this encloses within 4 mm. CSF is
    what the two maps leave inside.

    Raises:
        InputError: nilearn's maps are missing.
    """
    maps = [nib.load(atlas_file(name)) for name in ("gm", "wm")]
    grey, white = (np.asarray(map_.dataobj, dtype=np.float32) / 255 for map_ in maps)
    affine = maps[0].affine
    brain = fill(grey + white > 0.5, 4)
    axes = np.meshgrid(*[np.arange(side, dtype=np.float32) for side in grey.shape], indexing="ij")
    points = np.stack([axis.ravel() for axis in axes]) + np.float32(affine[:3, 3:])
    region = find_regions(points, grey, white, brain)
    return encode_anatomy(grey, white, region, brain), affine


def tissue_labels(grey: np.ndarray, white: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """0 outside the brain, else the tissue with the largest share: 1 CSF, 2 grey matter, 3 white matter."""
    return np.where(brain, 1 + np.argmax(np.stack([1 - grey - white, grey, white]), axis=0), 0).astype(np.uint8)


def fill(mask: np.ndarray, gap: float) -> np.ndarray:
    """``mask`` with what it encloses, and with gaps of up to twice ``gap`` voxels closed."""
    padded = np.pad(mask, round(gap) + 1)
    near = ndimage.distance_transform_edt(~padded) <= gap
    closed = ndimage.distance_transform_edt(near) > gap
    inner = tuple(slice(round(gap) + 1, -round(gap) - 1) for _ in mask.shape)
    return ndimage.binary_fill_holes(closed | padded)[inner]


def find_regions(points: np.ndarray, grey: np.ndarray, white: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Indices in :data:`REGIONS` for ``points`` (3, n) in MNI space, in the shape of the maps; rough outlines."""
    fluid = brain & (grey + white < 0.5)
    inside = np.ones(points.shape[1], bool)
    for axis, (low, high) in zip(points, VENTRICLE_BOX):
        inside &= (axis > low) & (axis < high)
    inside &= (np.abs(points[0]) < 28) | (points[1] < -25)
    parts, _ = ndimage.label(fluid & inside.reshape(grey.shape))
    origin = points[:, 0]
    seeds = {parts[tuple(np.rint(np.subtract(seed, origin)).astype(int))] for seed in VENTRICLE_SEEDS} - {0}
    paired = mirror(points)
    nuclei = np.minimum(
        ellipsoid(paired, (11, -18, 8), (12, 17, 11)),
        np.minimum(ellipsoid(paired, (21, 3, 3), (12, 23, 15)), ellipsoid(paired, (13, 12, 12), (7, 16, 12))),
    )
    cerebellum = np.maximum(ellipsoid(points, (0, -62, -38), (56, 38, 30)), points[2] + 8 - 0.35 * (points[1] + 45))
    region = np.zeros(points.shape[1], np.uint8)
    region[cerebellum < 0] = REGIONS.index("cerebellum")
    region[chain(points, STEM) < 0] = REGIONS.index("brain stem")
    region[(nuclei < 0) & (grey.ravel() > 0.15)] = REGIONS.index("deep grey")
    region = region.reshape(grey.shape)
    region[np.isin(parts, list(seeds))] = REGIONS.index("ventricles")
    return region
