"""The cases that tools/brain_validate.py makes of one image, on a small one."""

from __future__ import annotations

from pathlib import Path

import brain_cases
import nibabel as nib
import numpy as np
import pytest
from brain_cases import BrainCase, add_noise, flip, in_head, make_cases, remap, thicken, turn
from brain_validate import dice, measure

from hybrid_nets import InputError

BRIGHT = np.array([0, 60, 120, 200], np.float32)


@pytest.fixture
def case() -> BrainCase:
    """A ball of white matter in grey matter in CSF."""
    radius = np.linalg.norm(np.meshgrid(*[np.arange(side) - side // 2 for side in (24, 26, 27)], indexing="ij"), axis=0)
    label = np.select([radius < 5, radius < 8, radius < 11], [3, 2, 1], 0).astype(np.uint8)
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = [-12, -30, -5]
    return BrainCase("ball", BRIGHT[label], label, affine)


def world(case: BrainCase, value: int) -> np.ndarray:
    """Where the middle of a tissue is in mm."""
    return case.affine[:3, :3] @ np.argwhere(case.label == value).mean(0) + case.affine[:3, 3]


@pytest.mark.parametrize(
    "change", [lambda c: thicken(c, (1, 1, 3)), lambda c: thicken(c, (2, 2, 2)), lambda c: turn(c, True)]
)
def test_what_the_header_says_stays_in_its_place(case: BrainCase, change) -> None:
    changed = change(case)
    assert changed.image.shape == changed.label.shape
    np.testing.assert_allclose(world(changed, 3), world(case, 3), atol=0.6)


def test_what_it_does_not_say_moves(case: BrainCase) -> None:
    assert np.abs(world(turn(case, False), 3) - world(case, 3)).max() >= 1
    flipped = flip(case, 1)
    assert flipped.flipped == 1 and (np.flip(flipped.label, 1) == case.label).all()


def test_remapped_tissues_are_as_bright_as_the_contrast_says(case: BrainCase) -> None:
    image = remap(case, "T2").image
    means = [image[case.label == value].mean() for value in (1, 2, 3)]
    assert means[0] > means[1] > means[2] > 0 == image[case.label == 0].max()


def test_a_head_leaves_brain_and_truth_as_they_are(case: BrainCase) -> None:
    headed = in_head(case, "T1")
    brain = headed.label > 0
    assert (headed.image[brain] == case.image[case.label > 0]).all() and headed.image[~brain].max() > 50
    np.testing.assert_allclose(world(headed, 3), world(case, 3))
    assert add_noise(headed).image[~brain].std() > headed.image[~brain].std() * 0.5


def test_scores() -> None:
    label = np.array([0, 1, 2, 2, 3])
    found = np.array([1, 1, 2, 3, 3])
    scores = measure(found, label)
    assert scores == {
        "CSF": 0.6667,
        "grey matter": 0.6667,
        "white matter": 0.6667,
        "brain": 0.8889,
        "grey and white": 0.6667,
    }
    assert dice(label > 5, found > 5) is None


def test_a_real_person_where_the_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brain_cases, "PERSON", tmp_path)
    head = np.array([150, 50, 80, 110], np.uint8)[:, None, None]
    for name, image in (("ch2", head), ("ch2bet", head * (head < 150))):
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii.gz")
    whole, brain = make_cases(tmp_path / "cases", ["person", "person_brain"])
    assert whole.label.ravel().tolist() == brain.label.ravel().tolist() == [0, 1, 2, 3]
    assert whole.image.max() == 150 and brain.image.max() == 110
    monkeypatch.setattr(brain_cases, "PERSON", tmp_path / "nowhere")
    with pytest.raises(InputError, match="apt-get install mricron-data"):
        make_cases(tmp_path / "more", ["person"])


def test_an_unknown_case_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown cases t3; known are drawn, t1, t1_head"):
        make_cases(tmp_path, ["t3"])
