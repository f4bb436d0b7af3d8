from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "tests/nets", "tests/phantoms", "tools")]

os.environ.setdefault("HYBRID_NETS_CACHE", str(ROOT / ".cache"))  # phantoms are made once, and not in the user's home

# Options with which each bundle's network and data are small.
SMALL_VOLUME = {"roi_size": [32, 32, 32], "spacing": [9.0, 9.0, 9.0]}
TINY = {
    "glims": {"feature_size": 12, "roi_size": [32, 32, 32]},
    "mobileutr": SMALL_VOLUME,
    "hylt": {**SMALL_VOLUME, "widths": [4, 8, 8, 12, 16]},
    "dca_unet": {"roi_size": [64, 64], "widths": [4, 8, 12, 16, 16], "grid": 4},
}


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture(scope="session")
def run_bundle():
    """Run ``python -m monai.bundle`` as a user does, in a process of its own."""

    def run(*arguments: object, check: bool = True, cwd: Path = ROOT, **options: object) -> subprocess.CompletedProcess:
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "monai.bundle", *map(str, arguments), *given]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-16000:]}")
        return done

    return run


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training cases and one to segment, cut from the phantom to about 40 voxels a side, oblique affines kept."""
    from hybrid_nets.phantoms import make_brain_tumor

    root = tmp_path_factory.mktemp("data")
    source, target = make_brain_tumor(root / "full", num_training=4, num_test=1), root / "small"
    content = json.loads((source / "dataset.json").read_text())
    for file in sorted(source.rglob("*.nii.gz")):
        image = nib.load(file)
        data = np.asarray(image.dataobj)
        cut = tuple(slice(side // 4, side // 4 + 40) for side in data.shape[:3])
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start for part in cut]
        save_nifti(target / file.relative_to(source), data[cut], affine)
    (target / "dataset.json").write_text(json.dumps(content))
    return target
