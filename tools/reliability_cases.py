"""What the parts of tools/reliability.py share: small scans, small networks, and ``hybrid-nets segment`` on them."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser

__all__ = [
    "AFFINE",
    "Cohort",
    "Usage",
    "draw_scan",
    "follow",
    "label_maps",
    "permissions_bind",
    "save",
    "start",
    "tiny_command",
]

ROOT = Path(__file__).resolve().parents[1]
AFFINE = np.array([[3.9, -0.6, 0.3, -70.0], [0.6, 3.9, -0.4, -65.0], [-0.2, 0.4, 4.9, 12.0], [0, 0, 0, 1]])
SHAPE = (40, 36, 24)
LESS_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override")
# Options with which the networks of these bundles are small.
TINY: dict[str, dict[str, object]] = {
    "mobileutr": {"roi_size": [32, 32, 32], "spacing": [9.0, 9.0, 9.0]},
    "glims": {"feature_size": 12, "roi_size": [32, 32, 32]},
}


def draw_scan(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Balls of some hundred HU in soft tissue in air, others for each seed; (x, y, z) as 16-bit numbers."""
    draw = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    image = np.where((axes**2).sum(0) < 0.9, 40.0, -1000.0)
    for _ in range(4):
        centre, radius = draw.uniform(-0.5, 0.5, (3, 1, 1, 1)), draw.uniform(0.1, 0.3)
        image[((axes - centre) ** 2).sum(0) < radius**2] = draw.uniform(-100, 250)
    return (image + draw.normal(0, 10, shape)).astype(np.int16)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def tiny_command(bundle: str, folder: Path) -> list[str]:
    """``hybrid-nets segment`` with a small network of ``bundle``, whose random weights are put into ``folder``."""
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundles" / bundle / "configs" / "inference.json"))
    parser.update(TINY[bundle])
    torch.manual_seed(1)
    weights = folder / f"{bundle}.pt"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(parser.get_parsed_content("network_def").state_dict(), weights)
    options = {**TINY[bundle], "checkpoints": [str(weights)], "device": "cpu"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "hybrid_nets", "segment", "--bundle", bundle, *words]


@dataclass(frozen=True)
class Cohort:
    """A folder of scans, the command that segments it, and where results go."""

    command: list[str]
    scans: Path
    output: Path

    @property
    def words(self) -> list[str]:
        return [*self.command, "-i", str(self.scans), "-o", str(self.output)]

    def run(self) -> subprocess.CompletedProcess:
        return self.watch(())[0]

    def watch(self, marks: Sequence[int]) -> tuple[subprocess.CompletedProcess, list[Usage]]:
        """Run it, and look at what the process holds when ``marks`` many cases are segmented.

        Raises:
            RuntimeError: it ended otherwise than the command says it may.
        """
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = start(self.words, stdout=out, stderr=err)
            found = follow(process, self.output, marks)
            texts = [(file.seek(0), file.read())[1] for file in (out, err)]
        if process.returncode not in (0, 1) or "Traceback" in texts[1]:
            raise RuntimeError(texts[1][-3000:])
        return subprocess.CompletedProcess(self.words, process.returncode, *texts), found

    def failures(self) -> dict[str, str]:
        """Case → reason."""
        file = self.output / "failures.csv"
        rows = csv.DictReader(file.read_text().splitlines()) if file.is_file() else ()
        return {row["case"]: row["reason"] for row in rows}


def start(words: Sequence[str], stdout: object = subprocess.DEVNULL, stderr: object = None) -> subprocess.Popen:
    return subprocess.Popen(bound(words), cwd=ROOT, stdout=stdout, stderr=stderr or stdout)


def bound(words: Sequence[str]) -> list[str]:
    """The command, for root without its right to read what permissions forbid."""
    return [*LESS_RIGHTS, *words] if os.geteuid() == 0 and permissions_bind() else list(words)


@cache
def permissions_bind() -> bool:
    """Whether permissions stop who runs this; root they do where ``setpriv`` can take a right away."""
    if os.geteuid():
        return True
    return bool(shutil.which("setpriv")) and subprocess.run([*LESS_RIGHTS, "true"], capture_output=True).returncode == 0


def label_maps(output: Path) -> dict[str, bytes]:
    """Name → content of the label maps in a folder of results."""
    files = [file for file in sorted(output.rglob("*_seg.nii.gz")) if not file.name.startswith(".")]
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


@dataclass(frozen=True)
class Usage:
    """What a process holds: resident memory in MiB, open files, threads; after so many cases and seconds."""

    cases: int
    seconds: float
    memory: float
    files: int
    threads: int


def follow(process: subprocess.Popen, output: Path, marks: Sequence[int]) -> list[Usage]:
    """What ``process`` holds when ``marks`` many cases are segmented; it is waited for."""
    found: list[Usage] = []
    began = time.monotonic()
    while process.poll() is None:
        done = len(list(output.glob("[!.]*_seg.nii.gz")))
        if len(found) < len(marks) and done >= marks[len(found)]:
            found.append(look(process.pid, done, time.monotonic() - began))
        time.sleep(0.05)
    return found


def look(pid: int, cases: int, seconds: float) -> Usage:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    memory = int(status["VmRSS"].split()[0]) / 1024
    return Usage(cases, seconds, memory, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]))
