"""Find a data set's cases: by a list, as MSD has it, or by its folders; split them, and check them by their headers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import nibabel as nib
from monai.data import partition_dataset

from hybrid_nets.conventions import channel_order, label_mapping
from hybrid_nets.errors import InputError
from hybrid_nets.folders import PICTURES, VOLUMES, scan_folders

__all__ = ["Cases", "LazyCases", "find_cases"]


@dataclass
class Cases:
    """MONAI data lists: dicts with ``image`` (a path, or one per channel), ``label`` (the same) and what they mean.

    ``channel_order`` says which of the file's channels to take, in order, and ``label_values`` maps label values to the
    bundle's; :class:`hybrid_nets.StandardizeChannelsd` and :class:`hybrid_nets.StandardizeLabelsd` read them.
    """

    training: list[dict] = field(default_factory=list)
    validation: list[dict] = field(default_factory=list)
    test: list[dict] = field(default_factory=list)

    @property
    def to_segment(self) -> list[dict]:
        """Cases without a reference; all images where every case has one."""
        return self.test or [
            {k: v for k, v in case.items() if k != "label"} for case in self.training + self.validation
        ]


def find_cases(
    dataset_dir: str | Path | None,
    datalist: str | Path | None = None,
    channels: Sequence[str] | None = None,
    labels: Mapping | None = None,
    fold: int = 0,
    num_folds: int = 5,
    seed: int = 0,
    split: bool = True,
    other_labels: int | None = None,
) -> Cases:
    """List the cases of a data set, split into training, validation and test, each checked by its header.

    Args:
        dataset_dir: folder of the data set. Relative paths in ``datalist`` start here.
        datalist: JSON with ``training`` and ``test`` lists as in MSD's ``dataset.json``; training entries may carry a
            ``fold``, or there may be a ``validation`` list. Default: ``dataset.json`` in ``dataset_dir`` if it exists,
            else, or if it lists no cases (as nnU-Net's), the folder is searched: see ``hybrid_nets.folders``.
        channels: names of the channels the network takes, in order; None where images have one channel.
        labels: label value → name, as the bundle writes them; label names that the data set states are matched to them.
            None leaves label values alone.
        fold: which of the folds validates; the others train.
        num_folds: number of folds to draw where the list has none.
        seed: of that draw.
        split: set validation cases apart; without, all cases with a reference stay in ``training``.
        other_labels: value of labels that the data set names and the bundle doesn't know; None refuses them.

    Raises:
        InputError: no data set there, no cases in it, a missing file or channel, images that aren't of one grid.
    """
    if dataset_dir is None:
        raise InputError("no data set; give its folder with --dataset_dir.")
    root = Path(dataset_dir).expanduser()
    if not root.is_dir():
        raise InputError(f"dataset_dir {str(root)!r} is not a folder; give the folder of the data set.")
    path = root / "dataset.json" if datalist is None else Path(datalist).expanduser()
    if datalist is not None and not path.is_file():
        raise InputError(f"datalist {str(path)!r} is not a file; give a JSON file in MSD's dataset.json layout.")
    names = {int(value): name for value, name in labels.items()} if labels else None
    content = read_json(path) if path.is_file() else {}
    meaning = read_meaning(content, channels, names, other_labels)
    training, validation, test = (
        [{**case, **meaning} for case in read_section(content, section, root)]
        for section in ("training", "validation", "test")
    )
    if not training and not test:
        if datalist is not None:
            raise InputError(
                f'{path} lists no cases; it needs a "training" or a "test" list of {{"image": …}} entries.'
            )
        numbered = "file_ending" in content  # only nnU-Net's has it
        training, test = (
            [{**case, **meaning} for case in found] for found in scan_folders(root, channels, names, numbered)
        )
    if split and training and not validation:
        training, validation = draw_fold(training, fold, num_folds, seed)
    cases = Cases(training, validation, test)
    check_cases(cases, channels)
    return cases


class LazyCases:
    """What :func:`find_cases` finds with the same arguments, looked for when the first list is asked for.

    Programs that bring data of their own, as MONAI Label does, evaluate the whole config but use none of these.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.found = cache(partial(find_cases, *args, **kwargs))

    def __getattr__(self, name: str) -> list[dict]:
        if name not in ("training", "validation", "test", "to_segment"):
            raise AttributeError(name)
        return getattr(self.found(), name)


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); mend it or give another datalist.") from error
    if not isinstance(content, dict):
        raise InputError(f'{path} must be an object with a "training" or a "test" list, as MSD\'s dataset.json.')
    return content


