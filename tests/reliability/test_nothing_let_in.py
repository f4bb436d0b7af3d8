"""Checkpoints and other people's files are data: nothing in them is run, and nothing is written elsewhere."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from bundle_code import KNOWN, own_code, unknown_code
from conftest import ROOT
from convert_checkpoint import convert_checkpoint
from pack_bundle import keep_link, write_zip
from verify_bundles import verify_bundles

from hybrid_nets import InputError, StrictCheckpointLoader, load_network
from hybrid_nets.checkpoints import read_checkpoint, save_atomic, save_weights
from hybrid_nets.stopping import StopHandler

SOURCES = sorted([*(ROOT / "hybrid_nets").rglob("*.py"), *(ROOT / "tools").glob("*.py")])
NETWORK_MODULES = {"ftplib", "http", "httpx", "requests", "smtplib", "socket", "telnetlib", "urllib", "xmlrpc"}


def calls(name: str | None = None) -> Iterator[tuple[str, ast.Call]]:
    """Where, and the call: all in our sources of what is spelt ``name``, such as ``torch.load``."""
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and (name is None or ast.unparse(node.func) == name):
                yield f"{file.relative_to(ROOT)}:{node.lineno}", node


def value(call: ast.Call, keyword: str) -> object:
    return next((ast.unparse(word.value) for word in call.keywords if word.arg == keyword), None)


def test_checkpoints_are_read_as_tensors_only() -> None:
    loads = list(calls("torch.load"))
    assert len(loads) >= 2 and [place for place, call in loads if value(call, "weights_only") != "True"] == []


def test_our_code_evaluates_no_text_and_starts_no_shell() -> None:
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads"}
    forbidden |= {"yaml.load", "marshal.loads", "torch.hub.load", "joblib.load", "dill.load", "shutil.unpack_archive"}
    found = [(place, ast.unparse(call.func)) for place, call in calls() if ast.unparse(call.func) in forbidden]
    assert found == []
    assert [place for place, call in calls() if value(call, "shell") not in (None, "False")] == []
    assert [place for place, call in calls() if value(call, "allow_pickle") not in (None, "False")] == []
    unpacked = [place for place, call in calls() if ast.unparse(call.func).endswith((".extractall", ".extract"))]
    assert unpacked == []


def test_our_code_asks_nothing_of_a_network() -> None:
    found = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [f"{file}: {name}" for name in names if name.split(".")[0] in NETWORK_MODULES]
    assert found == []


class Attack:
    """A pickle of this makes the file ``path`` when it is loaded by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(params=["zip", "old format", "plain pickle"])
