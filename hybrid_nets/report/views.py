"""Slices through a structure with the contours of all, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hybrid_nets.atomic import replacing
from hybrid_nets.report.volumes import Grid

__all__ = ["CONVENTIONS", "colour", "draw_views"]

# On which side of the picture the patient's left is.
CONVENTIONS = {"radiological": "right", "neurological": "left"}
# View → axes of the grid across and up the picture, the axis it is cut along; what lies at left, right, bottom, top.
VIEWS = {
    "axial": (0, 1, 2, "LRPA"),
    "coronal": (0, 2, 1, "LRIS"),
    "sagittal": (1, 2, 0, "PAIS"),
}
WIDTH, DPI = 4.0, 110  # inches
REFERENCE = "white"
# Where the letters stand: left, right, bottom, top.
PLACES = (
    (0.01, 0.5, "left", "center"),
    (0.99, 0.5, "right", "center"),
    (0.5, 0.02, "center", "bottom"),
    (0.5, 0.98, "center", "top"),
)


@dataclass(frozen=True)
class View:
    """A slice: ``(across, up)`` arrays and how to draw them."""

    image: np.ndarray
    labels: np.ndarray
    reference: np.ndarray | None
    sides: tuple[float, float]
    marks: str


def draw_views(
    stem: Path, image: Grid | None, labels: Grid, reference: Grid | None, structures: Mapping[int, str], convention: str
) -> dict[str, Path]:
    """Draw three orthogonal slices through the largest structure, or a picture; view → file.

    Contours of the label map are coloured by :func:`colour`, those of the reference white and dashed.

    Args:
        stem: beginning of the files' names.
        image: None draws the contours on black.
        labels: label map.
        reference: label map on the same grid.
        structures: label value → name.
        convention: ``radiological``, the patient's right at the left of the picture, or ``neurological``.
    """
    window = find_window(image)
    files = {}
    if labels.picture:
        files["picture"] = save_view(Path(f"{stem}_picture.png"), picture_view(image, labels, reference), window)
        return files
    centre = find_centre(labels.voxels, list(structures))
    for name, (across, up, cut, marks) in VIEWS.items():
        view = cut_view(image, labels, reference, (across, up, cut), int(centre[cut]), marks)
        if across == 0 and convention == "radiological":
            view = mirror(view)
        files[name] = save_view(Path(f"{stem}_{name}.png"), view, window)
    return files


def find_centre(labels: np.ndarray, values: list[int]) -> np.ndarray:
    """In each axis the index of the slice that has most of the largest structure; the middle where there is none."""
    counts = {value: int((labels == value).sum()) for value in values}
    if not any(counts.values()):
        return np.array(labels.shape) // 2
    mask = labels == max(counts, key=lambda value: counts[value])
    return np.array([mask.sum(tuple(a for a in range(3) if a != axis)).argmax() for axis in range(3)])


def find_window(image: Grid | None) -> tuple[float, float]:
    """What is drawn black and white: 1st and 99th percentile of what is brighter than the darkest."""
    if image is None:
        return 0.0, 1.0
    thinned = image.voxels[tuple(slice(None, None, 2) for _ in image.voxels.shape)].astype(np.float32)
    finite = thinned[np.isfinite(thinned)]
    bright = finite[finite > finite.min()] if finite.size else finite
    if not bright.size:
        return 0.0, 1.0
    low, high = np.percentile(bright, [1, 99])
    return (float(low), float(high)) if high > low else (float(finite.min()), float(high))


def cut_view(
    image: Grid | None, labels: Grid, reference: Grid | None, axes: tuple[int, int, int], index: int, marks: str
) -> View:
    across, up, cut = axes

    def take(grid: Grid | None) -> np.ndarray | None:
        if grid is None:
            return None
        plane = grid.voxels.take(index, cut)
        return plane if across < up else plane.T

    plane = take(labels)
    shown = take(image)
    sides = (labels.spacing[across], labels.spacing[up])
    return View(np.zeros(plane.shape) if shown is None else shown, plane, take(reference), sides, marks)


def picture_view(image: Grid | None, labels: Grid, reference: Grid | None) -> View:
    """A picture's second axis runs down."""
    flipped = [None if grid is None else grid.voxels[:, ::-1] for grid in (image, labels, reference)]
    shown = np.zeros(labels.voxels.shape) if flipped[0] is None else flipped[0]
    return View(shown, flipped[1], flipped[2], (1.0, 1.0), "")


def mirror(view: View) -> View:
    reference = None if view.reference is None else view.reference[::-1]
    marks = view.marks[1] + view.marks[0] + view.marks[2:]
    return View(view.image[::-1], view.labels[::-1], reference, view.sides, marks)


def save_view(file: Path, view: View, window: tuple[float, float]) -> Path:
    width, height = (count * side for count, side in zip(view.image.shape, view.sides))
    # Without pyplot, which keeps every figure until it is told to close it.
    figure = Figure(figsize=(WIDTH, float(np.clip(WIDTH * height / width, 0.5 * WIDTH, 2 * WIDTH))), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1), facecolor="black")
    axes.axis("off")
    options = {"extent": (0, width, 0, height), "origin": "lower"}
    axes.imshow(view.image.T, cmap="gray", vmin=window[0], vmax=window[1], interpolation="bilinear", **options)
    for value in np.unique(view.labels):
        if value:
            draw_contour(axes, view.labels == value, view.sides, color=colour(int(value)), linewidth=1.6)
    for value in () if view.reference is None else np.unique(view.reference):
        if value:
            draw_contour(axes, view.reference == value, view.sides, color=REFERENCE, linewidth=0.9, linestyle="dashed")
    for mark, (across, up, horizontal, vertical) in zip(view.marks, PLACES):
        box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2}
        style = {"color": "white", "fontsize": 15, "fontweight": "bold", "bbox": box}
        axes.text(across, up, mark, ha=horizontal, va=vertical, transform=axes.transAxes, **style)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor="black", format="png")
    return file


def draw_contour(axes: Axes, mask: np.ndarray, sides: tuple[float, float], **style: object) -> None:
    """The outline of ``mask`` through the middle between voxels, closed at the image's border."""
    padded = np.pad(mask, 1).astype(float)
    across, up = ((np.arange(count) - 0.5) * side for count, side in zip(padded.shape, sides))
    options = {"colors": [style["color"]], "linewidths": style["linewidth"]}
    axes.contour(across, up, padded.T, levels=[0.5], linestyles=style.get("linestyle", "solid"), **options)


def colour(value: int) -> str:
    """The colour of a label value, as CSS writes it; 18 of them take turns."""
    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    # Pairs of dark and light: all dark ones first, as neighbours should differ, and no greys, as images are.
    ordered = [palette[i] for i in (*range(0, 20, 2), *range(1, 20, 2)) if i // 2 != 7]
    return to_hex(ordered[(value - 1) % len(ordered)])
