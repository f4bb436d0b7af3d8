"""What a run would do, and how it went."""

from __future__ import annotations

from collections.abc import Sequence

from hybrid_nets.cli.cases import Case
from hybrid_nets.cli.checks import check_files
from hybrid_nets.cli.cohort import Cohort
from hybrid_nets.cli.model import BundleModel
from hybrid_nets.cli.records import Records
from hybrid_nets.errors import InputError

__all__ = ["describe", "report"]

# How many of the failures are shown at the end; all are in failures.csv.
SHOWN = 100


def describe(cases: Sequence[Case], model: BundleModel, records: Records, dicom_seg: bool) -> None:
    """Print what a run would do."""
    cohort = Cohort(cases, model, records, dicom_seg)
    todo = 0
    for case in cases:
        outputs = cohort.outputs(case)
        state, problem = records.state(case, outputs), case.problem
        if state == "open" and not problem:
            try:
                check_files(case)
            except InputError as error:
                problem = str(error)
        if problem or state not in ("open", "complete"):
            print(f"{case.name}: would fail: {problem or state}")
        elif state == "complete":
            print(f"{case.name}: complete")
        else:
            todo += 1
            images = len(case.series) or len(case.image)
            print(f"{case.name}: {images} {'series' if case.series else 'file(s)'} -> {', '.join(outputs)}")
    weights = ", ".join(str(path) for path in model.checkpoints if path.is_file()) or "none yet"
    print(f"{todo} of {len(cases)} case(s) would be segmented with {model.bundle.name} into {records.output}.")
    print(f"input: {model.modality}, {', '.join(model['channels'])}; weights: {weights}")


def report(cases: Sequence[Case], records: Records) -> int:
    """Print how it went; the exit status."""
    own = {case.name for case in cases}
    found = [record for record in records.all() if record["case"] in own and record["run"] == records.run]
    failed = [record for record in found if record["status"] == "failed"]
    done = len(found) - len(failed)
    earlier = len(cases) - len(found)
    print(f"{done} segmented, {earlier} complete before, {len(failed)} failed; results in {records.output}")
    for record in failed[:SHOWN]:
        print(f"failed: {record['case']}: {record['reason']}")
    if len(failed) > SHOWN:
        print(f"and {len(failed) - SHOWN} more")
    if failed:
        print(f"all reasons are in {records.output / 'failures.csv'}; mended cases are taken up by the same command.")
    return int(bool(failed))
