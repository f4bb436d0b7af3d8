"""The data set of the brain bundle: anatomies to train on, drawn scans to validate on, and one real scan to segment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import BorderPad

from hybrid_nets.phantoms.cache import cached_data_set
from hybrid_nets.phantoms.folder import publish_folder
from hybrid_nets.phantoms.msd import About, Case, dataset_json, write_nifti
from hybrid_nets.synthesis.anatomy import DecodeAnatomyd, anatomy_shares
from hybrid_nets.synthesis.atlas import atlas_anatomy, atlas_file, tissue_labels
from hybrid_nets.synthesis.folded import folded_anatomy
from hybrid_nets.synthesis.scan import draw_scan

__all__ = ["brain_tissue_dir", "make_brain_tissue"]

ABOUT = About(
    name="brain_tissue",
    description="Anatomies to draw scans from, drawn scans to validate on, and the MNI152 T1 image to segment.",
    modality=("MRI",),
    labels=("background", "CSF", "grey matter", "white matter"),
    licence="as stated with the ICBM 152 non-linear atlases, version 2009; drawn brains CC0 1.0",
    reference="Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 2011",
    release="3",
)
# Raise with every change of the voxels, so that nobody goes on with an older data set from the cache.
VERSION = 3
MARGIN = 32  # mm around a brain in which a head can be drawn
SIDE = 96  # of the drawn scans
HELD_OUT = 1_000_000  # seeds from here on are never used in training


def make_brain_tissue(output_dir: str | Path, draws: int = 200, num_folded: int = 5, num_validation: int = 8) -> Path:
    """Write the data set to ``output_dir``, unless that already holds one; takes about a minute.

    Training cases are anatomies, the average's in every second place, with folded ones between; validation cases are
    scans of 96³ voxels, drawn from the average and from an anatomy that is in no training case. The test case is
    nilearn's T1 image of the average, which is in no other.

    Args:
        output_dir: the data set's folder; absent or empty.
        draws: training cases in an epoch; they repeat the anatomies, of which each epoch draws other scans.
        num_folded: anatomies drawn by formulas.
        num_validation: scans drawn for validation.

    Raises:
        InputError: nilearn is not installed.
        FileExistsError: ``output_dir`` has other files in it; nothing is changed.
    """
    return publish_folder(output_dir, ABOUT.name, lambda folder: write_files(folder, draws, num_folded, num_validation))


def brain_tissue_dir(cache: str | Path | None = None) -> Path:
    """The folder of the default data set, which is written on first use.

    Args:
        cache: where generated data are kept; without it, :func:`hybrid_nets.phantoms.cache_dir`.
    """
    return cached_data_set(f"{ABOUT.name}-{VERSION}", make_brain_tissue, cache)


def write_files(folder: Path, draws: int, num_folded: int, num_validation: int) -> None:
    t1 = atlas_file("t1")
    for name in ("imagesTr", "labelsTr", "imagesVal", "labelsVal", "imagesTs"):
        (folder / name).mkdir(parents=True)
    average = atlas_anatomy()
    names = [write_anatomy(folder, "mni152", *average)]
    names += [write_anatomy(folder, f"folded_{i}", *folded_anatomy(i)) for i in range(num_folded)]
    folded = names[1:] or names
    # The average in every second place.
    training = [names[0] if i % 2 == 0 else folded[i // 2 % len(folded)] for i in range(draws)]
    content = dataset_json(ABOUT, training, ["mni152_t1.nii.gz"])
    drawn = write_drawn(folder, [average, folded_anatomy(HELD_OUT)], num_validation)
    content["validation"] = [{"image": f"./imagesVal/{file}", "label": f"./labelsVal/{file}"} for file in drawn]
    shutil.copyfile(t1, folder / "imagesTs" / "mni152_t1.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_anatomy(folder: Path, name: str, codes: np.ndarray, affine: np.ndarray) -> str:
    grey, white = anatomy_shares(codes)
    case = Case(codes[None], tissue_labels(grey, white, codes > 0), affine, name)
    return write_case(folder, case, "Tr")


def write_drawn(folder: Path, anatomies: list[tuple[np.ndarray, np.ndarray]], count: int) -> list[str]:
    """Scans from the anatomies in turn, with seeds that training does not use."""
    decoded = [decode_padded(*anatomy) for anatomy in anatomies[:count]]
    names = []
    for index in range(count):
        source = decoded[index % len(decoded)]
        rng = np.random.default_rng(HELD_OUT + index)
        image, label = draw_scan(source.as_tensor(), np.asarray(source.affine), (SIDE,) * 3, rng)
        scaled = 1000 * image / image.max().clamp_min(1e-3)
        case = Case(scaled[None].numpy(), label.numpy().astype(np.uint8), np.eye(4), f"drawn_{index:02d}")
        names.append(write_case(folder, case, "Val"))
    return names


def decode_padded(codes: np.ndarray, affine: np.ndarray) -> MetaTensor:
    """What training makes of an anatomy, with room for a head around it."""
    padded = BorderPad(MARGIN)(MetaTensor(torch.from_numpy(codes)[None], affine=affine))
    return DecodeAnatomyd("image")({"image": padded})["image"]


def write_case(folder: Path, case: Case, part: str) -> str:
    file = f"{case.name}.nii.gz"
    write_nifti(folder / f"images{part}" / file, case.image[0], case, np.int16)
    write_nifti(folder / f"labels{part}" / file, case.label, case, np.uint8)
    return file
