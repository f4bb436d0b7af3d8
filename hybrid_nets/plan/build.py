"""The command ``hybrid-nets plan``: from a data set to the overlay with which a bundle trains on it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from hybrid_nets.atomic import replacing
from hybrid_nets.bundle import task_overlays
from hybrid_nets.errors import InputError
from hybrid_nets.plan.choices import choose_batch, choose_cache, choose_intensities, choose_roi, choose_spacing
from hybrid_nets.plan.memory import available_memory, ram, step_memory
from hybrid_nets.plan.survey import Survey, survey

__all__ = ["Wish", "build_plan"]

# What a config needs to be planned for: volumes, cut into windows around labels.
KEYS = ("roi_size", "spacing", "num_samples", "intensity_range", "space_transforms", "intensity_transforms")
SPARE = 0.8  # of the memory that training may plan with
GIB = 2**30


@dataclass(frozen=True)
class Wish:
    """What was typed; see :func:`hybrid_nets.cli.commands.plan`."""

    dataset: Path
    bundle: Path
    output: Path
    memory: float | None = None
    overwrite: bool = False


def build_plan(wish: Wish) -> str:
    """Write the overlay ``wish.output``; returns what it rests on, in words.

    Raises:
        InputError: the data set's files disagree, the bundle takes no volumes, or nothing fits into the memory.
    """
    if wish.output.exists() and not wish.overwrite:
        raise InputError(f"{wish.output} is there already; give another --output, or --overwrite.")
    overlay = choose_overlay(wish.bundle)
    config = read_config(wish.bundle, overlay)
    found = survey(wish.dataset)
    memory, place = (wish.memory * GIB, "given") if wish.memory else available_memory()
    task = read_config(wish.bundle, overlay, only_overlay=True)
    plan = {**task, **places(wish), **settings(found, config, wish.bundle, overlay, memory)}
    with replacing(wish.output) as temporary:
        temporary.write_text(json.dumps(plan, indent=4) + "\n", encoding="utf-8")
    return describe(found, plan, wish, f"{memory / GIB:.1f} GiB ({place})")


def choose_overlay(bundle: Path) -> str | None:
    """The overlay under which ``bundle`` takes volumes with label maps, None if it does without."""
    for name in (None, *task_overlays(bundle)):
        config = read_config(bundle, name)
        if all(key in config for key in KEYS) and len(config["roi_size"]) == 3:
            return name
    raise InputError(
        f"{bundle.name} can't be planned for: it lacks one of {', '.join(KEYS)}, as for its own data only."
    )


def read_config(bundle: Path, overlay: str | None, only_overlay: bool = False) -> dict[str, Any]:
    """``train.json`` of ``bundle`` with ``overlay`` laid over it, at the top level, nothing evaluated."""
    names = ([] if only_overlay else ["train"]) + ([overlay] if overlay else [])
    config: dict[str, Any] = {}
    for name in names:
        config |= json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))
    return config


def places(wish: Wish) -> dict[str, str]:
    """Where data are read and results go: beside the plan, so that the bundle's own weights stay as they are."""
    folder = wish.output.resolve().with_suffix("")
    return {
        "dataset_dir": str(wish.dataset.resolve()),
        "ckpt_dir": str(folder / "models"),
        "output_dir": str(folder / "eval"),
    }


def settings(
    found: Survey, config: Mapping[str, Any], bundle: Path, overlay: str | None, memory: float
) -> dict[str, Any]:
    spacing = choose_spacing(found)
    shape = found.shape(spacing)
    names = list(found.labels.values())
    fixed_keys = {
        "channels": found.channels,
        # Files of one channel need no order, and may be named as the data set likes.
        "file_channels": "@channels" if len(found.channels) > 1 else None,
        class_key(config): ["background", *names[1:]],
    }
    roi, batch, samples = fit(shape, config, bundle, overlay, fixed_keys, memory)
    cached = choose_cache(
        config["cache_num"], len(found.facts), math.prod(shape), len(found.channels), len(names), ram() // 2
    )
    sizes = {"roi_size": roi, "batch_size": batch, "num_samples": samples, "cache_num": cached, "spacing": spacing}
    return {**sizes, **fixed_keys, **choose_intensities(found, config)}