def attack(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint that makes a folder if it is run, and the folder."""
    file, made = tmp_path / "model.pt", tmp_path / "made"
    content = {"model": {"weight": torch.zeros(2, 3)}, "epoch": Attack(made)}
    if request.param == "plain pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=request.param == "zip")
    return file, made


def test_a_malicious_checkpoint_is_refused_and_not_run(attack: tuple[Path, Path], tmp_path: Path) -> None:
    file, made = attack
    for read in (
        read_checkpoint,
        lambda path: load_network(torch.nn.Linear(3, 2), path),
        lambda path: StrictCheckpointLoader(torch.nn.Linear(3, 2), path).attach(None),
        lambda path: convert_checkpoint(str(path), str(tmp_path / "out.pt"), str(ROOT / "bundles" / "glims")),
        lambda path: convert_checkpoint(str(path), str(tmp_path / "out.safetensors")),
    ):
        with pytest.raises(InputError, match="can't be read as a checkpoint of tensors"):
            read(file)
    handler = StopHandler(tmp_path)
    handler.last = file
    assert "can't be read" in handler.how_to_go_on()
    assert not made.exists() and not (tmp_path / "out.pt").exists()
    with contextlib.suppress(RuntimeError):
        torch.load(file, weights_only=False)
    assert made.exists()  # it is an attack on those who don't say weights_only


@pytest.mark.parametrize("content", [[1, 2], {"weight": print}, {1: torch.zeros(1), "a": torch.zeros(1)}, {"model": 3}])
def test_what_is_no_weights_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(InputError, match="give another file"):
        load_network(torch.nn.Linear(3, 2), tmp_path / "model.pt")


def test_a_program_in_torchscript_is_no_checkpoint(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(3, 2)).save(tmp_path / "model.pt")
    with pytest.raises(InputError, match="can't be read as a checkpoint"):
        read_checkpoint(tmp_path / "model.pt")


def test_safetensors_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    save_atomic({"model": network.state_dict(), "epoch": 1}, tmp_path / "model.pt")
    convert_checkpoint(str(tmp_path / "model.pt"), str(tmp_path / "model.safetensors"))
    assert "--checkpoints" in capsys.readouterr().out
    load_network(other, tmp_path / "model.safetensors")
    assert torch.equal(network.weight, other.weight) and torch.equal(network.bias, other.bias)
    with pytest.raises(InputError, match=r"has weight of shape \[2, 3\], the network \[2, 5\]"):
        load_network(torch.nn.Linear(5, 2), tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match="can't be read as a checkpoint of tensors"):
        load_network(other, tmp_path / "model.safetensors")


def test_without_safetensors_the_command_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for use in (lambda path: load_network(torch.nn.Linear(3, 2), path), lambda path: save_weights({}, path)):
        with pytest.raises(InputError, match=r"pip install \"hybrid-nets\[safetensors\]\""):
            use(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "glims/../../out.txt"])
def test_a_zip_of_ours_stays_in_the_folder_it_is_unpacked_to(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outside the folder"):
        write_zip(tmp_path / "x.zip", [(name, b"")])
    write_zip(tmp_path / "y.zip", [("glims/a..b.txt", b"")])
    assert zipfile.ZipFile(tmp_path / "y.zip").namelist() == ["glims/a..b.txt"]


def test_a_picture_outside_the_bundle_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "bundle" / "docs").mkdir(parents=True)
    link = re.match(r"(!?)\[([^\]]*)\]\(([^)]*)\)", "![x](../../secret.png)")
    with pytest.raises(InputError, match=r"shows ../../secret.png, which lies outside the bundle"):
        keep_link(link, tmp_path / "bundle", tmp_path / "target")


def test_the_list_of_known_code_is_that_of_the_bundles() -> None:
    assert json.loads(KNOWN.read_text()) == own_code(), "run: python tools/bundle_code.py write"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(
        ROOT / "bundles" / "hylt", tmp_path / "hylt", ignore=shutil.ignore_patterns("models", "eval")
    )


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("inference.json", {"overlap": "$__import__('os').mkdir('MADE')"}),
        ("inference.json", {"extra": [{"deep": {"_target_": "os.mkdir", "path": "MADE"}}]}),
        ("inference.json", {"network_def#_target_": "os.mkdir", "network_def#path": "MADE"}),
        ("train.json", {"epochs": "%/etc/other.json#epochs"}),
        ("metadata.json", {"version": "$__import__('os').mkdir('MADE')"}),
        ("logging.conf", "args = (__import__('os').mkdir('MADE'),)"),
        ("logging.conf", "args =\n    (__import__('os').mkdir('MADE'),)"),
        ("extra.yaml", "a: $__import__('os').mkdir('MADE')"),
        ("../scripts/__init__.py", "import os; os.mkdir('MADE')"),
    ],
)
def test_strict_lists_what_a_bundle_could_run_and_runs_nothing(
    file: str, change: dict | str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert unknown_code(bundle) == []
    path, made = bundle / "configs" / file, tmp_path / "made"
    path.parent.mkdir(exist_ok=True)
    if isinstance(change, dict):
        text = json.dumps({**json.loads(path.read_text()), **change})
    elif path.is_file():
        text = path.read_text().replace("args = (sys.stdout,)", change)
    else:
        text = change
    path.write_text(text.replace("MADE", str(made)))
    with pytest.raises(SystemExit) as caught:
        verify_bundles(str(bundle), strict=True)
    out = capsys.readouterr().out
    assert caught.value.code == 1 and "nothing was run" in out and not made.exists()
    shown = "_target_ os.mkdir" if "_target_" in str(change) else "__init__.py" if file.endswith(".py") else str(made)
    assert ("other.json" if "%" in str(change) else shown) in out
    if file == "logging.conf":
        program = f"import logging.config; logging.config.fileConfig({str(path)!r})"
        subprocess.run([sys.executable, "-c", program], check=True)
        assert made.exists()  # Python's logging does run it
