"""What is wrong with an image, in words: from its header before it is read, and from errors after."""

from __future__ import annotations

import errno
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from hybrid_nets.cli.cases import Case
from hybrid_nets.errors import InputError, find_input_error
from hybrid_nets.folders import VOLUMES

__all__ = ["check_content", "check_files", "explain", "stops_everything"]

# Copies of the image as 32-bit numbers that reading and preparing takes, at least.
COPIES = 3
# Codes of units of length in NIfTI headers; 2 is mm, and 0, which most programs write, is taken for it.
UNITS = {1: "metres", 3: "micrometres"}
CHUNK = 2**20


def check_files(case: Case) -> None:
    """Refuse, by headers alone, images that can't be read or would be read as something else.

    Raises:
        InputError: says what is wrong with which file.
    """
    images = [read_header(file) for file in case.image if file.lower().endswith(VOLUMES)]
    for file in case.image:
        if not file.lower().endswith(VOLUMES):
            check_file(Path(file))
    for image, file in zip(images, case.image):
        name = Path(file).name
        if image.shape[:3] != images[0].shape[:3]:
            shapes = f"{images[0].shape[:3]} and {image.shape[:3]}"
            raise InputError(f"its images differ in shape, {shapes}; resample them to one grid.")
        if not np.allclose(image.affine, images[0].affine, atol=1e-3):
            raise InputError(f"{name} lies elsewhere than the case's first image; resample them to one grid.")
    check_memory(images)


def read_header(file: str) -> nib.Nifti1Image:
    """The image without its voxels.

    Raises:
        InputError: not a NIfTI volume of numbers in a place.
    """
    path = Path(file)
    check_file(path)
    try:
        image = nib.load(file)
        shape, affine, kind = image.shape, image.affine, image.get_data_dtype()
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        zlib.error,
        nib.filebasedimages.ImageFileError,
    ) as error:
        raise InputError(f"{path.name} is not a readable NIfTI file ({first_line(error)}).") from error
    except nib.spatialimages.HeaderDataError as error:
        raise InputError(f"{path.name} has a broken header ({first_line(error)}).") from error
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise InputError(f"{path.name} has the shape {shape}; a volume has three axes, and a fourth for its channels.")
    if kind.kind not in "iuf":
        raise InputError(f"{path.name} holds {kind} voxels; export it with plain numbers (grey values).")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            f"{path.name} has a singular affine, so its voxels lie nowhere; mend its header (sform, qform)."
        )
    unit = UNITS.get(int(image.header["xyzt_units"]) & 7)
    if unit:
        raise InputError(f"{path.name} states its lengths in {unit}; convert its header to mm.")
    stored = stored_bytes(image)
    if not file.lower().endswith(".gz") and path.stat().st_size < stored:
        raise InputError(f"{path.name} is truncated: {path.stat().st_size} of {stored} bytes; copy it again.")
    return image


def stored_bytes(image: nib.Nifti1Image) -> int:
    """How long the image's file is before compression, by its header."""
    return image.dataobj.offset + int(np.prod(image.shape, dtype=object)) * image.get_data_dtype().itemsize


def check_content(case: Case) -> None:
    """Refuse compressed volumes that are damaged, or shorter than their headers say.

    nibabel stops at the last voxel, so it never sees the checksum behind it, and most flipped bits pass as grey values.
    Little of a file is in memory at a time.

    Raises:
        InputError: says which file.
    """
    for file in case.image:
        if not file.lower().endswith(".nii.gz"):
            continue
        name, needed = Path(file).name, stored_bytes(read_header(file))
        try:
            with gzip.open(file) as content:
                found = sum(map(len, iter(partial(content.read, CHUNK), b"")))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{name} is truncated or damaged ({first_line(error)}); copy it again.") from error
        if found < needed:
            raise InputError(f"{name} holds {found} bytes, its header promises {needed}; copy it again.")


def check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path.name} is a folder, not an image file.")
    if not path.exists():
        raise InputError(f"{path.name} does not exist.")
    try:
        with open(path, "rb") as content:
            start = content.read(2)
    except OSError as error:
        raise InputError(f"{path.name} can't be read ({error.strerror}); mind its permissions.") from error
    if not start:
        raise InputError(f"{path.name} is empty (0 bytes); copy it again.")
    if path.name.lower().endswith(".gz") and start != b"\x1f\x8b":
        raise InputError(f"{path.name} is not compressed by gzip, whatever its name says; rename or mend it.")


def check_memory(images: list[nib.Nifti1Image]) -> None:
    """Refuse what can't fit, as running out of memory would end the whole run."""
    try:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return
    needed = sum(int(np.prod(image.shape, dtype=object)) for image in images) * 4 * COPIES
    if needed > available:
        raise InputError(
            f"its shape {images[0].shape} needs {needed / 2**30:.0f} GiB of memory to be read, and there are "
            f"{available / 2**30:.0f} GiB; crop or resample it."
        )


def explain(error: BaseException) -> str:
    """What went wrong with a case, in a sentence for whoever has to mend it."""
    known = find_input_error(error)
    if known:
        return " ".join(known.split())
    chain = list(causes(error))
    for cause in chain:
        text = str(cause)
        if isinstance(cause, (EOFError, zlib.error, gzip.BadGzipFile)) or "Compressed file ended" in text:
            return "the compressed file is truncated or damaged; copy it again."
        if isinstance(cause, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
            return "not enough memory; free some, crop the image, or use --device cpu."
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno) + (f": {Path(str(cause.filename)).name}" if cause.filename else "")
        if "Expected" in text and "bytes, got" in text:
            return "the file holds fewer voxels than its header says; copy it again."
    # MONAI's readers and writers put the tracebacks of what they tried into one text.
    tried = re.findall(r"^[\w.]*(?:Error|Exception): (.+)$", str(chain[-1]), flags=re.MULTILINE)
    return tried[0] if tried else f"{type(chain[-1]).__name__}: {first_line(chain[-1])}"


def stops_everything(error: BaseException) -> bool:
    """Whether the next case would fail in the same way: no room, or no right, to write."""
    fatal = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    texts = [os.strerror(number) for number in fatal]  # MONAI's writers put the error's text into one of theirs
    return any(
        (isinstance(cause, OSError) and cause.errno in fatal) or any(text in str(cause) for text in texts)
        for cause in causes(error)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
