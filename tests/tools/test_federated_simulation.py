from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from federated_simulation import average, federated_simulation

from hybrid_nets.phantoms import make_ultrasound


def test_sites_train_together(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = make_ultrasound(tmp_path / "data", num_training=8, num_test=1)
    out = tmp_path / "out"
    options = {"dataset_dir": str(data), "roi_size": [32, 32], "batch_size": 1, "device": "cpu"}
    results = federated_simulation(str(out), sites=2, rounds=2, local_epochs=1, **options)
    assert list(results) == ["all sites together", "site 1 alone", "site 2 alone"]
    content = json.loads((out / "results.json").read_text())
    assert content["mean_dice"] == results and sum(content["cases_of_each_site"]) + content["unseen_cases"] == 8
    assert "round 2" in capsys.readouterr().out and "| site 2 alone |" in (out / "results.md").read_text()
    # each site has its own folder, and what it trained lies there: of two rounds, or of one that is as long
    states = {f.parents[2].name: torch.load(f, weights_only=True) for f in out.rglob("resume.pt")}
    assert {name: state["epoch"] for name, state in states.items()} == {
        "site_1": 2,
        "site_2": 2,
        "site_1_alone": 2,
        "site_2_alone": 2,
    }
    one, two = (state["model"] for name, state in states.items() if name in ("site_1", "site_2"))
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_average_counts_cases() -> None:
    weights = [
        {"w": torch.tensor([0.0, 1.0]), "n": torch.tensor(2)},
        {"w": torch.tensor([4.0, 1.0]), "n": torch.tensor(6)},
    ]
    mean = average(weights, [3, 1])
    assert mean["w"].tolist() == [1.0, 1.0] and mean["n"].item() == 3 and mean["n"].dtype == torch.int64
