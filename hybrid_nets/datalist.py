"""Find a data set's cases: by a list, as MSD has it, or by its folders; split them, and check them by their headers."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from monai.data import partition_dataset

from hybrid_nets.errors import InputError
from hybrid_nets.folders import scan_folders
from hybrid_nets.grids import as_list, check_grids
from hybrid_nets.listing import read_json, read_meaning, read_section

__all__ = ["Cases", "LazyCases", "find_cases"]

logger = logging.getLogger(__name__)

REPEATED = "validation_repeats_training"


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
        InputError: no data set there, no cases in it, a missing file or channel, files of a case that aren't of one
            grid; with ``split`` also a case without a reference, and one in training and in validation.
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
    if split:
        check_split(cases, content.get(REPEATED) is True)
    for case in [*training, *validation, *test]:
        check_grids(case, channels, with_label=split)
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


def check_split(cases: Cases, may_repeat: bool) -> None:
    """Refuse a case without a reference, and one that is trained on and validated with unless the list says so."""
    for case in [*cases.training, *cases.validation]:
        if "label" not in case:
            raise InputError(
                f"{as_list(case['image'])[0]} has no label map in the data list; add it, or list it as test."
            )
    trained = {os.path.realpath(file) for case in cases.training for file in as_list(case["image"])}
    files = [file for case in cases.validation for file in as_list(case["image"])]
    repeated = next((file for file in files if os.path.realpath(file) in trained), None)
    if repeated and not may_repeat:
        raise InputError(
            f"{repeated} is in training and in validation, which flatters the result; list it once, or say that it is "
            f'meant so by "{REPEATED}": true in the data list.'
        )
    if repeated:
        logger.warning("Validation has cases of the training: its scores say nothing of other cases.")
