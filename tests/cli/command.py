"""The command line in this process, data to run it on, and bundles small enough for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from conftest import ROOT, TINY, save_nifti
from monai.bundle import ConfigParser

from hybrid_nets.cli import main

OBLIQUE = np.array([[3.9, -0.6, 0.3, -70.0], [0.6, 3.9, -0.4, -65.0], [-0.2, 0.4, 4.9, 12.0], [0, 0, 0, 1]])
SHAPE = (40, 36, 24)


def run(*words: object) -> int | str:
    """Exit status of ``hybrid-nets`` with these arguments, or the message that it ended on."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return 0 if end.code is None else end.code
    return 0


def make_weights(bundle: str, folder: Path) -> Path:
    """A checkpoint of random weights for the small network of ``bundle``."""
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundles" / bundle / "configs" / "inference.json"))
    parser.update(TINY[bundle])
    torch.manual_seed(1)
    path = folder / "model.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


def tiny_options(bundle: str, weights: Path) -> dict[str, object]:
    return {**TINY[bundle], "checkpoints": [str(weights)], "device": "cpu"}


def words(options: dict[str, object]) -> list[object]:
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def make_image(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Blobs of some hundred HU in a body of soft tissue in air, different for each seed, as 16-bit numbers."""
    draw = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*[np.linspace(-1, 1, side) for side in shape[:3]], indexing="ij"))
    image = np.where((axes**2).sum(0) < 0.9, 40.0, -1000.0)
    for _ in range(4):
        centre, size = draw.uniform(-0.5, 0.5, (3, 1, 1, 1)), draw.uniform(0.1, 0.3)
        image[((axes - centre) ** 2).sum(0) < size**2] = draw.uniform(-100, 250)
    image = np.maximum(image + draw.normal(0, 10, shape[:3]), -1024)  # no less fits into a CT file
    return np.repeat(image[..., None], shape[3], -1).astype(np.int16) if len(shape) > 3 else image.astype(np.int16)


def make_scans(folder: Path, count: int) -> list[Path]:
    return [save_nifti(folder / f"scan_{i}.nii.gz", make_image(i), OBLIQUE) for i in range(count)]


def results(folder: Path) -> dict[str, bytes]:
    """Label maps in a folder of results by their names, for comparison byte by byte."""
    files = [file for file in sorted(folder.rglob("*_seg.nii.gz")) if not file.name.startswith(".")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
