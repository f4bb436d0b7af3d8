"""Every block of commands in the documents says how it is run, and what is run small is what the document says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from readme_commands import Block, all_blocks, check, read_blocks, readme_commands, run_by_ci
from readme_small import run_block, small_commands
from readme_small_copy import DATA, SMALL, shrink


def test_every_block_says_how_it_is_run() -> None:
    assert check() == []
    command = [sys.executable, str(ROOT / "tools" / "readme_commands.py"), "check"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Documents with a README of three blocks, and what CI runs of them."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text("commands README.md run\n")
    return tmp_path


@pytest.mark.parametrize(
    ("mark", "language", "problem"),
    [
        ("", "bash", "no <!-- ci: … -->"),
        ("", "sh", "no <!-- ci: … -->"),
        ("", "python", ""),
        ("<!-- ci: run -->\n", "bash", ""),
        ("<!-- ci: run -->\n\n", "bash", "no <!-- ci: … -->"),
        ("<!-- ci: other -->\n", "bash", "nothing runs the name 'other'"),
        ("<!-- ci: small -->\n", "bash", ""),
        ("<!-- ci: not -->\n", "bash", "no reason"),
        ("<!-- ci: not, needs a GPU -->\n", "bash", ""),
        ("<!-- ci: not, tests/test_gone.py sends it -->\n", "bash", "tests/test_gone.py is not there"),
    ],
)
def test_names_a_block_that_nothing_runs(repository: Path, mark: str, language: str, problem: str) -> None:
    text = f"Text.\n\n{mark}```{language}\nls\n```\n"
    (repository / "README.md").write_text(text)
    here = f"README.md:{text[: text.index('```')].count(chr(10)) + 1}: "
    found = [line for line in check(repository) if line.startswith(here)]
    assert len(found) == bool(problem) and problem in "".join(found)


def test_a_name_without_a_block_is_named(repository: Path) -> None:
    (repository / "README.md").write_text("Text.\n")
    assert any("README.md: no block is named 'run'" in line for line in check(repository))


def test_reads_what_ci_runs_from_its_loops() -> None:
    script = """
        found=$(python tools/readme_commands.py "$1" "$2")
        commands README.md run
        for page in one two; do
            commands "docs/$page.md" "$page" "$one_epoch"
    """
    assert set(run_by_ci(script)) == {("README.md", "run"), ("docs/one.md", "one"), ("docs/two.md", "two")}


def test_prints_all_blocks_of_a_name(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text("<!-- ci: x -->\n```bash\none\n```\n```bash\ntwo\n```\n<!-- ci: x -->\n```bash\nthree\n```\n")
    assert readme_commands(str(file), "x") == "one\nthree"
    assert [block.line for block in read_blocks("a.md", file.read_text())] == [2, 5, 9]
    with pytest.raises(SystemExit, match="no code block named 'y'"):
        readme_commands(str(file), "y")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("a --epochs 60 --val_interval 20", "a --epochs 1 --val_interval 1"),
        ("a --spacing [1.0,1.0,1.0] -b", "a --spacing [9,9,9] -b"),
        ("train glims --dataset_dir /data/BraTS2023", "train glims --dataset_dir D/brain_tumor"),
        ("segment --bundle glims -i scans/", "segment --bundle glims -i D/brain_tumor/imagesTr/"),
        ("segment --bundle hylt -i scans/", "segment --bundle hylt -i D/abdomen/imagesTr/"),
        ("b --dataset_dir /data/new_scans -o /data/results", "b --dataset_dir D/abdomen -o results"),
        ("run /models/glims/a.json bundles/glims/models/b.pt", "run models/glims/a.json bundles/glims/models/b.pt"),
        ('pip install -e ".[dicom]"', 'pip install --quiet --dry-run -e ".[dicom]"'),
        ("hybrid-nets plan x --output y   # settings", "hybrid-nets plan x --output y  --memory 0.2  # settings"),
    ],
)
def test_small_commands(command: str, expected: str) -> None:
    assert small_commands(command, Path("D")) == expected


def test_the_small_blocks_name_known_data_only() -> None:
    small = [block for block in all_blocks() if block.mark == "small"]
    assert len(small) > 20
    for block in small:
        assert "/data/" not in small_commands(block.text, Path("D")), block
    assert set(DATA) <= set("".join(block.text for block in small).replace("/", " ").split())


def test_configs_get_small_defaults() -> None:
    assert shrink({"roi_size": [224, 224], "epochs": 300, "size": "base"}) == {
        "roi_size": SMALL["roi_size"][0],
        "epochs": 1,
        "size": "base",
    }
    assert shrink({"spacing": [1.5, 1.5, 2.0]}) != {"spacing": [1.5, 1.5, 2.0]}
    assert shrink({"spacing": [1.0, 1.0, 1.0]}) == {"spacing": [1.0, 1.0, 1.0]}


def test_a_block_ends_at_the_first_command_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    block = Block("a.md", 3, "bash", "small", "touch first\nfalse\ntouch second\n")
    result = run_block(block, tmp_path, tmp_path)
    assert "a.md:3 failed, exit status 1" in result.failure and result.failure in capsys.readouterr().out
    assert (tmp_path / "first").exists() and not (tmp_path / "second").exists()
    good = Block("a.md", 9, "bash", "small", 'test "$PYTHONPATH" = "$PWD"\n')
    assert run_block(good, tmp_path, tmp_path).failure == ""
