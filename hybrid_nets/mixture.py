"""A network's class probabilities, made sharper by the brightness that each class has in the very image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.networks.layers import GaussianFilter
from monai.transforms import MapTransform
from monai.transforms.utils import generate_spatial_bounding_box

from hybrid_nets.errors import InputError

__all__ = ["IntensityMixtured"]

STEP = 8  # brightness varies slowly over an image: its means are made on every eighth voxel
STEADY = 0.05  # share of a neighbourhood by which a class's local mean is held to its mean over the image
LEAST = 0.04  # spread (standard deviation) that no class falls below, of images from 0 to 1


class IntensityMixtured(MapTransform):
    """Fit a Gaussian mixture to the image with a network's probabilities as prior; they become the posterior.

    Each class but the background has a brightness, which may drift over the image as with uneven coils, and a spread.
    These are fitted by expectation maximisation, as in unified segmentation (Ashburner and Friston, NeuroImage 2005),
    where the prior is an atlas; here it is the network's own answer. Against noise, a voxel also goes with its 26
    neighbours: a Markov random field in mean field approximation (Zhang et al., IEEE TMI 2001, have one by iterated
    conditional modes). What is background stays so.

    Args:
        keys: probabilities ``(k, d, h, w)`` that sum to 1, background first, on the image's grid.
        image_key: the image ``(1, d, h, w)``, about 0 to 1.
        iterations: of fitting; 0 leaves the probabilities as they are.
        width: of the neighbourhood over which brightness drifts, in voxels (sigma).
        trust: the prior's weight, as a power; below 1 for a network that is surer than it is right.
        coupling: log-odds of a class whose probability is 1 among all neighbours over one whose is 0 there.

    Raises:
        InputError: the image has several channels, or another size than the probabilities.

    Example::

        >>> image = torch.zeros(1, 16, 16, 16)
        >>> image[..., 8:] = 0.7
        >>> pred = torch.stack([torch.zeros(16, 16, 16), 0.55 - 0.2 * image[0], 0.45 + 0.2 * image[0]])
        >>> found = IntensityMixtured("pred")({"image": image, "pred": pred})["pred"]
        >>> pred[2].max(), (found[2] > 0.9).sum()
        (tensor(0.5900), tensor(2048))
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        iterations: int = 8,
        width: float = 40.0,
        trust: float = 0.7,
        coupling: float = 3.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key, self.iterations, self.width = image_key, iterations, width
        self.trust, self.coupling = trust, coupling

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            image, pred = d[self.image_key], d[key]
            if image.shape != (1, *pred.shape[1:]):
                raise InputError(
                    f"the image has shape {tuple(image.shape)} and its probabilities {tuple(pred.shape)}; brightness "
                    "can be fitted to one channel on the same grid."
                )
            d[key] = pred.clone()
            prior, plain = pred.as_subclass(torch.Tensor).float(), image.as_subclass(torch.Tensor)[0]
            low, high = generate_spatial_bounding_box(prior, lambda x: x[:1] < 0.5)
            box = tuple(slice(start, stop) for start, stop in zip(low, high))
            if self.iterations and all(side.stop > side.start for side in box):
                light = plain[box].to(pred.device, torch.float32)
                d[key][(slice(None), *box)] = self.fit(light, prior[(slice(None), *box)])
        return d

    def fit(self, image: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """The posterior ``(k, *)`` of ``prior`` ``(k, *)`` for ``image`` ``(*)``."""
        tissue = prior[1:].sum(0)
        inside = tissue > 0.5
        share = prior[1:] / tissue.clamp_min(1e-6)
        unfitted, log_prior = share, self.trust * share.clamp_min(1e-6).log()
        smooth = GaussianFilter(image.ndim, self.width / STEP).to(image.device)
        for _ in range(self.iterations):
            weight = share * inside
            total = weight.flatten(1).sum(1).clamp_min(1e-6).view(-1, *[1] * image.ndim)
            mean = (weight * image).flatten(1).sum(1).view_as(total) / total
            squares = (image - local_means(image, weight, mean, smooth)).square_()
            variance = ((weight * squares).flatten(1).sum(1).view_as(total) / total).clamp_min(LEAST**2)
            around = F.avg_pool3d(weight[None], 3, stride=1, padding=1)[0]
            logits = log_prior + self.coupling * around - squares / (2 * variance) - variance.log() / 2
            share = logits.softmax(0)
        return torch.cat([prior[:1], tissue * torch.where(inside, share, unfitted)])


def local_means(image: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, smooth: GaussianFilter) -> torch.Tensor:
    """The brightness ``(k, *)`` of each class around each voxel of ``image`` ``(*)``, from its ``weight`` there."""
    coarse = F.avg_pool3d(torch.cat([weight * image, weight])[None], STEP, ceil_mode=True, count_include_pad=False)
    light, amount = smooth(coarse).chunk(2, dim=1)
    means = (light + STEADY * mean) / (amount + STEADY)
    return F.interpolate(means, image.shape, mode="trilinear", align_corners=False)[0]
