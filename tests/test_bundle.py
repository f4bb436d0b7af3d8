from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from hybrid_nets import InputError, LazyCases, bundle_root, flag, phantom_dir
from hybrid_nets.bundle import PHANTOMS
from hybrid_nets.errors import find_input_error, show_short_errors

GLIMS = str(ROOT / "bundles" / "glims")


@pytest.mark.parametrize(
    "argument",
    [
        ["--config_file", "bundles/glims/configs/train.json"],
        ["--config_file=bundles/glims/configs/train.json"],
        ["--config_file", "['bundles/glims/configs/train.json','bundles/glims/configs/evaluate.json']"],
        ["--config_file", "/elsewhere/train.json"],
        [],
    ],
)
def test_bundle_root(monkeypatch: pytest.MonkeyPatch, argument: list[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *argument])
    assert bundle_root("glims") == GLIMS


def test_bundle_root_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["python"])
    monkeypatch.chdir(tmp_path)
    assert bundle_root("glims") == GLIMS  # beside the package
    assert bundle_root("unknown") == str(tmp_path)
    monkeypatch.chdir(GLIMS)
    assert bundle_root("anything") == GLIMS


def test_flags() -> None:
    assert [flag(v) for v in (True, "true", "Yes", 1, False, "false", 0, None)] == [True] * 4 + [False] * 4
    with pytest.raises(ValueError, match="expected true or false, got 'maybe'"):
        flag("maybe")


def test_input_errors_are_found_behind_wrappers() -> None:
    wrapper = RuntimeError("applying transform")
    wrapper.__cause__ = InputError("mend it")
    assert find_input_error(wrapper) == "mend it"
    worker = "Caught RuntimeError in worker.\nhybrid_nets.errors.InputError: bad file\n\nRuntimeError: x"
    assert find_input_error(RuntimeError(worker)) == "bad file"
    assert find_input_error(ValueError("other")) is None


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda *a: seen.append(a[1]))
    monkeypatch.delenv("HYBRID_NETS_TRACEBACK", raising=False)
    show_short_errors()
    mine, other = InputError("mend it"), ValueError("ours to mend")
    sys.excepthook(InputError, mine, None)
    sys.excepthook(ValueError, other, None)
    assert seen == [other] and capsys.readouterr().err == "\nerror: mend it\n"
    monkeypatch.setenv("HYBRID_NETS_TRACEBACK", "1")
    sys.excepthook(InputError, mine, None)
    assert seen == [other, mine]


def test_a_phantom_is_made_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = []
    monkeypatch.setitem(PHANTOMS, "ultrasound", lambda: made.append(1) or tmp_path)
    cases = LazyCases(phantom_dir("ultrasound"))
    assert not made
    with pytest.raises(InputError, match="no NIfTI files"):
        len(cases.training)
    assert made == [1] and "running on the built-in ultrasound phantom" in caplog.text
    folder = phantom_dir("ultrasound")
    assert Path(folder) == tmp_path and os.fspath(folder) == str(folder) == str(tmp_path) and made == [1, 1]
    with pytest.raises(AttributeError):
        cases.elsewhere  # noqa: B018
    with pytest.raises(ValueError, match="unknown phantom 'knee'"):
        phantom_dir("knee")
