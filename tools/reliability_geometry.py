"""A phantom whose segmentation is known from its grey values, in every orientation, and a network that reads them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial.transform import Rotation

__all__ = ["SPACING", "Variant", "exact_variants", "find_differences", "resampled_variants", "stub_command"]
__all__ += ["write_variants"]

CLASSES = 14  # of the bundle mobileutr
# Hounsfield units of the labels 0 to 3: evenly over the bundle's window.
VALUES = (-175.0, -175 + 425 / 3, 250 - 425 / 3, 250.0)
CODES = ((1, 1), (1, 0), (2, 1), (4, 1), (0, 1), (2, 0))  # of sform and qform
FIELD = 64.0  # mm along each side of the phantom
# Label → centre and radius of a ball, as parts of the half field. Each lies in the one before, as grey values between
# two labels may not be a third's; off the middle on each axis by another length, so no turn or flip gives the same.
BALLS = {1: ((0, 0, 0), 0.95), 2: ((0.25, 0.15, -0.05), 0.6), 3: ((0.45, -0.05, 0.1), 0.3)}
# What resampling may change: a network's label there and back is right but within this many of its voxels of a border.
REACH = 1.5
# The grid that the stub network takes, in mm.
SPACING = (2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Variant:
    """A way to store the phantom.

    Attributes:
        name: of its file.
        spacing: sides of the voxels in mm, before the axes are turned to ``orientation``.
        orientation: as :func:`nibabel.orientations.apply_orientation` takes it, (3, 2).
        frame: directions of the axes, (3, 3).
        codes: of sform and qform.
    """

    name: str
    spacing: tuple[float, ...]
    orientation: np.ndarray
    frame: np.ndarray
    codes: tuple[int, int]

    @property
    def label_map(self) -> str:
        return f"{self.name.removesuffix('.gz').removesuffix('.nii')}_seg.nii.gz"


def orientations() -> list[np.ndarray]:
    """All 48: axes in any order, each in one of two directions."""
    signs = list(product((1, -1), repeat=3))
    return [np.column_stack([order, sign]) for order in permutations(range(3)) for sign in signs]


def turned(degrees: Sequence[float]) -> np.ndarray:
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def exact_variants() -> Iterator[Variant]:
    """Every orientation, along the axes and oblique, on the grid that the network takes: nothing is resampled."""
    for frame_name, frame in {"straight": np.eye(3), "oblique": turned((12, -9, 15))}.items():
        for i, orientation in enumerate(orientations()):
            ending = (".nii.gz", ".nii")[i % 2]
            name = f"{frame_name}_{i:02d}{ending}"
            yield Variant(name, SPACING, orientation, frame, CODES[i % len(CODES)])


def resampled_variants(every: int = 1) -> Iterator[Variant]:
    """Every orientation with spacings from 0.4 to 6 mm, straight, oblique or sheared; ``every`` so many-th of all."""
    shear = np.array([[1, 0.2, -0.1], [0, 1, 0.15], [0, 0, 1]])
    frames = {"straight": np.eye(3), "oblique": turned((12, -9, 15)), "sheared": shear / np.linalg.norm(shear, axis=0)}
    spacings = [(0.4, 3.0, 6.0), (6.0, 0.8, 2.5), (1.5, 5.0, 0.7), (2.2, 2.2, 2.2)]
    everything = product(frames.items(), enumerate(spacings), enumerate(orientations()))
    for count, ((name, frame), (j, spacing), (i, orientation)) in enumerate(everything):
        codes = CODES[(i + j) % len(CODES)]
        codes = (codes[0] or 1, codes[1]) if name == "sheared" else codes  # a qform can't be sheared
        ending = (".nii.gz", ".nii")[(i + j) % 2]
        if count % every == 0:
            yield Variant(f"{name}_{j}_{i:02d}{ending}", spacing, orientation, frame, codes)


def draw(variant: Variant) -> tuple[np.ndarray, np.ndarray]:
    """Labels in the file's own order of voxels, and their affine."""
    shape = tuple(round(FIELD / side) for side in variant.spacing)
    parts = np.meshgrid(*((np.arange(n) + 0.5) / n * 2 - 1 for n in shape), indexing="ij")
    labels = np.zeros(shape, np.uint8)
    for label, (centre, radius) in BALLS.items():
        labels[sum((part - c) ** 2 for part, c in zip(parts, centre)) < radius**2] = label
    affine = np.eye(4)
    affine[:3, :3] = variant.frame * variant.spacing
    affine[:3, 3] = (-31.0, 17.0, 250.0)
    turn = nib.orientations.inv_ornt_aff(variant.orientation, shape)
    return nib.apply_orientation(labels, variant.orientation), affine @ turn


