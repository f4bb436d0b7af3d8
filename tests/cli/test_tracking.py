"""What MONAI's ``--tracking mlflow`` asks of the bundles' configs; MLflow itself is not installed for the tests."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import ROOT, TINY
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

BUNDLES = sorted(path.parents[1] for path in (ROOT / "bundles").glob("*/configs/metadata.json"))


class Recorder:
    """Stands for MONAI's MLFlowHandler: takes what that is given, and keeps what that would send."""

    seen: ClassVar[list[tuple[Any, int, dict]]] = []

    def __init__(self, **options: Any) -> None:
        self.options = options

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.note)
        if self.options["iteration_log"]:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.note_loss)

    def note(self, engine: Engine) -> None:
        self.seen.append((self, engine.state.epoch, dict(engine.state.metrics)))

    def note_loss(self, engine: Engine) -> None:
        loss = self.options["output_transform"](engine.state.output)
        self.seen.append((self, engine.state.iteration, {self.options["tag_name"]: loss}))


def patched(bundle: Path, output: Path, *names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in names])
    parser.update({"bundle_root": str(bundle), "output_dir": str(output)})
    ConfigWorkflow.patch_bundle_tracking(parser, copy.deepcopy(DEFAULT_MLFLOW_SETTINGS))
    return parser


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_the_handler_comes_into_every_engine_that_runs(bundle: Path, tmp_path: Path) -> None:
    wanted = {
        ("train",): ["train#trainer#train_handlers", "validate#evaluator#val_handlers"],
        ("train", "evaluate"): ["validate#evaluator#val_handlers"],
        ("inference",): ["evaluator#val_handlers"],
    }
    for names, engines in wanted.items():
        parser = patched(bundle, tmp_path, *names)
        assert parser.get_parsed_content("tracking_uri") and not parser.get_parsed_content("is_not_rank0")
        for engine in engines:
            handlers = parser[parser[engine].removeprefix("@")]  # the engine names the list that MONAI adds to
            assert [handler["_target_"] for handler in handlers].count("MLFlowHandler") == 1, (names, engine)


def test_a_training_sends_its_losses_and_the_validation_s_metrics_as_numbers_by_epoch(
    small_phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "seen", [])
    parser = patched(ROOT / "bundles" / "glims", tmp_path, "train")
    for handlers in ("train#handlers", "validate#handlers"):
        parser[handlers][-1]["_target_"] = Recorder
    options = {**TINY["glims"], "dataset_dir": str(small_phantom), "epochs": 2, "val_interval": 1, "num_workers": 0}
    parser.update({**options, "ckpt_dir": str(tmp_path), "device": "cpu", "batch_size": 1, "cache_num": 0})
    parser.get_parsed_content("train#trainer").run()
    losses = [content["train_loss"] for _, _, content in Recorder.seen if "train_loss" in content]
    validations = [(epoch, metrics) for _, epoch, metrics in Recorder.seen if "val_mean_dice" in metrics]
    assert len(losses) == 6 and all(float(loss) > 0 for loss in losses)
    assert [epoch for epoch, _ in validations] == [1, 2]
    assert all(isinstance(value, float) for _, metrics in validations for value in metrics.values())
