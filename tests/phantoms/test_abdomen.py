"""The abdominal phantom: what its cases show."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from phantom_tester import VolumeTester
from scipy import ndimage

from hybrid_nets.phantoms import Case, abdomen, abdomen_case

ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
LABEL = {organ: value for value, organ in enumerate(ORGANS, start=1)}
WITHOUT_GALLBLADDER = 3
# Least and most mL, and least and most HU of the middle voxel. Scans may cut the liver's dome and the kidneys' poles.
PLAUSIBLE = {
    "spleen": (90, 350, 85, 140),
    "right kidney": (60, 230, 115, 200),
    "left kidney": (60, 230, 115, 200),
    "gallbladder": (15, 80, -5, 30),
    "oesophagus": (9, 45, 15, 60),
    "liver": (800, 1900, 80, 130),
    "stomach": (150, 650, -960, 60),
    "aorta": (35, 140, 110, 220),
    "inferior vena cava": (50, 190, 85, 160),
    "portal and splenic veins": (22, 90, 105, 180),
    "pancreas": (40, 140, 55, 115),
    "right adrenal gland": (4, 22, 35, 90),
    "left adrenal gland": (4, 22, 35, 90),
}


class TestAbdomen(VolumeTester):
    module = abdomen
    kind = "abdomen"
    channels = ("CT",)
    labels = ("background", *ORGANS)
    sides = (40, 128)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """One of each orientation, and one without gallbladder."""
    return [abdomen_case(seed) for seed in range(8)]


@pytest.fixture(scope="module")
def plans() -> list[abdomen.Plan]:
    return [abdomen.draw_plan(index, np.random.default_rng([0, index])) for index in range(16)]


def voxels(case: Case, organ: str) -> np.ndarray:
    return case.image[0][case.label == LABEL[organ]]


def place(case: Case, organ: str) -> np.ndarray:
    """Its middle in the world: right, front, up, in mm."""
    return nib.affines.apply_affine(case.affine, np.argwhere(case.label == LABEL[organ])).mean(axis=0)


def test_one_case_in_eight_has_no_gallbladder(cases: list[Case], plans: list[abdomen.Plan]) -> None:
    for seed, case in enumerate(cases):
        absent = set(range(len(ORGANS) + 1)) - set(np.unique(case.label))
        assert absent == ({LABEL["gallbladder"]} if seed == WITHOUT_GALLBLADDER else set())
    assert sum(not plan.gallbladder for plan in plans) == 2


def test_organs_lie_where_they_belong_in_the_world(cases: list[Case]) -> None:
    for case in cases:
        right = {organ: place(case, organ)[0] for organ in ORGANS if organ != "gallbladder"}
        front = {organ: place(case, organ)[1] for organ in right}
        up = {organ: place(case, organ)[2] for organ in right}
        assert right["liver"] > right["spleen"] + 100
        assert right["right kidney"] > right["left kidney"] + 80
        assert right["right adrenal gland"] > right["left adrenal gland"] + 40
        assert right["inferior vena cava"] > right["aorta"] + 15
        assert right["liver"] > right["inferior vena cava"] > right["stomach"]
        assert min(front["stomach"], front["pancreas"]) > front["aorta"] > front["left kidney"]
        assert front["liver"] > max(front["right kidney"], front["left kidney"])
        assert up["oesophagus"] > up["pancreas"] > up["right kidney"]
        for side in ("right", "left"):
            assert up[f"{side} adrenal gland"] > up[f"{side} kidney"] + 20
        if LABEL["gallbladder"] in case.label:
            assert (place(case, "gallbladder")[:2] > (right["inferior vena cava"], front["inferior vena cava"])).all()


@pytest.mark.parametrize("organ", ORGANS)
def test_volume_and_hounsfield_units_are_plausible(cases: list[Case], organ: str) -> None:
    least, most, darkest, brightest = PLAUSIBLE[organ]
    for case in cases:
        if LABEL[organ] not in case.label:
            continue
        volume = (case.label == LABEL[organ]).sum() * abs(np.linalg.det(case.affine)) / 1000
        assert least < volume < most
        assert darkest < np.median(voxels(case, organ)) < brightest


def test_volumes_and_contrast_vary(cases: list[Case]) -> None:
    for organ in ("spleen", "right kidney", "pancreas"):
        volumes = [(case.label == LABEL[organ]).sum() * abs(np.linalg.det(case.affine)) for case in cases]
        assert max(volumes) > 1.25 * min(volumes)
    for organ in ("aorta", "right kidney", "liver"):
        assert np.ptp([np.median(voxels(case, organ)) for case in cases]) > 10


def test_organs_are_in_one_piece(cases: list[Case]) -> None:
    for case in cases:
        for value in np.unique(case.label)[1:]:
            pieces, _ = ndimage.label(case.label == value, np.ones((3, 3, 3)))
            sizes = np.bincount(pieces.ravel())[1:]
            assert sizes.max() > 0.98 * sizes.sum(), ORGANS[value - 1]


def test_the_rest_looks_like_ct(cases: list[Case]) -> None:
    for case in cases:
        image, voxel = case.image[0], abs(np.linalg.det(case.affine)) / 1000
        assert image.min() >= -1024
        assert abs(np.median(image[image < -920]) + 1000) < 10
        unlabelled = image[case.label == 0]
        fat, lung, bone = (
            ((least < unlabelled) & (unlabelled < most)).sum() * voxel
            for least, most in ((-150, -50), (-900, -700), (250, 1000))
        )
        assert 1500 < fat < 20000
        assert 50 < lung < 4000
        assert 250 < bone < 2500


def test_noise_is_that_of_ct(cases: list[Case]) -> None:
    for case in cases:
        inside = ndimage.binary_erosion(case.label == LABEL["liver"], iterations=3)
        smooth = ndimage.uniform_filter(case.image[0], 5)
        assert 6 < (case.image[0] - smooth)[inside].std() < 25


def test_no_window_finds_an_organ(cases: list[Case]) -> None:
    """Neighbours look alike: of the voxels as bright as most of an organ, many are elsewhere."""
    for case in cases[:4]:
        for value in np.unique(case.label)[1:]:
            organ = case.label == value
            low, high = np.percentile(case.image[0][organ], (10, 90))
            found = (low <= case.image[0]) & (case.image[0] <= high)
            limit = 0.75 if value == LABEL["liver"] else 0.5
            assert 2 * (organ & found).sum() / (organ.sum() + found.sum()) < limit, ORGANS[value - 1]


def test_some_scans_cut_the_liver_and_some_the_kidneys(plans: list[abdomen.Plan]) -> None:
    # Length along the array axis that runs up the most.
    lengths = [(np.abs(plan.scan.body[2, :3]) * (np.array(plan.scan.shape) - 1)).max() for plan in plans]
    upper = np.array([plan.middle + length / 2 for plan, length in zip(plans, lengths)])
    lower = np.array([plan.middle - length / 2 for plan, length in zip(plans, lengths)])
    # The liver reaches up to about 105 mm, the kidneys down to -70 mm.
    assert 2 <= (upper < 100).sum() <= 8
    assert 2 <= (lower > -72).sum() <= 8
    assert np.ptp(upper) > 30
    assert np.ptp(lower) > 30


def test_default_set_has_varied_grids(plans: list[abdomen.Plan]) -> None:
    affines = [plan.scan.affine for plan in plans]
    codes = {"".join(nib.aff2axcodes(affine)) for affine in affines}
    assert {"RAS", "LPS", "LAS", "PIR", "RIA"} <= codes
    assert len({plan.scan.shape for plan in plans}) > 10
    spacing = np.array([nib.affines.voxel_sizes(affine) for affine in affines])
    up = np.array([[code in "SI" for code in nib.aff2axcodes(affine)] for affine in affines])
    for sides, least, most in ((spacing[up], 3, 5), (spacing[~up], 3.2, 4.2)):
        assert sides.min() >= least
        assert sides.max() <= most
        assert np.ptp(sides) > 0.5
