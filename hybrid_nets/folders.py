"""Cases in a folder without a data list: which file is an image, which its segmentation, which belong together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hybrid_nets.conventions import BRATS_VALUES, SYNONYMS, canonical_name, label_mapping
from hybrid_nets.errors import InputError

__all__ = ["PICTURES", "VOLUMES", "scan_folders"]

VOLUMES = (".nii.gz", ".nii")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
# What data sets call their folders, letters only: whether they hold segmentations, and of which part of the data set.
# From MSD and nnU-Net, BTCV, BUSI, Kvasir-SEG, GlaS and MoNuSeg as often repackaged, CVC-ClinicDB.
FOLDERS = {
    **dict.fromkeys(("image", "images", "img", "imgs", "original"), (False, "")),
    **dict.fromkeys(("label", "labels", "labelcol", "mask", "masks", "groundtruth"), (True, "")),
    **{f"images{part}": (False, part) for part in ("tr", "ts", "va")},
    **{f"labels{part}": (True, part) for part in ("tr", "ts", "va")},
}
# Ends of a segmentation's name where it lies beside its image: BUSI's "benign (4)_mask_1", GlaS's "train_1_anno".
LABEL_ENDING = re.compile(r"_(mask(_\d+)?|anno|seg|segmentation|label)$")


def scan_folders(
    root: Path, channels: Sequence[str] | None, names: dict[int, str] | None, numbered_channels: bool = False
) -> tuple[list[dict], list[dict]]:
    """Cases with and without a segmentation: volumes, and pictures (PNG, JPEG, TIFF, BMP) where there are no volumes.

    Several channels are a folder of one file per channel, as BraTS ships them, or a 4-D file. A segmentation has its
    image's name, give or take ``LABEL_ENDING``, and lies beside it or in a folder whose name is in ``FOLDERS``.

    Args:
        root: where to search, to any depth.
        channels: names of the channels that the network takes; None for one.
        names: label value → name, as the bundle writes them; None leaves label values alone.
        numbered_channels: file names end in ``_0000``, ``_0001``, … for the channel, as nnU-Net has it.

    Raises:
        InputError: no images there, or a segmentation without image.
    """
    files = find_files(root, VOLUMES) or find_files(root, PICTURES)
    if not files:
        raise InputError(
            f"no NIfTI files or pictures (PNG, JPEG, TIFF, BMP) in {root}, and no dataset.json that lists cases; give "
            "the folder of a data set, of images with their masks, or of images to segment."
        )
    several = {canonical_name(name) for name in channels or ()} if len(channels or ()) > 1 else set()
    cases, single = [], []
    for folder in sorted({file.parent for file in files}):
        listed = [file for file in files if file.parent == folder]
        if several and several.intersection(suffix_name(file)[1] for file in listed):
            cases.append(read_folder(folder, listed, channels, names))
        else:
            single += listed
    cases += pair_files(root, single, numbered_channels)
    return [case for case in cases if "label" in case], [case for case in cases if "label" not in case]


def find_files(root: Path, endings: Sequence[str]) -> list[Path]:
    """Files below ``root`` with one of the endings, in any case; hidden ones are somebody's half-written files."""
    return sorted(
        file for file in root.rglob("*") if file.name.lower().endswith(tuple(endings)) and not file.name.startswith(".")
    )


def stem_of(file: Path) -> str:
    """The file's name without the ending of its format."""
    return re.sub(r"(\.nii)?\.\w+$", "", file.name)


def pair_files(root: Path, files: list[Path], numbered_channels: bool) -> list[dict]:
    """Images with their segmentations; several of one image, as BUSI has, are a list."""
    images, labels = defaultdict(list), defaultdict(list)
    for file in files:
        is_label, key = describe(file.relative_to(root), numbered_channels)
        (labels if is_label else images)[key].append(str(file))
    for key, found in labels.items():
        if key not in images:
            raise InputError(f"{found[0]} is a segmentation without image; add the image under that name or remove it.")
        if len(images[key]) > 1 and not numbered_channels:
            raise InputError(f"{found[0]} could belong to any of {images[key]}; give each image a name of its own.")
    cases = []
    for key, found in images.items():
        known = {"label": labels[key] if len(labels[key]) > 1 else labels[key][0]} if key in labels else {}
        together = [found] if numbered_channels and len(found) > 1 else found
        cases += [{"image": image, **known} for image in together]
    return cases


def describe(file: Path, numbered_channels: bool) -> tuple[bool, tuple]:
    """Whether a file, by its path in the data set, is a segmentation, and what it shares with the files of its case."""
    parents = file.parent.parts
    kinds = [re.sub(r"[^a-z]", "", part.lower()) for part in parents]
    cut = next((i for i, kind in enumerate(kinds) if kind in FOLDERS), len(parents))
    in_label_folder, part = FOLDERS[kinds[cut]] if cut < len(parents) else (False, "")
    below = tuple(name for name in parents[cut + 1 :] if not name.isdigit())  # some have masks/0, masks/1, by class
    stem = stem_of(file).lower()
    is_label = in_label_folder or bool(LABEL_ENDING.search(stem))
    name = LABEL_ENDING.sub("", stem)
    if numbered_channels and not is_label:
        name = re.sub(r"_\d{4}$", "", name)
    name = re.sub(r"^(img|image|label|mask|seg)[-_]?(?=\d)", "", name)  # BTCV: img0001 and label0001
    return is_label, (parents[:cut], part, below, name)


def suffix_name(file: Path) -> tuple[str, str]:
    """Separator and meaning of the end of a file's name: ``_`` and ``T1ce`` for ``BraTS2021_00000_t1ce.nii.gz``."""
    stem = stem_of(file)
    cut = max(stem.rfind("_"), stem.rfind("-"))
    return (stem[cut], canonical_name(stem[cut + 1 :])) if cut > 0 else ("", "")


def read_folder(folder: Path, listed: list[Path], channels: Sequence[str], names: dict[int, str] | None) -> dict:
    """One case: files whose names end in a channel's or the segmentation's name, after ``_`` or ``-``."""
    named = {suffix_name(file)[1]: file for file in listed}
    for channel in channels:
        if canonical_name(channel) not in named:
            endings = ", ".join(SYNONYMS.get(canonical_name(channel), (channel,)))
            found = [file.name for file in listed]
            raise InputError(
                f"{folder}: no {channel} image, that is no file name ending in one of {endings}; found {found}."
            )
    case: dict = {"image": [str(named[canonical_name(channel)]) for channel in channels]}
    if "segmentation" in named:
        case["label"] = str(named["segmentation"])
        # The two generations of BraTS differ in their file names and in the value of enhancing tumour.
        stated = BRATS_VALUES[suffix_name(named["segmentation"])[0]]
        case |= {"label_values": label_mapping(stated, names)} if names else {}
    return case
