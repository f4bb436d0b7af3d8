from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from hybrid_nets import (
    CheckpointHandler,
    InputError,
    StrictCheckpointLoader,
    load_network,
    needs_all_weights,
    replicate,
)
from hybrid_nets.atomic import replacing
from hybrid_nets.checkpoints import Ensemble, load_strictly, save_atomic


def make_training(
    folder: Path, scores: list[float], interval: int = 1, length: int = 6, rate: float = 0.1, **options: object
) -> tuple[Engine, CheckpointHandler]:
    """A training of one weight with noise from the global generator, validated by given scores."""
    torch.manual_seed(99)
    network = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=length)
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.key_metric_name = "dice"

    def step(engine: Engine, batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        network(batch + torch.randn(3)).square().sum().backward()
        optimizer.step()

    trainer = Engine(step)
    trainer.data_loader = None

    def validate(engine: Engine) -> None:
        scheduler.step()
        if engine.state.epoch % interval == 0:
            evaluator.run([0])
            evaluator.state.metrics["dice"] = scores[engine.state.epoch - 1]

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    handler = CheckpointHandler(folder, network, optimizer, scheduler, evaluator, seed=5, **options)
    handler.attach(trainer)
    return trainer, handler


DATA = list(torch.arange(12.0).reshape(4, 3))


def test_resumed_training_equals_an_undisturbed_one(tmp_path: Path) -> None:
    scores = [0.1, 0.5, 0.3, 0.4, 0.6, 0.2]
    whole, whole_handler = make_training(tmp_path / "a", scores)
    whole.run(DATA, max_epochs=6)
    first, _ = make_training(tmp_path / "b", scores)
    first.run(DATA, max_epochs=3)
    second, handler = make_training(tmp_path / "b", scores, resume="true")
    second.run(DATA, max_epochs=6)
    assert second.state.iteration == 24 and handler.best_score == whole_handler.best_score == 0.6
    for name in ("model.pt", "resume.pt"):
        ours, reference = (torch.load(tmp_path / folder / name, weights_only=True) for folder in "ba")
        ours, reference = ours.get("model", ours), reference.get("model", reference)
        assert all(torch.equal(ours[k], reference[k]) for k in reference)


@pytest.mark.parametrize("rate", [0.1, 0.01])
def test_more_epochs_go_on_along_the_longer_schedule(rate: float, tmp_path: Path) -> None:
    """A finished cosine ends at a rate of 0, which nothing is learned with; the options given now count."""
    first, _ = make_training(tmp_path / "a", [0.1] * 8, length=4)
    first.run(DATA, max_epochs=4)
    more, handler = make_training(tmp_path / "a", [0.1] * 8, length=8, rate=rate, resume=True)
    whole, other = make_training(tmp_path / "b", [0.1] * 8, length=8, rate=rate)
    rates: list[list[float]] = [[], []]
    for trainer, training, seen in zip((more, whole), (handler, other), rates):
        trainer.add_event_handler(
            Events.EPOCH_STARTED, lambda _, t=training, s=seen: s.append(t.optimizer.param_groups[0]["lr"])
        )
        trainer.run(DATA, max_epochs=8)
    assert rates[0] == rates[1][4:] and rates[0][0] == pytest.approx(rate / 2)


def test_a_finished_training_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_training(tmp_path, [0.1] * 2)[0].run(DATA, max_epochs=2)
    trainer, _ = make_training(tmp_path, [0.1] * 2, resume=True)
    trainer.run(DATA, max_epochs=2)
    assert "It has all of the 2 epochs: for more give --epochs" in caplog.text


def test_model_is_the_best_validated_one(tmp_path: Path) -> None:
    trainer, handler = make_training(tmp_path, [0.2, 0.9, 0.5])
    kept = {}
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: kept.update({e.state.epoch: handler.network.weight.clone()})
    )
    trainer.run(DATA, max_epochs=3)
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=True)["weight"], kept[2])


def test_model_exists_before_the_first_validation(tmp_path: Path) -> None:
    trainer, handler = make_training(tmp_path, [0.0] * 9, interval=5)
    trainer.run(DATA, max_epochs=2)
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=True)["weight"], handler.network.weight)


def test_resume_without_a_checkpoint_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer, _ = make_training(tmp_path, [0.1], resume=True)
    trainer.run(DATA, max_epochs=1)
    assert "Nothing to resume" in caplog.text and trainer.state.epoch == 1


