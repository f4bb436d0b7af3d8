from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hybrid_nets import LazyCases, make_brain_tissue, phantom_dir
from hybrid_nets.bundle import PHANTOMS
from hybrid_nets.synthesis.atlas import atlas_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_brain_tissue(tmp_path_factory.mktemp("data") / "brain", draws=6, num_folded=2, num_validation=1)


def test_every_second_draw_is_of_the_average(folder: Path) -> None:
    cases = LazyCases(folder)
    names = [Path(case["image"]).name.removesuffix(".nii.gz") for case in cases.training]
    assert names == ["mni152", "folded_0", "mni152", "folded_1", "mni152", "folded_0"]
    assert len(cases.validation) == 1


def test_the_real_image_is_to_segment_and_in_no_other_case(folder: Path) -> None:
    (case,) = LazyCases(folder, split=False).to_segment
    t1 = np.asarray(nib.load(atlas_file("t1")).dataobj)
    np.testing.assert_array_equal(np.asarray(nib.load(case["image"]).dataobj), t1)
    others = [path for path in folder.rglob("*.nii.gz") if path.parent.name != "imagesTs"]
    assert others and all(not np.array_equal(np.asarray(nib.load(path).dataobj), t1) for path in others)


def test_labels_are_the_bundle_s(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    for path in (folder / "labelsTr").iterdir():
        assert np.unique(np.asarray(nib.load(path).dataobj)).tolist() == [int(value) for value in content["labels"]]


def test_bundles_find_it_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(PHANTOMS, "brain_tissue", lambda: tmp_path)
    assert str(phantom_dir("brain_tissue")) == str(tmp_path)
