"""Measure what leaving out the air saves: GLIMS over a head of 240×240×155 voxels, by its bundle and by MONAI.

    python tools/benchmark_inferer.py draw FOLDER           # heads of this size, to train bundles/glims on
    python tools/benchmark_inferer.py run MODEL             # a checkpoint of it, on a head that is not among them
    python tools/benchmark_inferer.py run MODEL --skull true

Heads are the brain tumour phantom with voxels of 1 mm, by default without skull as in BraTS. The same network
runs over the whole image by MONAI's ``SlidingWindowInferer`` with the bundle's settings, and by the bundle's own
inferer. The first needs minutes on a CPU. What is printed: the windows and the time of each, and the Dice of the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.metrics import compute_dice
from monai.transforms import NormalizeIntensity

from hybrid_nets.phantoms import brain_tumor as phantom
from hybrid_nets.phantoms.msd import Case, write_msd
from hybrid_nets.phantoms.scan import Scan, centred, voxel_points

CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "glims" / "configs" / "inference.json"
SHAPE = (240, 240, 155)


def run(model: str, rounds: int = 1, skull: bool = False, **options: object) -> None:
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
    case = head(0, skull)
    image = NormalizeIntensity(nonzero=True, channel_wise=True)(torch.from_numpy(case.image))
    image = image[None].as_subclass(torch.Tensor)
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


def draw(folder: str, cases: int = 16) -> None:
    """Write heads with their labels, as a data set to train on; the one that ``run`` takes is not among them."""
    write_msd(folder, phantom.ABOUT, lambda index: head(index + 1), cases, 0)


def head(index: int, skull: bool = False) -> Case:
    """A head of 240×240×155 voxels; number 0 has a tumour with all its parts."""
    rng = np.random.default_rng(index)
    affine = centred(np.eye(3), np.array(SHAPE))
    plan = replace(phantom.draw_plan(index, rng), scan=Scan(SHAPE, affine, affine))
    return phantom.draw_case(plan, voxel_points(plan.scan), rng, f"head_{index:03d}", skull)


if __name__ == "__main__":
    fire.Fire({"draw": draw, "run": run})
