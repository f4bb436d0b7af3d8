"""Readers of what users bring, on random inputs (``tools/fuzz.py --inputs 10000`` tries more), and what that found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fuzz import READERS, examples, make_images, released, try_reader
from fuzz_inputs import GOOD

from hybrid_nets import DualCrossAttention, InputError, convert_released, find_cases
from hybrid_nets.convert import released_options
from hybrid_nets.history import read_rows
from hybrid_nets.nets.glims import GLIMS
from hybrid_nets.plan.survey import survey
from hybrid_nets.unets.vnet import VNet


@pytest.mark.parametrize("name", READERS)
def test_a_reader_works_or_refuses(name: str) -> None:
    figures = try_reader(name, examples(60))
    assert figures["worked"] and figures["refused"]  # the inputs are neither all right nor all nonsense


def test_the_harness_notices_another_error(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, _ = READERS["history"]
    for error in (KeyError("x"), InputError("short")):

        def fail(content: object, folder: Path, error: Exception = error) -> None:
            raise error

        monkeypatch.setitem(READERS, "history", (strategy, fail))
        with pytest.raises((KeyError, AssertionError)):
            try_reader("history", examples(5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "is not valid JSON"),
        ({"training": None, "test": None}, "lists no cases"),
        ({"training": {"image": "a"}}, '"training" must be a list'),
        ({"training": [3]}, r"training\[0\] in the data list must be a file or an entry"),
        ({"training": [{"label": "labels/a.nii"}]}, r'entry {"image": …}, not {\'label\''),
        ({"test": [{"image": []}]}, r'"image" of test\[0\] in the data list must be a file or a list of files'),
        ({"test": [{"image": ["images/a.nii", 1]}]}, "must be a file or a list of files"),
        ({"test": ["images/\0.nii"]}, "does not exist"),
        ({"test": ["x" * 5000]}, "does not exist"),
        ({"training": [{"image": "images/a.nii", "label": "labels/a.nii", "fold": [1]}]}, r"has the fold \[1\]"),
        ({"training": [{"image": "images/a.nii"}, {"image": "images/b.nii"}]}, "has no label map"),
        ({"modality": True}, '"modality" must map numbers to names'),
        ({"modality": {"CT": "0"}}, '"modality" must map numbers to names'),
        ({"channel_names": [1]}, '"modality" must map numbers to names'),
        ({"labels": {"whole tumour": [1, 2, 3]}}, '"labels" must map numbers to names'),
        ({"labels": ["background"]}, '"labels" must map numbers to names'),
    ],
)
def test_a_data_list_that_once_gave_another_error(content: object, message: str, tmp_path: Path) -> None:
    listing = make_images(tmp_path) / "list.json"
    listing.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message):
        find_cases(tmp_path, listing, channels=["CT"], labels={"0": "background"}, num_folds=2)


@pytest.mark.parametrize(
    "content", [b"\x80", b"epoch,loss\n1,much", b"epoch\n1,2,3", b"a" * 200_000, b"x\n1", "epoch\n²"]
)
def test_a_history_that_is_no_table_of_a_training(content: bytes | str, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"history.csv is not the table of a training .*move it elsewhere"):
        read_rows(tmp_path / "history.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {**state, 0: torch.zeros(1)}, r"unknown keys \['0'\]"),
        (lambda state: {**state, next(iter(state)): [1, 2]}, "unknown keys"),
        (lambda state: {"state_dict": [1, 2]}, "state_dict is a list"),
    ],
)
def test_a_released_checkpoint_that_once_gave_another_error(change: Callable[[dict], dict], message: str) -> None:
    with pytest.raises((KeyError, ValueError), match=message):
        convert_released(DualCrossAttention(2, (32, 64, 128, 256), 8), change(released()))


def test_a_bias_of_another_shape_is_refused() -> None:
    """It is taken in by a running mean of the network, which has no such bias."""
    network = VNet(2, 1, 2, channels=(4, 8))
    state = network.state_dict()
    taken_in = convert_released(network, {**state, "encoder.0.body.bias": torch.ones(4)})
    assert torch.equal(taken_in["encoder.0.finish.N.running_mean"], -torch.ones(4))
    with pytest.raises(ValueError, match=r"encoder.0.body.bias is \[5\], needs \[4\]"):
        convert_released(network, {**state, "encoder.0.body.bias": torch.ones(5)})


def test_weights_of_another_shape_show_no_options() -> None:
    state = {"stem.conv.weight": torch.zeros(3), "out1.conv.conv.weight": torch.zeros(2)}
    with pytest.raises(KeyError, match="its weights have other shapes"):
        released_options(GLIMS, state)


def test_label_maps_without_background_are_not_called_empty(tmp_path: Path) -> None:
    (make_images(tmp_path) / "dataset.json").write_text(json.dumps(GOOD))
    assert "background" in str(survey(tmp_path).notes)
