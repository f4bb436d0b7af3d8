"""What is written: label maps and metrics."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import FolderLayout, MetaTensor
from monai.transforms import SaveImage

from hybrid_nets import AtomicNibabelWriter, CaseMetrics, ClassDice, case_name
from hybrid_nets.evaluation import summarize

OBLIQUE = np.array([[-0.9, 0.2, 0.1, 10], [0.1, 1.1, -0.3, -20.5], [0.0, 0.2, 2.5, 7], [0, 0, 0, 1]])
PERMUTED = np.array([[0, 0, -2.0, 30], [-1.5, 0, 0, 20], [0, 2.2, 0, -10], [0, 0, 0, 1]])


def save(array: torch.Tensor, folder: Path, affine: np.ndarray = OBLIQUE) -> Path:
    meta = {"filename_or_obj": "a.nii.gz", "original_affine": affine}
    image = MetaTensor(array, affine=torch.from_numpy(affine), meta=meta)
    SaveImage(
        folder,
        "seg",
        output_dtype=np.uint8,
        separate_folder=False,
        print_log=False,
        writer=AtomicNibabelWriter,
        output_name_formatter=case_name,
    )(image)
    return next(folder.iterdir())


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 3, 4, 1), (1, 1, 4, 5)])
@pytest.mark.parametrize("affine", [OBLIQUE, PERMUTED], ids=["oblique", "permuted"])
def test_shape_and_affine_are_kept(tmp_path: Path, shape: tuple[int, ...], affine: np.ndarray) -> None:
    array = torch.randint(0, 4, shape)
    image = nib.load(save(array, tmp_path, affine))
    assert image.shape == shape[1:] and image.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(image.dataobj), array[0].numpy())
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)


def test_channels_go_last(tmp_path: Path) -> None:
    assert nib.load(save(torch.zeros(3, 4, 5, 6), tmp_path)).shape == (4, 5, 6, 3)


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image, filename):
        Path(filename).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("monai.data.image_writer.nib.save", fail)
    with pytest.raises(RuntimeError):
        save(torch.zeros(1, 2, 2, 2), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BraTS-GLI-00000-000-t2f.nii.gz", "BraTS-GLI-00000-000"),
        ("BraTS2021_00003_flair.nii", "BraTS2021_00003"),
        ("liver.nii.gz", "liver"),
        ("scan.1.nii.gz", "scan.1"),
    ],
)
def test_case_names(tmp_path: Path, name: str, expected: str) -> None:
    layout = FolderLayout(tmp_path, extension=".nii.gz", postfix="seg", parent=False)
    subject = case_name({"filename_or_obj": f"/data/{name}"}, None)["subject"]
    assert Path(layout.filename(subject)).name == f"{expected}_seg.nii.gz"


def item(pred: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> dict:
    affine = torch.diag(torch.tensor([*spacing, 1.0]))
    return {
        "pred": MetaTensor(torch.from_numpy(pred).float(), affine=affine, meta={"filename_or_obj": "x/case.nii.gz"}),
        "label": MetaTensor(torch.from_numpy(label).float(), affine=affine),
    }


def test_metrics_are_in_millimetres(tmp_path: Path) -> None:
    label = np.zeros((2, 20, 20, 20), bool)
    label[0, 5:15, 5:15, 5:15] = True
    pred = np.roll(label, 2, axis=3)  # two voxels of 3 mm along the last axis
    engine = Engine(lambda engine, batch: [item(pred, label, (1.0, 1.0, 3.0))])
    CaseMetrics(tmp_path, ["organ", "absent"]).attach(engine)
    ClassDice(["organ", "absent"]).attach(engine)
    state = engine.run([0])
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert rows[0]["case"] == "case.nii.gz" and float(rows[0]["dice"]) == pytest.approx(0.8)
    assert float(rows[0]["hd95_mm"]) == pytest.approx(6.0)
    assert 0 < float(rows[0]["surface_dice"]) < 1
    assert [rows[1][metric] for metric in ("dice", "surface_dice", "hd95_mm")] == ["", "", ""]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["organ"]["dice"] == {"mean": 0.8, "cases": 1}
    assert summary["absent"] == {m: {"mean": None, "cases": 0} for m in ("dice", "surface_dice", "hd95_mm")} | {
        "empty": 1,
        "missed": 0,
        "made_up": 0,
    }
    assert state.metrics["val_dice_organ"] == pytest.approx(0.8)


def test_pictures_are_measured_in_pixels(tmp_path: Path) -> None:
    label = np.zeros((1, 20, 20), bool)
    label[0, 5:15, 5:15] = True
    engine = Engine(lambda engine, batch: [item(np.roll(label, 2, axis=2), label, (0.26, 0.26))])
    CaseMetrics(tmp_path, ["foreground"], tolerance=2, unit="px").attach(engine)
    engine.run([0])
    (row,) = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    assert float(row["hd95_px"]) == 2 and float(row["surface_dice"]) == 1
    with pytest.raises(ValueError, match="unit must be one of"):
        CaseMetrics(tmp_path, ["foreground"], unit="cm")


def test_missed_and_made_up_classes_are_counted() -> None:
    metrics = CaseMetrics(".", ["a"])
    full, empty = torch.ones(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4)
    rows = [
        {"class": "a", **metrics.compare(p, y, [1, 1, 1])}
        for p, y in ((full, full), (full, empty), (empty, full), (empty, empty))
    ]
    assert math.isnan(rows[1]["hd95_mm"]) and rows[2]["dice"] == 0.0
    summary = summarize(rows, ["a"], metrics.metrics)["a"]
    assert summary["dice"] == {"mean": round(1 / 3, 4), "cases": 3} and summary["hd95_mm"] == {"mean": 0.0, "cases": 1}
    assert (summary["empty"], summary["missed"], summary["made_up"]) == (2, 1, 1)
