"""What every phantom must do. A test module of a phantom subclasses :class:`VolumeTester`, or :class:`PhantomTester` if
it makes pictures, and fills in the top.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hybrid_nets.phantoms import Case


class PhantomTester:
    module: ModuleType
    kind = ""  # the module's functions are named for it
    seed = 0  # of the case that the checks look at
    num_training, num_test = 16, 4  # of the default data set

    @classmethod
    def make_case(cls, seed: int, data_set: int = 0) -> Any:
        return getattr(cls.module, f"{cls.kind}_case")(seed, data_set)

    @classmethod
    def make(cls, *arguments: Any, **options: Any) -> Path:
        return getattr(cls.module, f"make_{cls.kind}")(*arguments, **options)

    def tiny_case(self, index: int, seed: int = 0) -> Any:
        """Stands in for the real generator where only the writing matters."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> Any:
        return cls.make_case(cls.seed)

    @pytest.fixture(scope="class")
    @classmethod
    def data_set(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return cls.make(tmp_path_factory.mktemp("data") / "set", num_training=1, num_test=1, seed=3)

    @pytest.fixture
    def tiny(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(self.module, f"{self.kind}_case", self.tiny_case)

    def test_same_seed_same_voxels(self, case: Any) -> None:
        again, other = self.make_case(self.seed), self.make_case(self.seed, data_set=1)
        assert again.image.tobytes() == case.image.tobytes()
        assert again.label.tobytes() == case.label.tobytes()
        assert other.image.tobytes() != case.image.tobytes()

    def test_same_seed_same_files(self, data_set: Path, tmp_path: Path) -> None:
        again = self.make(tmp_path / "again", num_training=1, num_test=1, seed=3)
        files = [path for path in data_set.rglob("*") if path.is_file()]
        assert len(files) == 4
        for path in files:
            assert (again / path.relative_to(data_set)).read_bytes() == path.read_bytes()

    def test_description_says_that_it_is_a_phantom(self, data_set: Path) -> None:
        about = json.loads((data_set / "dataset.json").read_text())
        assert about["name"] == f"{self.kind}_phantom"
        assert "phantom" in about["description"]
        assert about["licence"] == "CC0 1.0"
        assert (about["numTraining"], about["numTest"]) == (1, 1)

    @pytest.mark.usefixtures("tiny")
    def test_existing_data_set_is_kept(self, tmp_path: Path) -> None:
        folder = self.make(tmp_path / "set", 1, 0)
        before = (folder / "dataset.json").stat().st_mtime_ns
        assert self.make(folder, 2, 0, seed=5) == folder
        assert (folder / "dataset.json").stat().st_mtime_ns == before

    def test_a_failure_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(index: int, seed: int = 0) -> Any:
            if index == 2:
                raise OSError("disk full")
            return self.tiny_case(index, seed)

        monkeypatch.setattr(self.module, f"{self.kind}_case", fail)
        with pytest.raises(OSError, match="disk full"):
            self.make(tmp_path / "set", 4, 0)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(self.module, f"{self.kind}_case", self.tiny_case)
        assert (self.make(tmp_path / "set", 4, 0) / "dataset.json").is_file()

    def test_two_writers_at_once_both_end_with_a_data_set(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both_started = threading.Barrier(2, timeout=10)

        def wait_for_the_other(index: int, seed: int = 0) -> Any:
            both_started.wait()
            return self.tiny_case(index, seed)

        monkeypatch.setattr(self.module, f"{self.kind}_case", wait_for_the_other)
        folders = []
        writers = [threading.Thread(target=lambda: folders.append(self.make(tmp_path / "set", 1, 0))) for _ in range(2)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert folders == [tmp_path / "set"] * 2
        assert [path.name for path in tmp_path.iterdir()] == ["set"]
        assert len([path for path in (tmp_path / "set").rglob("*") if path.is_file()]) == 3

    @pytest.mark.usefixtures("tiny")
    def test_empty_folder_is_filled_and_foreign_one_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert (self.make(tmp_path / "empty", 1, 0) / "dataset.json").is_file()
        (tmp_path / "foreign").mkdir()
        (tmp_path / "foreign" / "thesis.txt").write_text("mine")
        with pytest.raises(FileExistsError, match=f"foreign/{self.kind}_phantom"):
            self.make(tmp_path / "foreign", 1, 0)
        assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.txt"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [({"num_training": 0}, "num_training >= 1"), ({"num_test": -1}, "num_test >= 0"), ({"seed": -1}, "0 or more")],
    )
    def test_bad_numbers_are_refused(self, tmp_path: Path, arguments: dict, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            self.make(tmp_path / "set", **arguments)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("tiny")
    def test_default_set_is_written_once_with_one_log_line(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        default_dir = getattr(self.module, f"{self.kind}_dir")
        folder = default_dir(tmp_path)
        assert folder == tmp_path / "phantoms" / f"{self.kind}-{self.module.VERSION}"
        assert default_dir(tmp_path) == folder
        assert len(caplog.records) == 1
        assert str(folder) in caplog.text
        about = json.loads((folder / "dataset.json").read_text())
        assert (about["numTraining"], about["numTest"]) == (self.num_training, self.num_test)


class VolumeTester(PhantomTester):
    channels: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    sides = (0, 0)  # least and most voxels per axis

    def tiny_case(self, index: int, seed: int = 0) -> Case:
        image = np.full((len(self.channels), 4, 5, 6), index + 10 * seed, np.float32)
        return Case(image, np.zeros((4, 5, 6), np.uint8), np.eye(4), f"case_{index}")

    def test_case_has_the_declared_arrays(self, case: Case) -> None:
        assert case.image.shape == (len(self.channels), *case.label.shape)
        assert (case.image.dtype, case.label.dtype, case.affine.dtype) == (np.float32, np.uint8, np.float64)
        assert (case.image == np.rint(case.image)).all()
        assert all(self.sides[0] <= side <= self.sides[1] for side in case.label.shape)
        assert set(np.unique(case.label)) == set(range(len(self.labels)))

    def test_the_grid_follows_the_seeds(self, case: Case) -> None:
        assert np.array_equal(self.make_case(self.seed).affine, case.affine)
        assert not np.array_equal(self.make_case(self.seed, data_set=1).affine, case.affine)

    def test_files_agree_with_dataset_json(self, data_set: Path) -> None:
        about = json.loads((data_set / "dataset.json").read_text())
        assert about["modality"] == {str(i): name for i, name in enumerate(self.channels)}
        assert about["labels"] == {str(i): name for i, name in enumerate(self.labels)}
        assert about["tensorImageSize"] == ("4D" if len(self.channels) > 1 else "3D")
        listed = [path for case in about["training"] for path in case.values()] + about["test"]
        assert {data_set / path for path in listed} == set(data_set.rglob("*.nii.gz"))
        assert sorted(path.name for path in data_set.iterdir()) == ["dataset.json", "imagesTr", "imagesTs", "labelsTr"]

    def test_stored_case_is_the_generated_one(self, data_set: Path) -> None:
        case = self.make_case(0, data_set=3)
        image = nib.load(data_set / "imagesTr" / f"{case.name}.nii.gz")
        label = nib.load(data_set / "labelsTr" / f"{case.name}.nii.gz")
        stored = np.moveaxis(image.get_fdata(), -1, 0) if len(self.channels) > 1 else image.get_fdata()[None]
        assert np.array_equal(stored, case.image)
        assert np.array_equal(np.asarray(label.dataobj), case.label)
        for nifti in (image, label):
            assert np.allclose(nifti.affine, case.affine, atol=1e-4)
            assert np.allclose(nifti.get_qform(), case.affine, atol=1e-3)
            assert (int(nifti.header["sform_code"]), int(nifti.header["qform_code"])) == (1, 1)
