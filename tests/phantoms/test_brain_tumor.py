"""The brain tumour phantom: what its cases show."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from phantom_tester import VolumeTester

from hybrid_nets.phantoms import Case, brain_tumor, brain_tumor_case

DEFAULT_CASES = range(16)
FLAIR, T1CE, T1, T2 = range(4)


class TestBrainTumor(VolumeTester):
    module = brain_tumor
    kind = "brain_tumor"
    seed = 5
    channels = ("FLAIR", "T1ce", "T1", "T2")
    labels = ("background", "necrotic core", "oedema", "enhancing tumour")
    sides = (80, 112)


@pytest.fixture(scope="module")
def plans() -> list[brain_tumor.Plan]:
    return [brain_tumor.draw_plan(index, np.random.default_rng([0, index])) for index in DEFAULT_CASES]


@pytest.fixture(scope="module")
def full_case() -> Case:
    return brain_tumor_case(5)


def test_air_is_zero_and_the_head_fills_the_volume(full_case: Case) -> None:
    corner = full_case.image[:, :4, -4:, -4:]
    assert (corner == 0).all()
    assert 0.35 < (full_case.image[T1] > 0).mean() < 0.75


def test_tumour_parts_are_bright_where_they_should_be(full_case: Case) -> None:
    image, label = full_case.image, full_case.label
    brain = (image[T1CE] > np.percentile(image[T1CE][label == 2], 50)) & (label == 0)
    assert image[FLAIR][label == 2].mean() > 1.5 * image[FLAIR][brain].mean()
    assert image[T2][label == 2].mean() > image[T2][label == 3].mean()
    assert image[T1CE][label == 3].mean() > 1.5 * image[T1CE][label == 2].mean()
    assert image[T1CE][label == 1].mean() < 0.5 * image[T1CE][label == 3].mean()


def test_healthy_tissues_have_the_contrasts_of_each_modality() -> None:
    plan = brain_tumor.draw_plan(6, np.random.default_rng(0))
    assert plan.tumor is None
    points = brain_tumor.voxel_points(plan.scan)
    cavity = brain_tumor.cavity_distance(points, np.random.default_rng(1))
    points, cavity = points[:, cavity < 0], cavity[cavity < 0]
    signal = np.zeros((4, len(cavity)), np.float32)
    layers = brain_tumor.brain_layers(points, cavity, np.random.default_rng(2))
    tissue = brain_tumor.paint(signal, layers, brain_tumor.SIGNAL)
    image = brain_tumor.acquire(signal, points, tissue > 0, np.random.default_rng(3))
    white, grey, fluid = (
        image[:, tissue == brain_tumor.TISSUES.index(name)].mean(1) for name in ("white", "grey", "fluid")
    )
    assert white[T1] > grey[T1] > fluid[T1]
    assert white[T1CE] > grey[T1CE] > fluid[T1CE]
    assert fluid[T2] > grey[T2] > white[T2]
    assert grey[FLAIR] > white[FLAIR] > 2 * fluid[FLAIR]


def test_default_set_has_every_kind(plans: list[brain_tumor.Plan]) -> None:
    assert {plan.kind for plan in plans} == {"full", "no enhancement", "no necrosis", "no tumour"}
    volumes = [plan.tumor.volume for plan in plans if plan.tumor]
    assert 12 <= min(volumes) < 20
    assert 60 < max(volumes) <= 90


@pytest.mark.parametrize(("index", "labels"), [(2, {0, 1, 2}), (4, {0, 2, 3}), (6, {0})])
def test_a_case_shows_its_kind(plans: list[brain_tumor.Plan], index: int, labels: set[int]) -> None:
    case, plan = brain_tumor_case(index), plans[index]
    assert set(np.unique(case.label)) == labels
    assert np.array_equal(case.affine, plan.scan.affine)
    if plan.tumor:
        volume = (case.label > 0).sum() * abs(np.linalg.det(case.affine)) / 1000
        assert volume == pytest.approx(plan.tumor.volume, abs=0.1)


def test_default_set_has_varied_grids(plans: list[brain_tumor.Plan]) -> None:
    affines = [plan.scan.affine for plan in plans]
    codes = {"".join(nib.aff2axcodes(affine)) for affine in affines}
    oblique = [nib.affines.obliquity(affine).max() > np.radians(3) for affine in affines]
    assert {"RAS", "LPS", "LAS", "PIR", "RIA"} <= codes
    assert 3 < sum(oblique) < 13
    assert len({plan.scan.shape for plan in plans}) > 10
    spacing = np.array([nib.affines.voxel_sizes(affine) for affine in affines])
    assert spacing.min() >= 1.6
    assert spacing.max() <= 2.2
    assert spacing.std(axis=0).min() > 0.03
