"""Trainings that are stopped, or meet what stops them: nothing half-written, a sentence, and the same end when resumed.

``tools/reliability_training.py kills --count 20`` does the same at random moments.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import monai.data
import pytest
import torch
from monai.bundle import ConfigParser
from reliability_training import broken_files, differences, finish, make_data, start, train, wait_for_save

from hybrid_nets import DCAUNet, InputError, checkpoints
from hybrid_nets.errors import find_input_error

GO_ON = r"resume.pt holds epoch {}: go on from there with --resume true"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the trainings that are processes of their own
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "abdomen")


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, data)
    return folder


def stop(folder: Path, data: Path, **options: object) -> str:
    """What a training says that stops with an error."""
    with pytest.raises(Exception, match=r".") as caught:
        train(folder, data, **options)
    assert not list(broken_files(folder)) and not list(folder.glob("models/.*"))
    return find_input_error(caught.value) or f"not explained: {caught.value!r}"


def check_resumed(folder: Path, data: Path, undisturbed: Path, **options: object) -> None:
    train(folder, data, resume=True, **options)
    assert differences(folder, undisturbed) == []


class Fault:
    """A network's ``forward`` that does something else at the ``at``-th step of training."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        forward, steps = DCAUNet.forward, []

        def wrong(network: DCAUNet, x: torch.Tensor) -> torch.Tensor:
            steps.extend([1] * network.training)
            out = forward(network, x)
            return act(out) if network.training and len(steps) == at else out

        monkeypatch.setattr(DCAUNet, "forward", wrong)


