"""What a run over faulty scans must leave behind, a disk that is too small, and bits that flip."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from reliability_cases import Cohort, draw_scan, label_maps, save

from hybrid_nets.cli.cases import Case
from hybrid_nets.cli.checks import check_content
from hybrid_nets.errors import InputError

__all__ = ["find_problems", "flip_bits", "leftovers", "small_disk"]


def find_problems(
    clean: Mapping[str, bytes], faulty: Cohort, done: subprocess.CompletedProcess, expected: Mapping[str, str]
) -> list[str]:
    """What is not as it should be in a run over good, odd and faulty scans.

    Args:
        clean: label maps of the good scans alone.
        faulty: the cohort, which has run.
        done: how it ended.
        expected: case → what its reason must say.
    """
    found, reasons = label_maps(faulty.output), faulty.failures()
    spreadsheet = {f"'{case}" if case[0] == "=" else case: reason for case, reason in expected.items()}
    problems = [f"{name} differs from the clean run's" for name in clean if found.get(name) != clean[name]]
    first = clean.get("good_000_seg.nii.gz")
    problems += [f"{name} differs from its twin's" for name in found if "same_" in name and found[name] != first]
    for case in {**spreadsheet, **reasons}:
        if case not in spreadsheet or spreadsheet[case] not in reasons.get(case, ""):
            problems.append(f"{case}: {reasons.get(case, 'not refused')}")
    problems += [f"{case} is not in the log" for case in expected if f"failed: {case}: " not in done.stdout]
    problems += [f"exit status {done.returncode}"] * (done.returncode != 1)
    return problems + [f"{path} was left" for path in leftovers(faulty.output)]


def flip_bits(folder: Path, count: int) -> tuple[int, int]:
    """Of ``count`` compressed scans with a flipped bit each: how many nibabel reads as other voxels, and we refuse."""
    path = save(folder / "flipped.nii.gz", draw_scan(0))
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    silent = refused = 0
    for _ in range(count):
        content = bytearray(whole)
        content[draw.integers(30, len(whole) - 8)] ^= 1 << draw.integers(8)  # behind gzip's header, before its checksum
        path.write_bytes(content)
        try:
            silent += not np.array_equal(np.asarray(nib.load(path).dataobj), draw_scan(0))
        except Exception:
            silent += 0
        try:
            check_content(Case("flipped", (str(path),)))
        except InputError:
            refused += 1
    return silent, refused


def leftovers(output: Path) -> list[Path]:
    """Files under temporary names, and locks."""
    files = [path for path in output.rglob("*") if path.is_file()]
    return [path for path in files if path.name.startswith(".") or path.suffix == ".lock"]


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Callable[[int], None] | None]:
    """A file system of that size at ``folder``; gives what changes the size, or None where nothing may be mounted."""
    folder.mkdir(parents=True)

    def mount(option: str) -> bool:
        words = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
        return subprocess.run(words, capture_output=True).returncode == 0

    if os.geteuid() or not mount(f"size={kibibytes}k"):
        yield None
        return
    try:
        yield lambda size: print(end="" if mount(f"remount,size={size}k") else "can't be made larger")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