def read_meaning(
    content: dict, channels: Sequence[str] | None, names: dict[int, str] | None, other_labels: int | None
) -> dict:
    """What a data list says of channels and labels, in terms of the bundle's; every case gets it."""
    meaning: dict = {}
    modality = content.get("modality", content.get("channel_names"))
    if channels and modality:
        meaning["channel_order"] = channel_order([modality[key] for key in sorted(modality, key=int)], channels)
    if names and content.get("labels"):
        stated = content["labels"].items()
        if any(isinstance(value, int) for _, value in stated):  # nnU-Net maps names to values, MSD values to names
            stated = [(value, name) for name, value in stated]
        meaning["label_values"] = label_mapping({int(value): name for value, name in stated}, names, other_labels)
    return meaning


def read_section(content: dict, section: str, root: Path) -> list[dict]:
    """The cases that a data list has under ``section``, with paths that start at ``root``."""

    def resolve(file: str | Sequence[str]) -> str | list[str]:
        return str(root / file) if isinstance(file, str) else [str(root / part) for part in file]

    listed = [{"image": item} if isinstance(item, str) else dict(item) for item in content.get(section, [])]
    paths = [{key: resolve(item[key]) for key in ("image", "label") if key in item} for item in listed]
    return [{**item, **found} for item, found in zip(listed, paths)]


def draw_fold(training: list[dict], fold: int, num_folds: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Training and validation cases, by the list's own folds where it has any."""
    if any("fold" in case for case in training):
        folds = {case.get("fold") for case in training}
        if fold not in folds:
            raise InputError(
                f"fold {fold} is not in the data list; it has {sorted(f for f in folds if f is not None)}."
            )
        return [c for c in training if c.get("fold") != fold], [c for c in training if c.get("fold") == fold]
    parts = min(num_folds, len(training))
    if parts < 2:
        raise InputError(f"training needs 2 cases at least, one to train and one to validate, got {len(training)}.")
    if not 0 <= fold < parts:
        raise InputError(f"fold {fold} is out of range; {len(training)} cases make folds 0 to {parts - 1}.")
    folds = partition_dataset(training, num_partitions=parts, shuffle=True, seed=seed)
    return [case for i, part in enumerate(folds) if i != fold for case in part], folds[fold]


def check_cases(cases: Cases, channels: Sequence[str] | None) -> None:
    """Read every file's header, which is quick, so that a bad file shows now and not in the tenth epoch."""
    for case in [*cases.training, *cases.validation, *cases.test]:
        files, labels = (as_list(case.get(key, [])) for key in ("image", "label"))
        grids = [read_grid(file) for file in files]
        if None in grids:
            continue
        shape, count = grids[0]
        if any(grid[0] != shape for grid in grids):
            found = {file: grid[0] for file, grid in zip(files, grids)}
            raise InputError(f"the images of one case differ in shape: {found}; resample them to one grid.")
        count = len(files) if len(files) > 1 else count
        needed = max(case["channel_order"]) + 1 if "channel_order" in case else len(channels or [0])
        if count not in (None, needed):
            wanted = f"{needed} ({', '.join(channels)}, in this order)" if channels else "1"
            raise InputError(f"{files[0]} has {count} channel{'s' * (count != 1)}, the network takes {wanted}.")
        for label in labels:
            grid = read_grid(label)
            if grid is not None and grid[0] != shape:
                raise InputError(f"{label} has shape {grid[0]}, its image {shape}; resample one to the other's grid.")


def as_list(files: str | list[str]) -> list[str]:
    return [files] if isinstance(files, str) else list(files)


def read_grid(file: str) -> tuple[tuple[int, ...], int | None] | None:
    """Spatial shape and number of channels of a NIfTI file; of a picture, whose channels can be adapted, the shape.

    None for other formats, which MONAI reads later.
    """
    if not Path(file).exists():
        raise InputError(f"{file} does not exist; correct the data list or dataset_dir.")
    kind = next((kind for kind in (VOLUMES, PICTURES) if file.lower().endswith(kind)), None)
    try:
        if kind is VOLUMES:
            shape = nib.load(file).shape
            return shape[:3], shape[3] if len(shape) > 3 else 1
        return (picture_shape(file), None) if kind is PICTURES else None
    except Exception as error:
        name = "NIfTI" if kind is VOLUMES else "a picture"
        raise InputError(f"{file} can't be read as {name} ({error}); mend or remove it.") from error


def picture_shape(file: str) -> tuple[int, ...]:
    """Width and height, and more for a stack, from the header."""
    import itk  # takes seconds, which data sets of volumes need not wait for

    reader = itk.ImageIOFactory.CreateImageIO(file, itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        raise ValueError("not the format that its name says")
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return tuple(reader.GetDimensions(axis) for axis in range(reader.GetNumberOfDimensions()))
