"""What ``--check_data true`` refuses and what it only says."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import save_nifti

from hybrid_nets import InputError, check_data
from hybrid_nets.datalist import Cases

LABELS = {"0": "background", "1": "liver"}
SHAPE = (6, 5, 4)


def make_cases(root: Path, count: int = 2) -> Cases:
    entries = []
    for i in range(count):
        label = np.zeros(SHAPE, np.uint8)
        label[1:3] = 1
        image = save_nifti(root / f"image_{i}.nii.gz", np.ones(SHAPE, np.float32))
        entries.append({"image": str(image), "label": str(save_nifti(root / f"label_{i}.nii.gz", label))})
    return Cases(training=entries[:-1], validation=entries[-1:])


def test_sound_cases_pass_and_nothing_is_looked_at_unless_asked_for(tmp_path: Path) -> None:
    cases = make_cases(tmp_path)
    check_data(cases, LABELS, "true")
    Path(cases.training[0]["label"]).unlink()
    check_data(cases, LABELS, False)
    with pytest.raises(InputError, match="label_0.nii.gz does not exist"):
        check_data(cases, LABELS)


def test_wrong_cases_of_training_and_validation_are_all_named(tmp_path: Path) -> None:
    cases = make_cases(tmp_path)
    save_nifti(tmp_path / "label_0.nii.gz", np.full(SHAPE, 3, np.uint8))
    moved = np.eye(4)
    moved[2, 3] = 2.5
    save_nifti(tmp_path / "label_1.nii.gz", np.ones(SHAPE, np.uint8), moved)
    with pytest.raises(InputError) as caught:
        check_data(cases, LABELS)
    assert "image_0.nii.gz: its label map has the values 3; declared are 0, 1" in str(caught.value)
    assert "image_1.nii.gz: label_1.nii.gz lies up to 2.5 mm from its image" in str(caught.value)


def test_values_that_the_data_set_declares_count(tmp_path: Path) -> None:
    cases = make_cases(tmp_path)
    save_nifti(tmp_path / "label_0.nii.gz", np.full(SHAPE, 4, np.uint8))
    cases.training[0]["label_values"] = {0: 0, 4: 1}
    check_data(cases, LABELS)


def test_empty_labels_and_mixed_orientations_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = make_cases(tmp_path, 3)
    save_nifti(tmp_path / "label_0.nii.gz", np.zeros(SHAPE, np.uint8))
    turned = np.diag([-1.0, 1, 1, 1])
    save_nifti(tmp_path / "image_1.nii.gz", np.ones(SHAPE, np.float32), turned)
    save_nifti(tmp_path / "label_1.nii.gz", np.ones(SHAPE, np.uint8), turned)
    with caplog.at_level(logging.WARNING):
        check_data(cases, LABELS)
    assert "1 label map(s) are empty: image_0.nii.gz" in caplog.text
    assert "several orientations: RAS (2), LAS (1)" in caplog.text


def test_pictures_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = Cases(training=[{"image": str(tmp_path / "a.png"), "label": str(tmp_path / "b.png")}])
    with caplog.at_level(logging.INFO):
        check_data(cases, LABELS)
    assert "1 case(s) are no NIfTI files" in caplog.text
