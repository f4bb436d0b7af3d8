"""Classes that are missing somewhere or everywhere are counted, and never turn a mean into something else."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.command import run
from conftest import save_nifti
from ignite.engine import Engine
from monai.data import MetaTensor

from hybrid_nets import CaseMetrics, ClassDice, InputError, StandardizeLabelsd
from hybrid_nets.cli.cases import Case
from hybrid_nets.cli.records import Records
from hybrid_nets.cli.tables import measure, write_tables

NAMES = ["liver", "spleen", "absent"]


def one_hot(*filled: bool) -> MetaTensor:
    maps = torch.zeros(3, 6, 6, 6)
    for channel, fill in enumerate(filled):
        maps[channel, 1:4, 1:4, 1:4] = float(fill)
    return MetaTensor(maps, affine=torch.eye(4))


def evaluate(folder: Path) -> tuple[Engine, dict, list[dict]]:
    """Four cases: liver right, made up, missed and empty; spleen in the first alone; the third class in none."""
    pairs = [((1, 1), (1, 1)), ((1, 0), (0, 0)), ((0, 0), (1, 0)), ((0, 0), (0, 0))]
    engine = Engine(lambda engine, batch: [{key: one_hot(*maps) for key, maps in zip(("pred", "label"), pairs[batch])}])
    CaseMetrics(folder, NAMES).attach(engine)
    ClassDice(NAMES).attach(engine)
    engine.run(range(4))
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    return engine, summary, list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def test_missing_classes_are_counted_and_left_out_of_means(tmp_path: Path) -> None:
    _, summary, rows = evaluate(tmp_path)
    counts = {name: [summary[name][key] for key in ("empty", "missed", "made_up")] for name in NAMES}
    assert counts == {"liver": [2, 1, 1], "spleen": [3, 0, 0], "absent": [4, 0, 0]}
    assert summary["liver"]["dice"] == {"mean": round(1 / 3, 4), "cases": 3}
    assert summary["spleen"]["dice"] == {"mean": 1.0, "cases": 1}
    assert summary["absent"]["dice"] == {"mean": None, "cases": 0}
    assert len(rows) == 12 and "nan" not in (tmp_path / "metrics.csv").read_text().lower()


def test_a_class_that_no_case_has_gets_no_number_in_training(tmp_path: Path) -> None:
    """MONAI's handler gives 0, which in a curve looks like a failure."""
    engine, _, _ = evaluate(tmp_path)
    assert math.isnan(engine.state.metrics["val_dice_absent"])
    assert engine.state.metrics["val_dice_spleen"] == 1.0


@pytest.mark.parametrize("value", [7, 0.5, math.nan])
def test_labels_outside_the_declared_set_are_refused(value: float) -> None:
    label = MetaTensor(torch.tensor([[[[0.0, 1.0, value]]]]), meta={"filename_or_obj": "seg.nii.gz"})
    with pytest.raises(InputError, match="seg.nii.gz has label values .* that are not declared"):
        StandardizeLabelsd("label", {0: "background", 1: "liver"})({"label": label})


@pytest.mark.parametrize("value", [7, 0.5, math.nan])
def test_a_report_names_references_with_such_labels(value: float, tmp_path: Path) -> None:
    labels = np.zeros((8, 8, 8), np.float32)
    labels[2:5, 2:5, 2:5] = 1
    out, records = tmp_path / "out", Records(tmp_path / "out", "run")
    for name in ("right", "odd"):
        image = save_nifti(tmp_path / "in" / f"{name}.nii.gz", labels)
        save_nifti(out / f"{name}_seg.nii.gz", labels.astype(np.uint8))
        case = Case(name, (str(image),))
        volumes = measure(MetaTensor(labels[None]), {1: "liver", 2: "absent"}, pictures=False)
        more = {"images": case.images(), "outputs": [f"{name}_seg.nii.gz"], "volumes": volumes}
        records.write(case, status="done", source=case.source(), **more)
    write_tables(records)
    save_nifti(tmp_path / "labels" / "right.nii.gz", labels.astype(np.uint8))
    labels[0, 0, 0] = value
    save_nifti(tmp_path / "labels" / "odd.nii.gz", labels)
    assert run("report", out, "--labels", tmp_path / "labels") == 0
    page = (out / "report.html").read_text()
    assert f"label values [{value:g}] that are not declared" in page
    assert ">1.00 (1)<" in page and "nan" not in page.split("</style>")[1].lower().replace("data:image", "")[:4000]
