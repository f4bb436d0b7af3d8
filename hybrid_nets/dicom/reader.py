"""Read DICOM series by ITK, in the order that was checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import itk
import numpy as np
from monai.data import ITKReader

from hybrid_nets.dicom.series import Series
from hybrid_nets.errors import InputError

__all__ = ["SeriesReader"]


class SeriesReader(ITKReader):
    """MONAI's ``ITKReader`` for given ``series``, one per channel, which all lie on one grid.

    MONAI's own takes a folder and whatever series ITK finds in it first. Values are rescaled as each slice says
    (Hounsfield units in CT), in single precision.

    Raises:
        InputError: on reading: pixels can't be read, or ITK places the series elsewhere than its headers say.
    """

    def __init__(self, series: Sequence[Series]) -> None:
        super().__init__()
        self.series = list(series)

    def read(self, data: Any = None, **_: Any) -> Any:
        try:
            images = [itk.imread(list(series.files), itk.F) for series in self.series]
        except RuntimeError as error:  # its text has paths, which may name the patient
            raise InputError(
                "the pixels of a slice can't be read: it is damaged or compressed in an unknown way; export it again."
            ) from error
        for image, series in zip(images, self.series):
            same = tuple(itk.size(image)) == series.shape
            if not same or not np.allclose(self._get_affine(image), series.affine, atol=1e-2):
                raise InputError("ITK reads another geometry than the slices' headers state; convert it to NIfTI.")
        return images if len(images) > 1 else images[0]
