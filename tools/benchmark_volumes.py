"""Measure a bundle on a whole-body CT: the peak memory and the time of ``monai.bundle run``, on the CPU.

    python tools/benchmark_volumes.py                                    # 512×512×800 voxels of 0.8×0.8×1 mm
    python tools/benchmark_volumes.py --spacing 1.5,1.5,2 --overlap 0    # the network's own grid, as large
    python tools/benchmark_volumes.py --low_memory false --size 256,256,400

The image is a body of soft tissue with noise in air, the weights are random: neither memory nor time depends on what
either holds, but for the air, whose windows are skipped.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fire
import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser

CONFIGS = "bundles/{}/configs"
ROOT = Path(__file__).resolve().parents[1]


def benchmark_volumes(
    bundle: str = "mobileutr",
    overlay: str = "",
    size: tuple[int, int, int] = (512, 512, 800),
    spacing: tuple[float, float, float] = (0.8, 0.8, 1.0),
    low_memory: bool = True,
    **options: object,
) -> None:
    """Print one line of facts.

    Args:
        bundle: a folder in bundles/.
        overlay: a further config of the bundle, such as "volumes" of dca_unet.
        size: of the image in voxels.
        spacing: of its voxels in mm.
        low_memory: the bundle's option.
        options: further ones, such as overlap.
    """
    configs = [ROOT / CONFIGS.format(bundle) / f"{name}.json" for name in ("inference", overlay) if name]
    given = {"low_memory": low_memory, "device": "cpu", **options}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_body(folder / "cases" / "body.nii.gz", size, spacing)
        torch.save(random_weights(configs, options), folder / "model.pt")
        given |= {
            "dataset_dir": folder / "cases",
            "checkpoints": [str(folder / "model.pt")],
            "output_dir": folder / "out",
        }
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str([str(path) for path in configs])]
        start = time.perf_counter()
        subprocess.run([*command, *(f"--{key}={value}" for key, value in given.items())], cwd=ROOT, check=True)
        elapsed = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        labels = nib.load(folder / "out" / "body_seg.nii.gz")
        print(
            f"{bundle} {overlay}, {'×'.join(map(str, labels.shape))} voxels of {'×'.join(map(str, spacing))} mm, "
            f"low_memory {low_memory}: peak {peak:.2f} GiB, {elapsed:.0f} s"
        )


def write_body(file: Path, size: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """An elliptic cylinder of 0 to 80 HU, 400 mm by 260 mm, in air."""
    file.parent.mkdir()
    rng = np.random.default_rng(0)
    x, y = np.ogrid[: size[0], : size[1]]
    inside = ((x - size[0] / 2) * spacing[0] / 200) ** 2 + ((y - size[1] / 2) * spacing[1] / 130) ** 2 < 1
    voxels = np.full(size, -1000, np.int16)
    for z in range(size[2]):
        voxels[inside, z] = rng.integers(0, 80, int(inside.sum()), dtype=np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), file)


def random_weights(configs: list[Path], options: dict) -> dict[str, torch.Tensor]:
    parser = ConfigParser()
    parser.read_config([str(path) for path in configs])
    parser.update({key: value for key, value in options.items() if key in parser})
    torch.manual_seed(0)
    return parser.get_parsed_content("network_def").state_dict()


if __name__ == "__main__":
    fire.Fire(benchmark_volumes)
