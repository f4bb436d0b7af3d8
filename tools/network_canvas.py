"""A network's boxes and arrows on paper."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
from network_graph import INPUT, Box, Drawing, Place, contents, look_at, write_shape

from hybrid_nets.atomic import replacing

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch, Patch

COLOURS = {"convolution": "#dbe9f6", "attention": "#fde3c3", "both": "#eadcf3", "other": "#f2f2f2"}
WIDTH, COLUMN, GAP, LINE = 1.75, 2.25, 0.33, 0.165  # a box, from box to box, between rows, and of text, in inches


def draw(drawing: Drawing, file: Path) -> None:
    boxes, arrows, network = look_at(drawing)
    texts = {name: describe(name, box, len(drawing.places[name]) == 3) for name, box in boxes.items()}
    height = (max(len(text) for text in texts.values()) + 0.8) * LINE
    corners = {name: find_corners(place, height) for name, place in drawing.places.items()}
    right, bottom = max(box[2] for box in corners.values()), max(box[3] for box in corners.values())
    figure = plt.figure(figsize=(right + 0.3, bottom + 1.15), dpi=130)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.15, right + 0.15), ylim=(bottom + 0.5, -0.65))
    axes.set_axis_off()
    for source, target in arrows:
        draw_arrow(axes, corners[source], corners[target], list(corners.values()), height)
    kinds = {name: contents(box.module)[1] if name != INPUT else "other" for name, box in boxes.items()}
    for name, text in texts.items():
        draw_box(axes, corners[name], text, COLOURS[kinds[name]], height)
    axes.text(0, -0.35, drawing.title, fontsize=13, va="center")
    if INPUT in boxes:
        total = f"{sum(p.numel() for p in network.parameters()):,} parameters"
        axes.text(right, -0.35, total, fontsize=10, va="center", ha="right")
    keys = [Patch(facecolor=COLOURS[k], edgecolor="0.3", label=k) for k in COLOURS if k in set(kinds.values())]
    axes.legend(handles=keys, loc="lower left", fontsize=9, frameon=False, ncol=len(keys))
    with replacing(file) as temporary:
        figure.savefig(temporary, facecolor="white")  # also where the page around it is dark
    plt.close(figure)


def find_corners(place: Place, height: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box, in inches; ``height`` is that of a box in one row."""
    x, y, *last = place
    row = height + GAP
    return x * COLUMN, y * row, x * COLUMN + WIDTH, (last[0] if last else y) * row + height


def describe(name: str, box: Box, tall: bool) -> list[str]:
    """The lines in a box: name, shape, and what is in it. Neighbours show the shapes of what joins several."""
    maps = sorted((shape for shape in box.shapes if len(shape) > 3), key=lambda shape: -shape[-1])
    tokens = [shape for shape in box.shapes if len(shape) == 3]
    # Of a map and of the next level's input made of it, the map.
    shapes = [] if tall and len(box.shapes) > 2 else list(dict.fromkeys(map(write_shape, maps[:1] + tokens)))
    held, _ = contents(box.module)
    inside = textwrap.wrap(", ".join(part.replace(" ", "\u00a0") for part in held), 27)
    name = name.removeprefix("network.")
    if shapes and len(name) + len(shapes[0]) < 22:
        name, shapes = f"{name}:  {shapes[0]}", shapes[1:]
    return [name, *shapes, *inside]


def draw_box(axes: plt.Axes, corners: tuple, lines: list[str], colour: str, height: float) -> None:
    left, top, right, bottom = corners
    box = FancyBboxPatch((left, top), right - left, bottom - top, "round,pad=0,rounding_size=0.06", zorder=3)
    box.set(facecolor=colour, edgecolor="0.3")
    axes.add_patch(box)
    for i, line in enumerate(lines):
        y = top + height / 2 + (i - (len(lines) - 1) / 2) * LINE
        weight = "bold" if i == 0 else "normal"
        axes.text((left + right) / 2, y, line, ha="center", va="center", fontsize=8.5, weight=weight, zorder=5)


def draw_arrow(axes: plt.Axes, source: tuple, target: tuple, boxes: list[tuple], height: float) -> None:
    """From one box to another: straight in a column or a row, dashed above what is in between, else with a corner."""
    top, bottom = max(source[1], target[1]), min(source[3], target[3])
    left, right = max(source[0], target[0]), min(source[2], target[2])
    dashed = False
    if top < bottom:
        y, forth = top + height / 2, source[0] < target[0]
        points = [(source[2], y), (target[0], y)] if forth else [(source[0], y), (target[2], y)]
        if any(source[2] < box[0] < target[0] and box[1] < y < box[3] for box in boxes):
            dashed, over, away = True, top - GAP / 2, source[2] - 0.1
            points = [(away, top), (away, over), (target[0] + 0.1, over), (target[0] + 0.1, top)]
    elif left < right:
        x, down = (left + right) / 2, source[3] <= target[1]
        points = [(x, source[3] if down else source[1]), (x, target[1 if down else 3])]
    elif target[0] < source[0]:
        x, y = (source[0] + source[2]) / 2, target[3] - height / 2
        points = [(x, source[3]), (x, y), (target[2], y)]
    else:
        x, y = (target[0] + target[2]) / 2, (source[1] + source[3]) / 2
        points = [(source[2], y), (x, y), (x, target[3 if y > target[3] else 1])]
    axes.plot(*zip(*points), color="0.25", linewidth=1.2, linestyle="--" if dashed else "-", zorder=4 if dashed else 1)
    style = {"arrowstyle": "-|>", "color": "0.25", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", points[-1], points[-2], arrowprops=style, zorder=4)
