"""MONAI transforms that bring what users have to what a network takes, and refuse what can't be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.utils import to_affine_nd
from monai.transforms import MapTransform

from hybrid_nets.errors import InputError

__all__ = ["CheckImaged", "StandardizeChannelsd", "StandardizeLabelsd"]


class StandardizeChannelsd(MapTransform):
    """Take the channels that the case's ``channel_order`` names, in that order; without one, take all as they are.

    Args:
        keys: images, channel first ``(c, *)``.

    Example::

        >>> case = {"image": torch.arange(3.0).reshape(3, 1, 1, 1), "channel_order": [2, 0]}
        >>> StandardizeChannelsd("image")(case)["image"].flatten()
        tensor([2., 0.])
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        order = d.pop("channel_order", None)
        for key in self.key_iterator(d):
            d[key] = d[key] if order is None else d[key][list(order)]
        return d


class CheckImaged(MapTransform):
    """Refuse images that would give a wrong result without a word.

    Args:
        keys: images, channel first ``(c, *)``.
        channels: how many channels each must have, or their names in order.

    Raises:
        InputError: another number of channels, voxels that are NaN or infinite, or a NIfTI header whose pixdim and
            sform disagree; names the file.
    """

    def __init__(self, keys: KeysCollection, channels: int | Sequence[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names = [] if isinstance(channels, int) else list(channels)
        self.count = channels if isinstance(channels, int) else len(self.names)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            check_place(image)
            if image.shape[0] != self.count:
                wanted = f"{self.count} ({', '.join(self.names)}, in this order)" if self.names else f"{self.count}"
                raise InputError(f"{source(image)} has {image.shape[0]} channel(s), the network takes {wanted}.")
            bad = int((~torch.isfinite(image)).sum())
            if bad:
                raise InputError(
                    f"{source(image)} has {bad} voxels that are NaN or infinite; replace them, for example by 0 where "
                    "they are background, and export the image again."
                )
        return d


class StandardizeLabelsd(MapTransform):
    """Map label values to the bundle's, refusing values that nobody declared.

    The mapping is the case's ``label_values`` where its data set states one, else ``labels`` to themselves.

    Args:
        keys: label maps ``(1, *)``.
        labels: the bundle's label value → name, as in ``metadata.json``.

    Raises:
        InputError: a value that neither data set nor bundle declares; names the file, the values and the known ones.

    Example::

        >>> case = {"label": torch.tensor([[[[0, 1, 4]]]]), "label_values": {0: 0, 1: 1, 4: 3}}
        >>> StandardizeLabelsd("label", {0: "background", 1: "core", 3: "enhancing tumour"})(case)["label"].flatten()
        tensor([0, 1, 3])
    """

    def __init__(self, keys: KeysCollection, labels: Mapping, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names = {int(value): name for value, name in labels.items()}

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        mapping = d.pop("label_values", None) or {value: value for value in self.names}
        for key in self.key_iterator(d):
            label = d[key]
            values = torch.unique(label.as_subclass(torch.Tensor)).tolist()
            unknown = [f"{v:g}" for v in values if v not in mapping]
            if unknown:
                known = ", ".join(f"{v} ({self.names.get(new, new)})" for v, new in mapping.items())
                raise InputError(
                    f"{source(label)} has label values {', '.join(unknown)} that are not declared; known are {known}. "
                    "Correct the file, or declare the values by name in dataset.json."
                )
            d[key] = recode(label, {old: new for old, new in mapping.items() if old in values})
        return d


def recode(label: torch.Tensor, mapping: Mapping[int, int]) -> torch.Tensor:
    """``label`` with its values replaced."""
    if all(old == new for old, new in mapping.items()):
        return label
    out = torch.zeros_like(label)
    for old, new in mapping.items():
        out[label == old] = new
    return out


def check_place(image: torch.Tensor) -> None:
    """Refuse a NIfTI image that MONAI's reader has moved.

    Where pixdim disagrees with the sform, MONAI replaces the sform by the qform without a word, also by one that was
    never set. Other programs go by the sform.
    """
    file, taken = source(image), getattr(image, "meta", {}).get("original_affine")
    if taken is None or not file.lower().endswith((".nii", ".nii.gz")) or not Path(file).is_file():
        return
    header = nib.load(file).header
    stated = header.get_best_affine()
    corners = np.array(list(product(*((0, side) for side in (*image.shape[1:], 1)[:3]), (1,))))
    sides = nib.affines.voxel_sizes(stated)
    if np.abs(corners @ (stated - to_affine_nd(3, taken)).T).max() > 0.1 * sides.min():
        by_pixdim, by_form = (" x ".join(f"{side:.4g}" for side in sizes) for sizes in (header.get_zooms()[:3], sides))
        raise InputError(
            f"{file} contradicts itself: its voxels' sides in mm are {by_pixdim} by its pixdim, and {by_form} by its "
            "sform; correct the wrong one."
        )


def source(image: torch.Tensor) -> str:
    """The file that ``image`` was read from, for messages."""
    return str(getattr(image, "meta", {}).get("filename_or_obj", "the image"))
