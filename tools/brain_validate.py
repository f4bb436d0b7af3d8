"""Measure weights of the brain bundle on drawn scans and on the real MNI152 T1 image, as it is and made harder.

    python tools/brain_validate.py .cache/brain_train/model.pt                      # everything; an hour on one core
    python tools/brain_validate.py MODEL --cases t1,t1_head --overlap 0.25          # a look
    python tools/brain_validate.py MODEL --out docs/brain.json --figure docs/images/brain_t1.png

Each case is segmented by the bundle's inference.json, as a user would. Prints Dice of CSF, grey and white matter, and
of the brain (all three) per case, and the mean of grey and white matter.

The truth of the real image, which is 0 outside the brain: where it is not 0, the tissue with the largest share in
nilearn's maps of grey and white matter, CSF having what these leave (tools/make_tissue_dataset.py). With slices of 3 mm
or voxels of 2 mm the truth is the most frequent label of the voxels that make one. Made from the T1:

t1_head: with a head drawn around it by this package's generator, from a seed that training does not use;
t2, flair, pd: each grey value replaced so that the tissues' medians take that contrast's brightness; *_head: in a head;
slices_3mm, voxels_2mm: means of 3 slices, of 2 x 2 x 2 voxels; noise: with a head and a noise of 10 % of white matter;
turned: a quarter turn about each of two axes, with a header that says so; turned_unsaid: the same, header silent;
flip_*: mirrored with a silent header; "agrees" is their Dice with the segmentation of t1, mirrored.

Not made from the T1: person, person_brain, a real head and its brain (Debian's package mricron-data; left out without
it). Their truth is rough: thresholds on the grey values in the brain mask that comes with them, which has no CSF around
the cortex.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import fire
import monai.bundle
import nibabel as nib
import numpy as np
import torch
from brain_cases import TISSUES, BrainCase, make_cases

from hybrid_nets import InputError
from hybrid_nets.atomic import replacing

CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "mobileutr_brain" / "configs" / "inference.json"


def brain_validate(
    checkpoint: str,
    cases: str | tuple | None = None,
    overlap: float = 0.5,
    roi_size: int = 96,
    refine: bool = True,
    out: str | None = None,
    figure: str | None = None,
    figure_case: str = "t1",
    threads: int = 1,
) -> None:
    """Segment and measure; CASES names some of them, with commas between, and "drawn" is all drawn ones.

    REFINE is the bundle's option.
    """
    torch.set_num_threads(threads)
    wanted = cases.split(",") if isinstance(cases, str) else cases
    with tempfile.TemporaryDirectory() as folder:
        found = make_cases(Path(folder) / "cases", wanted)
        segment(Path(folder), checkpoint, {"overlap": overlap, "roi_size": [roi_size] * 3, "refine": refine})
        files = {case.name: Path(folder) / "out" / f"{case.name}_seg.nii.gz" for case in found}
        predictions = {name: np.asarray(nib.load(file).dataobj) for name, file in files.items()}
        results = {case.name: measure(predictions[case.name], case.label) for case in found}
        for case in found:
            if case.flipped is not None and "t1" in predictions:
                mirrored = np.flip(predictions["t1"], case.flipped)
                results[case.name]["agrees"] = mean_dice(mirrored, predictions[case.name])
        show(results)
        if figure:
            case = next(case for case in found if case.name == figure_case)
            save_figure(figure, case, predictions[figure_case])
    if out:
        content = {"checkpoint": Path(checkpoint).name, "overlap": overlap, "roi_size": roi_size, "refine": refine}
        content["dice"] = results
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")


def segment(folder: Path, checkpoint: str, options: dict) -> None:
    monai.bundle.run(
        config_file=str(CONFIG),
        dataset_dir=str(folder / "cases"),
        output_dir=str(folder / "out"),
        checkpoints=[str(Path(checkpoint).resolve())],
        device="cpu",
        **options,
    )


def measure(found: np.ndarray, label: np.ndarray) -> dict[str, float | None]:
    """Dice of each tissue, of the brain, and the mean of grey and white matter; None where neither has the tissue."""
    scores = {name: dice(found == value, label == value) for name, value in TISSUES.items()}
    scores["brain"] = dice(found > 0, label > 0)
    pair = [scores[name] for name in ("grey matter", "white matter")]
    return {**scores, "grey and white": None if None in pair else round(sum(pair) / 2, 4)}


def dice(a: np.ndarray, b: np.ndarray) -> float | None:
    total = int(a.sum()) + int(b.sum())
    return round(2 * int((a & b).sum()) / total, 4) if total else None


def mean_dice(a: np.ndarray, b: np.ndarray) -> float:
    scores = [dice(a == value, b == value) for value in TISSUES.values()]
    return round(float(np.mean([score for score in scores if score is not None])), 4)


def show(results: dict[str, dict]) -> None:
    columns = [*TISSUES, "brain", "grey and white", "agrees"]
    print(f"{'case':<16}" + "".join(f"{name:>15}" for name in columns))
    for case, scores in results.items():
        cells = ("" if scores.get(name) is None else f"{scores[name]:.3f}" for name in columns)
        print(f"{case:<16}" + "".join(f"{cell:>15}" for cell in cells))


def save_figure(path: str, case: BrainCase, found: np.ndarray) -> None:
    """Three planes through the middle of the brain: image, truth, what was found, and where the two differ."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    where = np.argwhere(case.label > 0)
    middle = (where.min(0) + where.max(0)) // 2
    planes: list[Callable] = [
        lambda a: a[:, :, middle[2]],
        lambda a: a[:, middle[1]],
        lambda a: a[middle[0] - 8],
    ]
    columns = {"image": case.image, "truth": case.label, "found": found, "differs": found != case.label}
    fig, axes = plt.subplots(3, 4, figsize=(10, 8), facecolor="black")
    for row, plane in zip(axes, planes):
        for axis, (name, volume) in zip(row, columns.items()):
            options = {"vmin": 0, "vmax": 3, "cmap": "viridis"} if name in ("truth", "found") else {"cmap": "gray"}
            axis.imshow(np.rot90(plane(np.asarray(volume, float))), interpolation="nearest", **options)
            axis.set_title(name, color="white")
            axis.axis("off")
    fig.tight_layout()
    with replacing(path) as temporary:
        fig.savefig(temporary, dpi=80, facecolor="black")


if __name__ == "__main__":
    try:
        fire.Fire(brain_validate)
    except InputError as error:
        sys.exit(f"error: {error}")
