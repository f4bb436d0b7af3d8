"""``hybrid-nets plan`` on data sets of a shape that no bundle was made for, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command import results, run
from conftest import ROOT, save_nifti

from hybrid_nets.plan.build import choose_overlay

SHAPE, AFFINE = (36, 30, 10), np.diag([1.5, 1.5, 5.0, 1.0])
LABELS = {"0": "background", "1": "core", "2": "rim", "3": "vessel", "4": "node", "5": "duct"}


def make_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two channels on scales of their own, and five boxes that the first one shows."""
    draw = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    for value in range(1, 6):
        corner = draw.integers(0, (28, 22, 6))
        label[tuple(slice(low, low + side) for low, side in zip(corner, (7, 7, 4)))] = value
    noise = draw.random((*SHAPE, 2)) * 50
    noise[..., 0] += 100.0 * label
    noise[..., 1] *= 20
    return noise.astype(np.float32), label


def make_folder(root: Path, count: int = 3) -> Path:
    names = [f"case_{i}.nii.gz" for i in range(count)]
    for i, name in enumerate(names):
        image, label = make_case(i)
        save_nifti(root / "imagesTr" / name, image, AFFINE)
        save_nifti(root / "labelsTr" / name, label, AFFINE)
    save_nifti(root / "imagesTs" / "new.nii.gz", make_case(9)[0], AFFINE)
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    content = {"modality": {"0": "ADC", "1": "T2"}, "labels": LABELS, "training": training, "test": []}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def plan(folder: Path, **options: object) -> tuple[object, dict]:
    """What the command ended on, and the overlay it wrote."""
    output = folder / "plan.json"
    ended = run("plan", folder, "--output", output, *(w for k, v in options.items() for w in (f"--{k}", v)))
    return ended, json.loads(output.read_text()) if output.is_file() else {}


def test_an_unseen_data_set_is_trained_on_and_segmented_with_the_plan_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = make_folder(tmp_path / "data")
    ended, written = plan(folder)
    assert ended == 0
    assert written["channels"] == ["ADC", "T2"] and written["organs"] == list(LABELS.values())
    assert written["spacing"] == [1.5, 1.5, 5.0] and written["roi_size"] == [48, 32, 32]
    assert "label 5 duct" in capsys.readouterr().out
    overlay = ["--config_file", folder / "plan.json"]
    more = ["--epochs", 1, "--val_interval", 1, "--num_workers", 0, "--check_data", "true"]
    assert run("train", "mobileutr", *overlay, *more) == 0
    assert (folder / "plan" / "models" / "model.pt").is_file()
    assert run("segment", "--bundle", "mobileutr", *overlay, "-i", folder / "imagesTs", "-o", tmp_path / "out") == 0
    assert list(results(tmp_path / "out")) == ["new_seg.nii.gz"]
    label = nib.load(tmp_path / "out" / "new_seg.nii.gz")
    np.testing.assert_allclose(label.affine, AFFINE, atol=1e-5)
    assert label.shape == SHAPE and "duct" in (tmp_path / "out" / "volumes.csv").read_text()


def test_ct_gets_one_window_for_all(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    content = json.loads((folder / "dataset.json").read_text())
    for file in (folder / "imagesTr").iterdir():
        save_nifti(file, np.asarray(nib.load(file).dataobj)[..., 0], AFFINE)
    (folder / "dataset.json").write_text(json.dumps({**content, "modality": {"0": "CT"}}))
    ended, written = plan(folder, bundle="hylt")
    low, high = written["intensity_range"]
    assert ended == 0 and 100 <= low < 105 and 545 < high <= 550  # labels from 1 to 5 and noise up to 50
    assert "space_transforms" not in written and written["file_channels"] is None


def test_less_memory_gives_smaller_steps_and_too_little_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    windows = {}
    for memory in (100, 0.5):
        _, written = plan(folder, memory=memory, overwrite="true")
        windows[memory] = written["batch_size"] * written["num_samples"]
    assert windows[100] == 4 > windows[0.5] >= 1
    ended, _ = plan(folder, memory=0.1, overwrite="true")
    assert "needs about" in str(ended) and "take a smaller network" in ended


@pytest.mark.parametrize(
    ("bundle", "overlay"), [("mobileutr", None), ("glims", "multi_organ"), ("dca_unet", "volumes")]
)
def test_bundles_of_other_tasks_bring_the_overlay_for_volumes(bundle: str, overlay: str | None, tmp_path: Path) -> None:
    assert choose_overlay(ROOT / "bundles" / bundle) == overlay
    ended, written = plan(make_folder(tmp_path), bundle=bundle)
    assert ended == 0 and written["organs"] == list(LABELS.values()) and len(written["roi_size"]) == 3


def break_grid(folder: Path) -> None:
    save_nifti(folder / "labelsTr" / "case_0.nii.gz", make_case(0)[1][:, :, :-1], AFFINE)


def move_label(folder: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] = 30
    save_nifti(folder / "labelsTr" / "case_0.nii.gz", make_case(0)[1], moved)


def add_value(folder: Path) -> None:
    save_nifti(folder / "labelsTr" / "case_0.nii.gz", make_case(0)[1] + np.uint8(3), AFFINE)


def drop_channel(folder: Path) -> None:
    save_nifti(folder / "imagesTr" / "case_0.nii.gz", make_case(0)[0][..., 0], AFFINE)


def remove_label(folder: Path) -> None:
    (folder / "labelsTr" / "case_0.nii.gz").unlink()


def tear_image(folder: Path) -> None:
    (folder / "imagesTr" / "case_0.nii.gz").write_bytes(b"torn")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (break_grid, "has the shape (36, 30, 9), its image (36, 30, 10)"),
        (move_label, "lies up to 30 mm from its image"),
        (add_value, "has the values 6, 7, 8; declared are 0, 1, 2, 3, 4, 5"),
        (drop_channel, "it has 1 channel(s), dataset.json names 2 (ADC, T2)"),
        (remove_label, "case_0.nii.gz does not exist"),
        (tear_image, "can't be read as NIfTI"),
    ],
)
def test_files_that_disagree_are_refused_with_the_reason(fault, reason: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    fault(folder)
    ended, written = plan(folder)
    assert "1 reason(s)" in str(ended) and reason in ended
    assert written == {}


def test_all_reasons_come_at_once_and_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    remove_label(folder)
    save_nifti(folder / "labelsTr" / "case_1.nii.gz", np.full(SHAPE, 9, np.uint8), AFFINE)
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "labels": {"1": "core"}}))
    ended, _ = plan(folder)
    assert 'needs "0", the background' in str(ended) and "case_0" in ended and "case_1" in ended
    (folder / "plan.json").write_text("{}")
    assert "is there already" in str(plan(folder)[0])


def test_words_that_make_no_plan(tmp_path: Path) -> None:
    assert "name the data set's folder" in str(run("plan"))
    assert "there is no" in str(run("plan", tmp_path, "--output", tmp_path / "plan.json"))
    folder = make_folder(tmp_path / "data")
    assert "can't be planned for" in str(plan(folder, bundle="mobileutr_brain")[0])
