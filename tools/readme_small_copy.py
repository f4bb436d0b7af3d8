"""What tools/readme_small.py runs commands on: a copy of the repository made small, weights, phantoms."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from readme_commands import ROOT

from hybrid_nets.phantoms import abdomen, brain_tumor, make_abdomen, make_brain_tumor, make_ultrasound, ultrasound
from hybrid_nets.synthesis import data_set as brain_tissue

sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "cli")]
from dicom_files import write_series
from golden_files import Golden

# The documents' folders below /data → a data set; "scans": of the bundle that the block names; None: for output.
DATA = {
    **dict.fromkeys(("BraTS2023", "validation"), "brain_tumor"),
    **dict.fromkeys(("BTCV", "MyTask", "SET", "Synapse"), "abdomen"),
    **dict.fromkeys(("BUSI", "GlaS", "new_pictures"), "ultrasound"),
    "new_scans": "scans",
    "scans": "brain_tissue/imagesTs",
    "dicom": "dicom",
    **dict.fromkeys(("results", "tissues")),
}
# The documents' released checkpoints → what rebuilds one by rule.
RELEASED = {
    "GLIMS_fold2.pt": "glims_released_fs12",
    "HyLT.pth": "hylt_released_tokens3x3",
    "MobileUViT.pth": "mobileutr2d_base",
    "RELEASED.pt": "mobileutr3d_base",
    "unet_dca.pth": "dca_unet_dca",
}
# Defaults of the configs; a tuple has one for images of two and one for images of three dimensions.
SMALL = {
    "roi_size": ([64, 64], [32, 32, 32]),
    "overlap": 0,
    "epochs": 1,
    "val_interval": 1,
    "batch_size": 1,
    "num_samples": 1,
    "num_workers": 0,
    "feature_size": 12,
    "widths": [4, 8, 8, 12, 16],
    "grid": 4,
}
SPACING = [9.0, 9.0, 9.0]  # of CT; scans of the brain stay at 1 mm
# The trained weights that documents mention → bundle, overlays, options.
WEIGHTS = {
    **{f"bundles/{name}/models/model.pt": (name, [], {}) for name in ("glims", "mobileutr", "hylt", "dca_unet")},
    "runs/model.pt": ("glims", [], {"roi_size": [64, 64, 64]}),
    "runs/volumes/model.pt": ("dca_unet", ["volumes"], {}),
}


def prepare(folder: Path) -> None:
    """Make ``repository``, ``full_bundles``, ``data``, and the ``cache`` that commands without a data set look into."""
    copy_repository(folder / "repository")
    shutil.copytree(folder / "repository" / "bundles", folder / "full_bundles")
    for config in (folder / "repository").glob("bundles/*/configs/*.json"):
        config.write_text(json.dumps(shrink(json.loads(config.read_text()))))
    for path, (bundle, overlays, options) in WEIGHTS.items():
        make_weights(folder / "repository", path, bundle, overlays, options)
    make_data(folder / "data", folder / "cache" / "phantoms")


def copy_repository(target: Path) -> None:
    """What git has or would take, so no trained weights and no results; without git all that is not hidden."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split("\0") if listed.returncode == 0 else visible_files()
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def visible_files() -> list[str]:
    files = [file.relative_to(ROOT) for file in ROOT.rglob("*")]
    return [str(file) for file in files if not any(part.startswith(".") for part in file.parts)]


def shrink(config: dict) -> dict:
    """A config with small defaults where it has any."""
    small = {name: value for name, value in SMALL.items() if name in config}
    if "roi_size" in small:
        small["roi_size"] = SMALL["roi_size"][len(config["roi_size"]) - 2]
    if config.get("spacing", [1.0] * 3) != [1.0] * 3:
        small["spacing"] = SPACING
    return {**config, **small}


def make_weights(repository: Path, path: str, bundle: str, overlays: list[str], options: dict) -> None:
    """Random ones."""
    parser = ConfigParser()
    configs = repository / "bundles" / bundle / "configs"
    parser.read_config([str(configs / f"{name}.json") for name in ("inference", *overlays)])
    parser.update(options)
    torch.manual_seed(0)
    (repository / path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(parser.get_parsed_content("network_def").state_dict(), repository / path)


def make_data(data: Path, cache: Path) -> None:
    """One data set of each kind; ``data`` has links to those in ``cache``, which the bundles find by themselves."""
    made = {
        "abdomen": make_abdomen(cache / f"abdomen-{abdomen.VERSION}", num_training=5, num_test=1),
        "brain_tumor": make_brain_tumor(cache / f"brain_tumor-{brain_tumor.VERSION}", num_training=5, num_test=1),
        "ultrasound": make_ultrasound(cache / f"ultrasound-{ultrasound.VERSION}", num_training=5, num_test=1),
        "brain_tissue": brain_tissue.make_brain_tissue(
            cache / f"brain_tissue-{brain_tissue.VERSION}", draws=2, num_folded=0, num_validation=1
        ),
    }
    cut(made["brain_tumor"], 48)
    cut(made["brain_tissue"] / "imagesTs", 64)
    data.mkdir()
    for name, folder in made.items():
        (data / name).symlink_to(folder)
    scan = nib.load(next((made["abdomen"] / "imagesTs").iterdir()))
    write_series(data / "dicom" / "series", np.asarray(scan.dataobj), np.diag([*scan.header.get_zooms(), 1.0]))


def cut(folder: Path, side: int) -> None:
    """Keep the middle of every volume, ``side`` voxels wide."""
    for file in folder.rglob("*.nii.gz"):
        volume = nib.load(file)
        part = volume.slicer[tuple(slice((n - side) // 2, (n + side) // 2) for n in volume.shape[:3])]
        nib.save(nib.Nifti1Image(np.asarray(part.dataobj), part.affine), file)


def released_checkpoint(file: Path) -> None:
    """Weights under the names of the authors' code, as ``RELEASED`` has it for the file's name."""
    torch.save({"state_dict": Golden(RELEASED[file.name]).state_dict()}, file)
