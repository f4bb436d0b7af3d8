"""Measure our networks and MONAI's against each other: time, training step, peak memory, and the arithmetic's floor.

    python tools/benchmark.py                                       # everything
    python tools/benchmark.py --only GLIMS,SwinUNETR-48 --rounds 3  # some networks
    python tools/benchmark.py --parts forward --write_docs          # some columns; also into docs/performance.md

Each network lives in a process of its own; these take turns in several rounds, so that what else the machine does hits
all alike, and a ratio is taken inside each round. Peak memory is measured in a fresh process per network and pass. A
part that is measured again replaces what the folder ``--out`` holds of it; the rest stays. Columns:

- forward: one input in evaluation, without gradients; training: forward pass, loss and backward pass of one input.
- MiB: peak memory of one such pass, weights included, imports not.
- GMACs: of convolutions, linear layers and attention, as in the README (tools/model_table.py).
- floor: GMACs over the rate at which a dense 3³ convolution (64 channels, 48³, float32) runs in the same rounds.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import fire
import monai
import torch
from benchmark_measure import (
    NETWORKS,
    PARTS,
    VARIANTS,
    DenseConvolution,
    Worker,
    check_names,
    peak_elsewhere,
    take_turns,
)
from benchmark_report import markdown, plot, write_between
from model_table import Row, measure
from torch import nn

from hybrid_nets import InputError, show_short_errors
from hybrid_nets.atomic import replacing

DOCS = Path(__file__).parents[1] / "docs" / "performance.md"


class Goal(NamedTuple):
    """``name``'s ``part`` over that of ``other``, or over ``name``'s own floor, is to be at most ``ratio``."""

    text: str
    part: str
    name: str
    other: str | None
    ratio: float


GOALS = (
    Goal("GLIMS 96³ forward over SwinUNETR-48", "forward", "GLIMS", "SwinUNETR-48", 0.15),
    Goal("GLIMS 96³ training step over SwinUNETR-48", "training", "GLIMS", "SwinUNETR-48", 0.20),
    Goal("GLIMS 96³ training memory over SwinUNETR-48", "training MiB", "GLIMS", "SwinUNETR-48", 0.6),
    Goal("MobileUtr 3-D base 96³ forward over SegResNet-16", "forward", "MobileUtr 3-D base", "SegResNet-16", 0.8),
    Goal("MobileUtr base 256² forward over its floor", "forward", "MobileUtr base", None, 3.0),
    Goal("HyLT 224² forward over its floor", "forward", "HyLT", None, 1.5),
    Goal("U-Net with DCA 224² forward over U-Net", "forward", "U-Net with DCA", "U-Net", 1.15),
)


def benchmark(
    device: str = "cpu",
    threads: int = 0,
    rounds: int = 5,
    only: str = "",
    parts: str = "forward,training,memory",
    variants: str = "",
    sides: str = "",
    roi_sides: str = "",
    keep_memory: bool = False,
    out: str = "benchmark",
    write_docs: bool = False,
) -> None:
    """Measure, and write benchmark.json, benchmark.md and benchmark.png into a folder.

    Args:
        device: "cpu" or "cuda".
        threads: of PyTorch on the CPU; 0 for its own choice.
        rounds: how often each network runs; once more before, which does not count.
        only: names of networks, comma separated; all if not given.
        parts: some of "forward", "training" and "memory".
        variants: also measure each network with "autocast", "channels_last" or "compile", comma separated.
        sides: side lengths of the inputs instead of the networks' own: one for all, or one per dimension, "32,64" for
            32³ and 64².
        roi_sides: further sides to measure the memory of 3-D networks at.
        keep_memory: call hybrid_nets.keep_memory() first; what that does to any network on Linux is in its docstring.
        out: folder for the results.
        write_docs: also put the tables into docs/performance.md.
    """
    names = split(only) or list(NETWORKS)
    check_names(names, NETWORKS, "network")
    check_names(split(parts), (*PARTS, "memory"), "part")
    check_names(split(variants), VARIANTS[1:], "variant")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("PyTorch sees no GPU here; leave out --device cuda.")
    own_sides = [int(side) for side in split(sides)]
    chosen = {name: side_of(name, own_sides) for name in names}
    options = {"device": device, "threads": threads, "keep": keep_memory}
    file = Path(out) / "benchmark.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    if "memory" in split(parts):
        result["memory"] = {
            "facts": facts(device, threads, keep_memory),
            "MiB": memory(chosen, split(roi_sides), options),
        }
    result["networks"] = {**result.get("networks", {}), **{name: costs(name, side) for name, side in chosen.items()}}
    for part in PARTS:
        if part in split(parts):
            result[part] = timed(part, chosen, ["", *split(variants)], rounds, options)
            result[part]["facts"] = facts(device, threads, keep_memory)
    result["goals"] = [row for goal in GOALS if (row := judged(goal, result))]
    text = markdown(result, [*PARTS, "memory"])
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    with replacing(file.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    with replacing(file.with_suffix(".png")) as temporary:
        plot(result, temporary)
    if write_docs:
        write_between(DOCS, text)
    print(text)


def split(text: str | int | tuple) -> list[str]:
    """What fire made of a comma-separated option, as a list of words."""
    return [str(part) for part in text] if isinstance(text, (tuple, list)) else [p for p in str(text).split(",") if p]


def side_of(name: str, sides: list[int]) -> int:
    """The side that a network is measured at."""
    network = NETWORKS[name]
    return network.side if not sides else sides[0] if network.dims == 3 else sides[-1]


def costs(name: str, side: int) -> dict:
    """What doesn't depend on the machine."""
    network = NETWORKS[name]
    size = (network.channels, *[side] * network.dims)

    def build() -> nn.Module:
        with torch.device("cpu"):  # MONAI's SwinUNETR can't be built without data
            return network.build(side).to("meta")

    parameters, macs = measure(Row(name, build, size))
    return {"input": list(size), "parameters": parameters, "GMACs": macs / 1e9}


