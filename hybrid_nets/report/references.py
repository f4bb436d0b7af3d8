"""Which file is the reference of which case, and what its label values mean."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hybrid_nets.conventions import canonical_name
from hybrid_nets.datalist import read_meaning
from hybrid_nets.errors import InputError
from hybrid_nets.folders import LABEL_ENDING, PICTURES, VOLUMES, find_files, stem_of, suffix_name
from hybrid_nets.report.results import Result
from hybrid_nets.report.volumes import Grid, read_labels

__all__ = ["References"]


class References:
    """Label maps in a folder, found by the names of the cases.

    A reference has its image's name, give or take an ending such as ``_seg``, a channel's name, or nnU-Net's
    ``_0000``. Values mean what ``dataset.json`` in the folder or the one above says, else what the bundle says.

    Args:
        folder: where to search, to any depth.

    Raises:
        InputError: no label maps there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = find_files(folder, (*VOLUMES, *PICTURES)) if folder.is_dir() else []
        if not files:
            raise InputError(
                f"there are no label maps (NIfTI or pictures) in {folder}; give their folder with --labels."
            )
        self.files: dict[str, list[Path]] = {}
        for file in files:
            self.files.setdefault(key_of(file), []).append(file)
        listing = next((f for f in (folder / "dataset.json", folder.parent / "dataset.json") if f.is_file()), None)
        self.stated = json.loads(listing.read_text(encoding="utf-8")) if listing else {}

    def find(self, result: Result) -> Path | None:
        """The file of ``result``, None if there is none.

        Raises:
            InputError: several have its name.
        """
        found = self.files.get(key_of(Path(result.name)), [])
        if len(found) > 1:  # one name in several folders
            found = [file for file in found if same_place(file.relative_to(self.folder), Path(result.name))]
            if len(found) != 1:
                raise InputError(
                    f"several references are called {Path(result.name).name}; give them the case's folders."
                )
        return found[0] if found else None

    def read(self, result: Result, labels: Grid) -> Grid | None:
        """The reference of ``result`` in the values of its label map, None if there is none.

        Raises:
            InputError: it can't be read, or lies on another grid than ``labels``.
        """
        file = self.find(result)
        if file is None:
            return None
        found = read_labels(file)
        if not found.lies_on(labels):
            raise InputError(f"its reference {file.name} lies on another grid; resample it to the image's.")
        if result.picture:
            mask = found.voxels > found.voxels.max() / 2 if found.voxels.max() else found.voxels != 0
            return Grid(np.where(mask, max(result.structures), 0), found.spacing, found.affine)
        mapping = self.mapping(result.structures)
        values = np.unique(found.voxels).tolist()
        unknown = ", ".join(f"{value:g}" for value in values if value not in mapping)
        if unknown:
            raise InputError(f"its reference {file.name} has label values [{unknown}] that are not declared.")
        recoded = np.zeros(found.voxels.shape, np.int16)
        for value in values:
            recoded[found.voxels == value] = mapping[value]
        return Grid(recoded, found.spacing, found.affine)

    def mapping(self, structures: Mapping[int, str]) -> dict[int, int]:
        """Value in the reference → value in the label map."""
        names = {0: "background", **structures}
        same = {value: value for value in names}
        return read_meaning(self.stated, None, names, 0).get("label_values", same)


def same_place(file: Path, case: Path) -> bool:
    return (
        file.parent.parts[-len(case.parent.parts) :] == case.parent.parts
        if case.parent.parts
        else file.parent == Path()
    )


def key_of(file: Path) -> str:
    """What a case and its reference share in their names.

    Example::

        >>> key_of(Path("labelsTr/case_1_seg.nii.gz")), key_of(Path("a/case_1_0000"))
        ('case_1', 'case_1')
    """
    name = stem_of(file) if file.name.lower().endswith((*VOLUMES, *PICTURES)) else file.name
    separator, meaning = suffix_name(Path(f"{name}.nii"))
    if separator and canonical_name(meaning) == meaning and meaning in ("FLAIR", "T1ce", "T1", "T2"):
        name = name[: name.rfind(separator)]
    name = LABEL_ENDING.sub("", name.lower())
    name = re.sub(r"-seg$", "", name)
    name = re.sub(r"_\d{4}$", "", name)
    return re.sub(r"^(img|image|label|mask|seg)[-_]?(?=\d)", "", name)
