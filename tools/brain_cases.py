"""The cases that tools/brain_validate.py measures on: drawn scans, and variants of the real MNI152 T1 image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from hybrid_nets import InputError
from hybrid_nets.phantoms.fields import rician
from hybrid_nets.synthesis import brain_tissue_dir
from hybrid_nets.synthesis.atlas import atlas_file, tissue_labels
from hybrid_nets.synthesis.contrast import HEAD, KNOWN
from hybrid_nets.synthesis.outside import draw_head

TISSUES = {"CSF": 1, "grey matter": 2, "white matter": 3}
PADDING = 16  # voxels around the T1 image that a head may need
SEED = 2_000_000  # training draws below 2**31, but from other streams
NOISE = 0.1
PERSON = Path("/usr/share/mricron/templates")  # one person's head (Colin Holmes, 27 scans averaged, of the MNI)
PERSON_GREY, PERSON_WHITE = 68, 96  # least grey value of each, near Otsu's 67.8 and 96.1 for three classes in the brain


@dataclass(frozen=True)
class BrainCase:
    """An image and its labels, both ``(x, y, z)``; ``flipped`` is the axis along which it is mirrored."""

    name: str
    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    flipped: int | None = None

    def renamed(self, name: str, **changes: object) -> BrainCase:
        return replace(self, name=name, **changes)


def make_cases(folder: Path, wanted: Sequence[str] | None = None) -> list[BrainCase]:
    """Write the images of the cases to ``folder``, all or those ``wanted``, and return them.

    Raises:
        InputError: an unknown name.
    """
    makers = list_cases()
    names = [n for n in makers if PERSON.is_dir() or "person" not in n] if wanted is None else list(wanted)
    unknown = [name for name in names if name != "drawn" and name not in makers]
    if unknown:
        raise InputError(f"unknown cases {', '.join(unknown)}; known are drawn, {', '.join(makers)}.")
    cases = drawn_cases() if wanted is None or "drawn" in names else []
    cases += [makers[name]().renamed(name) for name in names if name != "drawn"]
    folder.mkdir(parents=True)
    for case in cases:
        nib.save(nib.Nifti1Image(case.image.astype(np.float32), case.affine), folder / f"{case.name}.nii.gz")
    return cases


def list_cases() -> dict[str, Callable[[], BrainCase]]:
    return {
        "t1": real_t1,
        "t1_head": lambda: in_head(real_t1(), "T1"),
        **{name.lower(): lambda name=name: remap(real_t1(), name) for name in ("T2", "FLAIR", "PD")},
        **{f"{n.lower()}_head": lambda n=n: in_head(remap(real_t1(), n), n) for n in ("T2", "FLAIR", "PD")},
        "slices_3mm": lambda: thicken(real_t1(), (1, 1, 3)),
        "voxels_2mm": lambda: thicken(real_t1(), (2, 2, 2)),
        "slices_3mm_head": lambda: thicken(in_head(real_t1(), "T1"), (1, 1, 3)),
        "noise": lambda: add_noise(in_head(real_t1(), "T1")),
        "person": lambda: person("ch2"),
        "person_brain": lambda: person("ch2bet"),
        "turned": lambda: turn(real_t1(), True),
        "turned_unsaid": lambda: turn(real_t1(), False),
        **{f"flip_{axis}": lambda i=i: flip(real_t1(), i) for i, axis in enumerate("xyz")},
    }


def drawn_cases() -> list[BrainCase]:
    """The scans that the bundle validates on while it trains."""
    folder = brain_tissue_dir()
    cases = []
    for path in sorted((folder / "imagesVal").iterdir()):
        image, label = nib.load(path), nib.load(folder / "labelsVal" / path.name)
        name = path.name.removesuffix(".nii.gz")
        cases.append(BrainCase(name, np.asarray(image.dataobj), np.asarray(label.dataobj), image.affine))
    return cases


def real_t1() -> BrainCase:
    t1, grey, white = (nib.load(atlas_file(name)) for name in ("t1", "gm", "wm"))
    image = np.asarray(t1.dataobj, dtype=np.float32)
    shares = [np.asarray(map_.dataobj, dtype=np.float32) / 255 for map_ in (grey, white)]
    return BrainCase("t1", image, tissue_labels(*shares, image > 0), t1.affine)


def person(name: str) -> BrainCase:
    """A real head, or its brain, of Debian's package mricron-data; tissues by thresholds within its brain mask.

    Raises:
        InputError: the package is not there.
    """
    if not PERSON.is_dir():
        raise InputError(f"{PERSON} is not there; on Debian or Ubuntu run 'apt-get install mricron-data'.")
    image, brain = nib.load(PERSON / f"{name}.nii.gz"), np.asarray(nib.load(PERSON / "ch2bet.nii.gz").dataobj)
    label = np.where(brain > 0, 1 + (brain >= PERSON_GREY) + (brain >= PERSON_WHITE), 0)
    return BrainCase(name, np.asarray(image.dataobj, np.float32), label.astype(np.uint8), image.affine)


def remap(case: BrainCase, contrast: str) -> BrainCase:
    """The grey values of a T1 image bent so that the tissues' medians are what ``contrast`` shows."""
    medians = [np.median(case.image[case.label == value]) for value in TISSUES.values()]
    bright = 200 * np.array(KNOWN[contrast][0])
    image = np.interp(case.image, [medians[0] * 0.6, *medians], [bright[0], *bright])
    return case.renamed(contrast, image=np.where(case.label > 0, image, 0))


