"""tools/benchmark.py as people run it, on small inputs. What it says of time is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


def run_benchmark(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "benchmark.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_it_writes_what_it_measured(tmp_path: Path) -> None:
    common = ["--sides", "16,32", "--rounds", 2, "--threads", 1, "--out", tmp_path]
    done = run_benchmark("--only", "U-Net,U-Net with DCA", "--parts", "forward,training", *common)
    assert done.returncode == 0, done.stderr
    done = run_benchmark("--only", "MobileUtr 3-D base", "--parts", "memory", "--roi_sides", 32, *common)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert list(result["networks"]) == ["U-Net", "U-Net with DCA", "MobileUtr 3-D base"], (
        "the second run keeps the first"
    )
    plain, dca, volume = result["networks"].values()
    assert plain["parameters"] < dca["parameters"] and plain["GMACs"] < dca["GMACs"]
    assert plain["input"] == [3, 32, 32] and volume["input"] == [1, 16, 16, 16]
    for part in ("forward", "training"):
        assert all(len(times["all"]) == 2 for times in result[part]["seconds"].values())
        assert result[part]["facts"]["threads"] == 1
    assert len(result["forward"]["dense"]["all"]) == 2
    memory = result["memory"]["MiB"]["MobileUtr 3-D base"]
    assert memory["forward"].keys() == {"16", "32"} and 0 < memory["training"]["16"] < memory["training"]["32"]
    (goal,) = result["goals"]
    seconds = [result["forward"]["seconds"][name]["all"] for name in ("U-Net with DCA", "U-Net")]
    assert goal["goal"].startswith("U-Net with DCA") and goal["ratio"]["all"] == [a / b for a, b in zip(*seconds)]
    assert "| U-Net with DCA | 3 × 32² |" in (tmp_path / "benchmark.md").read_text()
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "U-Net,V-Net"), "no network 'V-Net'; choose from 'GLIMS'"),
        (("--parts", "forwards"), "no part 'forwards'; choose from 'forward'"),
        (("--variants", "fast"), "no variant 'fast'; choose from 'autocast'"),
    ],
)
def test_it_refuses_what_it_does_not_know(arguments: tuple, message: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    from benchmark import benchmark

    options = {name.removeprefix("--"): value for name, value in [arguments]}
    with pytest.raises(ValueError, match=message):
        benchmark(**options, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_tables_go_between_the_marks(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    from benchmark_report import write_between

    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmark -->\nold\n<!-- end -->\nafter\n")
    write_between(page, "new\n")
    assert page.read_text() == "before\n<!-- benchmark -->\nnew\n<!-- end -->\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(ValueError, match="needs one line <!-- benchmark -->"):
        write_between(page, "new\n")
