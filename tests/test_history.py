"""The table and the curves of a training, on engines that only count, and the contours in TensorBoard."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardImageHandler
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hybrid_nets import HistoryHandler, contour_slice


def read(file: Path) -> list[dict]:
    return list(csv.DictReader(file.read_text().splitlines()))


def train(folder: Path, epochs: int, done: int = 0) -> None:
    """A training whose loss is 10 / step, that validates every second epoch, from the epoch after ``done``."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    evaluator = Engine(lambda engine, batch: [{}])

    def measure(engine: Engine) -> None:
        if engine.state.epoch % 2 == 0:
            evaluator.run([0])
            evaluator.state.metrics = {"val_mean_dice": engine.state.epoch / 10}

    trainer = Engine(lambda engine, batch: [{"loss": torch.tensor(10.0 / engine.state.iteration)}])

    def resume(engine: Engine) -> None:
        if engine.state.epoch < done:
            engine.state.epoch, engine.state.iteration = done, done * 2

    def step(_: Engine) -> None:
        optimizer.param_groups[0]["lr"] /= 2

    trainer.add_event_handler(Events.STARTED, resume)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, step)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, measure)
    HistoryHandler(folder, optimizer, evaluator).attach(trainer)
    trainer.run([0, 1], max_epochs=epochs)


def test_a_row_per_epoch_with_loss_rate_and_metrics(tmp_path: Path) -> None:
    train(tmp_path, 3)
    rows = read(tmp_path / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["loss"]) for row in rows] == pytest.approx([7.5, 35 / 12, 11 / 6])
    assert [float(row["learning_rate"]) for row in rows] == [0.1, 0.05, 0.025]  # those the steps were made with
    assert [row["val_mean_dice"] for row in rows] == ["", "0.2", ""]
    assert Image.open(tmp_path / "curves.png").size[0] > 500
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curves.png", "history.csv"]


def test_a_resumed_training_appends_and_a_new_one_keeps_the_old_table(tmp_path: Path) -> None:
    train(tmp_path, 3)
    train(tmp_path, 4, done=2)  # the third epoch is made again
    assert [row["epoch"] for row in read(tmp_path / "history.csv")] == ["1", "2", "3", "4"]
    assert [row["val_mean_dice"] for row in read(tmp_path / "history.csv")] == ["", "0.2", "", "0.4"]
    train(tmp_path, 1)
    assert [row["epoch"] for row in read(tmp_path / "history.csv")] == ["1"]
    assert len(read(tmp_path / "history_previous.csv")) == 4


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    train(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_training_ends_well_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    train(tmp_path, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]


@pytest.mark.parametrize("shape", [(16, 12, 6), (16, 12)])
def test_tensorboard_gets_the_contours_in_colour(shape: tuple[int, ...], tmp_path: Path) -> None:
    pred, label = torch.zeros(2, *shape), torch.zeros(2, *shape)
    pred[1, 2:8, 2:8], label[1, 3:9, 3:9] = 1, 1
    output = [{"image": torch.rand(2, *shape), "pred": pred, "label": label}]
    engine = Engine(lambda engine, batch: output)
    TensorBoardImageHandler(
        log_dir=str(tmp_path),
        batch_transform=lambda batch: ([None], [None]),
        output_transform=lambda found: contour_slice(found, ["background", "tumour"]),
        max_channels=3,
    ).attach(engine)
    engine.run([0])
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    (tag,) = events.Tags()["images"]
    event = events.Images(tag)[0]
    assert (event.width, event.height) == (16, 12)
    (picture,) = contour_slice(output, ["background", "tumour"])
    red, green = (picture[0] > picture[1]), (picture[1] > picture[0])
    assert green.sum() == 20 and red.sum() == 18  # outlines of 6 x 6 that cross in two voxels