def test_training_anew_keeps_what_was_there(tmp_path: Path) -> None:
    save_atomic({"a": torch.ones(1)}, tmp_path / "model.pt")
    trainer, _ = make_training(tmp_path, [0.1])
    # somebody may be segmenting with it: it is there until there is a new one
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda _: torch.load(tmp_path / "model.pt", weights_only=True)["a"])
    trainer.run(DATA, max_epochs=1)
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt", "resume.pt", "model_previous.pt"}
    assert "a" in torch.load(tmp_path / "model_previous.pt", weights_only=True)


def test_rounds_of_one_training_are_no_trainings_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer, _ = make_training(tmp_path, [0.1, 0.2])
    for epochs in (1, 2):
        trainer.run(DATA, max_epochs=epochs)
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt", "resume.pt"} and "Training anew" not in caplog.text


def test_interrupted_save_leaves_the_old_file(tmp_path: Path) -> None:
    save_atomic({"a": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(RuntimeError, match="stop"), replacing(tmp_path / "x.pt") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]
    assert torch.load(tmp_path / "x.pt", weights_only=True)["a"] == 1


def test_strict_loading(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    save_atomic({"model": network.state_dict(), "epoch": 1}, tmp_path / "nested.pt")
    save_atomic(network.state_dict(), tmp_path / "flat.pt")
    for name in ("nested.pt", "flat.pt"):
        other = torch.nn.Linear(3, 2)
        load_strictly(other, tmp_path / name)
        assert torch.equal(other.weight, network.weight)
    with pytest.raises(InputError, match=r"has weight of shape \[2, 3\], the network \[2, 5\].*feature_size"):
        load_strictly(torch.nn.Linear(5, 2), tmp_path / "flat.pt")
    with pytest.raises(InputError, match="unknown bias"):
        load_strictly(torch.nn.Linear(3, 2, bias=False), tmp_path / "flat.pt")
    with pytest.raises(InputError, match="no checkpoint at .*; train first"):
        load_strictly(network, tmp_path / "none.pt")
    torch.save({"x": print}, tmp_path / "code.pt")
    with pytest.raises(InputError, match="can't be read as a checkpoint of tensors"):
        load_strictly(network, tmp_path / "code.pt")


def test_ensemble_averages_logits(tmp_path: Path) -> None:
    networks = [torch.nn.Linear(3, 2) for _ in range(3)]
    for i, network in enumerate(networks):
        save_atomic(network.state_dict(), tmp_path / f"{i}.pt")
    loaded = load_network(torch.nn.Linear(3, 2), [tmp_path / f"{i}.pt" for i in range(3)])
    x = torch.randn(4, 3)
    assert isinstance(loaded, Ensemble)
    torch.testing.assert_close(loaded(x), sum(network(x) for network in networks) / 3)
    assert isinstance(load_network(torch.nn.Linear(3, 2), str(tmp_path / "0.pt")), torch.nn.Linear)
    with pytest.raises(InputError, match="no checkpoint is named"):
        load_network(torch.nn.Linear(3, 2), [])


@pytest.mark.parametrize("count", [1, 2])
def test_loader_for_evaluation(count: int, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.pt" for i in range(count)]
    for file in files:
        save_atomic(torch.nn.Linear(3, 2).state_dict(), file)
    network, x = replicate(torch.nn.Linear(3, 2), files), torch.randn(4, 3)
    StrictCheckpointLoader(network, files).attach(Engine(lambda *_: None))
    assert torch.equal(network(x), load_network(torch.nn.Linear(3, 2), files)(x))
    with pytest.raises(InputError, match="no checkpoint at"):
        StrictCheckpointLoader(network, tmp_path / "none.pt").attach(Engine(lambda *_: None))


def test_partial_weights_are_refused(tmp_path: Path) -> None:
    network = needs_all_weights(torch.nn.Linear(3, 2))
    for weights in ({}, {"model": network.state_dict()}, {"weight": network.weight}):
        with pytest.raises(InputError, match="the checkpoint lacks .* of the Linear's 2 entries"):
            network.load_state_dict(weights, strict=False)
    network.load_state_dict({**network.state_dict(), "other": torch.zeros(1)}, strict=False)
    copied = copy.deepcopy(network)
    with pytest.raises(InputError):
        copied.load_state_dict({}, strict=False)
