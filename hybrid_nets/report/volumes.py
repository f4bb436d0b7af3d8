"""Image, label map and reference of a case on one grid, with the patient's axes in the order left-right first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.transforms import LoadImage

from hybrid_nets.errors import InputError
from hybrid_nets.folders import PICTURES
from hybrid_nets.report.results import Result

__all__ = ["Grid", "read_image", "read_labels"]


@dataclass(frozen=True)
class Grid:
    """Voxels ``(x, y, z)`` to the patient's right, front and head as nearly as a turn by 90° makes them; or a picture.

    Attributes:
        voxels: values ``(x, y, z)``, or ``(x, y)`` of a picture, whose second axis runs down.
        spacing: sides of a voxel in mm; 1 for pixels.
        affine: of ``voxels``, in mm, RAS+.
    """

    voxels: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray

    @property
    def picture(self) -> bool:
        return self.voxels.ndim == 2

    def lies_on(self, other: Grid) -> bool:
        return self.voxels.shape == other.voxels.shape and np.allclose(self.affine, other.affine, atol=1e-2)


def read_labels(file: Path) -> Grid:
    """A label map.

    Raises:
        InputError: it can't be read, or is no label map.
    """
    if file.name.lower().endswith(PICTURES):
        return read_picture(str(file))
    try:
        image = nib.load(file)
        if len(image.shape) == 4 and image.shape[3] == 1:
            image = nib.funcs.four_to_three(image)[0]
        if len(image.shape) != 3:
            raise InputError(f"{file.name} has the shape {image.shape}; a label map has three axes.")
        return to_grid(np.asanyarray(image.dataobj), image.affine)
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"{file.name} can't be read as a label map ({error}).") from error


def read_image(result: Result) -> Grid | None:
    """The first channel of the image that ``result`` was made of, None where it is not known.

    Raises:
        InputError: it can't be read.
    """
    if result.case and result.case.series:
        from hybrid_nets.dicom.reader import SeriesReader

        loaded = LoadImage(reader=SeriesReader(result.case.series[:1]), image_only=True)(result.case.series[0].files[0])
        return to_grid(loaded.as_subclass(torch.Tensor).numpy(), np.asarray(loaded.affine))
    if not result.images:
        return None
    file = Path(result.images[0])
    if not file.is_file():
        raise InputError(f"its image {file.name} is not where it was; give the folder of the images with --input.")
    if result.picture:
        return read_picture(str(file))
    try:
        image = nib.load(file)
        first = image.dataobj[..., 0] if len(image.shape) > 3 else image.dataobj
        return to_grid(np.asanyarray(first), image.affine)
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"its image {file.name} can't be read ({error}).") from error


def to_grid(voxels: np.ndarray, affine: np.ndarray) -> Grid:
    turn = nib.io_orientation(affine)
    turned = nib.apply_orientation(voxels, turn)
    moved = affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)
    return Grid(turned, tuple(float(side) for side in nib.affines.voxel_sizes(moved)), moved)


def read_picture(file: str) -> Grid:
    """A picture's brightness, or its label values."""
    import itk

    pixels = itk.array_from_image(itk.imread(file))
    grey = pixels if pixels.ndim == 2 else pixels[..., :3].mean(-1)
    return Grid(grey.T, (1.0, 1.0), np.eye(4))
