"""What somebody meets who has just installed the package: help, info, no weights yet, a typing error."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from command import make_scans, run
from conftest import ROOT

import hybrid_nets
from hybrid_nets import InputError
from hybrid_nets.cli import monai_command as command_module
from hybrid_nets.cli.monai_command import monai_command


def test_no_weights_yet_says_how_to_get_some(tmp_path: Path) -> None:
    make_scans(tmp_path / "in", 1)
    ended = run("segment", "--bundle", "hylt", "-i", tmp_path / "in", "-o", tmp_path / "out", "--ckpt_dir", tmp_path)
    assert "no weights yet" in str(ended) and "hybrid-nets train hylt" in ended and "convert_checkpoint.py" in ended
    assert not (tmp_path / "out").exists()


def test_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_scans(tmp_path / "in", 2)
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"")
    (tmp_path / "in" / "scan_0_seg.nii.gz").write_bytes(b"")
    assert run("segment", "--bundle", "hylt", "-i", tmp_path / "in", "-o", tmp_path / "out", "--dry_run") == 0
    printed = capsys.readouterr().out
    assert "scan_1: 1 file(s) -> scan_1_seg.nii.gz" in printed and "2 of 3 case(s) would be segmented" in printed
    assert "broken: would fail: broken.nii.gz is empty" in printed and "note: 1 file(s) skipped" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("bundle", "scan"), [("mobileutr", "abdomen_0"), ("mobileutr_brain", "mni_icbm152_t1")])
def test_the_demo_needs_no_scans(bundle: str, scan: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("segment", "--bundle", bundle, "--demo", "-o", tmp_path / "out", "--dry_run") == 0
    assert capsys.readouterr().out.startswith(scan)


def test_the_demo_of_the_brain_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybrid_nets.synthesis.atlas.find_spec", lambda name: None)
    ended = run("segment", "--bundle", "mobileutr_brain", "--demo", "-o", tmp_path / "out")
    assert "pip install nilearn" in str(ended)


def test_either_scans_or_the_demo(tmp_path: Path) -> None:
    for words in ([], ["-i", tmp_path, "--demo"]):
        assert "--demo" in str(run("segment", "--bundle", "mobileutr", "-o", tmp_path / "out", *words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--overlapp", 0.3], "unknown option --overlapp; did you mean --overlap?"),
        (["--save_probabilites"], "did you mean --save_probabilities?"),
        (["--dataset_dir", "x"], "--dataset_dir is -i here"),
        (["--network_deff#network#size", "large"], "did you mean --network_def?"),
        (["surplus"], "'surplus' is not expected here"),
        (["--config_file", "image"], "overlays of mobileutr are: images"),
        (["--names", "secret"], "--names is series or patient"),
    ],
)
def test_a_typing_error_is_refused_at_once(words: list, message: str, tmp_path: Path) -> None:
    ended = run("segment", "--bundle", "mobileutr", "-i", tmp_path, "-o", tmp_path / "out", *words)
    assert message in str(ended)


def test_no_such_input_bundle_or_kind(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x")
    for source, message in (("nowhere", "there is no"), ("text.txt", "not of a kind"), ("", "there are no NIfTI")):
        words = ["--dry_run", "-i", tmp_path / source, "-o", tmp_path / "out"]
        assert message in str(run("segment", "--bundle", "mobileutr", *words))
    assert "known are: dca_unet, glims, hylt, mobileutr" in str(run("info", "mobile"))


def test_info_is_from_metadata(capsys: pytest.CaptureFixture) -> None:
    assert run("info") == 0
    everything = capsys.readouterr().out
    assert all(name in everything for name in ("dca_unet", "glims", "hylt", "mobileutr"))
    assert "MR, 4 channels (FLAIR, T1ce, T1, T2)" in everything and "weights" in everything
    assert run("info", "bundles/glims") == 0
    assert "GLIMS, a hybrid of" in capsys.readouterr().out


def test_train_and_evaluate_are_commands_of_monai(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ran: list[list[str]] = []

    def pretend(command: list[str]) -> subprocess.CompletedProcess:
        ran.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", pretend)
    configs = ROOT / "bundles" / "mobileutr" / "configs"
    assert run("train", "bundles/mobileutr", "--epochs", 1, "--roi_size", "[32,32,32]") == 3
    expected = ["-m", "monai.bundle", "run", "--config_file", str(configs / "train.json")]
    assert ran[0] == [sys.executable, *expected, "--epochs", "1", "--roi_size", "[32,32,32]"]
    assert run("evaluate", "mobileutr", "--config_file", "images", "--tolerance", "2") == 3
    files = [str(configs / f"{name}.json") for name in ("train", "evaluate", "images")]
    assert ran[1][5] == str(files) and ran[1][6:] == ["--tolerance", "2"]
    assert "python -m monai.bundle run --config_file" in capsys.readouterr().out
    with pytest.raises(InputError, match="did you mean --epochs"):
        monai_command(["train"], "glims", None, {"epoch": "1"})


def test_tracking_is_monai_s_and_needs_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"tracking": "mlflow", "run_name": "first", "experiment_name": "mine"}
    monkeypatch.setattr(command_module, "find_spec", lambda name: object())
    words = monai_command(["train"], "glims", None, options)
    assert words[-6:] == ["--tracking", "mlflow", "--run_name", "first", "--experiment_name", "mine"]
    with pytest.raises(InputError, match="unknown option --run_name"):
        monai_command(["train"], "glims", None, {"run_name": "first"})
    monkeypatch.setattr(command_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install mlflow"):
        monai_command(["train"], "glims", None, options)


def test_help_is_shown_and_is_no_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hybrid_nets", "segment", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "--dry_run" in done.stdout + done.stderr


# A process that says at its end what it has imported of what takes seconds.
WATCHED = """
import atexit, runpy, sys
atexit.register(lambda: print("imported:", sorted({"monai", "numpy", "torch"} & set(sys.modules))))
sys.argv = ["hybrid-nets", *sys.argv[1:]]
if len(sys.argv) > 1:
    runpy.run_module("hybrid_nets", run_name="__main__")
else:
    from hybrid_nets import InputError, bundle_root, flag, phantom_dir
"""


@pytest.mark.parametrize("words", [[], ["info"], ["info", "glims"], ["--help"], ["segment", "--help"]])
def test_what_needs_no_torch_imports_none(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "imported: []", done.stderr


def test_every_export_is_found_where_the_table_says_and_type_checkers_see_the_same() -> None:
    found = {name: getattr(hybrid_nets, name) for name in hybrid_nets.__all__}
    assert all(value.__module__.startswith(f"hybrid_nets.{hybrid_nets.MODULES[n]}") for n, value in found.items())
    assert set(found) == set(hybrid_nets.MODULES) and set(found) <= set(dir(hybrid_nets))
    source = ast.parse(Path(hybrid_nets.__file__).read_text())
    imports = [
        node for node in ast.walk(source) if isinstance(node, ast.ImportFrom) and "hybrid_nets" in str(node.module)
    ]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert seen == {name: f"hybrid_nets.{module}" for name, module in hybrid_nets.MODULES.items()}
    with pytest.raises(AttributeError, match="has no attribute 'GLIM'"):
        _ = hybrid_nets.GLIM
