"""Draw cases of the brain tumour phantom: three orthogonal slices of each modality, with the labels' outlines
(red: necrotic core, yellow: oedema, cyan: enhancing tumour).

python tools/phantom_figure.py OUT.png [--seeds=8,4]
"""

from __future__ import annotations

from pathlib import Path

import fire
import matplotlib
import nibabel as nib
import numpy as np

from hybrid_nets.phantoms import Case, brain_tumor_case

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CHANNELS = ("FLAIR", "T1ce", "T1", "T2")
COLOURS = ("tab:red", "yellow", "cyan")
# Indices into (right, front, up): the fixed axis, then those drawn to the right and upwards.
PLANES = ((2, 0, 1), (1, 0, 2), (0, 1, 2))
SIZE_MM = (212, 212, 184)  # shown of the body, right, front, up; one width for all columns


def main(out: str, seeds: tuple[int, ...] = (8, 4)) -> None:
    seeds = (seeds,) if isinstance(seeds, int) else seeds
    heights = [SIZE_MM[up] for _, _, up in PLANES] * len(seeds)
    size = (12, 12 / 5 * sum(heights) / SIZE_MM[0] + 0.25)
    figure, axes = plt.subplots(len(heights), 5, figsize=size, facecolor="black", height_ratios=heights)
    figure.subplots_adjust(0, 0, 1, 1 - 0.25 / figure.get_figheight(), wspace=0, hspace=0)
    for row, seed in enumerate(seeds):
        draw_case(axes[3 * row : 3 * row + 3], brain_tumor_case(seed))
    for axis, title in zip(axes[0], (*CHANNELS, "labels"), strict=True):
        axis.set_title(title, color="white")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=70)


def draw_case(axes: np.ndarray, case: Case) -> None:
    """Three rows of axes: axial, coronal and sagittal through the tumour, or through the middle if there is none."""
    to_ras = nib.orientations.io_orientation(case.affine)
    image = nib.orientations.apply_orientation(np.moveaxis(case.image, 0, -1), to_ras)
    label = nib.orientations.apply_orientation(case.label, to_ras)
    spacing = np.linalg.norm(case.affine[:3, :3], axis=0)[np.argsort(to_ras[:, 0])]
    where = np.argwhere(label) if label.any() else np.array([label.shape]) / 2
    centre = np.rint(np.median(where, axis=0)).astype(int)
    for row, (fixed, across, up) in zip(axes, PLANES, strict=True):
        slices = np.moveaxis(image, (fixed, across, up), (0, 2, 1))[centre[fixed]]
        outline = np.moveaxis(label, (fixed, across, up), (0, 2, 1))[centre[fixed]]
        extent = (0, slices.shape[1] * spacing[across], 0, slices.shape[0] * spacing[up])
        for column, axis in enumerate(row):
            channel = column % len(CHANNELS)
            top = np.percentile(image[..., channel][image[..., channel] > 0], 99.5)
            axis.imshow(slices[..., channel], cmap="gray", origin="lower", extent=extent, vmin=0, vmax=top)
            axis.set(xlim=centred(extent[1], SIZE_MM[across]), ylim=centred(extent[3], SIZE_MM[up]))
            axis.axis("off")
        for value, colour in enumerate(COLOURS, start=1):
            if (outline == value).any():
                row[-1].contour(
                    outline == value, levels=[0.5], colors=[colour], linewidths=0.9, extent=extent, origin="lower"
                )


def centred(length: float, shown: float) -> tuple[float, float]:
    return (length - shown) / 2, (length + shown) / 2


if __name__ == "__main__":
    main.__doc__ = __doc__
    fire.Fire(main)
