"""The brain tumour phantom: what its cases show, and how the data set is written."""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hybrid_nets.phantoms import Case, brain_tumor, brain_tumor_case, brain_tumor_dir, cache_dir, make_brain_tumor, msd

DEFAULT_CASES = range(16)
FLAIR, T1CE, T1, T2 = range(4)


def tiny_case(index: int, seed: int = 0) -> Case:
    """Stands in for the real generator where only the writing matters."""
    image = np.full((4, 4, 5, 6), index + 10 * seed, np.float32)
    return Case(image, np.zeros((4, 5, 6), np.uint8), np.eye(4), f"case_{index}")


@pytest.fixture(scope="module")
def plans() -> list[brain_tumor.Plan]:
    return [brain_tumor.draw_plan(index, np.random.default_rng([0, index])) for index in DEFAULT_CASES]


@pytest.fixture(scope="module")
def full_case() -> Case:
    return brain_tumor_case(5)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_brain_tumor(tmp_path_factory.mktemp("data") / "set", num_training=1, num_test=1, seed=3)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brain_tumor, "brain_tumor_case", tiny_case)


def test_same_seed_same_voxels(full_case: Case) -> None:
    again, other = brain_tumor_case(5), brain_tumor_case(5, data_set=1)
    assert again.image.tobytes() == full_case.image.tobytes()
    assert again.label.tobytes() == full_case.label.tobytes()
    assert np.array_equal(again.affine, full_case.affine)
    assert not np.array_equal(other.affine, full_case.affine)


def test_case_has_the_declared_arrays(full_case: Case) -> None:
    assert full_case.image.shape == (4, *full_case.label.shape)
    assert (full_case.image.dtype, full_case.label.dtype, full_case.affine.dtype) == (np.float32, np.uint8, np.float64)
    assert all(80 <= side <= 112 for side in full_case.label.shape)
    assert set(np.unique(full_case.label)) == {0, 1, 2, 3}


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
    signal, tissue = brain_tumor.paint(brain_tumor.brain_layers(points, cavity, np.random.default_rng(2)), len(cavity))
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


def test_files_agree_with_dataset_json(data_set: Path) -> None:
    about = json.loads((data_set / "dataset.json").read_text())
    assert about["modality"] == {"0": "FLAIR", "1": "T1ce", "2": "T1", "3": "T2"}
    assert about["labels"] == {"0": "background", "1": "necrotic core", "2": "oedema", "3": "enhancing tumour"}
    assert (about["numTraining"], about["numTest"], about["tensorImageSize"]) == (1, 1, "4D")
    assert "phantom" in about["description"]
    listed = [path for case in about["training"] for path in case.values()] + about["test"]
    assert {data_set / path for path in listed} == set(data_set.rglob("*.nii.gz"))
    assert sorted(path.name for path in data_set.iterdir()) == ["dataset.json", "imagesTr", "imagesTs", "labelsTr"]


def test_stored_case_is_the_generated_one(data_set: Path) -> None:
    case = brain_tumor_case(0, data_set=3)
    image = nib.load(data_set / "imagesTr" / f"{case.name}.nii.gz")
    label = nib.load(data_set / "labelsTr" / f"{case.name}.nii.gz")
    assert np.array_equal(np.moveaxis(image.get_fdata(), -1, 0), case.image)
    assert np.array_equal(np.asarray(label.dataobj), case.label)
    for nifti in (image, label):
        assert np.allclose(nifti.affine, case.affine, atol=1e-4)
        assert np.allclose(nifti.get_qform(), case.affine, atol=1e-3)
        assert (int(nifti.header["sform_code"]), int(nifti.header["qform_code"])) == (1, 1)


@pytest.mark.usefixtures("tiny")
def test_existing_data_set_is_kept(tmp_path: Path) -> None:
    folder = make_brain_tumor(tmp_path / "set", 1, 0)
    before = (folder / "dataset.json").stat().st_mtime_ns
    assert make_brain_tumor(folder, 2, 0, seed=5) == folder
    assert (folder / "dataset.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("tiny")
def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = msd.write_nifti

    def fail(path: Path, *args: object) -> None:
        if path.name == "case_2.nii.gz":
            raise OSError("disk full")
        write(path, *args)

    monkeypatch.setattr(msd, "write_nifti", fail)
    with pytest.raises(OSError, match="disk full"):
        make_brain_tumor(tmp_path / "set", 4, 0)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(brain_tumor, "brain_tumor_case", tiny_case)
    assert (make_brain_tumor(tmp_path / "set", 4, 0) / "dataset.json").is_file()


def test_two_writers_at_once_both_end_with_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_started = threading.Barrier(2, timeout=10)

    def wait_for_the_other(index: int, seed: int = 0) -> Case:
        both_started.wait()
        return tiny_case(index, seed)

    monkeypatch.setattr(brain_tumor, "brain_tumor_case", wait_for_the_other)
    folders = []
    writers = [
        threading.Thread(target=lambda: folders.append(make_brain_tumor(tmp_path / "set", 1, 0))) for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert folders == [tmp_path / "set"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert (tmp_path / "set" / "labelsTr" / "case_0.nii.gz").is_file()


@pytest.mark.usefixtures("tiny")
def test_empty_folder_is_filled_and_foreign_one_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (make_brain_tumor(tmp_path / "empty", 1, 0) / "dataset.json").is_file()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="foreign/brain_tumor_phantom"):
        make_brain_tumor(tmp_path / "foreign", 1, 0)
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"num_training": 0}, "num_training >= 1"), ({"num_test": -1}, "num_test >= 0"), ({"seed": -1}, "0 or more")],
)
def test_bad_numbers_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make_brain_tumor(tmp_path / "set", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_NETS_CACHE", "/somewhere")
    assert cache_dir() == Path("/somewhere")
    monkeypatch.delenv("HYBRID_NETS_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "hybrid_nets"


@pytest.mark.usefixtures("tiny")
def test_default_set_is_written_once_with_one_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = brain_tumor_dir(tmp_path)
    assert folder == tmp_path / "phantoms" / "brain_tumor-1"
    assert brain_tumor_dir(tmp_path) == folder
    assert len(caplog.records) == 1
    assert str(folder) in caplog.text
    assert len(list((folder / "imagesTr").iterdir())) == 16
