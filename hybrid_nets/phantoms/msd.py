"""Writes cases as a data set in the layout of the Medical Segmentation Decathlon (MSD), all of it or nothing."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from hybrid_nets.phantoms.folder import check_numbers, publish_folder, write_cases

__all__ = ["About", "Case", "numbered", "write_msd"]


@dataclass(frozen=True)
class Case:
    """One image with its segmentation.

    Attributes:
        image: float32 ``(channels, x, y, z)``, whole numbers that fit int16, which is how they are stored.
        label: uint8 ``(x, y, z)``.
        affine: float64 ``(4, 4)``, voxel indices to RAS+ world coordinates in mm.
        name: file name without extension.
    """

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    name: str


@dataclass(frozen=True)
class About:
    """What ``dataset.json`` says of the data set; ``modality`` and ``labels`` are in order of their index."""

    name: str
    description: str
    modality: tuple[str, ...]
    labels: tuple[str, ...]
    licence: str
    reference: str
    release: str

    def heading(self) -> dict[str, str]:
        """The first entries of ``dataset.json``, whatever the kind of data."""
        return {key: getattr(self, key) for key in ("name", "description", "reference", "licence", "release")}


def numbered(names: Sequence[str]) -> dict[str, str]:
    """Index → name, as JSON has it."""
    return {str(i): name for i, name in enumerate(names)}


def write_msd(
    output_dir: str | Path, about: About, make_case: Callable[[int], Case], num_training: int, num_test: int
) -> Path:
    """Write ``num_training`` + ``num_test`` cases to ``output_dir``; nothing is done if it holds a ``dataset.json``.

    All or nothing, and safe to do from several processes at once: see :func:`.folder.publish_folder`.

    Args:
        output_dir: the data set's folder. It and its parents are created if need be.
        about: what the data set is.
        make_case: case ``i`` of 0, 1, …; the training cases come first. Called from several threads.
        num_training: cases with a label file, at least 1.
        num_test: cases without, may be 0.

    Returns:
        The absolute path of ``output_dir``.

    Raises:
        ValueError: a number of cases is out of range, or a case does not fit its description.
        FileExistsError: ``output_dir`` is a file, or a folder with other files in it.

    Example::

        write_msd("/data/phantom", about, brain_tumor_case, num_training=4, num_test=1)
    """
    check_numbers(num_training, num_test)
    return publish_folder(
        output_dir, about.name, lambda folder: write_files(folder, about, make_case, num_training, num_test)
    )


def write_files(folder: Path, about: About, make_case: Callable[[int], Case], num_training: int, num_test: int) -> None:
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)

    def write_case(index: int, training: bool) -> str:
        case = make_case(index)
        check_case(case, about)
        # MSD stores the channels last, and leaves their axis out where there is only one.
        voxels = np.moveaxis(case.image, 0, -1) if len(case.image) > 1 else case.image[0]
        write_nifti(folder / ("imagesTr" if training else "imagesTs") / f"{case.name}.nii.gz", voxels, case, np.int16)
        if training:
            write_nifti(folder / "labelsTr" / f"{case.name}.nii.gz", case.label, case, np.uint8)
        return f"{case.name}.nii.gz"

    files = write_cases(write_case, num_training, num_test)
    text = json.dumps(dataset_json(about, files[:num_training], files[num_training:]), indent=2)
    (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")


def check_case(case: Case, about: About) -> None:
    if case.image.shape != (len(about.modality), *case.label.shape):
        raise ValueError(
            f"{case.name}: image {case.image.shape} should be {(len(about.modality), *case.label.shape)}, "
            f"one channel per modality and the label's shape."
        )
    if case.label.max() >= len(about.labels):
        raise ValueError(f"{case.name}: label {case.label.max()} has no name; add it to labels {about.labels}.")
    limits = np.iinfo(np.int16)
    if case.image.min() < limits.min or case.image.max() > limits.max:
        raise ValueError(f"{case.name}: intensities must fit int16; scale them to {limits.min}..{limits.max}.")


def write_nifti(path: Path, voxels: np.ndarray, case: Case, dtype: type) -> None:
    """Compressed, and the same bytes for the same voxels: the time that gzip would store is left out."""
    nifti = nib.Nifti1Image(np.rint(voxels).astype(dtype), case.affine)
    nifti.set_sform(case.affine, code="scanner")
    nifti.set_qform(case.affine, code="scanner")
    nifti.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(nifti.to_bytes(), compresslevel=1, mtime=0))


def dataset_json(about: About, training: list[str], test: list[str]) -> dict:
    return {
        **about.heading(),
        "tensorImageSize": "4D" if len(about.modality) > 1 else "3D",
        "modality": numbered(about.modality),
        "labels": numbered(about.labels),
        "numTraining": len(training),
        "numTest": len(test),
        "training": [{"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"} for file in training],
        "test": [f"./imagesTs/{file}" for file in test],
    }
