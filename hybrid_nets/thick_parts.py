"""Keep the thick parts of a structure: a brain, but not the thin layers and loose pieces around it that look alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage

__all__ = ["KeepThickPartsd"]


class KeepThickPartsd(MapTransform):
    """Make all background but the thick parts of some classes, and what lies beside these.

    Voxels of ``classes`` are eroded by a ball; of the pieces that are left, the largest stays, and any other that has
    at least ``share`` of its voxels and is nearly as probable. Grown again by the ball and ``margin`` voxels, with bays
    narrower than twice ``closing`` and what they enclose, such as fissures and ventricles, they are where probabilities
    stay as they are. Elsewhere background gets all. Where no piece is left, nothing is changed.

    Args:
        keys: probabilities ``(k, d, h, w)`` that sum to 1, background first.
        classes: that have thick parts, such as grey and white matter.
        radius: of the ball, in voxels.
        margin: of what stays around the parts, whatever its class, in voxels.
        closing: half the width of the bays that stay, in voxels.
        share: of the largest piece's voxels that another needs to stay.
        doubt: by how much the mean probability of ``classes`` in a piece that stays may fall short of the largest's.

    Example::

        >>> pred = torch.zeros(2, 24, 24, 24)
        >>> pred[1, 2:16, 2:16, 2:16] = pred[1, :, :, 20] = 1  # a cube and a sheet
        >>> pred[0] = 1 - pred[1]
        >>> found = KeepThickPartsd("pred", classes=[1], radius=3, margin=1, closing=0)({"pred": pred})["pred"]
        >>> found[1, 8, 8, 8], found[1, 8, 8, 20]
        (tensor(1.), tensor(0.))
    """

    def __init__(
        self,
        keys: KeysCollection,
        classes: Sequence[int],
        radius: float = 5.0,
        margin: float = 3.0,
        closing: float = 12.0,
        share: float = 0.05,
        doubt: float = 0.05,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.classes, self.share, self.doubt = list(classes), share, doubt
        self.radius, self.margin, self.closing = radius, margin, closing

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            pred = d[key].as_subclass(torch.Tensor)
            mask = np.isin(pred.argmax(0).cpu().numpy(), self.classes)
            kept = self.find(mask, pred[self.classes].sum(0).float().cpu().numpy())
            d[key] = d[key].clone()
            if kept is not None:
                outside = torch.from_numpy(~kept).to(d[key].device)
                d[key][1:, outside] = 0
                d[key][0, outside] = 1
        return d

    def find(self, mask: np.ndarray, probability: np.ndarray) -> np.ndarray | None:
        """Where to leave things as they are; None if nothing in ``mask`` is thick enough."""
        # Beyond the border there is nothing to be far from: it cuts a structure off, and doesn't make it thin.
        deep = mask if mask.all() else ndimage.distance_transform_edt(mask) > self.radius
        pieces, _ = ndimage.label(deep)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        if not sizes.any():
            return None
        sure = np.bincount(pieces.ravel(), probability.ravel()) / sizes.clip(1)
        large = (sizes >= self.share * sizes.max()) & (sizes > 0)
        return self.grow(large & (sure >= sure[sizes.argmax()] - self.doubt), pieces)

    def grow(self, stays: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        """What lies around the pieces whose entry in ``stays`` is true."""
        near = self.radius + self.margin + self.closing
        room = 1 + int(near)  # on all sides, also beyond the image's border
        core = stays[pieces]
        box = ndimage.find_objects(core.astype(np.uint8))[0]
        closed = ndimage.distance_transform_edt(np.pad(~core[box], room, constant_values=True)) <= near
        if self.closing:
            closed = ndimage.distance_transform_edt(closed) > self.closing
        outside, _ = ndimage.label(~closed)
        kept = np.zeros([side + 2 * room for side in core.shape], bool)
        kept[tuple(slice(side.start, side.stop + 2 * room) for side in box)] = outside != outside[0, 0, 0]
        return kept[(slice(room, -room),) * core.ndim]
