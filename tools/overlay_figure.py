"""Draw label maps on the volume they belong to.

    python tools/overlay_figure.py IMAGE LABELS OUT.png [--reference LABELS] [--channel 0] [--window=-160,240]

Three orthogonal slices in radiological view, through the centre of what LABELS holds; a second row for a reference.
Files are NIfTI of one grid; of a 4-D IMAGE, CHANNEL is shown. WINDOW is what is black and what is white, by default
the 1st and 99.5th percentile of what is above 0.
"""

from __future__ import annotations

import fire
import matplotlib as mpl
import nibabel as nib
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

COLORS = ["#e6550d", "#31a354", "#3182bd", "#f2c80f", "#9e4ac2", "#00a6a6", "#d62728", "#8c564b"]
COLORS += ["#e377c2", "#a6ff4d", "#bcbd22", "#17becf", "#ffbb78"]
PLANES = ((0, "sagittal"), (1, "coronal"), (2, "axial"))


def read(file: str, channel: int = 0) -> tuple[np.ndarray, tuple[float, ...]]:
    """A volume with axes to the right, to the front and up, and its voxel sizes in mm."""
    image = nib.as_closest_canonical(nib.load(file))
    array = np.asarray(image.dataobj)
    return (array[..., channel] if array.ndim == 4 else array), image.header.get_zooms()[:3]


def overlay_figure(
    image: str,
    labels: str,
    out: str,
    reference: str | None = None,
    channel: int = 0,
    window: tuple[float, float] | None = None,
) -> None:
    """Write OUT, a PNG of LABELS (and REFERENCE) drawn on IMAGE."""
    volume, zooms = read(image, channel)
    rows = [("segmentation", read(labels)[0])] + ([("reference", read(reference)[0])] if reference else [])
    shown = rows[0][1] if rows[0][1].any() else volume > 0
    centre = [int(c) for c in np.argwhere(shown).mean(0)]
    low, high = np.percentile(volume[volume > 0], [1, 99.5]) if window is None else window
    colors = mpl.colors.ListedColormap(["#00000000", *(COLORS[i % len(COLORS)] for i in range(int(shown.max())))])
    figure, axes = plt.subplots(len(rows), 3, figsize=(12, 4 * len(rows)), squeeze=False, facecolor="black")
    for row, (title, array) in zip(axes, rows):
        for ax, (axis, plane) in zip(row, PLANES):
            across, up = (a for a in range(3) if a != axis)
            options = {"origin": "lower", "aspect": zooms[up] / zooms[across], "interpolation": "nearest"}
            ax.imshow(volume.take(centre[axis], axis).T, cmap="gray", vmin=low, vmax=high, **options)
            ax.imshow(array.take(centre[axis], axis).T, cmap=colors, vmin=0, vmax=colors.N - 1, alpha=0.55, **options)
            if axis != 0:
                ax.invert_xaxis()  # the patient's right is on the left
            ax.set_title(f"{title}, {plane}", color="white")
            ax.axis("off")
    figure.tight_layout()
    figure.savefig(out, dpi=80, facecolor="black")


if __name__ == "__main__":
    fire.Fire(overlay_figure)
