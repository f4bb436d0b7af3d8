"""The bundle as its users run it: commands in processes of their own, on files."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import ROOT, save_nifti

CONFIGS = ROOT / "bundles" / "glims" / "configs"
TRAIN, INFERENCE = CONFIGS / "train.json", CONFIGS / "inference.json"
EVALUATE = f"['{TRAIN}','{CONFIGS / 'evaluate.json'}']"
SMALL = {"feature_size": 12, "roi_size": "[32,32,32]", "num_workers": 0}
BRIEF = {**SMALL, "batch_size": 1, "epochs": 1, "device": "cpu"}


def folders(root: Path) -> dict:
    return {"ckpt_dir": root / "models", "output_dir": root / "eval"}


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_phantom: Path, run_bundle) -> Path:
    root = tmp_path_factory.mktemp("trained")
    run_bundle("run", config_file=TRAIN, dataset_dir=small_phantom, **BRIEF, **folders(root))
    return root


def test_training_leaves_checkpoints_and_logs(trained: Path) -> None:
    assert sorted(p.name for p in (trained / "models").iterdir()) == ["model.pt", "resume.pt"]
    assert all(isinstance(tensor, torch.Tensor) for tensor in load(trained / "models" / "model.pt").values())
    assert load(trained / "models" / "resume.pt")["epoch"] == 1
    assert list((trained / "eval").glob("events.out.tfevents.*"))


def test_inference_keeps_geometry(trained: Path, small_phantom: Path, tmp_path: Path, run_bundle) -> None:
    """Oblique and flipped volumes come back as uint8 label maps on the voxels of their image."""
    scans = tmp_path / "scans"
    affines = {
        "ras": np.diag([1.5, 2.0, 2.5, 1.0]),
        "flipped": np.array([[0, 0, -2.0, 30], [-1.5, 0, 0, 20], [0, 2.2, 0, -10], [0, 0, 0, 1]]),
        "oblique": np.array([[-1.4, 0.3, 0.2, 5], [0.3, 1.6, -0.4, -7], [-0.2, 0.5, 2.0, 3], [0, 0, 0, 1]]),
    }
    volume = np.asarray(nib.load(next((small_phantom / "imagesTs").iterdir())).dataobj)[:33, :38, :20]
    for name, affine in affines.items():
        save_nifti(scans / f"{name}.nii.gz", volume, affine)
    models = trained / "models"
    pair = f"['{models / 'model.pt'}','{models / 'resume.pt'}']"  # an ensemble, of the two formats
    options = {**SMALL, "checkpoints": pair, "save_probabilities": "true", "output_dir": tmp_path / "out"}
    run_bundle("run", config_file=INFERENCE, dataset_dir=scans, **options)
    assert len(list((tmp_path / "out").iterdir())) == 6
    for name, affine in affines.items():
        image = nib.load(tmp_path / "out" / f"{name}_seg.nii.gz")
        assert image.shape == volume.shape[:3] and image.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
        assert set(np.unique(np.asarray(image.dataobj))) <= {0, 1, 2, 3}
        probabilities = np.asarray(nib.load(tmp_path / "out" / f"{name}_prob.nii.gz").dataobj)
        assert probabilities.shape == (*volume.shape[:3], 3)
        assert probabilities.min() >= 0 and 0 < probabilities.max() <= 1


def test_evaluation(trained: Path, small_phantom: Path, tmp_path: Path, run_bundle) -> None:
    options = {**SMALL, "ckpt_dir": trained / "models", "output_dir": tmp_path}
    run_bundle("run", config_file=EVALUATE, dataset_dir=small_phantom, **options)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["tumour core", "whole tumour", "enhancing tumour"]
    assert json.loads((tmp_path / "summary.json").read_text()).keys() == {row["class"] for row in rows}
    assert not list(tmp_path.glob("events*"))


def test_resumed_training_equals_an_undisturbed_one(
    trained: Path, small_phantom: Path, tmp_path: Path, run_bundle
) -> None:
    data = {"dataset_dir": small_phantom, **BRIEF, "epochs": 2, "val_interval": 1}
    run_bundle("run", config_file=TRAIN, **data, **folders(tmp_path / "whole"))
    first = {**data, "epochs": 1, "lr_scheduler#T_max": 2}
    run_bundle("run", config_file=TRAIN, **first, **folders(tmp_path / "parts"))
    done = run_bundle("run", config_file=TRAIN, **data, resume="true", **folders(tmp_path / "parts"))
    assert "after epoch 1" in done.stdout
    whole, parts = (load(tmp_path / name / "models" / "resume.pt") for name in ("whole", "parts"))
    assert whole["epoch"] == parts["epoch"] == 2 and whole["best_score"] == parts["best_score"]
    assert all(torch.equal(whole["model"][key], parts["model"][key]) for key in whole["model"])


def write_brats(source: Path, target: Path, pattern: str, endings: dict[str, int], seg: str, enhancing: int) -> None:
    """The phantom's cases as BraTS ships its own: a folder per case, a file per contrast."""
    for image in sorted(source.glob("images*/*.nii.gz")):
        case = pattern.format(int(image.name.removesuffix(".nii.gz").split("_")[-1]))
        scan = nib.load(image)
        for ending, channel in endings.items():
            save_nifti(target / case / f"{case}{ending}.nii.gz", np.asarray(scan.dataobj)[..., channel], scan.affine)
        label = source / "labelsTr" / image.name
        if label.is_file():
            values = np.asarray(nib.load(label).dataobj).astype(np.uint8)
            values[values == 3] = enhancing
            save_nifti(target / case / f"{case}{seg}.nii.gz", values, scan.affine)


