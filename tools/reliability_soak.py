"""Many cases in one process, and several processes on one folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from reliability_cases import Cohort, label_maps, start
from reliability_checks import leftovers

__all__ = ["share_folder"]


def share_folder(cohorts: Sequence[Cohort], expected: dict[str, bytes]) -> tuple[list[str], list[int], float]:
    """Run all cohorts, which write to one folder, at the same time: problems, cases of each process, and seconds."""
    began = time.monotonic()
    processes = [start(cohort.words) for cohort in cohorts]
    status = [process.wait() for process in processes]
    seconds = time.monotonic() - began
    output = cohorts[0].output
    found = label_maps(output)
    problems = [f"{name} differs" for name in expected if found.get(name) != expected[name]]
    problems += [f"exit status {status}"] * any(status) + [f"{path} was left" for path in leftovers(output)]
    runs = [json.loads(file.read_text())["run"] for file in (output / ".hybrid_nets" / "cases").rglob("*.json")]
    problems += [f"{len(runs)} records of {len(expected)} cases"] * (len(runs) != len(expected))
    problems += made_twice(output)
    return problems, sorted(map(runs.count, set(runs))), seconds


def made_twice(output: Path) -> list[str]:
    """Cases whose label map is younger than their record: somebody wrote them again."""
    records = output / ".hybrid_nets" / "cases"
    maps = sorted(output.glob("*_seg.nii.gz"))
    pairs = [(file, records / file.name.replace("_seg.nii.gz", ".json")) for file in maps]
    return [f"{file.name} was made twice" for file, own in pairs if file.stat().st_mtime_ns > own.stat().st_mtime_ns]
