"""Compare the memory that ``hybrid-nets plan`` plans with and what a training with its plan takes at most, on the CPU.

    python tools/plan_memory.py                                    # mobileutr, hylt and glims, 0.5 to 4 GiB
    python tools/plan_memory.py --bundles dca_unet --memory 2,

Each plan is made for the phantom data set that its bundle has by default, and trained with for one epoch of two cases,
with one validation, in a process of its own. Its peak is that of the whole process, less what it holds after imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fire

from hybrid_nets import phantom_dir

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30
IMPORTS = "import hybrid_nets, monai.bundle, ignite, torch; hybrid_nets.GLIMS, monai.bundle.ConfigWorkflow"


def plan_memory(
    bundles: Sequence[str] = ("mobileutr", "hylt", "glims"), memory: Sequence[float] = (0.5, 1, 2, 4)
) -> None:
    """Print a row for each bundle and memory.

    Args:
        bundles: folders in bundles/ that take volumes.
        memory: in GiB, to plan for.
    """
    imports = peak([sys.executable, "-c", IMPORTS])
    print(f"after imports: {imports:.2f} GiB\n\n| bundle | planned for, GiB | windows | peak, GiB |\n|---|---|---|---|")
    for bundle in bundles:
        data = phantom_dir("brain_tumor" if bundle == "glims" else "abdomen")
        for size in memory:
            with tempfile.TemporaryDirectory() as name:
                row = train(bundle, str(data), size, Path(name))
            if row:
                windows, most = row
                print(f"| {bundle} | {size} | {windows} | {most - imports:.2f} |", flush=True)


def train(bundle: str, data: str, size: float, folder: Path) -> tuple[str, float] | None:
    """The windows of a step and the training's peak in GiB; None where no plan fits."""
    file = folder / "plan.json"
    command = [sys.executable, "-m", "hybrid_nets", "plan", data, "--bundle", bundle, "--output", str(file)]
    done = subprocess.run([*command, "--memory", str(size)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        print(f"| {bundle} | {size} | none: {done.stderr.strip().splitlines()[-1]} | |", flush=True)
        return None
    plan = json.loads(file.read_text())
    options = {
        "epochs": 1, "val_interval": 1, "num_workers": 0, "cache_num": 0, "device": "cpu",
        "ckpt_dir": folder / "models", "output_dir": folder / "eval", "datalist": first_cases(data, folder),
    }  # fmt: skip
    command = [sys.executable, "-m", "hybrid_nets", "train", bundle, "--config_file", str(file)]
    most = peak([*command, *(f"--{key}={value}" for key, value in options.items())])
    return f"{plan['batch_size']} × {plan['num_samples']} × {'×'.join(map(str, plan['roi_size']))}", most


def first_cases(data: str, folder: Path) -> Path:
    """A data list of the first cases of a data set: two to train on, as batches have two at most, and one."""
    content = json.loads((Path(data) / "dataset.json").read_text())
    cases = content["training"][:3]
    file = folder / "cases.json"
    file.write_text(json.dumps({"training": cases[:2], "validation": cases[2:]}))
    return file


def peak(command: Sequence[str]) -> float:
    """The most memory, in GiB, that ``command`` and its processes had resident, one of them at a time."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors.decode()[-3000:]}")
    return usage.ru_maxrss * 1024 / GIB


if __name__ == "__main__":
    fire.Fire(plan_memory)