@pytest.mark.parametrize(
    ("pattern", "endings", "seg", "enhancing"),
    [
        ("BraTS2021_{:05d}", {"_flair": 0, "_t1ce": 1, "_t1": 2, "_t2": 3}, "_seg", 4),
        ("BraTS-GLI-{:05d}-000", {"-t2f": 0, "-t1c": 1, "-t1n": 2, "-t2w": 3}, "-seg", 3),
    ],
)
def test_brats_as_downloaded(
    trained: Path,
    small_phantom: Path,
    tmp_path: Path,
    run_bundle,
    pattern: str,
    endings: dict,
    seg: str,
    enhancing: int,
) -> None:
    """Same cases, same seed: whatever the layout, the same weights come out of training."""
    write_brats(small_phantom, tmp_path / "data", pattern, endings, seg, enhancing)
    run_bundle("run", config_file=TRAIN, dataset_dir=tmp_path / "data", **BRIEF, **folders(tmp_path))
    weights, reference = (load(root / "models" / "model.pt") for root in (tmp_path, trained))
    assert all(torch.equal(weights[key], reference[key]) for key in reference)
    run_bundle("run", config_file=INFERENCE, dataset_dir=tmp_path / "data", **SMALL, **folders(tmp_path))
    assert [p.name for p in (tmp_path / "eval").glob("*.nii.gz")] == [f"{pattern.format(4)}_seg.nii.gz"]


def test_multi_organ_overlay(tmp_path: Path, run_bundle) -> None:
    rng, data = np.random.default_rng(0), tmp_path / "data"
    for i in range(3):
        label = np.zeros((30, 34, 20), np.uint8)
        label[5:20, 5:20, 5:15], label[22:28, 8:30, 4:16] = 1, 2
        image = (label * 100 - 100 + rng.normal(0, 10, label.shape)).astype(np.int16)
        affine = np.diag([2.0, 1.5, 3.0, 1.0])
        save_nifti(data / "imagesTr" / f"{i}.nii.gz", image, affine)
        save_nifti(data / "labelsTr" / f"{i}.nii.gz", label, affine)
    training = [{"image": f"imagesTr/{i}.nii.gz", "label": f"labelsTr/{i}.nii.gz"} for i in range(3)]
    content = {
        "labels": {"0": "background", "1": "box", "2": "rod"},
        "training": training[:2],
        "validation": training[2:],
    }
    (data / "dataset.json").write_text(json.dumps({**content, "test": ["imagesTr/2.nii.gz"]}))
    options = {"dataset_dir": data, **SMALL, "out_channels": 3, **folders(tmp_path)}
    overlay = CONFIGS / "multi_organ.json"
    run_bundle("run", config_file=f"['{TRAIN}','{overlay}']", **options, batch_size=1, epochs=1)
    run_bundle("run", config_file=f"['{INFERENCE}','{overlay}']", **options)
    result = nib.load(tmp_path / "eval" / "2_seg.nii.gz")
    assert result.shape == (30, 34, 20) and set(np.unique(np.asarray(result.dataobj))) <= {0, 1, 2}
    evaluate = f"['{TRAIN}','{CONFIGS / 'evaluate.json'}','{overlay}']"
    run_bundle("run", config_file=evaluate, **options)
    assert len((tmp_path / "eval" / "metrics.csv").read_text().splitlines()) == 1 + 2


