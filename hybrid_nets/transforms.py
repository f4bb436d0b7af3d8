"""MONAI transforms that bring what users have to what a network takes, and refuse what can't be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.transforms import Spacingd as MonaiSpacingd

from hybrid_nets.errors import InputError

__all__ = ["CheckImaged", "Spacingd", "StandardizeChannelsd", "StandardizeLabelsd"]


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
        InputError: another number of channels, or voxels that are NaN or infinite; names the file.
    """

    def __init__(self, keys: KeysCollection, channels: int | Sequence[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names = [] if isinstance(channels, int) else list(channels)
        self.count = channels if isinstance(channels, int) else len(self.names)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
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


class Spacingd(MonaiSpacingd):
    """MONAI's ``Spacingd``, which from 1.6 fails on cases that hold text under a key such as ``image_path``.

    It takes every entry whose key starts with ``image_`` for a dictionary of the image's header. MONAI Label puts the
    path of the file there. Here entries other than ``keys`` pass untouched.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        return {**data, **super().__call__({key: data[key] for key in self.keys if key in data}, lazy)}


def source(image: torch.Tensor) -> str:
    """The file that ``image`` was read from, for messages."""
    return str(getattr(image, "meta", {}).get("filename_or_obj", "the image"))
