"""One scan of a random brain and its tissue labels, drawn from an anatomy."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple_rep

from hybrid_nets.synthesis.anatomy import decode_channel
from hybrid_nets.synthesis.artefacts import add_noise, spoil
from hybrid_nets.synthesis.contrast import Contrast, draw_contrast
from hybrid_nets.synthesis.outside import draw_gap, draw_head, draw_strip
from hybrid_nets.synthesis.warp import draw_pose, sample, smooth_field

__all__ = ["RandBrainScand", "draw_scan"]

HEADS = 0.6  # of all draws; the others are stripped
ELSEWHERE = 0.12  # of the draws are centred outside the brain
AIR = 0.03  # of all draws have nothing in them, as windows at a scan's border do


class RandBrainScand(Randomizable, MapTransform):
    """Replace an anatomy and its label by a random scan and the labels of its tissues.

    The seed given to ``set_random_state`` decides everything.

    Args:
        keys: the anatomy, from :class:`DecodeAnatomyd`, and the label to be replaced. Out come a scan and labels
            ``(1, *spatial_size)``, float32: 0 background, 1 CSF, 2 grey matter, 3 white matter.
        spatial_size: voxels of 1 mm in each direction.
    """

    def __init__(
        self, keys: KeysCollection, spatial_size: Sequence[int] | int, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.spatial_size = ensure_tuple_rep(spatial_size, 3)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        source, target = self.keys
        rng = np.random.default_rng(self.R.randint(2**31))
        affine = np.asarray(d[source].affine)
        image, label = draw_scan(d[source].as_tensor(), affine, self.spatial_size, rng)
        for key, value in ((source, image), (target, label)):
            d[key] = MetaTensor(value[None], affine=torch.eye(4))
        return d


def draw_scan(
    anatomy: torch.Tensor,
    affine: np.ndarray,
    size: tuple[int, ...],
    rng: np.random.Generator,
    centre: Sequence[float] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random scan and its labels, float32 of ``size`` voxels of 1 mm; 64³ takes about 0.3 s on one core.

    Args:
        anatomy: bytes ``(7, *)`` from :class:`DecodeAnatomyd`.
        affine: of its voxels, to MNI space.
        size: voxels in each direction.
        rng: decides everything.
        centre: of the scan in MNI space in mm; None draws it.
    """
    if centre is None and rng.random() < AIR:
        return draw_air(size, rng), torch.zeros(size)
    middle = draw_centre(anatomy, affine, rng) if centre is None else np.asarray(centre, float)
    pose = draw_pose(middle, size, rng)
    pose.widen_ventricles(anatomy, affine, rng)
    channels = sample(anatomy, affine, pose.mm)
    brain = decode_channel(channels, "brain")
    gap = draw_gap(size, rng)
    shares = draw_shares(channels, brain, rng)
    label = torch.where(brain < gap, 1.0 + shares.argmax(0), 0.0)
    contrast = draw_contrast(rng)
    image = paint_brain(shares, channels, contrast, rng)
    inside = (0.5 + gap - brain).clamp(0, 1)
    stripped = rng.random() > HEADS
    if not stripped:
        image = inside * image + (1 - inside) * draw_head(pose.mm, brain, gap, contrast.head, rng)
        return spoil(image, rng), label
    kept = draw_strip(brain, gap, rng)
    image = inside * image + (1 - inside) * contrast.head["dura"]
    return spoil(image, rng) * kept, label * kept


def draw_air(size: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Noise, or zeros as programs leave that strip heads."""
    air = torch.zeros(size)
    return air if rng.random() < 0.5 else add_noise(air, rng)


def draw_centre(anatomy: torch.Tensor, affine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A place in the brain; in some draws one near it, in face or neck or air."""
    shape = np.array(anatomy.shape[1:])
    elsewhere = rng.random() < ELSEWHERE
    for _ in range(1000):
        voxel = rng.integers(shape)
        if elsewhere:
            voxel = voxel + rng.uniform(-15, 15, 3) - [0, 0, 25]
            break
        if decode_channel(anatomy[(slice(None), *voxel)].float(), "brain") < 0:
            break
    return affine[:3, :3] @ voxel + affine[:3, 3]


def draw_shares(channels: torch.Tensor, brain: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shares ``(3, *)`` of CSF, grey and white matter: sharper than the anatomy's, and each tissue thicker or thinner.

    The anatomy may be an average, in which folds are blurred; a fluid that has a third there fills a sulcus here.
    """
    grey, white = (decode_channel(channels, name) for name in ("grey", "white"))
    shares = torch.stack([1 - grey - white, grey, white]).clamp_min(0.01)
    size = tuple(grey.shape)
    bias = torch.from_numpy(np.float32([rng.uniform(-0.4, 1.3), 0, rng.uniform(-0.6, 0.6)]))[:, None, None, None]
    for step, strength in ((16, 0.4), (4, 0.35)):
        bias = bias + rng.uniform(0, strength) * smooth_field(size, step, rng, 3)
    shares = torch.softmax(rng.uniform(1.0, 4.0) * (shares.log() + bias), 0)
    # What lies between the brain's surface and the dura is fluid.
    outside = (brain + 0.5).clamp(0, 1)
    shares = shares * (1 - outside)
    shares[0] += outside
    return shares


def paint_brain(
    shares: torch.Tensor, channels: torch.Tensor, contrast: Contrast, rng: np.random.Generator
) -> torch.Tensor:
    """Brightness of the mixture of tissues in each voxel."""
    size = tuple(shares.shape[1:])
    tissues = torch.from_numpy(contrast.tissues)[:, None, None, None]
    uneven = rng.uniform(0, 0.05, 3).astype(np.float32)
    means = tissues + torch.from_numpy(uneven)[:, None, None, None] * smooth_field(size, 12, rng, 3)
    fluid, grey, white = shares * means
    in_ventricles = (0.5 - decode_channel(channels, "ventricles")).clamp(0, 1)
    nuclei, cerebellum, stem = (decode_channel(channels, name) for name in ("deep grey", "cerebellum", "brain stem"))
    image = fluid + shares[0] * in_ventricles * contrast.regions["ventricles"]
    image = image + grey + shares[1] * nuclei * contrast.regions["deep grey"]
    image = image + white + shares[2] * stem * contrast.regions["brain stem"]
    image = image + (1 - shares[0]) * cerebellum * contrast.regions["cerebellum"]
    if rng.random() < 0.25:
        image = add_lesions(image, shares[2], rng)
    fine = torch.from_numpy(rng.standard_normal(size, dtype=np.float32))
    return image + rng.uniform(0, 0.03) * fine


def add_lesions(image: torch.Tensor, white: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Spots in the white matter of another brightness; their label stays that of the tissue."""
    field = smooth_field(tuple(image.shape), rng.uniform(4, 12), rng)[0]
    spots = ((field - rng.uniform(1.6, 2.4)) * 2).clamp(0, 1) * white
    return image + spots * (rng.uniform(0, 1) - image)
