"""The commands of ``hybrid-nets``: what they take and what is told about them; the work is in the modules beside."""

from __future__ import annotations

from hybrid_nets.errors import InputError

__all__ = ["evaluate", "info", "plan", "report", "segment", "train"]


def segment(
    *unexpected: object,
    bundle: str,
    output: str,
    input: str | None = None,
    demo: bool = False,
    config_file: object = None,
    device: str | None = None,
    fast: bool = False,
    tta: bool = False,
    save_probabilities: bool = False,
    dicom_seg: bool = True,
    names: str = "series",
    resume: bool = True,
    overwrite: bool = False,
    dry_run: bool = False,
    **options: object,
) -> None:
    """Segment every image in INPUT with a bundle; results come case by case in OUTPUT, with volumes.csv over all.

        hybrid-nets segment --bundle bundles/mobileutr -i scans/ -o results/
        hybrid-nets segment --bundle bundles/mobileutr_brain --demo -o results/

    The same command goes on after an interruption. A case that fails is named at the end and in failures.csv, and the
    exit status is then 1. Under torchrun several processes share the cases. Research use only.

    Args:
        bundle: folder of the bundle, or its name if it lies in bundles/.
        output: folder of the results.
        input: a NIfTI file, a picture where the overlay takes pictures, a folder of them at any depth, of one folder
            per case with a file per channel, or of DICOM series; or a CSV or JSON list.
        demo: instead of input, what a bundle can be tried on: for mobileutr_brain the real T1 image that the package
            nilearn ships, else phantoms. Nothing is downloaded.
        config_file: overlays of the bundle to lay over inference.json, such as images or volumes.
        device: cpu, cuda or cuda:1; by default the first GPU if there is one.
        fast: windows overlap by a quarter, in mixed precision on GPUs and on CPUs with bfloat16.
        tta: mean over mirrored windows; takes 8 times as long on volumes, 4 times on pictures.
        save_probabilities: also write each class's probability.
        dicom_seg: for DICOM input also write a DICOM segmentation. It carries the patient's tags, as viewers need.
        names: names of DICOM cases: series (its number and the end of its UID) or patient (the PatientID before it).
        resume: leave out cases that are complete.
        overwrite: segment all cases again, also over results of other settings or images.
        dry_run: say what would be done, and load no weights.
        options: any key of the bundle's inference.json, as python -m monai.bundle run takes them.
    """
    from hybrid_nets.cli.options import refuse_unexpected
    from hybrid_nets.cli.segment import Request, run_segment

    refuse_unexpected(unexpected)
    run_segment(
        Request(
            bundle=bundle,
            input=input,
            demo=demo,
            output=output,
            overlays=config_file,
            device=device,
            fast=fast,
            tta=tta,
            save_probabilities=save_probabilities,
            dicom_seg=dicom_seg,
            names=names,
            redo=overwrite or not resume,
            dry_run=dry_run,
            options=options,
        )
    )


def train(*bundle: str, config_file: str | None = None, **options: str) -> None:
    """Train a bundle: build the command of monai.bundle, print it, and run it.

        hybrid-nets train bundles/glims --dataset_dir /data/BraTS2023

    Args:
        bundle: folder of the bundle, or its name if it lies in bundles/.
        config_file: overlays of the bundle to lay over train.json, such as images or multi_gpu_train.
        options: any key of the bundle's train.json.
    """
    run_bundle("train", ["train"], bundle, config_file, options)


def evaluate(*bundle: str, config_file: str | None = None, **options: str) -> None:
    """Measure a trained bundle: build the command of monai.bundle, print it, and run it.

        hybrid-nets evaluate bundles/glims --dataset_dir /data/BraTS2023

    Args:
        bundle: folder of the bundle, or its name if it lies in bundles/.
        config_file: overlays of the bundle, such as images.
        options: any key of the bundle's train.json or evaluate.json.
    """
    run_bundle("evaluate", ["train", "evaluate"], bundle, config_file, options)