def timed(part: str, chosen: dict[str, int], variants: list[str], rounds: int, options: dict) -> dict:
    """Seconds per round of every network and variant, and of the dense convolution (GMAC/s)."""
    workers = {
        f"{name}, {variant}" if variant else name: Worker(name, side, variant=variant, **options)
        for name, side in chosen.items()
        for variant in variants
    }
    if part == "forward":
        workers["dense"] = Worker("dense", 0, variant="", **options)
    times = take_turns(workers, part, rounds)
    dense = times.pop("dense", [])
    return {
        "seconds": {name: spread(values) for name, values in times.items()},
        "dense": spread([DenseConvolution.macs / 1e9 / elapsed for elapsed in dense]) if dense else None,
    }


def memory(chosen: dict[str, int], roi_sides: list[str], options: dict) -> dict:
    """MiB of the forward pass and of the training step of each network, per side."""
    measured: dict[str, dict] = {}
    for name, side in chosen.items():
        more = [int(roi) for roi in roi_sides] if NETWORKS[name].dims == 3 else []
        for part in PARTS:
            measured.setdefault(name, {})[part] = {
                str(at): peak_elsewhere(name, part=part, side=at, **options) for at in sorted({side, *more})
            }
        print(f"memory: {name} done", file=sys.stderr)
    return measured


def spread(values: list[float]) -> dict:
    """Median, quartiles and all values."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "quartiles": [low, high], "all": values}


def judged(goal: Goal, result: dict) -> dict | None:
    """A goal's ratio, or None if it was not measured: the median of the rounds' ratios where there are rounds."""
    part = goal.part.removesuffix(" MiB")
    if goal.part != part:
        measured = result.get("memory", {}).get("MiB", {})
        values = [measured.get(name, {}).get(part, {}) for name in (goal.name, goal.other)]
        sides = [str(result["networks"].get(name, {"input": [0]})["input"][-1]) for name in (goal.name, goal.other)]
        if not all(side in value for side, value in zip(sides, values)):
            return None
        ratio = spread([values[0][sides[0]] / values[1][sides[1]]])
    else:
        times = result.get(part, {}).get("seconds", {})
        if goal.name not in times or (goal.other or goal.name) not in times:
            return None
        if goal.other:
            below = times[goal.other]["all"]
        else:
            below = [result["networks"][goal.name]["GMACs"] / rate for rate in result[part]["dense"]["all"]]
        ratio = spread([one / other for one, other in zip(times[goal.name]["all"], below)])
    return {"goal": goal.text, "at_most": goal.ratio, "ratio": ratio, "reached": ratio["median"] <= goal.ratio}


def facts(device: str, threads: int, keep_memory: bool) -> dict:
    """The machine, threads and versions."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = ", ".join(f"{len(list(same))} × {model}" for model, same in groupby(models)) or processor
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name() if device == "cuda" else processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads or torch.get_num_threads(),
        "freed memory kept": keep_memory,
        "system": f"{platform.system()} {platform.release()}, {os.confstr('CS_GNU_LIBC_VERSION') or ''}".rstrip(", "),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "monai": monai.__version__,
    }


if __name__ == "__main__":
    show_short_errors()
    fire.Fire(benchmark)
