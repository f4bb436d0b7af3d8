"""The brain bundle: it trains on scans that it draws, and segments real ones of any orientation."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from brain_cases import make_cases
from brain_validate import measure
from conftest import ROOT, save_nifti
from monai.bundle import ConfigParser

from hybrid_nets.errors import find_input_error
from hybrid_nets.synthesis import encode_anatomy

CONFIGS = ROOT / "bundles" / "mobileutr_brain" / "configs"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ball of white matter in grey matter around a ventricle for an anatomy, and a scan of it."""
    folder = tmp_path_factory.mktemp("data")
    radius = np.linalg.norm(np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij"), axis=0)
    brain, white = radius < 18, (radius > 5) & (radius < 12)
    grey = (radius >= 12) & brain
    label = (brain * (1 + grey + 2 * white)).astype(np.uint8)
    codes = encode_anatomy(grey, white, np.where(radius <= 5, 2, 0), brain)
    affine = np.eye(4)
    affine[:3, 3] = -20
    save_nifti(folder / "imagesTr" / "ball.nii.gz", codes, affine)
    save_nifti(folder / "labelsTr" / "ball.nii.gz", label, affine)
    image = np.random.default_rng(0).normal(300.0 * label, 20).astype(np.float32)
    save_nifti(folder / "imagesVal" / "scan.nii.gz", image, affine)
    save_nifti(folder / "labelsVal" / "scan.nii.gz", label, affine)
    turned = np.diag([-1.0, 2.0, 1.0, 1.0])[[1, 2, 0, 3]]
    save_nifti(folder / "imagesTs" / "turned.nii.gz", image[:, ::2], turned)
    training = {"image": "imagesTr/ball.nii.gz", "label": "labelsTr/ball.nii.gz"}
    content = {
        "labels": {"0": "background", "1": "CSF", "2": "grey matter", "3": "white matter"},
        "training": [training] * 3,
        "validation": [{"image": "imagesVal/scan.nii.gz", "label": "labelsVal/scan.nii.gz"}],
        "test": ["imagesTs/turned.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def run(data: Path, root: Path, *configs: str, **options: object) -> Path:
    settings = {
        "dataset_dir": str(data),
        "output_dir": str(root / "out"),
        "ckpt_dir": str(root / "models"),
        "roi_size": [32, 32, 32],
        "num_workers": 0,
        "device": "cpu",
        **options,
    }
    monai.bundle.run(config_file=[str(CONFIGS / f"{name}.json") for name in configs], **settings)
    return root / "out"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    run(data, root, "train", epochs=1)
    return root


def test_a_turned_scan_is_labelled_on_its_own_grid(data: Path, trained: Path) -> None:
    found = run(data, trained, "inference") / "turned_seg.nii.gz"
    scan, result = nib.load(data / "imagesTs" / "turned.nii.gz"), nib.load(found)
    assert result.shape == scan.shape and result.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(result.affine, scan.affine)
    assert set(np.unique(np.asarray(result.dataobj))) <= {0, 1, 2, 3}


def test_the_weights_that_come_with_it(tmp_path: Path) -> None:
    """They are the file that its sha256 names, and find the tissues in a part of the real T1 image."""
    models = CONFIGS.parent / "models"
    digest, name = (models / "model.pt.sha256").read_text().split()
    assert hashlib.sha256((models / name).read_bytes()).hexdigest() == digest
    (case,) = make_cases(tmp_path / "cases", ["t1"])
    part = (slice(10, 106), slice(60, 156), slice(60, 156))
    save_nifti(tmp_path / "part" / "t1.nii.gz", case.image[part], case.affine)
    found = run(
        tmp_path / "part", tmp_path, "inference", roi_size=[96, 96, 96], ckpt_dir=str(CONFIGS.parent / "models")
    )
    scores = measure(np.asarray(nib.load(found / "t1_seg.nii.gz").dataobj), case.label[part])
    assert scores["brain"] > 0.95 and scores["grey matter"] > 0.65 and scores["white matter"] > 0.6


def test_evaluation_names_the_tissues(data: Path, trained: Path) -> None:
    summary = json.loads((run(data, trained, "train", "evaluate") / "summary.json").read_text())
    assert list(summary) == ["CSF", "grey matter", "white matter"]


def test_resumed_training_equals_an_undisturbed_one(data: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(data, whole, "train", epochs=2, val_interval=2)
    run(data, parts, "train", epochs=1, **{"lr_scheduler#T_max": 2})
    run(data, parts, "train", epochs=2, val_interval=2, resume=True)
    states = [torch.load(folder / "models" / "resume.pt", weights_only=True) for folder in (whole, parts)]
    assert states[0]["epoch"] == states[1]["epoch"] == 2
    assert all(torch.equal(tensor, states[1]["model"][key]) for key, tensor in states[0]["model"].items())


def test_an_anatomy_is_cached_once_however_often_it_is_listed(data: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "train.json"))
    parser.update({"dataset_dir": str(data), "roi_size": [32, 32, 32]})
    dataset = parser.get_parsed_content("train#dataset")
    assert len(dataset) == 3 and len(dataset._cache) == 1
    first, second = (dataset[0]["image"] for _ in range(2))
    assert first.shape == second.shape == (1, 32, 32, 32) and not torch.equal(first, second)


def test_scans_are_no_anatomies_to_train_on(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    for part in ("images", "labels"):
        save_nifti(folder / f"{part}Tr" / "a.nii.gz", np.asarray(nib.load(data / f"{part}Val" / "scan.nii.gz").dataobj))
    case = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    content = {"training": [case], "validation": [case], "validation_repeats_training": True}
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(RuntimeError) as caught:
        run(folder, tmp_path, "train", epochs=1)
    assert "not an anatomy" in find_input_error(caught.value)
