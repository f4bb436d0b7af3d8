"""Draw cases of a built-in phantom, with the outlines of their labels.

Volumes are cut along three planes through the middle of what is labelled; the patient's right is on the left.
brain_tumor: each modality; red necrotic core, yellow oedema, cyan enhancing tumour. abdomen: CT from -160 to 240 HU;
one colour per organ. ultrasound: the picture, and beside it the lesion's outline.

python tools/phantom_figure.py OUT.png [--kind abdomen] [--seeds=8,4]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fire
import matplotlib
import nibabel as nib
import numpy as np

from hybrid_nets.phantoms import Case, Picture, abdomen_case, brain_tumor_case, ultrasound_case

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Indices into (left, front, up): the fixed axis, then those drawn to the right and upwards.
AXIAL, CORONAL, SAGITTAL = (2, 0, 1), (1, 0, 2), (0, 1, 2)


@dataclass(frozen=True)
class View:
    """How to draw a kind of volumes.

    Attributes:
        make_case: draws the case of a seed.
        seeds: to draw without ``--seeds``.
        channels: what the channels are.
        colours: of the labels 1, 2, …
        window: darkest and brightest value; None: 0 and what few voxels exceed.
        size_mm: shown of the body, left, front, up.
        rows: for each row of axes of a case, the plane and the channel of each; channel None draws the labels.
    """

    make_case: Callable[[int], Case]
    seeds: tuple[int, ...]
    channels: tuple[str, ...]
    colours: tuple
    window: tuple[float, float] | None
    size_mm: tuple[float, float, float]
    rows: tuple[tuple[tuple[tuple[int, int, int], int | None], ...], ...]


BRAIN_TUMOR = View(
    make_case=brain_tumor_case,
    seeds=(8, 4),
    channels=("FLAIR", "T1ce", "T1", "T2"),
    colours=("tab:red", "yellow", "cyan"),
    window=None,
    size_mm=(212, 212, 184),
    rows=tuple(tuple((plane, channel) for channel in (0, 1, 2, 3, None)) for plane in (AXIAL, CORONAL, SAGITTAL)),
)
ABDOMEN = View(
    make_case=abdomen_case,
    seeds=(0, 2, 4),
    channels=("CT",),
    colours=plt.get_cmap("tab20").colors,
    window=(-160, 240),
    size_mm=(380, 270, 270),
    rows=(((AXIAL, 0), (AXIAL, None), (CORONAL, None), (SAGITTAL, None)),),
)
VOLUMES = {"brain_tumor": BRAIN_TUMOR, "abdomen": ABDOMEN}


def main(out: str, kind: str = "brain_tumor", seeds: tuple[int, ...] | None = None) -> None:
    if kind not in (*VOLUMES, "ultrasound"):
        raise ValueError(f"unknown phantom {kind!r}; known are {[*VOLUMES, 'ultrasound']}.")
    seeds = (seeds,) if isinstance(seeds, int) else seeds
    figure = draw_volumes(VOLUMES[kind], seeds) if kind in VOLUMES else draw_pictures(seeds or (0, 1, 3, 4, 5, 6))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=70)


def draw_volumes(view: View, seeds: tuple[int, ...] | None) -> plt.Figure:
    seeds = seeds or view.seeds
    heights = [max(view.size_mm[plane[2]] for plane, _ in row) for row in view.rows] * len(seeds)
    columns = len(view.rows[0])
    size = (12, 12 / columns * sum(heights) / view.size_mm[0] + 0.25)
    figure, axes = plt.subplots(len(heights), columns, figsize=size, facecolor="black", height_ratios=heights)
    figure.subplots_adjust(0, 0, 1, 1 - 0.25 / figure.get_figheight(), wspace=0, hspace=0)
    for seed, block in zip(seeds, np.split(axes, len(seeds)), strict=True):
        draw_case(block, view.make_case(seed), view)
    for axis, (_, channel) in zip(axes[0], view.rows[0], strict=True):
        axis.set_title("labels" if channel is None else view.channels[channel], color="white")
    return figure


def draw_case(axes: np.ndarray, case: Case, view: View) -> None:
    """Fill a case's axes; the planes run through the labels' middle, or the volume's if there are none."""
    to_las = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(case.affine), nib.orientations.axcodes2ornt("LAS")
    )
    image = nib.orientations.apply_orientation(np.moveaxis(case.image, 0, -1), to_las)
    label = nib.orientations.apply_orientation(case.label, to_las)
    spacing = np.linalg.norm(case.affine[:3, :3], axis=0)[np.argsort(to_las[:, 0])]
    where = np.argwhere(label) if label.any() else np.array([label.shape]) / 2
    centre = np.rint(np.median(where, axis=0)).astype(int)
    cells = [cell for row in view.rows for cell in row]
    for axis, (plane, channel) in zip(axes.ravel(), cells, strict=True):
        fixed, across, up = plane
        values = image[..., channel or 0]
        low, high = view.window or (0, np.percentile(values[values > 0], 99.5))
        shown, outline = (np.moveaxis(v, (fixed, across, up), (0, 2, 1))[centre[fixed]] for v in (values, label))
        extent = (0, shown.shape[1] * spacing[across], 0, shown.shape[0] * spacing[up])
        axis.imshow(shown, cmap="gray", origin="lower", extent=extent, vmin=low, vmax=high)
        axis.set(xlim=centred(extent[1], view.size_mm[across]), ylim=centred(extent[3], view.size_mm[up]))
        axis.axis("off")
        if channel is None:
            draw_outlines(axis, outline, view.colours, extent=extent, origin="lower")


def draw_outlines(axis: plt.Axes, label: np.ndarray, colours: tuple, **options) -> None:
    for value, colour in enumerate(colours, start=1):
        if (label == value).any():
            axis.contour(label == value, levels=[0.5], colors=[colour], linewidths=0.9, **options)


def centred(length: float, shown: float) -> tuple[float, float]:
    return (length - shown) / 2, (length + shown) / 2


def draw_pictures(seeds: tuple[int, ...]) -> plt.Figure:
    """Two columns of pairs of axes: the picture, and the same with the lesion's outline."""
    lines = -(-len(seeds) // 2)
    figure, axes = plt.subplots(lines, 4, figsize=(12, 3 * lines), facecolor="black", squeeze=False)
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.02, hspace=0.02)
    for axis in axes.ravel():
        axis.axis("off")
    for seed, pair in zip(seeds, axes.reshape(-1, 2)):
        picture: Picture = ultrasound_case(seed)
        for axis in pair:
            axis.imshow(np.moveaxis(picture.image, 0, -1))
        draw_outlines(pair[1], picture.label, ("yellow",))
    return figure


if __name__ == "__main__":
    main.__doc__ = __doc__
    fire.Fire(main)
