"""Data that would spoil a training without a word are refused before its first epoch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import save_nifti
from fuzz import make_images

from hybrid_nets import InputError, find_cases


@pytest.mark.parametrize("split", [True, False])
def test_a_case_in_training_and_validation_is_refused(split: bool, tmp_path: Path) -> None:
    make_images(tmp_path)
    (tmp_path / "copy.nii").symlink_to(tmp_path / "images" / "a.nii")
    entry = {"image": "images/a.nii", "label": "labels/a.nii"}
    for twin in ("./images/../images/a.nii", "copy.nii"):
        content = {"training": [entry], "validation": [{**entry, "image": twin}]}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        if split:
            with pytest.raises(InputError, match="is in training and in validation"):
                find_cases(tmp_path)
        else:
            assert find_cases(tmp_path, split=False).validation  # to segment them is no harm
    stated = {**content, "validation_repeats_training": True}
    (tmp_path / "dataset.json").write_text(json.dumps(stated))
    assert find_cases(tmp_path, split=split).validation
    # listed twice, and drawn into both
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry, {**entry, "image": "copy.nii"}]}))
    if split:
        with pytest.raises(InputError, match="is in training and in validation"):
            find_cases(tmp_path, num_folds=2)


def test_files_that_lie_elsewhere_than_their_image_are_refused(tmp_path: Path) -> None:
    moved, turned = np.eye(4), np.diag([-1.0, 1, 1, 1])
    moved[2, 3] = 0.5
    entries = []
    for number, affine in enumerate((np.eye(4), moved, turned)):
        save_nifti(tmp_path / f"image{number}.nii", np.zeros((4, 5, 6), np.int16))
        save_nifti(tmp_path / f"label{number}.nii", np.zeros((4, 5, 6), np.uint8), affine)
        entries.append({"image": f"image{number}.nii", "label": f"label{number}.nii"})
    for number in (1, 2):
        content = {"training": entries[:1], "validation": [entries[number]]}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=f"label{number}.nii lies up to .* mm from its image"):
            find_cases(tmp_path)
        assert find_cases(tmp_path, split=False).training  # who segments doesn't read it
    two = {"test": [{"image": ["image0.nii", "label1.nii"]}]}
    (tmp_path / "dataset.json").write_text(json.dumps(two))
    with pytest.raises(InputError, match=r"label1.nii lies up to 0.5 mm from its image"):
        find_cases(tmp_path, channels=["T1", "T2"])
