"""Between the label map that BraTS defines and the nested tumour regions that networks predict.

Thresholds and component rules: the authors' BraTS 2023 entry (arXiv 2403.09942 and their released code).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage

__all__ = ["BratsLabelsd", "BratsRegionsd"]

NCR, ED, ET = 1, 2, 3  # BraTS 2023 label values: necrotic core, oedema, enhancing tumour
TC, WT = 0, 1  # channels: tumour core, whole tumour; the third is enhancing tumour
NEIGHBOURS = np.ones((3, 3, 3))  # 26-connected


class BratsRegionsd(MapTransform):
    """Label maps ``(1, *)`` of BraTS 2023 to regions ``(3, *)``, boolean: TC (1 and 3), WT (1, 2 and 3) and ET (3).

    MONAI's ``ConvertToMultiChannelBasedOnBratsClassesd`` does the same from 1.6 on; before, it knows ET as 4 only.

    Example::

        >>> BratsRegionsd("label")({"label": torch.tensor([[0, 1, 2, 3]])})["label"].int()
        tensor([[0, 1, 0, 1],
                [0, 1, 1, 1],
                [0, 0, 0, 1]], dtype=torch.int32)
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            label = d[key]
            d[key] = torch.cat([(label == NCR) | (label == ET), label > 0, label == ET])
        return d


class BratsLabelsd(MapTransform):
    """Region probabilities ``(3, d, h, w)``, in the order TC, WT, ET, to one label map ``(1, d, h, w)``, uint8.

    Labels are painted from the largest region to the smallest: whole tumour → 2 (oedema), tumour core → 1 (necrotic
    core), enhancing tumour → 3. Small uncertain components then fall back to the label around them: enhancing tumour to
    necrotic core, that to oedema, that to background; holes inside enhancing tumour become necrotic core.

    Args:
        keys: probabilities.
        thresholds: of TC, WT and ET; a probability equal to its threshold is in the region.
        min_size: voxels below which a component of ET, NCR and ED is doubted. Voxel counts as in the published recipe,
            so they mean 1 mm³ voxels.
        min_confidence: mean probability (of ET, TC and WT) from which a small component is kept all the same.

    Example::

        >>> BratsLabelsd("pred")({"pred": torch.full((3, 10, 10, 10), 0.9)})["pred"].unique()
        tensor([3], dtype=torch.uint8)
    """

    def __init__(
        self,
        keys: KeysCollection,
        thresholds: tuple[float, float, float] = (0.6, 0.5, 0.6),
        min_size: tuple[int, int, int] = (75, 75, 500),
        min_confidence: float = 0.9,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.thresholds, self.min_size, self.min_confidence = thresholds, min_size, min_confidence

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            probabilities = d[key]
            labels = self.to_labels(probabilities.detach().cpu().numpy())
            out = torch.from_numpy(labels)[None]
            # A MetaTensor's affine and file name go on to the writer.
            d[key] = type(probabilities)(out, meta=probabilities.meta) if hasattr(probabilities, "meta") else out
        return d

    def to_labels(self, probabilities: np.ndarray) -> np.ndarray:
        """The label map of ``probabilities`` (3, d, h, w)."""
        tc, wt, et = (p >= threshold for p, threshold in zip(probabilities, self.thresholds))
        labels = np.zeros(tc.shape, np.uint8)
        labels[wt], labels[tc], labels[et] = ED, NCR, ET
        rules = ((ET, NCR, probabilities[2]), (NCR, ED, probabilities[TC]), (ED, 0, probabilities[WT]))
        for (label, fallback, confidence), size in zip(rules, self.min_size):
            self.drop_small(labels, label, fallback, confidence, size)
        enhancing = labels == ET
        labels[ndimage.binary_fill_holes(enhancing) & ~enhancing] = NCR
        return labels

    def drop_small(self, labels: np.ndarray, label: int, fallback: int, confidence: np.ndarray, size: int) -> None:
        """Give components of ``label`` that are small and uncertain the value ``fallback``, in place."""
        components, count = ndimage.label(labels == label, structure=NEIGHBOURS)
        if count == 0:
            return
        voxels = np.bincount(components.ravel(), minlength=count + 1)[1:]
        mean = ndimage.mean(confidence, components, np.arange(1, count + 1))
        doubtful = (voxels < size) & (mean < self.min_confidence)
        labels[np.concatenate([[False], doubtful])[components]] = fallback
