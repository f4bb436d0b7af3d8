"""Feed the readers of what users bring with random inputs: each works, or refuses with a message; nothing else, ever.

    python tools/fuzz.py --inputs 10000             # as many for each reader
    python tools/fuzz.py --inputs 1000 --only convert --seed 3

Readers: data lists (dataset.json and --datalist), folders without a list, lists of cases as JSON and CSV, released
checkpoints, checkpoint files, and the table of a resumed training. Prints for each how many inputs worked and how many
were refused; exit status 1 and the smallest input if one did anything else, or took longer than ten seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import fire
import hypothesis
import nibabel as nib
import numpy as np
import torch
from fuzz_inputs import CHANGES, CONTENTS, FOLDERS, TABLES, TEXTS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from hybrid_nets import DualCrossAttention, InputError, convert_released, find_cases
from hybrid_nets.checkpoints import read_checkpoint, save_weights
from hybrid_nets.cli.cases import Wanted
from hybrid_nets.cli.lists import read_csv, read_json_list
from hybrid_nets.history import read_rows, write_rows
from hybrid_nets.plan.survey import survey

LIMIT = 10  # seconds
PHASES = (Phase.generate, Phase.shrink)
CHANNELS = ("FLAIR", "T1ce", "T1", "T2")
LABELS = {"0": "background", "1": "necrotic core", "2": "oedema", "3": "enhancing tumour"}


def examples(count: int) -> settings:
    """The same ``count`` inputs each time, for tests; the environment's HYBRID_NETS_EXAMPLES draws as many new ones."""
    many = os.environ.get("HYBRID_NETS_EXAMPLES")
    return settings(
        max_examples=int(many or count),
        derandomize=not many,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def read_listing(text: bytes, folder: Path) -> None:
    """A dataset.json, read as a bundle of one channel and as one of BraTS."""
    (make_images(folder) / "dataset.json").write_bytes(text)
    either(
        lambda: find_cases(folder, labels=None),
        lambda: find_cases(folder, folder / "dataset.json", channels=CHANNELS, labels=LABELS, num_folds=2),
    )


def read_folder(files: list, folder: Path) -> None:
    for parents, stem, ending, kind in files:
        write_file(folder.joinpath(*parents) / (stem + ending), kind)
    either(
        lambda: find_cases(folder, split=False),
        lambda: find_cases(folder, channels=CHANNELS, labels=LABELS, num_folds=2),
    )


def read_json_cases(text: bytes, folder: Path) -> None:
    path = make_images(folder) / "list.json"
    path.write_bytes(text)
    either(lambda: read_json_list(path, wanted("CT")), lambda: read_json_list(path, wanted(*CHANNELS)))


def read_csv_cases(text: bytes, folder: Path) -> None:
    path = make_images(folder) / "list.csv"
    path.write_bytes(text)
    either(lambda: read_csv(path, wanted("CT")), lambda: read_csv(path, wanted(*CHANNELS)))


def read_plan(text: bytes, folder: Path) -> None:
    """A dataset.json, as ``hybrid-nets plan`` reads it."""
    (make_images(folder) / "dataset.json").write_bytes(text)
    survey(folder)


def read_history(text: bytes, folder: Path) -> None:
    """The table of a training, which goes on with it."""
    (folder / "history.csv").write_bytes(text)
    rows = read_rows(folder / "history.csv")
    write_rows(folder / "history.csv", rows)
    [float(value or 0) for row in rows for value in row.values()]


def convert(changes: list, folder: Path) -> None:
    """A released checkpoint with some entries changed; KeyError, TypeError and ValueError are what is documented."""
    state = dict(released())
    for number, how, what in changes:
        key = sorted(state, key=str)[number % len(state)] if state else "x"
        tensor = state.pop(key, None)
        shape = [side for side in what if type(side) is int and 0 <= side < 5] if isinstance(what, list) else [2]
        state |= {
            "drop": {},
            "rename": {f"{key}.{what}": tensor},
            "value": {key: what},
            "shape": {key: torch.zeros(shape)},
            "type": {key: tensor.long() if isinstance(tensor, torch.Tensor) else tensor},
            "key": {len(state): tensor},
        }[how]
    network = DualCrossAttention(2, (32, 64, 128, 256), 8)
    try:
        network.load_state_dict(convert_released(network, state))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(error)) from error


