"""Whether the files of a case lie on one grid of voxels, from their headers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from hybrid_nets.errors import InputError
from hybrid_nets.folders import PICTURES, VOLUMES

__all__ = ["Grid", "as_list", "check_grids", "misfit"]


@dataclass
class Grid:
    """What the header of a file says.

    Attributes:
        shape: along the spatial axes.
        channels: how many, None for a picture, whose channels can be adapted.
        affine: from voxels to mm, None for a picture.
    """

    shape: tuple[int, ...]
    channels: int | None = None
    affine: np.ndarray | None = None


def check_grids(case: dict, channels: Sequence[str] | None, with_label: bool = True) -> None:
    """Read the headers of a case's files, which is quick, so that a bad file shows now and not in the tenth epoch.

    Args:
        case: with ``image`` and maybe ``label``, each a file or a list of them.
        channels: names of those the network takes; None for one.
        with_label: whether the label map is used, and must lie where the image does.

    Raises:
        InputError: a file is missing or can't be read, the files are of several grids, or channels are missing.
    """
    files, labels = (as_list(case.get(key, [])) for key in ("image", "label"))
    grids = [read_grid(file) for file in files]
    if None in grids:
        return
    first = grids[0]
    for file, grid in zip(files[1:], grids[1:]):
        if grid.shape != first.shape:
            found = {file: grid.shape for file, grid in zip(files, grids)}
            raise InputError(f"the images of one case differ in shape: {found}; resample them to one grid.")
        refuse_misfit(file, first, grid)
    count = len(files) if len(files) > 1 else first.channels
    needed = max(case["channel_order"]) + 1 if "channel_order" in case else len(channels or [0])
    if count not in (None, needed):
        wanted = f"{needed} ({', '.join(channels)}, in this order)" if channels else "1"
        raise InputError(f"{files[0]} has {count} channel{'s' * (count != 1)}, the network takes {wanted}.")
    for label in labels:
        grid = read_grid(label)
        if grid is not None and grid.shape != first.shape:
            raise InputError(
                f"{label} has shape {grid.shape}, its image {first.shape}; resample one to the other's grid."
            )
        if grid is not None and with_label:
            refuse_misfit(label, first, grid)


def refuse_misfit(file: str, grid: Grid, other: Grid) -> None:
    problem = misfit(grid, other)
    if problem:
        raise InputError(f"{file} {problem}")


def misfit(grid: Grid, other: Grid) -> str | None:
    """How the grid of a file, ``other``, differs from its image's, as the end of a sentence."""
    if other.shape[:3] != grid.shape[:3]:
        return f"has the shape {other.shape[:3]}, its image {grid.shape[:3]}; resample one to the other's grid."
    if grid.affine is None or other.affine is None or len(grid.shape) < 3:
        return None
    sides = nib.affines.voxel_sizes(grid.affine)
    corners = np.array(np.meshgrid(*[(0, side - 1) for side in grid.shape[:3]])).reshape(3, -1).T
    places = [nib.affines.apply_affine(affine, corners) for affine in (grid.affine, other.affine)]
    off = float(np.linalg.norm(places[0] - places[1], axis=1).max())
    if off > 0.1 * sides.min():
        return f"lies up to {off:.3g} mm from its image though the voxels are as many; correct its affine."
    return None


def as_list(files: str | list[str]) -> list[str]:
    return [files] if isinstance(files, str) else list(files)


def read_grid(file: str) -> Grid | None:
    """What the header of a NIfTI file or a picture says; None for other formats, which MONAI reads later."""
    if not os.path.exists(file):  # pathlib's raises on names that no file can have
        raise InputError(f"{file} does not exist; correct the data list or dataset_dir.")
    kind = next((kind for kind in (VOLUMES, PICTURES) if file.lower().endswith(kind)), None)
    try:
        if kind is VOLUMES:
            image = nib.load(file)
            return Grid(image.shape[:3], image.shape[3] if len(image.shape) > 3 else 1, image.affine)
        return Grid(picture_shape(file)) if kind is PICTURES else None
    except Exception as error:
        name = "NIfTI" if kind is VOLUMES else "a picture"
        raise InputError(f"{file} can't be read as {name} ({error}); mend or remove it.") from error


def picture_shape(file: str) -> tuple[int, ...]:
    """Width and height, and more for a stack, from the header."""
    import itk  # takes seconds, which data sets of volumes need not wait for

    if not os.path.isfile(file):
        raise ValueError("it is a folder")
    reader = itk.ImageIOFactory.CreateImageIO(file, itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        raise ValueError("not the format that its name says")
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return tuple(reader.GetDimensions(axis) for axis in range(reader.GetNumberOfDimensions()))
