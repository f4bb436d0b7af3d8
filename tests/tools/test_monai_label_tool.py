"""What tools/monai_label.py says and leaves behind when something is wrong; tests/ecosystem shows it at work."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

from hybrid_nets import InputError


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import monai_label

    return monai_label


@pytest.fixture
def with_monai_label(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if this Python had MONAI Label."""
    sample = tmp_path / "prefix" / "monailabel" / "sample-apps" / "monaibundle"
    sample.mkdir(parents=True)
    (sample / "main.py").write_text("")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: name)


def test_install_leaves_other_folders_alone(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files; give a folder that is new"):
        tool.install(str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_install_needs_a_python_that_monai_label_runs_on(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13))
    with pytest.raises(InputError, match="need Python 3.10, 3.11 or 3.12"):
        tool.install(str(tmp_path / "environment"))
    assert not (tmp_path / "environment").exists()


def test_install_completes_what_was_interrupted_and_is_then_done(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment, commands = tmp_path / "environment", []
    environment.mkdir()
    (environment / "pyvenv.cfg").write_text("")
    monkeypatch.setattr(tool, "call", lambda command: commands.append(" ".join(map(str, command))))
    monkeypatch.setattr(tool, "add_torchvision", lambda python, pip: commands.append(" ".join(map(str, pip))))
    tool.install(str(environment), torch_index="https://index")
    with_index = [command for command in commands if "--index-url https://index" in command]
    assert len(with_index) == 2 and "torch >= " in with_index[0]  # torch, torchvision, and nothing else
    count = len(commands)
    tool.install(str(environment))
    assert len(commands) == count


def test_a_torchvision_that_does_not_load_is_replaced(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[str] = []
    monkeypatch.setattr(tool, "call", lambda command: commands.append(" ".join(map(str, command))))
    monkeypatch.setattr(tool, "read", lambda python, code: "2.13.0" if "version" in code else str(tmp_path))
    (tmp_path / "torchvision").mkdir()  # what an uninstalled package may leave
    (tmp_path / "torchvision" / "left.txt").write_text("")
    tool.add_torchvision(Path(shutil.which("false")), ["pip", "install"])  # a Python that can't import it
    assert commands[0] == "pip install torchvision torch==2.13.0" and "uninstall --yes torchvision" in commands[1]
    assert sorted(file.name for file in (tmp_path / "torchvision").iterdir()) == ["__init__.py", "utils.py"]
    names: dict = {}
    exec((tmp_path / "torchvision" / "utils.py").read_text(), names)
    with pytest.raises(NotImplementedError, match="stand-in"):
        names["save_image"]()


def test_app_and_start_need_monai_label(tool: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no MONAI Label; make an environment with .* install FOLDER, and activate"):
        tool.app(str(tmp_path / "app"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("with_monai_label")
def test_app_copies_bundles_whole_or_not_at_all(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    room = tmp_path / "room"
    with pytest.raises(InputError, match="no bundle is named glimms; known are dca_unet, glims, hylt, mobileutr"):
        tool.app(str(room / "app"), "glims,glimms")
    with monkeypatch.context() as context, pytest.raises(OSError, match="full"):
        context.setattr(tool.shutil, "copy2", fail)
        context.setattr(tool.shutil, "copytree", fail)
        tool.app(str(room / "app"), "glims")
    assert list(room.iterdir()) == []
    tool.app(str(room / "app"), ("glims", "hylt"))
    assert sorted(path.name for path in (room / "app" / "model").iterdir()) == ["glims", "hylt"]
    for bundle in ("glims", "hylt"):
        for file in (ROOT / "bundles" / bundle / "configs").iterdir():
            assert (room / "app" / "model" / bundle / "configs" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(InputError, match="exists, and may hold trained weights"):
        tool.app(str(room / "app"), "glims")


def fail(*arguments: object, **options: object) -> None:
    raise OSError("disk full")


@pytest.mark.usefixtures("with_monai_label")
def test_start_checks_its_folders(tool: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no app with bundles; make one with"):
        tool.start(str(tmp_path), str(tmp_path))
    tool.app(str(tmp_path / "app"), "glims")
    with pytest.raises(InputError, match="studies is not a folder"):
        tool.start(str(tmp_path / "app"), str(tmp_path / "studies"))