def read_file(change: bytes | tuple[int, bytes], folder: Path) -> None:
    """A checkpoint of random bytes, or one with some bytes changed; torch's format and safetensors."""
    for ending in (".pt", ".safetensors"):
        path = folder / f"model{ending}"
        save_weights({"weight": torch.zeros(2, 3)}, path)
        content = bytearray(path.read_bytes())
        if isinstance(change, tuple):
            place = change[0] % len(content)
            content[place : place + len(change[1])] = change[1]
        path.write_bytes(change if isinstance(change, bytes) else content)
    either(lambda: read_checkpoint(folder / "model.pt"), lambda: read_checkpoint(folder / "model.safetensors"))


READERS: dict[str, tuple[SearchStrategy, Callable[[object, Path], None]]] = {
    "datalist": (TEXTS, read_listing),
    "folder": (FOLDERS, read_folder),
    "json_cases": (TEXTS, read_json_cases),
    "csv_cases": (TABLES | TEXTS, read_csv_cases),
    "plan": (TEXTS, read_plan),
    "history": (TABLES | TEXTS, read_history),
    "convert": (CHANGES, convert),
    "checkpoint": (CONTENTS, read_file),
}


def either(*readings: Callable[[], object]) -> None:
    """All of ``readings``; InputError if all of them refuse."""
    refused = []
    for reading in readings:
        try:
            reading()
        except InputError as error:
            refused.append(error)
    if len(refused) == len(readings):
        raise refused[0]


def wanted(*channels: str) -> Wanted:
    return Wanted(channels=list(channels), modality="CT")


@cache
def released() -> dict[str, torch.Tensor]:
    """Weights under the released code's names, by the rule of tests/golden_files.py."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from golden_files import Golden

    return Golden("dca_module_p8").state_dict()


def make_images(folder: Path) -> Path:
    for name, kind in {"a": "volume", "b": "4-D", "d": "other size", "e": "volume"}.items():
        write_file(folder / "images" / f"{name}.nii", kind)
    write_file(folder / "images" / "c.nii.gz", "volume")
    for name in "abe":
        write_file(folder / "labels" / f"{name}.nii", "label")
    return folder


def write_file(path: Path, kind: str) -> None:
    if path.exists() or any(parent.is_file() for parent in path.parents):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(file_content(kind, path.name.lower().endswith(".gz")))


@cache
def file_content(kind: str, gzipped: bool) -> bytes:
    shapes = {"volume": (3, 4, 5), "label": (3, 4, 5), "4-D": (3, 4, 5, 4), "other size": (2, 4, 5), "2-D": (3, 4)}
    if kind not in shapes:
        return b"" if kind == "empty" else b"no image " * 60
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.nii.gz" if gzipped else "x.nii")
        nib.save(nib.Nifti1Image(np.full(shapes[kind], kind == "label", np.uint8), np.eye(4)), path)
        return path.read_bytes()


def try_reader(name: str, chosen: settings, seed: int = 0) -> Counter:
    """What came of each input of the reader ``name``; an AssertionError with the smallest bad one if one was wrong."""
    strategy, read = READERS[name]
    figures: Counter = Counter()

    @hypothesis.seed(seed)
    @chosen
    @given(strategy)
    def one(content: object) -> None:
        with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = Path(root) / "data"  # a list may name "..", and all of /tmp would take long
            folder.mkdir()
            signal.signal(signal.SIGPROF, too_long)
            signal.setitimer(signal.ITIMER_PROF, LIMIT)  # of computing: the machine may be busy
            try:
                read(content, folder)
                figures["worked"] += 1
            except InputError as error:
                figures["refused"] += 1
                if len(str(error)) < 10:
                    raise AssertionError(f"a refusal without a reason: {error!r}") from error
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)

    one()
    return figures


def too_long(*_: object) -> None:
    raise AssertionError(f"still reading after computing for {LIMIT} s")


def fuzz(inputs: int = 1000, only: str = "", seed: int = 0) -> None:
    """Try INPUTS random inputs on each reader, or on ONLY one; SEED draws others."""
    chosen = settings(
        max_examples=inputs, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=PHASES
    )
    wrong = 0
    for name in [only] if only else READERS:
        try:
            figures = try_reader(name, chosen, seed)
            print(f"{name}: {figures['worked']} worked, {figures['refused']} refused, 0 anything else", flush=True)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            wrong += 1
            print(f"{name}: WRONG")
            print(*(line[:300] for line in "".join(traceback.format_exception(error, limit=-4)).splitlines()), sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    fire.Fire(fuzz)