def write_variants(folder: Path, variants: Sequence[Variant]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for variant in variants:
        labels, affine = draw(variant)
        image = nib.Nifti1Image(np.array(VALUES, np.float32)[labels], affine)
        image.set_sform(affine, variant.codes[0])
        image.set_qform(affine, variant.codes[1], strip_shears=True)
        nib.save(image, folder / variant.name)


def stub_command(folder: Path) -> list[str]:
    """``hybrid-nets segment`` with one convolution of a voxel for a network, which gives the nearest label's value."""
    folder.mkdir(parents=True, exist_ok=True)
    levels = torch.linspace(0, 1, len(VALUES))
    network = torch.nn.Conv3d(1, CLASSES, 1)
    network.weight.data[:] = 0
    network.bias.data[:] = -1e4
    network.weight.data[: len(levels), 0, 0, 0, 0] = 200 * levels  # the largest logit is that of the nearest level
    network.bias.data[: len(levels)] = -100 * levels**2
    torch.save(network.state_dict(), folder / "stub.pt")
    definition = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": CLASSES, "kernel_size": 1}
    options = {"network_def": json.dumps(definition), "roi_size": [48, 48, 48], "overlap": 0, "spacing": list(SPACING)}
    options |= {"checkpoints": [str(folder / "stub.pt")], "device": "cpu"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "hybrid_nets", "segment", "--bundle", "mobileutr", *words]


@dataclass(frozen=True)
class Difference:
    """How a label map differs from the phantom.

    Attributes:
        header: which of shape, affine and codes differ.
        voxels: how many labels differ, of all.
        far: how many of these lie further from any border than resampling reaches.
        centre: the furthest that a ball's centre of mass moved, in mm.
    """

    header: list[str]
    voxels: float
    far: int
    centre: float

    @property
    def near(self) -> bool:
        """Whether it is no more than what resampling to the network's grid and back explains."""
        return not self.header and not self.far and self.centre < min(SPACING) / 2


def find_differences(variants: Sequence[Variant], scans: Path, output: Path) -> dict[str, Difference]:
    """Variant's name → how its label map in ``output`` differs from the phantom."""
    return {v.name: compare(v, scans / v.name, output / v.label_map) for v in variants}


def compare(variant: Variant, scan: Path, label_map: Path) -> Difference:
    image, found = nib.load(scan), nib.load(label_map)
    truth, affine = draw(variant)
    if found.shape != image.shape:
        return Difference(["shape"], 1.0, truth.size, np.inf)
    same = {
        "affine": np.array_equal(found.affine, image.affine),
        "qform": np.array_equal(found.get_qform(), image.get_qform()),
        "codes": [int(found.header[key]) for key in ("sform_code", "qform_code")] == list(variant.codes),
        "spacing": found.header.get_zooms() == image.header.get_zooms(),
    }
    voxels = np.asarray(found.dataobj)
    wrong = voxels != truth
    reach = [int(np.ceil(REACH * max(SPACING) / side)) for side in nib.affines.voxel_sizes(affine)]
    window = tuple(2 * steps + 1 for steps in reach)
    inside = maximum_filter(truth, window) == minimum_filter(truth, window)
    moved = [np.linalg.norm(centre(voxels >= i, affine) - centre(truth >= i, affine)) for i in BALLS]
    header = [name for name, kept in same.items() if not kept]
    return Difference(header, float(wrong.mean()), int((wrong & inside).sum()), float(max(moved)))


def centre(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centre of mass in mm, far away where there is no mass."""
    places = np.argwhere(mask)
    return affine[:3, :3] @ places.mean(0) if len(places) else np.full(3, np.inf)