def info(*bundle: str, **options: str) -> None:
    """What bundles there are: task, input, output, weights; all of one if BUNDLE names it. From metadata.json alone.

    Args:
        bundle: folder of a bundle, or its name if it lies in bundles/.
    """
    from hybrid_nets.cli.info import show_info
    from hybrid_nets.cli.options import refuse_unexpected

    refuse_unexpected(bundle[1:], options, known=())
    show_info(bundle[0] if bundle else None)


def plan(
    *dataset: str,
    bundle: str = "mobileutr",
    output: str = "plan.json",
    memory: str | None = None,
    overwrite: str = "False",
    **options: str,
) -> None:
    """Look at your own data set and write the overlay with which a bundle trains on it and segments with the result.

        hybrid-nets plan /data/Task05_Prostate --bundle mobileutr --output prostate.json
        hybrid-nets train mobileutr --config_file prostate.json

    Args:
        dataset: folder in MSD's layout: dataset.json, and the NIfTI files that it lists.
        bundle: folder of the bundle, or its name if it lies in bundles/.
        output: the overlay; weights and logs go into a folder beside it of the same name.
        memory: GiB that training may take; by default those of the first GPU, or what is free of the machine's.
        overwrite: replace an overlay of that name.
    """
    from pathlib import Path

    from hybrid_nets.bundle import flag
    from hybrid_nets.cli.options import find_bundle, refuse_unexpected
    from hybrid_nets.plan.build import Wish, build_plan

    refuse_unexpected(dataset[1:], options, known=("bundle", "output", "memory", "overwrite"))
    if not dataset:
        raise InputError("name the data set's folder: hybrid-nets plan DATASET.")
    try:
        limit = float(memory) if memory else None
    except ValueError as error:
        raise InputError(f"--memory is a number of GiB, got {memory!r}.") from error
    paths = Path(dataset[0]).expanduser(), find_bundle(bundle), Path(output).expanduser()
    print(build_plan(Wish(*paths, limit, flag(overwrite))))


def report(
    *results: str,
    labels: str | None = None,
    input: str | None = None,
    tolerance: str = "1.0",
    convention: str = "radiological",
    **options: str,
) -> None:
    """Write RESULTS/report.html, one page to look through what segment wrote there, and its pictures beside it.

        hybrid-nets report results/ --labels labels/

    Args:
        results: folder that was -o of segment.
        labels: folder of reference label maps, to compare with.
        input: what was -i of segment; needed for DICOM, and where images have moved.
        tolerance: surface Dice counts surface points closer than this, in mm.
        convention: radiological (the patient's right at the left of the picture) or neurological.
    """
    from pathlib import Path

    from hybrid_nets.cli.options import refuse_unexpected
    from hybrid_nets.report.build import Wish, build_report

    refuse_unexpected(results[1:], options, known=("labels", "input", "tolerance", "convention"))
    if not results:
        raise InputError("name the folder of results: hybrid-nets report results/.")
    try:
        limit = float(tolerance)
    except ValueError as error:
        raise InputError(f"--tolerance is a distance in mm, got {tolerance!r}.") from error
    folders = [Path(path).expanduser() if path else None for path in (results[0], labels, input)]
    print(build_report(Wish(*folders, tolerance=limit, convention=convention)))  # type: ignore[arg-type]


def run_bundle(
    command: str, configs: list[str], bundle: tuple[str, ...], config_file: str | None, options: dict[str, str]
) -> None:
    from hybrid_nets.cli.monai_command import run_monai
    from hybrid_nets.cli.options import refuse_unexpected

    named = list(bundle) or [options.pop("bundle", "")]
    if not named[0]:
        raise InputError(f"name the bundle: hybrid-nets {command} bundles/NAME.")
    refuse_unexpected(named[1:])
    run_monai(configs, named[0], config_file, options)
