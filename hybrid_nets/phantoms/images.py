"""Writes pictures with their masks as a data set of PNG files, all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybrid_nets.phantoms.folder import check_numbers, publish_folder, write_cases
from hybrid_nets.phantoms.msd import About, numbered

__all__ = ["Picture", "write_images"]


@dataclass(frozen=True)
class Picture:
    """One picture with its segmentation.

    Attributes:
        image: uint8 ``(3, rows, columns)``: red, green, blue.
        label: uint8 ``(rows, columns)``, 0 or 1.
        name: file name without extension.
    """

    image: np.ndarray
    label: np.ndarray
    name: str


def write_images(
    output_dir: str | Path, about: About, make_picture: Callable[[int], Picture], num_training: int, num_test: int
) -> Path:
    """Write ``num_training`` + ``num_test`` pictures to ``output_dir``, unless that already holds a ``dataset.json``.

    All or nothing, and safe to do from several processes at once: see :func:`.folder.publish_folder`.

    Args:
        output_dir: the data set's folder. It and its parents are created if need be.
        about: what the data set is.
        make_picture: picture ``i`` of 0, 1, …; the training cases come first. Called from several threads.
        num_training: pictures with a mask, at least 1.
        num_test: pictures without, may be 0.

    Returns:
        The absolute path of ``output_dir``, with ``images/NAME.png``, 8-bit RGB, and ``masks/NAME.png``, 8-bit grey, 0
        or 255.

    Raises:
        ValueError: a number of pictures is out of range.
        FileExistsError: ``output_dir`` is a file, or a folder with other files in it.

    Example::

        write_images("/data/phantom", about, ultrasound_case, num_training=4, num_test=1)
    """
    check_numbers(num_training, num_test)
    return publish_folder(
        output_dir, about.name, lambda folder: write_files(folder, about, make_picture, num_training, num_test)
    )


def write_files(
    folder: Path, about: About, make_picture: Callable[[int], Picture], num_training: int, num_test: int
) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)

    def write_picture(index: int, training: bool) -> str:
        picture = make_picture(index)
        write_png(folder / "images" / f"{picture.name}.png", np.moveaxis(picture.image, 0, -1))
        if training:
            write_png(folder / "masks" / f"{picture.name}.png", 255 * picture.label)
        return picture.name

    write_cases(write_picture, num_training, num_test)
    content = {
        **about.heading(),
        "labels": numbered(about.labels),
        "numTraining": num_training,
        "numTest": num_test,
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_png(path: Path, pixels: np.ndarray) -> None:
    """8 bits: RGB for ``(rows, columns, 3)``, grey for ``(rows, columns)``."""
    import itk  # takes seconds

    kind = itk.Image[itk.UC, 2] if pixels.ndim == 2 else itk.Image[itk.RGBPixel[itk.UC], 2]
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(pixels), ttype=kind), str(path), compression=True)