def stop_in_save(folder: Path, data: Path, number: signal.Signals) -> BaseProcess:
    """A training that got a signal in a save of its second epoch."""
    process = start(folder, data, slow_saves=True)
    wait_for_save(process, folder, 3)
    os.kill(process.pid, number)
    process.join()
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_save(number: signal.Signals, data: Path, undisturbed: Path, tmp_path: Path) -> None:
    process = stop_in_save(tmp_path, data, number)
    assert process.exitcode == {signal.SIGKILL: -9, signal.SIGINT: 1, signal.SIGTERM: 143}[number]
    assert not list(broken_files(tmp_path))
    left = list(tmp_path.glob("models/.*"))
    log = (tmp_path / "log.txt").read_text()
    if number == signal.SIGKILL:
        assert len(left) == 1  # nobody was there to remove it
    else:
        what = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
        assert f"Training was {what} in epoch" in log and "with --resume true" in log and not left
    finish(start(tmp_path, data), tmp_path)
    assert not list(tmp_path.glob("models/.*")) and "Resumed from" in (tmp_path / "log.txt").read_text()
    assert differences(tmp_path, undisturbed) == []


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_where_python_drops_exceptions(
    number: signal.Signals, kind: type, data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Removed:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def remove(out: torch.Tensor) -> torch.Tensor:
        Removed()
        return out

    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # shells have background jobs ignore SIGINT
    try:
        with monkeypatch.context() as patch, pytest.raises(kind):
            patch.setattr("sys.unraisablehook", lambda _: None)
            Fault(patch, 3, remove)
            train(tmp_path, data)
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)
    check_resumed(tmp_path, data, undisturbed)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number(
    value: str, data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Fault(patch, 5, lambda out: out + float(value))  # two steps an epoch
        message = stop(tmp_path, data)
    assert "the loss is nan: lower --learning_rate" in message and "in epoch 3, iteration 1." in message
    assert GO_ON.format(2) in message
    check_resumed(tmp_path, data, undisturbed)


def test_weights_that_are_no_numbers_are_not_saved(
    data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of an epoch spoils them, and its loss does not show it."""

    def spoil(out: torch.Tensor) -> torch.Tensor:
        out.register_hook(lambda gradient: gradient * float("nan"))
        return out

    with monkeypatch.context() as patch:
        Fault(patch, 4, spoil)
        message = stop(tmp_path, data, val_interval=6)
    assert "weights are not numbers after this epoch, which is not saved" in message and GO_ON.format(1) in message
    check_resumed(tmp_path, data, undisturbed)


@pytest.mark.parametrize("kind", ["processor", "graphics"])
def test_out_of_memory(
    kind: str, data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(out: torch.Tensor) -> torch.Tensor:
        if kind == "graphics":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return out + torch.empty(2**50)

    with monkeypatch.context() as patch:
        Fault(patch, 4, allocate)
        message = stop(tmp_path, data)
    assert "memory ran out: lower --roi_size or --batch_size, or --sw_batch_size" in message
    assert "in epoch 2, iteration 2." in message and GO_ON.format(1) in message
    check_resumed(tmp_path, data, undisturbed)


def test_a_loader_process_dies(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = monai.data.CacheDataset._transform

    def die(dataset: monai.data.CacheDataset, index: int) -> object:
        if torch.utils.data.get_worker_info() and (tmp_path / "models" / "resume.pt").is_file():
            os.kill(os.getpid(), signal.SIGKILL)
        return load(dataset, index)

    with monkeypatch.context() as patch:
        patch.setattr(monai.data.CacheDataset, "_transform", die)
        message = stop(tmp_path, data, num_workers=1, epochs=2)
    assert "a loader process died" in message and "lower --num_workers" in message and GO_ON.format(1) in message
    # a loader process draws random numbers of its own: a fair comparison has as many
    train(tmp_path / "undisturbed", data, num_workers=1, epochs=2)
    check_resumed(tmp_path, data, tmp_path / "undisturbed", num_workers=1, epochs=2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk on which the checkpoints of an epoch fit, but not those of a second beside them."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1300k", "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("this user can't mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(small_disk: Path, data: Path, undisturbed: Path) -> None:
    message = stop(small_disk, data)
    assert "can't be written" in message and "MiB are free in" in message and GO_ON.format(1) in message
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    check_resumed(small_disk, data, undisturbed)


def test_a_write_that_fails_half_way(
    data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves, save = [], torch.save

    def fail(content: object, path: Path) -> None:
        saves.append(path)
        save(content, path)
        if len(saves) == 5:
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.torch, "save", fail)
        message = stop(tmp_path, data)
    assert "can't be written ([Errno 28] No space left on device)" in message
    check_resumed(tmp_path, data, undisturbed)


def test_before_the_first_checkpoint_there_is_nothing_to_go_on_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fault(monkeypatch, 1, lambda out: out * float("nan"))
    assert "Nothing is saved yet" in stop(tmp_path, data)


def test_other_errors_stay_what_they_are_and_the_log_says_where(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    Fault(monkeypatch, 3, lambda out: out.no_such_thing)
    assert "not explained" in stop(tmp_path, data)
    assert "Training was stopped by AttributeError in epoch 2, iteration 1" in capsys.readouterr().out


def test_a_seed_gives_the_same_training_twice_and_another_seed_another(data: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        train(tmp_path / name, data, seed=seed, epochs=2)
    assert differences(tmp_path / "one", tmp_path / "again") == []
    assert differences(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize("bundle", ["dca_unet", "glims", "hylt", "mobileutr", "mobileutr_brain"])
def test_every_bundle_has_the_handler(bundle: str) -> None:
    config = ConfigParser.load_config_file(Path(__file__).parents[2] / "bundles" / bundle / "configs" / "train.json")
    names = [handler["_target_"].removeprefix("hybrid_nets.") for handler in config["train"]["handlers"]]
    assert "StopHandler" in names and names.index("HistoryHandler") < names.index("CheckpointHandler")


def test_mixed_precision_may_skip_some_steps(tmp_path: Path) -> None:
    """The gradient scaler leaves weights alone where a loss overflows; if it always does, that is no training."""
    from ignite.engine import Engine

    from hybrid_nets import StopHandler

    trainer = Engine(lambda engine, batch: [{"loss": torch.tensor(batch)}])
    trainer.scaler = type("Scaler", (), {"is_enabled": lambda self: True})()
    StopHandler(tmp_path).attach(trainer)
    trainer.run([float("inf"), 1.0] * 20, max_epochs=1)
    with pytest.raises(InputError, match=r"the loss is nan.*in epoch 2, iteration 11"):
        trainer.run([float("nan")] * 40, max_epochs=2)
