"""The command ``hybrid-nets segment``: from what was typed to what is reported."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hybrid_nets.cli.cases import Case, Wanted
from hybrid_nets.cli.demo import demo_input
from hybrid_nets.cli.options import check_options, config_paths, find_bundle, refuse
from hybrid_nets.errors import InputError

if TYPE_CHECKING:
    from hybrid_nets.cli.model import BundleModel
    from hybrid_nets.cli.records import Records

__all__ = ["Request", "run_segment"]

T = TypeVar("T")

# Keys of inference.json that have an option of their own here.
INSTEAD = {"dataset_dir": "-i", "datalist": "-i", "output_dir": "-o", "bundle_root": "--bundle"}
OWN = ("bundle", "input", "demo", "output", "config_file", "device", "fast", "tta", "save_probabilities", "dicom_seg")
OWN += ("names", "resume", "overwrite", "dry_run")


@dataclass(frozen=True)
class Request:
    """What was typed; see :func:`hybrid_nets.cli.commands.segment`."""

    bundle: str
    input: str | None
    output: str
    demo: bool = False
    overlays: object = None
    device: str | None = None
    fast: bool = False
    tta: bool = False
    save_probabilities: bool = False
    dicom_seg: bool = True
    names: str = "series"
    redo: bool = False
    dry_run: bool = False
    options: dict = field(default_factory=dict)


def run_segment(request: Request) -> None:
    """Do what ``request`` asks for; ends with exit status 1 if a case failed.

    Raises:
        InputError: nothing can be done as it was typed.
    """
    configs, options = read_options(request)
    # From here on it takes seconds: torch and MONAI.
    from hybrid_nets.cli.model import BundleModel
    from hybrid_nets.cli.records import Records
    from hybrid_nets.cli.summary import describe
    from hybrid_nets.distributed import is_first_process

    model = BundleModel(configs[0].parents[1], configs, options, request.tta, request.fast)
    output = Path(request.output).expanduser()
    if not request.dry_run:
        need_weights(model)
    run, cases, notes = agree(lambda: (uuid.uuid4().hex, *find_all(request, model, Records(output, ""))))
    records = Records(output, run, redo=request.redo)
    if is_first_process():
        print(*(f"note: {note}" for note in notes), sep="\n", end="\n" if notes else "")
    if request.dry_run:
        describe(cases, model, records, request.dicom_seg)
    else:
        segment_all(cases, request, model, records)


def read_options(request: Request) -> tuple[list[Path], dict]:
    """The configs, and the values for their keys, of what was typed."""
    if request.demo == (request.input is not None):
        raise InputError("say either what to segment, -i scans/, or --demo for a scan that needs no data of yours.")
    bundle = find_bundle(request.bundle)
    configs = config_paths(bundle, ["inference"], request.overlays)
    for name in request.options:
        if name in INSTEAD:
            raise InputError(f"--{name} is {INSTEAD[name]} here.")
        if len(name) == 1:
            refuse(name, OWN)
    check_options(request.options, configs, OWN)
    if request.names not in ("series", "patient"):
        raise InputError(f"--names is series or patient, got {request.names!r}.")
    if request.fast and "overlap" in request.options:
        raise InputError("--fast sets the overlap; give one of the two.")
    options: dict = {"save_probabilities": request.save_probabilities}
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        options["device"] = "$hybrid_nets.process_device()"
    if request.device:
        options["device"] = request.device
    if request.fast:
        options |= {"overlap": 0.25, "amp": "$'cuda' in str(@device)"}
    return configs, {**options, **request.options}


def need_weights(model: BundleModel) -> None:
    missing = [path for path in model.checkpoints if not path.is_file()]
    if missing:
        name = model.bundle.name
        raise InputError(
            f"no weights yet: {missing[0]} is not there.\n"
            f"  train them:            hybrid-nets train {name} --dataset_dir /your/data\n"
            f"                         (without --dataset_dir on a built-in phantom, to try it out)\n"
            f"  or convert released:   python tools/convert_checkpoint.py IN {missing[0]} --bundle {model.bundle}\n"
            f"  or name a checkpoint:  --checkpoints \"['/your/model.pt']\""
        )


def find_all(request: Request, model: BundleModel, records: Records) -> tuple[list[Case], list[str]]:
    from hybrid_nets.cli.inputs import find_inputs

    # Where results lie among the images, they are not taken for images.
    names = (name for record in records.all() for name in record.get("outputs", ()))
    pictures = (records.output / "report").rglob("*.png")  # of hybrid-nets report
    avoid = frozenset(os.path.abspath(path) for path in (*(records.output / name for name in names), *pictures))
    wanted = Wanted(model["channels"], model.modality, model.pictures, request.names, avoid)
    source = demo_input(model.bundle) if request.demo else Path(request.input).expanduser()
    return find_inputs(source, wanted)


def segment_all(cases: list[Case], request: Request, model: BundleModel, records: Records) -> None:
    from hybrid_nets.cli.cohort import Cohort
    from hybrid_nets.cli.summary import report
    from hybrid_nets.cli.tables import write_tables
    from hybrid_nets.distributed import is_first_process

    if model.pictures or any(case.series for case in cases):
        import itk  # noqa: F401 - its lazy parts are not made to be loaded by two threads at once
    if request.dicom_seg and any(case.series for case in cases):
        try:
            import highdicom  # noqa: F401
        except ImportError as error:
            raise InputError('DICOM segmentations need highdicom: pip install "hybrid-nets[dicom]".') from error
    records.fit_settings(model.settings())
    model.start()
    cohort = Cohort(cases, model, records, request.dicom_seg)
    try:
        cohort.run()
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk is told of already
            write_tables(records)
        raise
    write_tables(records)
    if is_first_process():  # torchrun ends all others as soon as one fails: this one does when all are done
        sys.exit(report(cases, records))


def agree(find: Callable[[], T]) -> T:
    """What ``find`` gives to the first of torchrun's processes; they meet for this, and then run at their own pace."""
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        return find()
    from hybrid_nets.distributed import from_first_process, is_first_process, join_processes, leave_processes

    join_processes("cpu")
    found = from_first_process(find() if is_first_process() else None)
    leave_processes()
    return found
