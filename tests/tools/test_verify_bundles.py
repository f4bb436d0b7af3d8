from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from verify_bundles import verify_bundles

SMALL = {"widths": [4, 8, 8, 12, 16], "grid": 4}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(
        ROOT / "bundles" / "dca_unet", tmp_path / "dca_unet", ignore=shutil.ignore_patterns("models")
    )


def change(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    file.write_text(json.dumps(content))


def test_a_bundle_passes(capsys: pytest.CaptureFixture) -> None:
    verify_bundles(str(ROOT / "bundles" / "dca_unet"), **SMALL)
    out = capsys.readouterr().out
    assert "0 problem(s) in 1 bundle(s)" in out and all(
        f"ok    dca_unet: {n}" in out for n in ("onnx", "export", "script")
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: (b / "LICENSE").unlink(), "LICENSE is missing"),
        (lambda b: change(b / "configs/train.json", train__inferer=None), "train.json has no train#inferer"),
        (
            lambda b: change(b / "configs/train.json", train__trainer=None),
            "Property 'trainer' with config ID 'train::trainer' not in the config",
        ),
        (lambda b: change(b / "configs/metadata.json", task=None), "does not fit the schema"),
        (lambda b: change(b / "configs/metadata.json", version="9.9.9"), "9.9.9 is not the changelog's newest"),
        (
            lambda b: change(b / "configs/metadata.json", monai_version="1.0.0"),
            "metadata.json says monai 1.0.0, installed",
        ),
        (lambda b: change(b / "configs/train.json", spare=1), "train.json: nothing reads spare"),
        (lambda b: change(b / "configs/volumes.json", spare=1), "volumes.json: nothing reads spare"),
        (
            lambda b: change(b / "configs/inference.json", output_dir="/home/me/x"),
            "inference.json has the path /home/me/x",
        ),
        (
            lambda b: (b / "models.bin").write_bytes(bytes(26 * 2**20)),
            "models.bin has 26 MB: list it in large_files.yml",
        ),
        (
            lambda b: (b / "large_files.yml").write_text("large_files: [{path: LICENSE, hash_val: 1, hash_type: md5}]"),
            "gives no sha256 for LICENSE",
        ),
        (
            lambda b: change(b / "configs/inference.json", out_channels=3),
            "output channel number `3` doesn't match: `9`",
        ),
        (
            lambda b: change(b / "configs/inference.json", network_def={"_target_": "torch.nn.Dropout", "p": 2}),
            "Failed to instantiate component 'torch.nn.Dropout'",
        ),
    ],
)
def test_a_spoilt_bundle_does_not(copy: Path, spoil, message: str, capsys: pytest.CaptureFixture) -> None:
    spoil(copy)
    with pytest.raises(SystemExit) as caught:
        verify_bundles(str(copy), exports="script", exact_versions=True, **SMALL)
    out = capsys.readouterr().out
    assert caught.value.code == 1 and message in out, out


def test_an_export_that_gives_something_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("torch.jit.load", lambda path: torch.ones_like)
    with pytest.raises(SystemExit):
        verify_bundles(str(ROOT / "bundles" / "dca_unet"), exports="script", **SMALL)
    assert "TorchScript is off by" in capsys.readouterr().out


def test_unknown_export() -> None:
    with pytest.raises(SystemExit, match="--exports takes script, export, onnx, got coreml"):
        verify_bundles("bundles/glims", exports="coreml")
