"""Box plots over a cohort, each drawn for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hybrid_nets.atomic import replacing

__all__ = ["THEMES", "draw_boxes"]

# Ink and paper; the page's CSS has the same.
THEMES = {"light": ("#1c1e21", "#ffffff"), "dark": ("#e4e6ea", "#1b1d21")}
ROW = 0.3  # inches per box


def draw_boxes(
    stem: Path, values: Mapping[str, Sequence[float]], colours: Mapping[str, str], label: str, log: bool = False
) -> dict[str, Path]:
    """A box and a point per case for each structure, from top to bottom; theme → file.

    Boxes are quartiles, their whiskers reach 1.5 times as far at most.

    Args:
        stem: beginning of the files' names.
        values: structure → values; structures without any keep their place.
        colours: structure → colour.
        label: of the axis.
        log: a logarithmic axis, for volumes that differ a hundredfold; all values are above 0.
    """
    return {theme: draw(Path(f"{stem}_{theme}.png"), values, colours, label, log, *THEMES[theme]) for theme in THEMES}


def draw(
    file: Path,
    values: Mapping[str, Sequence[float]],
    colours: Mapping[str, str],
    label: str,
    log: bool,
    ink: str,
    paper: str,
) -> Path:
    figure = Figure(figsize=(5.6, 0.9 + ROW * len(values)), facecolor=paper, layout="constrained")
    axes = figure.add_subplot(facecolor=paper)
    lines = {name: {"color": ink} for name in ("boxprops", "whiskerprops", "capprops", "medianprops")}
    heights = list(range(len(values), 0, -1))
    for height, (name, found) in zip(heights, values.items()):
        if found:
            options = {
                "widths": 0.55,
                "showfliers": False,
                "orientation": "horizontal",
                "patch_artist": True,
                "manage_ticks": False,
            }
            drawn = axes.boxplot([found], positions=[height], **options, **lines)
            drawn["boxes"][0].set(facecolor=(colours[name], 0.45))
    draw_random = np.random.default_rng(0)
    for height, found in zip(heights, values.values()):
        axes.scatter(found, height + draw_random.uniform(-0.16, 0.16, len(found)), s=7, color=ink, alpha=0.7, zorder=3)
    if log:
        axes.set_xscale("log")
    axes.set_yticks(heights, list(values))
    axes.set_ylim(0.4, len(values) + 0.6)
    axes.set_xlabel(label, color=ink)
    axes.tick_params(colors=ink)
    axes.grid(axis="x", color=ink, alpha=0.15)
    for name, spine in axes.spines.items():
        spine.set(visible=name in ("left", "bottom"), color=ink)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=130, facecolor=paper, format="png")
    return file
