"""What is wrong with the cases of a data set, before a training spends hours on them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from hybrid_nets.bundle import flag
from hybrid_nets.datalist import LazyCases
from hybrid_nets.distributed import is_first_process
from hybrid_nets.errors import InputError
from hybrid_nets.folders import VOLUMES
from hybrid_nets.grids import Grid, as_list, misfit

__all__ = ["CaseFacts", "check_data", "inspect_case"]

logger = logging.getLogger(__name__)

SHOWN = 20


@dataclass
class CaseFacts:
    """What a case's files say.

    Attributes:
        name: of its first image.
        problems: why it can't be trained on.
        shape: voxels along the axes nearest to right, front and head.
        spacing: sides of a voxel along these axes in mm.
        orientation: of the file's axes, such as ``RAS``.
        channels: how many.
        counts: label value → voxels.
        intensities: ``(channels, n)`` values of some voxels with a label above 0.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    orientation: str = ""
    channels: int = 0
    counts: dict[float, int] = field(default_factory=dict)
    intensities: np.ndarray | None = None


def check_data(cases: LazyCases, labels: Mapping, wanted: object = True) -> None:
    """Look at every training and validation case; log what is odd, refuse what is wrong.

    Wrong are label maps that lie elsewhere than their image, values that nobody declared, and files that can't be
    read. Odd are empty label maps, and images of several orientations, which may be a converter's mistake. Pictures
    and other files than NIfTI are left out.

    Args:
        cases: with ``training`` and ``validation`` lists, as :func:`hybrid_nets.find_cases` gives them.
        labels: the bundle's label value → name; what a case says of its own values goes before.
        wanted: a switch, as ``--check_data true``; nothing is done without.

    Raises:
        InputError: names what is wrong with which cases.
    """
    if not flag(wanted) or not is_first_process():
        return
    listed = [*cases.training, *cases.validation]
    volumes = [case for case in listed if all(file.lower().endswith(VOLUMES) for file in files_of(case))]
    if len(volumes) < len(listed):
        logger.info("check_data: %d case(s) are no NIfTI files and were left out.", len(listed) - len(volumes))
    declared = (set(map(int, case.get("label_values") or labels)) for case in volumes)
    facts = [inspect_case(case, values) for case, values in zip(volumes, declared)]
    for note in oddities(facts):
        logger.warning("check_data: %s", note)
    refuse_problems(facts)
    logger.info("check_data: %d case(s) agree with each other.", len(facts))


def refuse_problems(facts: Iterable[CaseFacts], more: Sequence[str] = ()) -> None:
    """Raise an InputError with ``more`` and the problems of all cases, if there are any."""
    reasons = [*more, *(f"{fact.name}: {problem}" for fact in facts for problem in fact.problems)]
    if reasons:
        rest = f"\n  and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        listed = "".join(f"\n  {reason}" for reason in reasons[:SHOWN])
        raise InputError(f"{len(reasons)} reason(s) not to train on this data set; mend them:{listed}{rest}")


def oddities(facts: Sequence[CaseFacts]) -> Iterator[str]:
    """What may be as it should, and may be a mistake."""
    empty = [fact.name for fact in facts if fact.counts and not any(fact.counts[v] for v in fact.counts if v)]
    if empty:
        yield f"{len(empty)} label map(s) are empty: {', '.join(empty[:5])}."
    orientations = Counter(fact.orientation for fact in facts if fact.orientation)
    if len(orientations) > 1:
        found = ", ".join(f"{name} ({count})" for name, count in orientations.most_common())
        yield f"the files have several orientations: {found}. They are turned to one; look at some if that is news."


def inspect_case(case: Mapping, declared: set[int], sample: int = 0) -> CaseFacts:
    """Read a case of NIfTI files: the images' headers, and the label map's voxels.

    Args:
        case: with ``image`` and ``label``, each a file or a list of them.
        declared: label values that may occur.
        sample: how many voxels to take intensities from, 0 for none.
    """
    facts = CaseFacts(Path(files_of(case)[0]).name)
    images, labels = ([open_nifti(file, facts) for file in as_list(case.get(key, []))] for key in ("image", "label"))
    if not images or not labels:
        facts.problems.append("it has no label map." if images else "it has no image.")
    if facts.problems:
        return facts
    describe(images, facts)
    for image, file in zip([*images[1:], *labels], [*as_list(case["image"])[1:], *as_list(case["label"])]):
        problem = misfit(*(Grid(each.shape, affine=each.affine) for each in (images[0], image)))
        if problem:
            facts.problems.append(f"{Path(file).name} {problem}")
    if len(labels) > 1 or len(labels[0].shape) != 3:
        facts.problems.append("its label map is not one volume of three axes.")
    if not facts.problems:
        read_voxels(images, labels[0], declared, sample, facts)
    return facts


def files_of(case: Mapping) -> list[str]:
    return [*as_list(case.get("image", [])), *as_list(case.get("label", []))] or ["a case without files"]


def open_nifti(file: str, facts: CaseFacts) -> nib.Nifti1Image | None:
    name = Path(file).name
    if not os.path.isfile(file):
        facts.problems.append(f"{name} does not exist.")
        return None
    try:
        return nib.load(file)
    except Exception as error:
        facts.problems.append(f"{name} can't be read as NIfTI ({error}).")
        return None


def describe(images: Sequence[nib.Nifti1Image], facts: CaseFacts) -> None:
    first = images[0]
    order = np.argsort(nib.io_orientation(first.affine)[:, 0])
    facts.shape = tuple(int(first.shape[axis]) for axis in order)
    facts.spacing = tuple(float(nib.affines.voxel_sizes(first.affine)[axis]) for axis in order)
    facts.orientation = "".join(nib.aff2axcodes(first.affine))
    facts.channels = sum(image.shape[3] if len(image.shape) > 3 else 1 for image in images)


def read_voxels(
    images: Sequence[nib.Nifti1Image], label: nib.Nifti1Image, declared: set[int], sample: int, facts: CaseFacts
) -> None:
    try:
        voxels = np.asarray(label.dataobj)
        values, counts = np.unique(voxels, return_counts=True)
        facts.counts = {float(value): int(count) for value, count in zip(values, counts)}
        unknown = [f"{value:g}" for value in facts.counts if value not in declared]
        if unknown:
            known = ", ".join(map(str, sorted(declared)))
            facts.problems.append(f"its label map has the values {', '.join(unknown[:8])}; declared are {known}.")
        elif sample:
            facts.intensities = take_intensities(images, np.flatnonzero(voxels), sample)
            if not np.isfinite(facts.intensities).all():
                facts.problems.append("its image has voxels that are NaN or infinite; replace them.")
    except Exception as error:
        facts.problems.append(f"its voxels can't be read ({error}); copy it again.")


def take_intensities(images: Sequence[nib.Nifti1Image], foreground: np.ndarray, sample: int) -> np.ndarray:
    """``(channels, n)`` values of evenly chosen ``foreground`` voxels, which are counted through the volume."""
    chosen = foreground[:: max(1, len(foreground) // sample)]
    rows = []
    for image in images:
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        rows.append(voxels.reshape(np.prod(voxels.shape[:3]), -1)[chosen].T)
    return np.concatenate(rows)
