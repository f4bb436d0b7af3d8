"""Bad days of ``hybrid-nets segment``, on purpose: faulty scans, a full disk, odd geometry, many cases.

    python tools/reliability.py faults --cases 200     # scans with a fault each among good ones; a full disk
    python tools/reliability.py geometry               # orientations, shears and spacings against a known answer
    python tools/reliability.py soak --cases 1000      # memory, open files, threads; three processes at once

Each prints its figures, and ends with status 1 if something is not as docs/reliability.md promises. Quick versions are
in tests/reliability. Networks are small and random and scans synthetic: this measures the program, not segmentations.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import fire
from reliability_cases import Cohort, Usage, draw_scan, label_maps, save, tiny_command
from reliability_checks import find_problems, flip_bits, small_disk
from reliability_faults import FAULTS, LEGAL, SEVERAL_FAULTS, write_case, write_faults, write_several_faults
from reliability_geometry import (
    exact_variants,
    find_differences,
    resampled_variants,
    stub_command,
    write_variants,
)
from reliability_soak import share_folder

# Good cases of one file per channel among those of one file.
SEVERAL = 7
FLIPS = 200


def faults(cases: int = 200) -> None:
    """Segment good scans alone and again among faulty ones; then onto a disk that is too small, and once more.

    Args:
        cases: how many there are in all, faulty ones included.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = cases - len(FAULTS) - len(LEGAL) - len(SEVERAL_FAULTS) - SEVERAL
        ct = draw_cohort(folder, good)
        mr = Cohort(tiny_command("glims", folder / "weights"), folder / "mr", folder / "mr_clean")
        for i in range(SEVERAL):
            write_case(mr.scans, f"good_{i}", i)
        for cohort in (ct, mr):
            cohort.run()
        problems = fill_disk(ct, folder / "disk")
        silent, refused = flip_bits(folder / "flips", FLIPS)
        print(f"{FLIPS} flipped bits: nibabel reads {silent} as other voxels without a word; {refused} are refused")
        problems += ["a flipped bit was not refused"] * (refused < FLIPS)
        problems += add_faults(ct, write_faults(ct.scans))
        problems += add_faults(mr, write_several_faults(mr.scans))
    print(f"{cases} cases: {good + SEVERAL} good, {len(LEGAL)} odd, {len(FAULTS) + len(SEVERAL_FAULTS)} faulty")
    conclude(problems)


def draw_cohort(folder: Path, count: int) -> Cohort:
    for i in range(count):
        save(folder / "scans" / f"good_{i:03d}.nii.gz", draw_scan(i))
    return Cohort(tiny_command("mobileutr", folder / "weights"), folder / "scans", folder / "clean")


def add_faults(alone: Cohort, reasons: dict[str, str]) -> list[str]:
    """Run a cohort, which has run without them, with faulty cases in it; what is wrong then."""
    faulty = replace(alone, output=alone.output.with_name(f"{alone.output.name}_faulty"))
    clean = label_maps(alone.output)
    done, usage = faulty.watch((len(clean) // 4, len(clean)) if len(clean) > SEVERAL else ())
    if usage:
        show(usage)
    print(f"{len(clean)} good, {len(label_maps(faulty.output))} segmented, {len(faulty.failures())} failed")
    print(*(line for line in done.stdout.splitlines() if line.startswith("failed: ")), sep="\n")
    return find_problems(clean, faulty, done, reasons)


def fill_disk(alone: Cohort, disk: Path) -> list[str]:
    """Segment onto a file system without room for all, and again when it has."""
    with small_disk(disk, 6 * len(label_maps(alone.output))) as resize:  # a case takes about 12
        if resize is None:
            print("full disk: left out, nothing can be mounted here; the suite injects the error instead")
            return []
        small, clean = replace(alone, output=disk / "out"), label_maps(alone.output)
        first = small.run()
        kept = label_maps(small.output)
        resize(2**20)
        second = small.run()
        last = first.stderr.strip().splitlines()[-1]
        print(f"full disk: {len(kept)} of {len(clean)} written before it was full, then: {last}")
        problems = [f"{case} differs" for case in kept if kept[case] != clean[case]]
        problems += ["the full disk is not named"] * ("No space left on device" not in last)
        complete = second.returncode == 0 and label_maps(small.output) == clean
        return problems + ["not complete after room was made"] * (not complete)


def geometry() -> None:
    """Segment a phantom in all orientations by a network that reads the labels off its grey values, and compare."""
    exact, resampled = list(exact_variants()), list(resampled_variants())
    with tempfile.TemporaryDirectory() as name:
        cohort = Cohort(stub_command(Path(name)), Path(name) / "scans", Path(name) / "out")
        write_variants(cohort.scans, exact + resampled)
        cohort.run()
        same = find_differences(exact, cohort.scans, cohort.output)
        near = find_differences(resampled, cohort.scans, cohort.output)
    problems = [f"{name}: {found}" for name, found in same.items() if found.header or found.voxels]
    problems += [f"{name}: {found}" for name, found in near.items() if not found.near]
    print(f"on the network's grid: {len(same)} files, labels differ in {sum(d.voxels > 0 for d in same.values())}")
    print(f"resampled: {len(near)} files, {max(d.voxels for d in near.values()):.1%} of a file's voxels differ at most")
    print(f"of these {sum(d.far for d in near.values())} far from a border")
    print(f"a ball's centre moved by {max(d.centre for d in near.values()):.2f} mm at most")
    conclude(problems)


def soak(cases: int = 1000) -> None:
    """Segment many scans in one process, looking at what it holds; then the same by three processes in one folder."""
    with tempfile.TemporaryDirectory() as name:
        cohort = draw_cohort(Path(name), cases)
        _, found = cohort.watch((max(cases // 10, 1), cases - 1))
        show(found)
        expected = label_maps(cohort.output)
        problems = [f"{len(expected)} label maps"] * (len(expected) != cases)
        three = [replace(cohort, output=Path(name) / "shared")] * 3
        more, shares, seconds = share_folder(three, expected)
        print(f"3 processes on one folder: {' + '.join(map(str, shares))} cases in {seconds:.0f} s")
    conclude(problems + more)


def show(found: Iterable[Usage]) -> None:
    print("| cases | seconds | memory, MiB | open files | threads |\n|---|---|---|---|---|")
    for use in found:
        print(f"| {use.cases} | {use.seconds:.0f} | {use.memory:.0f} | {use.files} | {use.threads} |")


def conclude(problems: list[str]) -> None:
    print(*problems, f"{len(problems)} problem(s)", sep="\n")
    sys.exit(int(bool(problems)))


if __name__ == "__main__":
    fire.Fire({"faults": faults, "geometry": geometry, "soak": soak})
