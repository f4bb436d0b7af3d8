"""A slice of a validation case with the contours of prediction and reference, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.transforms import LabelToContour, ScaleIntensityRangePercentiles

__all__ = ["contour_slice"]

PRED, LABEL = (1.0, 0.25, 0.2), (0.2, 1.0, 0.3)


def contour_slice(output: Sequence[Mapping], class_names: Sequence[str]) -> list[torch.Tensor]:
    """The slice across the last axis with most of the reference of each case; prediction red, reference green.

    For MONAI's ``TensorBoardImageHandler``, which gets it as ``output_transform``. Of several channels the first is
    shown; pictures are shown whole.

    Args:
        output: an evaluator's: ``image`` and, one channel per class, ``pred`` and ``label``, each ``(c, *)``.
        class_names: of these channels; ``background`` is left out.

    Returns:
        ``(3, height, width)`` from 0 to 1 for each case.

    Example::

        >>> mask = torch.zeros(1, 8, 8, 4)
        >>> mask[:, 2:6, 2:6, 1] = 1
        >>> picture = contour_slice([{"image": torch.rand(1, 8, 8, 4), "pred": mask, "label": mask}], ["tumour"])[0]
        >>> picture.shape, int((picture[1] > picture[0]).sum())  # those around the middle four
        (torch.Size([3, 8, 8]), 12)
    """
    return [draw(item, [i for i, name in enumerate(class_names) if name != "background"]) for item in output]


def draw(item: Mapping, channels: Sequence[int]) -> torch.Tensor:
    image, pred, label = (
        item[key].as_subclass(torch.Tensor).detach().cpu().float() for key in ("image", "pred", "label")
    )
    image, pred, label = image[:1], pred[list(channels)], label[list(channels)]
    volume = image.ndim == 4
    if volume:
        most = int(label.sum((0, 1, 2)).argmax()) if label.any() else image.shape[3] // 2
        image, pred, label = image[..., most], pred[..., most], label[..., most]
    grey = ScaleIntensityRangePercentiles(1, 99, 0.0, 1.0, clip=True)(image).as_subclass(torch.Tensor)
    picture = grey.repeat(3, 1, 1)
    for masks, colour in ((pred, PRED), (label, LABEL)):
        outline = LabelToContour()(masks).as_subclass(torch.Tensor).amax(0) > 0
        picture[:, outline] = torch.tensor(colour)[:, None]
    upright = picture.transpose(1, 2)  # the first axis runs to the right
    return upright.flip(1) if volume else upright  # a picture's second axis runs down, a volume's up