def in_head(case: BrainCase, contrast: str) -> BrainCase:
    """The case with a drawn head around it, of brightness 200 where its tissues are 1."""
    image, label = (np.pad(volume, PADDING) for volume in (case.image, case.label))
    affine = case.affine.copy()
    affine[:3, 3] -= PADDING
    brain = label > 0
    distance = torch.from_numpy(ndimage.distance_transform_edt(~brain).astype(np.float32))
    axes = [torch.arange(side, dtype=torch.float32) + start for side, start in zip(image.shape, affine[:3, 3])]
    mm = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    scale = np.median(case.image[case.label == 3]) / KNOWN[contrast][0][2]
    brightness = {name: scale * value for name, value in zip(HEAD, KNOWN[contrast][1])}
    head = draw_head(mm, distance, torch.tensor(0.5), brightness, np.random.default_rng(SEED)).numpy()
    return BrainCase(case.name, np.where(brain, image, head), label, affine)


def thicken(case: BrainCase, factors: tuple[int, int, int]) -> BrainCase:
    """Means of ``factors`` voxels along each axis, and the most frequent of their labels."""
    image = block_mean(case.image, factors)
    counts = np.stack([block_mean((case.label == value).astype(np.float32), factors) for value in range(4)])
    affine = case.affine @ np.diag([*factors, 1])
    affine[:3, 3] += case.affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    return case.renamed("thick", image=image, label=counts.argmax(0).astype(np.uint8), affine=affine)


def block_mean(volume: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    a, b, c = factors
    whole = tuple(slice(side - side % factor) for side, factor in zip(volume.shape, factors))
    x, y, z = (side // factor for side, factor in zip(volume.shape, factors))
    return volume[whole].reshape(x, a, y, b, z, c).mean((1, 3, 5))


def add_noise(case: BrainCase) -> BrainCase:
    sigma = NOISE * np.median(case.image[case.label == 3])
    return case.renamed("noise", image=rician(case.image, sigma, np.random.default_rng(SEED)))


def turn(case: BrainCase, said: bool) -> BrainCase:
    """Axes (x, y, z) stored as (z, x, y)."""
    order = [2, 0, 1]
    affine = case.affine[:, [*order, 3]] if said else case.affine
    return case.renamed("turned", image=case.image.transpose(order), label=case.label.transpose(order), affine=affine)


def flip(case: BrainCase, axis: int) -> BrainCase:
    image, label = (np.flip(volume, axis) for volume in (case.image, case.label))
    return case.renamed("flip", image=image, label=label, flipped=axis)
