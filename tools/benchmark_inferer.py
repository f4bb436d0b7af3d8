"""Measure what leaving out the air saves: GLIMS over a head of 240×240×155 voxels, by its bundle and by MONAI.

    python tools/benchmark_inferer.py MODEL --feature_size 12       # a checkpoint of bundles/glims
    python tools/benchmark_inferer.py MODEL --feature_size 12 --skull true

The head is the brain tumour phantom with voxels of 1 mm, by default without its skull as in BraTS. The same network
runs over the whole image by MONAI's ``SlidingWindowInferer`` with the bundle's settings, and by the bundle's own
inferer. The first needs minutes on a CPU. What is printed: the windows and the time of each, and the Dice of the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.metrics import compute_dice
from monai.transforms import NormalizeIntensity

from hybrid_nets.phantoms import brain_tumor as phantom
from hybrid_nets.phantoms.head import cavity_distance, head_layers
from hybrid_nets.phantoms.scan import Scan, centred, voxel_points

CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "glims" / "configs" / "inference.json"
SHAPE = (240, 240, 155)


def benchmark_inferer(model: str, rounds: int = 1, skull: bool = False, **options: object) -> None:
    """Print windows, times and agreement.

    Args:
        model: the checkpoint.
        rounds: how often each runs, in turns; the ratio is that of the medians.
        skull: with skull and scalp, which BraTS has removed.
        options: keys of the bundle's inference.json, such as feature_size and overlap.
    """
    parser = ConfigParser()
    parser.read_config(str(CONFIG))
    parser.update({**options, "checkpoints": [model], "device": "cpu"})
    image = draw_head(skull)
    inside = (image != 0).any(1, keepdim=True)
    settings = {name: parser.get_parsed_content(name) for name in ("roi_size", "overlap", "sw_batch_size")}
    network = Counted(parser.get_parsed_content("network").eval())
    inferers = {
        "MONAI": SlidingWindowInferer(**settings, mode="gaussian"),
        "bundle": parser.get_parsed_content("inferer"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in inferers}
    masks = {}
    for _ in range(rounds):
        for name, inferer in inferers.items():
            network.windows, start = 0, time.perf_counter()
            with torch.no_grad():
                masks[name] = (inferer(image, network) > 0) & inside
            seconds[name].append(time.perf_counter() - start)
            print(f"{name}: {network.windows} windows, {seconds[name][-1]:.1f} s", flush=True)
    times = {name: np.median(values) for name, values in seconds.items()}
    dice = compute_dice(masks["bundle"], masks["MONAI"], ignore_empty=False)[0]
    names = parser.get_parsed_content("class_names")
    print(f"{'×'.join(map(str, SHAPE))} voxels, {1 - inside.float().mean():.0%} of them air, {rounds} round(s)")
    print(f"time of the bundle's inferer over MONAI's: {times['bundle'] / times['MONAI']:.3f}")
    for name, value, mask in zip(names, dice, masks["MONAI"][0]):
        print(f"Dice of the two, {name}: {value:.4f} ({int(mask.sum()):,} voxels)")


class Counted:
    """A network that counts the windows it is given."""

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.network, self.windows = network, 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.windows += len(x)
        return self.network(x)


def draw_head(skull: bool, seed: int = 0) -> torch.Tensor:
    """A head with a tumour, normalised as the bundle does: (1, 4, 240, 240, 155)."""
    rng = np.random.default_rng(seed)
    affine = centred(np.eye(3), np.array(SHAPE))
    plan = phantom.Plan(
        "full", Scan(SHAPE, affine, affine), phantom.TumorPlan("full", (30.0, 20.0, 25.0), 60.0, 0.4, 4.0)
    )
    points = phantom.warp(voxel_points(plan.scan), rng)
    cavity = cavity_distance(points, rng)
    signal = np.zeros((4, len(cavity)), np.float32)
    head = cavity < 0
    if skull:
        head |= phantom.paint(signal, head_layers(points, cavity, rng), phantom.SIGNAL) != 0
    inside = np.flatnonzero(cavity < 0)
    signal[:, inside], _ = phantom.draw_brain(points[:, inside], cavity[inside], plan, rng)
    image = phantom.acquire(signal, points, head, rng).reshape(4, *SHAPE)
    return NormalizeIntensity(nonzero=True, channel_wise=True)(torch.from_numpy(image))[None].as_subclass(torch.Tensor)


if __name__ == "__main__":
    fire.Fire(benchmark_inferer)
