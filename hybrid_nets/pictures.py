"""MONAI transforms for two-dimensional pictures (PNG, JPEG, TIFF, BMP) and their masks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from hybrid_nets.errors import InputError
from hybrid_nets.transforms import source

__all__ = ["MaskToForegroundd", "PictureChannelsd"]

# Brightness of red, green and blue light (ITU-R BT.601).
LUMINANCE = (0.299, 0.587, 0.114)


class PictureChannelsd(MapTransform):
    """Give pictures the channels that a network takes: grey is repeated, colours become grey, opacity is dropped.

    Args:
        keys: pictures ``(c, *)`` with c = 1 (grey), 2 (grey and opacity), 3 (RGB) or 4 (RGB and opacity), 0 to 255.
        channels: 3, or 1.

    Raises:
        InputError: no picture, another number of channels, or values beyond 255; names the file.

    Example::

        >>> PictureChannelsd("image", channels=3)({"image": torch.ones(1, 4, 5)})["image"].shape
        torch.Size([3, 4, 5])
    """

    def __init__(self, keys: KeysCollection, channels: int = 3, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if channels not in (1, 3):
            raise InputError(f"pictures can be given as 1 or 3 channels, got in_channels {channels}.")
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            picture = d[key]
            if picture.ndim != 3:
                raise InputError(
                    f"{source(picture)} has {picture.ndim - 1} axes, a picture 2; for volumes leave out images.json."
                )
            if picture.shape[0] not in (1, 2, 3, 4):
                raise InputError(f"{source(picture)} has {picture.shape[0]} channels; save it as grey or RGB picture.")
            if picture.max() > 255:
                raise InputError(
                    f"{source(picture)} has values up to {picture.max():g}; save it with 8 bits (0 to 255)."
                )
            colours = picture[: 1 if picture.shape[0] < 3 else 3]
            if colours.shape[0] < self.channels:
                colours = colours.repeat(self.channels, *[1] * (colours.ndim - 1))
            elif colours.shape[0] > self.channels:
                weights = torch.tensor(LUMINANCE, dtype=colours.dtype).reshape(3, *[1] * (colours.ndim - 1))
                colours = (colours * weights).sum(0, keepdim=True)
            d[key] = colours
        return d


class MaskToForegroundd(MapTransform):
    """Masks of one structure as 0 and 1, however their files say it.

    Values above 0 are foreground: 1, or the numbers of single glands as in GlaS. In files with values above 127, which
    write it as 255, only those are, so that the noise of JPEG does not count. Several channels are united: colours, or
    one file per lesion, as BUSI has.

    Args:
        keys: masks ``(c, *)``, not negative.

    Returns:
        The same with ``(1, *)``, 0 or 1.

    Example::

        >>> MaskToForegroundd("label")({"label": torch.tensor([[[0.0, 3, 254]]])})["label"]
        tensor([[[0., 0., 1.]]])
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            mask = d[key].amax(0, keepdim=True)
            d[key] = (mask > (127 if mask.max() > 127 else 0)).to(mask.dtype)
        return d
