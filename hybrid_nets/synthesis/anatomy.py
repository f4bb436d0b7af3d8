"""Anatomies: label maps of 1 mm whose values say part of the brain and mixture of tissues; and how they are read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

from hybrid_nets.errors import InputError

__all__ = ["CHANNELS", "REGIONS", "DecodeAnatomyd", "anatomy_shares", "decode_channel", "encode_anatomy"]

REGIONS = ("cerebrum", "deep grey", "ventricles", "cerebellum", "brain stem")
# Shares are stored in steps of a seventh, which makes 36 mixtures and 180 values in all.
STEPS = 7
MIXTURES = [(grey, white) for grey in range(STEPS + 1) for white in range(STEPS + 1 - grey)]
# What DecodeAnatomyd gives, as bytes: value = (byte - zero) / scale. Distances are in mm, negative inside.
CHANNELS = {
    "grey": (0, 255.0),
    "white": (0, 255.0),
    "brain": (64, 2.0),
    "ventricles": (64, 4.0),
    "deep grey": (0, 255.0),
    "cerebellum": (0, 255.0),
    "brain stem": (0, 255.0),
}


class DecodeAnatomyd(MapTransform):
    """From anatomies ``(1, *)`` to bytes ``(7, *)`` of what :data:`CHANNELS` names, which can be interpolated.

    Shares of grey and white matter, distance to the brain's surface and to the ventricles', and three regions. It takes
    some seconds, mostly for the distances: cache it.

    Args:
        keys: anatomies as :func:`encode_anatomy` makes them, in voxels of 1 mm along x, y and z to the right, front and
            top.

    Raises:
        InputError: a value that is no anatomy's, or voxels of another size.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            codes = check_codes(d[key])
            channels = decode(codes[0])
            packed = [pack(channels[name], name) for name in CHANNELS]
            d[key] = MetaTensor(torch.from_numpy(np.stack(packed)), affine=d[key].affine)
        return d


def encode_anatomy(grey: np.ndarray, white: np.ndarray, region: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The anatomy, uint8, with 0 outside the brain.

    Args:
        grey, white: shares of the two tissues, 0 to 1; the rest is CSF.
        region: index in :data:`REGIONS`.
        brain: bool, what is inside.

    Example::

        >>> shares = np.array([0.0, 1.0, 0.5])
        >>> encode_anatomy(shares, 1 - shares, np.array([0, 0, 1]), shares > 0)
        array([ 0, 36, 66], dtype=uint8)
    """
    index = np.zeros((STEPS + 1, STEPS + 1), np.uint8)
    for value, mixture in enumerate(MIXTURES):
        index[mixture] = value
    steps_of_grey = np.rint(np.clip(grey, 0, 1) * STEPS).astype(int)
    steps_of_white = np.minimum(np.rint(np.clip(white, 0, 1) * STEPS).astype(int), STEPS - steps_of_grey)
    code = 1 + region.astype(int) * len(MIXTURES) + index[steps_of_grey, steps_of_white]
    return np.where(brain, code, 0).astype(np.uint8)


def anatomy_shares(codes: np.ndarray) -> np.ndarray:
    """Shares of grey and white matter ``(2, *)`` in an anatomy; the rest is CSF, or outside."""
    table = np.array([(0, 0), *MIXTURES * len(REGIONS)], np.float32) / STEPS
    return np.moveaxis(table[codes], -1, 0)


def decode_channel(channels: torch.Tensor, name: str) -> torch.Tensor:
    """Channel ``name`` of what :class:`DecodeAnatomyd` gave, after interpolation, in its own unit."""
    zero, scale = CHANNELS[name]
    return (channels[list(CHANNELS).index(name)] - zero) / scale


def check_codes(codes: torch.Tensor) -> np.ndarray:
    array = np.asarray(codes)
    values = np.unique(array)
    if values[0] < 0 or values[-1] > len(REGIONS) * len(MIXTURES) or (values % 1).any():
        raise InputError(
            "the training image is not an anatomy, as this bundle trains on: its values are not 0 to "
            f"{len(REGIONS) * len(MIXTURES)}. Make a data set with hybrid_nets.make_brain_tissue, give its folder as "
            "dataset_dir, and leave spacing at [1, 1, 1]."
        )
    affine = np.asarray(getattr(codes, "affine", np.eye(4)))
    if not np.allclose(affine[:3, :3], np.eye(3), atol=1e-3):
        raise InputError("anatomies have voxels of 1 mm along the axes; train with spacing [1, 1, 1].")
    return array.astype(np.uint8)


def decode(codes: np.ndarray) -> dict[str, np.ndarray]:
    """Each channel in its own unit, for one anatomy of three axes."""
    grey, white = anatomy_shares(codes)
    region = np.array([0, *np.repeat(np.arange(len(REGIONS)), len(MIXTURES))], np.uint8)[codes]
    brain = codes > 0
    return {
        "grey": grey,
        "white": white,
        "brain": signed_distance(brain),
        "ventricles": signed_distance(brain & (region == REGIONS.index("ventricles"))),
        **{name: brain & (region == REGIONS.index(name)) for name in ("deep grey", "cerebellum", "brain stem")},
    }


def pack(values: np.ndarray, name: str) -> np.ndarray:
    zero, scale = CHANNELS[name]
    return np.clip(np.rint(values * scale + zero), 0, 255).astype(np.uint8)


def signed_distance(inside: np.ndarray) -> np.ndarray:
    """Distance in voxels to the surface of ``inside``, negative inside; far everywhere if nothing is inside."""
    if not inside.any():
        return np.full(inside.shape, 1e3, np.float32)
    outwards = ndimage.distance_transform_edt(~inside).astype(np.float32)
    return np.where(inside, 0.5 - ndimage.distance_transform_edt(inside).astype(np.float32), outwards - 0.5)