def test_offline_checks_of_monai(trained: Path, tmp_path: Path, run_bundle) -> None:
    meta = CONFIGS / "metadata.json"
    run_bundle("verify_metadata", meta_file=meta, filepath=ROOT / "tools" / "meta_schema_20240725.json")
    run_bundle("verify_net_in_out", "network_def", meta_file=meta, config_file=INFERENCE, device="cpu", feature_size=12)
    checkpoint = trained / "models" / "model.pt"
    options = {"ckpt_file": checkpoint, "filepath": tmp_path / "model.ts", "feature_size": 12, "roi_size": "[32,32,32]"}
    run_bundle("ckpt_export", "network_def", meta_file=meta, config_file=INFERENCE, **options)
    from hybrid_nets import GLIMS, load_network

    network = load_network(GLIMS(4, 3, 32, 12, deep_supervision=True), checkpoint).eval()
    x = torch.randn(1, 4, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(x), network(x), rtol=1e-4, atol=1e-5)


def spoil(file: Path, change) -> None:
    image = nib.load(file)
    save_nifti(file, change(np.asarray(image.dataobj).astype(np.float32)), image.affine)


def put(array: np.ndarray, value: float) -> np.ndarray:
    array[(3,) * array.ndim] = value
    return array


@pytest.mark.parametrize(
    ("break_data", "message"),
    [
        (
            lambda d: spoil(d / "labelsTr/brain_tumor_001.nii.gz", lambda a: put(a, 7)),
            "label values 7 that are not declared",
        ),
        (
            lambda d: spoil(d / "imagesTr/brain_tumor_002.nii.gz", lambda a: a[..., :3]),
            "has 3 channels, the network takes 4",
        ),
        (lambda d: spoil(d / "imagesTr/brain_tumor_001.nii.gz", lambda a: put(a, np.nan)), "1 voxels that are NaN"),
        (lambda d: shutil.rmtree(d / "imagesTr"), "does not exist; correct the data list"),
        (lambda d: [p.unlink() for p in d.rglob("*.*")], "no NIfTI files or pictures"),
    ],
    ids=["undeclared label", "three channels", "NaN", "no images", "empty folder"],
)
def test_bad_data_is_one_line(
    small_phantom: Path, tmp_path: Path, run_bundle, break_data: Callable, message: str
) -> None:
    """The error comes from a loader process, whose exceptions reach the main one as text."""
    data = shutil.copytree(small_phantom, tmp_path / "data")
    break_data(data)
    options = {**BRIEF, "num_workers": 1, "cache_num": 0, **folders(tmp_path)}
    done = run_bundle("run", config_file=TRAIN, dataset_dir=data, check=False, **options)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not (tmp_path / "models").exists()


def test_missing_modality_is_one_line(small_phantom: Path, tmp_path: Path, run_bundle) -> None:
    write_brats(small_phantom, tmp_path / "data", "case_{}", {"_flair": 0, "_t1ce": 1, "_t1": 2}, "_seg", 4)
    done = run_bundle("run", config_file=INFERENCE, dataset_dir=tmp_path / "data", check=False, **folders(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    # Inference looks for weights first: both are missing here, and each is a line that says what to do.
    assert "error: no checkpoint at" in done.stderr or "no T2 image" in done.stderr


def test_checkpoint_of_another_feature_size(trained: Path, small_phantom: Path, tmp_path: Path, run_bundle) -> None:
    options = {**SMALL, "feature_size": 24, "ckpt_dir": trained / "models", "output_dir": tmp_path}
    done = run_bundle("run", config_file=INFERENCE, dataset_dir=small_phantom, check=False, **options)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "does not fit the network" in done.stderr and "--feature_size" in done.stderr


def test_images_smaller_than_the_roi_work(trained: Path, tmp_path: Path, run_bundle) -> None:
    rng = np.random.default_rng(0)
    save_nifti(tmp_path / "data" / "thin.nii.gz", rng.random((20, 31, 9, 4)).astype(np.float32))
    options = {**SMALL, "ckpt_dir": trained / "models", "output_dir": tmp_path / "out"}
    run_bundle("run", config_file=INFERENCE, dataset_dir=tmp_path / "data", **options)
    assert nib.load(tmp_path / "out" / "thin_seg.nii.gz").shape == (20, 31, 9)
