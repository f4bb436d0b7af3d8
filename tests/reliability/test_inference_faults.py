"""Scans with one fault each among good and odd ones, by the command as a user types it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cli.command import run
from reliability_cases import Cohort, draw_scan, label_maps, save, tiny_command
from reliability_checks import find_problems
from reliability_faults import LEGAL, write_case, write_faults, write_several_faults
from reliability_soak import share_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def command(folder: Path) -> list[str]:
    return tiny_command("mobileutr", folder)


@pytest.fixture(scope="module")
def good(command: list[str], folder: Path) -> Cohort:
    """Nine good scans and their label maps."""
    for i in range(9):
        save(folder / "good" / f"good_{i:03d}.nii.gz", draw_scan(i))
    cohort = Cohort(command, folder / "good", folder / "clean")
    assert run_here(cohort) == 0
    return cohort


def run_here(cohort: Cohort) -> int | str:
    """In this process, which spares the seconds that a start takes."""
    return run(*cohort.words[3:])


def test_faulty_scans_are_named_with_a_reason_and_change_no_other_result(good: Cohort, tmp_path: Path) -> None:
    ct = tmp_path / "ct"
    ct.mkdir()
    for i in range(2):
        save(ct / f"good_{i:03d}.nii.gz", draw_scan(i))
    reasons = write_faults(ct)
    assert len(reasons) >= 21
    cohort = Cohort(good.command, ct, tmp_path / "out")
    clean = dict(list(label_maps(good.output).items())[:2])
    assert find_problems(clean, cohort, cohort.run(), reasons) == []
    assert len(label_maps(cohort.output)) == 2 + len(LEGAL)


def test_faulty_cases_of_several_files_are_named_with_a_reason(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = tiny_command("glims", folder)
    write_case(tmp_path / "scans", "good", 1)
    alone = Cohort(command, tmp_path / "scans", tmp_path / "clean")
    assert run_here(alone) == 0
    reasons = write_several_faults(tmp_path / "scans")
    cohort = Cohort(command, tmp_path / "scans", tmp_path / "out")
    capsys.readouterr()
    done = subprocess.CompletedProcess([], run_here(cohort), capsys.readouterr().out)
    assert find_problems(label_maps(alone.output), cohort, done, reasons) == []


def test_three_processes_on_one_folder_take_each_case_once(good: Cohort, tmp_path: Path) -> None:
    cohorts = [Cohort(good.command, good.scans, tmp_path / "out")] * 3
    problems, shares, _ = share_folder(cohorts, label_maps(good.output))
    assert problems == [] and sum(shares) == 9