def class_key(config: Mapping[str, Any]) -> str:
    """The key that lists the classes, which the number of outputs is counted from."""
    counted = re.fullmatch(r"\$len\(@(\w+)\)", str(config["out_channels"]))
    if not counted:
        raise InputError(f"out_channels is {config['out_channels']!r}, which counts no list of names.")
    return counted[1]


def fit(
    shape: Sequence[int],
    config: Mapping[str, Any],
    bundle: Path,
    overlay: str | None,
    keys: Mapping[str, Any],
    memory: float,
) -> tuple[list[int], int, int]:
    """Window, batch size and windows per case that fit; smaller windows where not even one does."""
    step = window_step(bundle)
    budget = math.prod(config["roi_size"])
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in ("train", overlay) if name])
    while True:
        roi = choose_roi(shape, step, budget)
        parser.update({**keys, "roi_size": roi})
        fixed, window = step_memory(lambda: parser.get_parsed_content("network_def"), len(keys["channels"]), roi)
        fitting = choose_batch(config["batch_size"], config["num_samples"], fixed, window, int(SPARE * memory))
        if fitting:
            return roi, *fitting
        if max(roi) <= 2 * step:
            needed = (fixed + window) / SPARE / GIB
            raise InputError(
                f"{bundle.name} needs about {needed:.1f} GiB to train on windows of {roi}, its smallest, and there are "
                f"{memory / GIB:.1f}; take a smaller network, such as --bundle mobileutr, or say --memory."
            )
        budget = math.prod(roi) - 1


def window_step(bundle: Path) -> int:
    """The number that sides of windows are multiples of, from ``"16*n"`` in metadata.json."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    sides = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    return max(int(str(side).split("*")[0]) for side in sides)


def describe(found: Survey, plan: Mapping[str, Any], wish: Wish, memory: str) -> str:
    """What was found and what was chosen, and the commands that use it."""
    low, high = ([fact.shape for fact in found.facts], [fact.spacing for fact in found.facts])
    lines = [
        f"{len(found.facts)} training cases, {len(found.channels)} channel(s): {', '.join(found.channels)}",
        f"shapes {span(low)}; spacing {span(high)} mm (right, front, head)",
    ]
    for name, row in zip(found.channels, found.percentiles(0.5, 50, 99.5)):
        lines.append(
            f"{name} in labelled voxels: 0.5 % below {row[0]:.4g}, median {row[1]:.4g}, 99.5 % below {row[2]:.4g}"
        )
    for value, name in found.labels.items():
        share, cases = found.share(value)
        lines.append(f"label {value} {name}: {100 * share:.3g} % of voxels, in {cases} of {len(found.facts)} cases")
    lines += [f"note: {note}" for note in found.notes]
    chosen = ("spacing", "roi_size", "batch_size", "num_samples", "cache_num")
    lines.append(", ".join(f"{key} {plan[key]}" for key in chosen) + f"; planned for {memory}")
    lines += [
        f"wrote {wish.output}; now:",
        f"  hybrid-nets train {wish.bundle.name} --config_file {wish.output}",
        f"  hybrid-nets segment --bundle {wish.bundle.name} --config_file {wish.output} -i scans/ -o results/",
    ]
    return "\n".join(lines)


def span(rows: Sequence[Sequence[float]]) -> str:
    """Smallest to largest of each column: ``93-118 x 75-96``."""
    columns = ((min(column), max(column)) for column in zip(*rows))
    return " x ".join(f"{low:.4g}" if low == high else f"{low:.4g}-{high:.4g}" for low, high in columns)
