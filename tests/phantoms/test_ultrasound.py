"""The ultrasound phantom: what its pictures show."""

from __future__ import annotations

import json
from pathlib import Path

import itk
import numpy as np
import pytest
from phantom_tester import PhantomTester
from scipy import ndimage

from hybrid_nets.phantoms import Picture, ultrasound, ultrasound_case


class TestUltrasound(PhantomTester):
    module = ultrasound
    kind = "ultrasound"
    num_training, num_test = 40, 8

    def tiny_case(self, index: int, seed: int = 0) -> Picture:
        return Picture(np.full((3, 4, 5), index + 10 * seed, np.uint8), np.zeros((4, 5), np.uint8), f"case_{index}")

    def test_case_has_the_declared_arrays(self, case: Picture) -> None:
        assert case.image.shape == (3, *case.label.shape)
        assert (case.image.dtype, case.label.dtype) == (np.uint8, np.uint8)
        assert (case.image == case.image[0]).all()
        assert set(np.unique(case.label)) == {0, 1}

    def test_files_are_in_the_declared_layout(self, data_set: Path) -> None:
        about = json.loads((data_set / "dataset.json").read_text())
        assert about["labels"] == {"0": "background", "1": "lesion"}
        names = {str(path.relative_to(data_set)) for path in data_set.rglob("*") if path.is_file()}
        images = {"images/ultrasound_000.png", "images/ultrasound_001.png"}
        assert names == {"dataset.json", "masks/ultrasound_000.png"} | images

    def test_stored_case_is_the_generated_one(self, data_set: Path) -> None:
        case = self.make_case(0, data_set=3)
        image = itk.array_from_image(itk.imread(str(data_set / "images" / f"{case.name}.png")))
        mask = itk.array_from_image(itk.imread(str(data_set / "masks" / f"{case.name}.png")))
        assert (image.dtype, mask.dtype) == (np.uint8, np.uint8)
        assert np.array_equal(np.moveaxis(image, -1, 0), case.image)
        assert np.array_equal(mask, 255 * case.label)


@pytest.fixture(scope="module")
def cases() -> list[Picture]:
    return [ultrasound_case(seed) for seed in range(32)]


@pytest.fixture(scope="module")
def plans() -> list[ultrasound.Plan]:
    return [ultrasound.draw_plan(index, np.random.default_rng([0, index])) for index in range(32)]


def of_kind(kind: str, cases: list[Picture], plans: list[ultrasound.Plan]) -> list[Picture]:
    return [case for case, plan in zip(cases, plans) if plan.lesion is not None and plan.lesion.kind == kind]


def beside_and_below(case: Picture) -> tuple[float, float]:
    """Mean brightness below the middle of the lesion, and at the same depth on both sides of it."""
    rows, columns = np.nonzero(case.label)
    left, right = columns.min(), columns.max()
    middle, width = (left + right) // 2, max((right - left) // 4, 1)
    band = case.image[0, rows.max() + 3 : rows.max() + 18].astype(float)
    beside = np.concatenate([band[:, max(left - 25, 0) : max(left - 5, 0)], band[:, right + 5 : right + 25]], axis=1)
    return beside.mean(), band[:, middle - width : middle + width].mean()


def test_one_picture_in_eight_has_no_lesion(cases: list[Picture]) -> None:
    assert [seed for seed, case in enumerate(cases) if not case.label.any()] == [5, 13, 21, 29]


def test_lesions_are_of_the_planned_size_and_in_one_piece(cases: list[Picture], plans: list[ultrasound.Plan]) -> None:
    shares = []
    for case, plan in zip(cases, plans):
        assert case.label.shape == plan.shape
        if plan.lesion is None:
            continue
        shares.append(case.label.mean())
        assert case.label.sum() * plan.pixel**2 == pytest.approx(plan.lesion.area, rel=0.01)
        assert ndimage.label(case.label)[1] == 1
        assert not case.label[: int(2 / plan.pixel)].any()  # the skin
        assert not case.label[-1].any()
    assert 0.03 < min(shares) < 0.05
    assert 0.14 < max(shares) < 0.2


def test_benign_lesions_are_wide_and_malignant_ones_tall(cases: list[Picture], plans: list[ultrasound.Plan]) -> None:
    for kind, wide in (("benign", True), ("malignant", False)):
        for case in of_kind(kind, cases, plans):
            rows, columns = np.nonzero(case.label)
            assert (np.ptp(columns) > np.ptp(rows)) == wide
    # A jagged outline is longer than a smooth one.
    edges = [
        np.mean([(c.label - ndimage.binary_erosion(c.label)).sum() / c.label.sum() ** 0.5 for c in found])
        for found in (of_kind("benign", cases, plans), of_kind("malignant", cases, plans))
    ]
    assert edges[1] > 1.1 * edges[0]


def test_lesions_are_darker_than_what_is_around(cases: list[Picture]) -> None:
    contrasts = []
    for case in cases:
        if case.label.any():
            inside = case.label > 0
            around = ndimage.binary_dilation(inside, iterations=15) & ~ndimage.binary_dilation(inside, iterations=3)
            contrasts.append(case.image[0][around].mean() - case.image[0][inside].mean())
    assert min(contrasts) > 8
    assert np.mean(contrasts) > 30


def test_sound_is_enhanced_below_benign_lesions_and_lost_below_malignant_ones(
    cases: list[Picture], plans: list[ultrasound.Plan]
) -> None:
    benign, malignant = (
        np.array([below - beside for beside, below in map(beside_and_below, of_kind(kind, cases, plans))])
        for kind in ("benign", "malignant")
    )
    assert np.median(benign) > 8
    assert np.median(malignant) < -8


def test_no_threshold_finds_the_lesions(cases: list[Picture]) -> None:
    scores = []
    for case in cases:
        if case.label.any():
            smooth = ndimage.gaussian_filter(case.image[0].astype(float), 2)
            found = [smooth < level for level in range(20, 200, 6)]
            scores.append(max(2 * (f & (case.label > 0)).sum() / (f.sum() + case.label.sum()) for f in found))
    assert np.mean(scores) < 0.65


def test_sizes_vary_and_no_picture_is_square(cases: list[Picture]) -> None:
    shapes = np.array([case.label.shape for case in cases])
    assert (shapes.min() >= 180) and (shapes.max() <= 320)
    assert (shapes[:, 0] != shapes[:, 1]).all()
    assert (shapes[:, 0] > shapes[:, 1]).any() and (shapes[:, 0] < shapes[:, 1]).any()
    assert (np.ptp(shapes, axis=0) > 80).all()


def test_the_skin_is_at_the_top_and_depth_is_darker(cases: list[Picture]) -> None:
    for case in cases:
        thirds = np.array_split(case.image[0].astype(float), 3)
        assert thirds[0].mean() > thirds[2].mean()
        assert case.image[0, :16].mean(axis=1).max() > 1.15 * case.image[0].mean()


def test_speckle_is_fully_developed() -> None:
    """The power of many echoes is distributed exponentially, so its deviation is its mean; along the beam its grains
    are shorter than across.
    """
    power = ultrasound.speckle(np.ones((300, 300)), 0.15, np.random.default_rng(0))
    assert power.mean() == pytest.approx(1, abs=0.12)
    assert power.std() / power.mean() == pytest.approx(1, abs=0.1)
    flat = power - power.mean()
    along, across = ((flat[2:] * flat[:-2]).mean(), (flat[:, 2:] * flat[:, :-2]).mean())
    assert across > 1.5 * along > 0
