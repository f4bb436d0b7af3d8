"""Stop trainings at random moments, some of them during a save, and compare their end with an undisturbed training's.

    python tools/reliability_training.py kills --count 20

Trains a small DCAUNet on a phantom by its bundle, on a CPU, in processes that are sent SIGKILL, SIGINT or SIGTERM; each
goes on with --resume true until it is done. After each stop every file must be whole; at the end weights, optimizer,
schedule and the table of epochs must be the same, bit for bit. Prints how many were; exit status 1 if not all.
"""

from __future__ import annotations

import csv
import io
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

import fire
import monai.bundle
import torch

from hybrid_nets.phantoms import make_abdomen

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 6
OPTIONS = {
    "device": "cpu",
    "num_workers": 0,
    "val_interval": 2,
    "batch_size": 1,
    "roi_size": [64, 64],
    "widths": [4, 8, 12, 16, 16],
    "grid": 4,
    "spacing": [8.0, 8.0, 8.0],
}
# Importing everything takes longer than the training.
PRELOAD = ["fire", "hybrid_nets.phantoms", "monai.bundle", "monai.engines", "monai.handlers", "tensorboard.compat"]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)  # the first is the hardest: half of them


def kills(count: int = 20, seed: int = 0) -> None:
    """Stop trainings COUNT times; SEED says when and how."""
    chance, figures = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = make_data(root / "data")
        finish(start(root / "warming_up", data, epochs=1), root / "warming_up")
        began = time.monotonic()
        finish(start(root / "undisturbed", data), root / "undisturbed")
        length = time.monotonic() - began
        for trial in range(sys.maxsize):
            if figures["stops"] >= count:
                break
            disturb(root / str(trial), data, count, length, chance, figures)
            figures["trainings"] += 1
            different = differences(root / str(trial), root / "undisturbed")
            figures["trainings that end the same"] += not different
            print(*different, sep="\n", end="\n" if different else "")
    for what, number in sorted(figures.items()):
        print(f"{number:4d}  {what}")
    if figures["files not whole"] or figures["trainings that end the same"] < figures["trainings"]:
        sys.exit(1)


def disturb(folder: Path, data: Path, count: int, length: float, chance: random.Random, figures: Counter) -> None:
    """Train in ``folder`` to the end, stopped at random moments as long as there are fewer than ``count`` stops."""
    process = start(folder, data, slow_saves=True)
    while figures["stops"] < count:
        number, in_save = chance.choice(SIGNALS), chance.random() < 1 / 3
        if in_save:
            wait_for_save(process, folder, chance.randint(1, 3))
        else:
            process.join(chance.uniform(0, length))
        if not process.is_alive():
            break
        os.kill(process.pid, number)
        process.join()
        if process.exitcode == 0:  # it was at its very end, or not yet listening
            break
        figures.update(["stops", f"stops by {number.name}"] + ["stops during a save"] * in_save)
        figures["files not whole"] += len(list(broken_files(folder)))
        process = start(folder, data, slow_saves=True)
    finish(process, folder)


def make_data(folder: Path) -> Path:
    return make_abdomen(folder, num_training=3, num_test=0)


def train(folder: Path, data: Path, **options: object) -> None:
    """The bundle's training in this process."""
    places = {"dataset_dir": str(data), "ckpt_dir": str(folder / "models"), "output_dir": str(folder / "out")}
    config = str(ROOT / "bundles" / "dca_unet" / "configs" / "train.json")
    monai.bundle.run(config_file=config, **{"epochs": EPOCHS, **OPTIONS, **places, **options})


def start(folder: Path, data: Path, slow_saves: bool = False, **options: object) -> BaseProcess:
    """The same in a process of its own, with ``--resume true``; what it prints is added to ``log.txt``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=train_logged, args=(folder, data, slow_saves), kwargs=options)
    process.start()
    return process


def train_logged(folder: Path, data: Path, slow_saves: bool, **options: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "log.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1), os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    if slow_saves:
        torch.save = save_slowly
    train(folder, data, resume=True, **options)


def save_slowly(content: object, path: Path, save=torch.save) -> None:
    """``torch.save`` that stays half-way for a while, as with a large network on a slow disk."""
    buffer = io.BytesIO()
    save(content, buffer)
    half = len(buffer.getvalue()) // 2
    with open(path, "wb") as file:
        file.write(buffer.getvalue()[:half])
        file.flush()
        time.sleep(0.2)
        file.write(buffer.getvalue()[half:])


def wait_for_save(process: BaseProcess, folder: Path, number: int = 1) -> None:
    """Until the ``number``-th save that begins from now on is under way, or the process has ended."""
    was_there = True
    while number and process.is_alive():
        is_there = any((folder / "models").glob(f".{process.pid}-*"))
        number -= is_there and not was_there
        was_there = is_there
        time.sleep(0.005)


def finish(process: BaseProcess, folder: Path) -> None:
    process.join()
    if process.exitcode:
        raise SystemExit(f"a training failed by itself:\n{(folder / 'log.txt').read_text()[-3000:]}")


def broken_files(folder: Path) -> Iterator[str]:
    """Files under their final names that are not whole."""
    for file in sorted([*folder.glob("models/[!.]*"), *folder.glob("out/history.csv")]):
        try:
            if file.suffix == ".csv":
                rows = list(csv.DictReader(file.read_text().splitlines()))
                assert all(None not in row.values() for row in rows)
            else:
                torch.load(file, weights_only=True)
        except Exception as error:
            yield f"{file}: {error}"


def differences(ours: Path, reference: Path) -> list[str]:
    """What two finished trainings don't have in common."""
    found = [
        f"{ours}: {name} is not the same"
        for name in ("model.pt", "resume.pt")
        if not same(*(torch.load(folder / "models" / name, weights_only=True) for folder in (ours, reference)))
    ]
    tables = [(folder / "out" / "history.csv").read_text() for folder in (ours, reference)]
    return found + ([] if tables[0] == tables[1] else [f"{ours}: history.csv is not the same"])


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


if __name__ == "__main__":
    fire.Fire({"kills": kills})
