"""Scans with one fault each, as they come from bad copies, odd exports and other programs, and odd ones without."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from reliability_cases import AFFINE, draw_scan, permissions_bind, save

__all__ = ["FAULTS", "LEGAL", "SEVERAL_FAULTS", "write_case", "write_faults", "write_several_faults"]

CHANNELS = ("t2f", "t1c", "t1n", "t2w")

Write = Callable[[Path], object]


def cut(path: Path) -> None:
    whole = save(path, draw_scan(0)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def cut_plain(path: Path) -> None:
    os.truncate(save(path, draw_scan(0)), 9000)


def cut_voxels(path: Path) -> None:
    """Whole by gzip's measure; the header promises more than was compressed."""
    plain = save(path.with_name(".whole.nii"), draw_scan(0))
    path.write_bytes(gzip.compress(plain.read_bytes()[:9000]))
    plain.unlink()


def flip_bit(path: Path) -> None:
    """Where nothing but gzip's checksum tells."""
    whole = bytearray(save(path, draw_scan(0)).read_bytes())
    for place in range(len(whole) // 2, len(whole) - 8):
        whole[place] ^= 1
        path.write_bytes(whole)
        try:
            np.asarray(nib.load(path).dataobj)
        except Exception:
            whole[place] ^= 1
        else:
            return


def set_voxel(value: float) -> Write:
    def write(path: Path) -> None:
        voxels = draw_scan(0).astype(np.float32)
        voxels[3, 3, 3] = value
        save(path, voxels)

    return write


def singular(path: Path) -> None:
    header = nib.Nifti1Header()
    affine = AFFINE.copy()
    affine[:, 1] = affine[:, 0]
    header.set_sform(affine, 1)
    nib.save(nib.Nifti1Image(draw_scan(0), None, header), path)


def set_bytes(offset: int, layout: str, *values: float) -> Write:
    """A scan whose header has other values at ``offset``."""

    def write(path: Path) -> None:
        content = bytearray(save(path, draw_scan(0)).read_bytes())
        struct.pack_into(layout, content, offset, *values)
        path.write_bytes(content)

    return write


def huge(path: Path) -> None:
    """A header of 2000 x 2000 x 2000 voxels, and few of them."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((2000, 2000, 2000))
    header.set_sform(AFFINE, 1)
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4 + 10**6)))


def forbid(path: Path) -> None:
    save(path, draw_scan(0)).chmod(0)


def moved(affine: np.ndarray) -> np.ndarray:
    """A millimetre to the right."""
    return affine + np.outer([1, 0, 0, 0], [0, 0, 0, 1])


def colours(path: Path) -> None:
    save(path, np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")]))


# Name of the file → how it is made, and what its reason says.
FAULTS: dict[str, tuple[Write, str]] = {
    "truncated.nii.gz": (cut, "truncated or damaged"),
    "shorter_than_its_header.nii": (cut_plain, "is truncated: 9000 of"),
    "shorter_than_its_header.nii.gz": (cut_voxels, "its header promises"),
    "one_bit_flipped.nii.gz": (flip_bit, "truncated or damaged (CRC check failed"),
    "zero_bytes.nii.gz": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "wrong_magic.nii.gz": (lambda path: path.write_bytes(gzip.compress(bytes(1000))), "not a readable NIfTI file"),
    "not_compressed.nii.gz": (lambda path: path.write_bytes(b"x" * 1000), "is not compressed by gzip"),
    "nan.nii.gz": (set_voxel(np.nan), "has 1 voxels that are NaN or infinite"),
    "inf.nii.gz": (set_voxel(-np.inf), "has 1 voxels that are NaN or infinite"),
    "constant.nii.gz": (lambda path: save(path, np.full((9, 9, 9), 7, np.int16)), "all its voxels have the value 7"),
    "complex.nii.gz": (lambda path: save(path, draw_scan(0).astype(np.complex64)), "holds complex64 voxels"),
    "rgb.nii.gz": (colours, "export it with plain numbers"),
    "two_axes.nii.gz": (lambda path: save(path, draw_scan(0)[..., 9]), "a volume has three axes"),
    "five_axes.nii.gz": (lambda path: save(path, draw_scan(0)[..., None, None]), "a volume has three axes"),
    "two_channels.nii.gz": (lambda path: save(path, np.stack([draw_scan(0)] * 2, -1)), "has 2 channel(s), the network"),
    "singular.nii.gz": (singular, "has a singular affine"),
    "pixdim_and_sform_disagree.nii": (set_bytes(80, "<3f", 1, 1, 1), "contradicts itself"),
    "metres.nii": (set_bytes(123, "<B", 1), "states its lengths in metres"),
    "huge.nii.gz": (huge, "(2000, 2000, 2000) needs"),
    "folder.nii.gz": (lambda path: path.mkdir(), "is a folder"),
    "dangling_link.nii.gz": (lambda path: path.symlink_to("nowhere"), "does not exist"),
    "unreadable.nii.gz": (forbid, "mind its permissions"),
}

# Of the folder of a case with a file per channel → what is changed in its last channel, and what its reason says.
SEVERAL_FAULTS: dict[str, tuple[Write, str]] = {
    "missing_modality": (lambda path: path.unlink(), "no T2 image"),
    "other_shape": (lambda path: save(path, draw_scan(3)[1:]), "differ in shape"),
    "other_place": (lambda path: save(path, draw_scan(3), moved(AFFINE)), "lies elsewhere"),
}


def link_out(path: Path) -> None:
    outside = path.parent.with_name(f"{path.parent.name}_outside")
    path.symlink_to(save(outside / "elsewhere.nii.gz", draw_scan(0)))


# Odd, but a scan all the same. Those named for the scan of seed 0 must give its label map.
LEGAL: dict[str, Write] = {
    "same_negative_zooms.nii": set_bytes(80, "<3f", *-nib.affines.voxel_sizes(AFFINE)),
    "same_link_out.nii.gz": link_out,
    "same_ünïcödé_扫描.nii.gz": lambda path: save(path, draw_scan(0)),
    os.fsdecode(b"same_latin_\xe9.nii.gz"): lambda path: save(path, draw_scan(0)),
    "same_long_" + "n" * 230 + ".nii.gz": lambda path: save(path, draw_scan(0)),
    "same_ <script>;$(rm) '\".nii.gz": lambda path: save(path, draw_scan(0)),
    "=same_formula.nii.gz": lambda path: save(path, draw_scan(0)),
    "one_slice.nii.gz": lambda path: save(path, draw_scan(0)[..., 12:13]),
    "long_side.nii.gz": lambda path: save(path, draw_scan(0, (2000, 8, 8)), np.diag([0.5, 4, 4, 1.0])),
    "all_air.nii.gz": lambda path: save(path, np.minimum(draw_scan(0), -900)),
}


def write_faults(folder: Path) -> dict[str, str]:
    """Add a scan of each fault, and the odd legal ones; case → what must be said of it."""
    faults = {name: fault for name, fault in FAULTS.items() if permissions_bind() or name != "unreadable.nii.gz"}
    for name, (write, _) in faults.items():
        write(folder / name)
    for name, write in LEGAL.items():
        write(folder / name)
    return {case_of(name): reason for name, (_, reason) in faults.items()}


def write_several_faults(folder: Path) -> dict[str, str]:
    """Add a case of each fault that takes several files."""
    for name, (change, _) in SEVERAL_FAULTS.items():
        write_case(folder, name, 3)
        change(folder / name / f"{name}-{CHANNELS[-1]}.nii.gz")
    return {f"{name}/{name}": reason for name, (_, reason) in SEVERAL_FAULTS.items()}


def write_case(folder: Path, name: str, seed: int) -> None:
    """A case of one file per channel."""
    for i, channel in enumerate(CHANNELS, start=1):
        save(folder / name / f"{name}-{channel}.nii.gz", draw_scan(seed) * i)


def case_of(name: str) -> str:
    double = name.startswith("shorter")  # .nii and .nii.gz of one name keep their endings
    return name if double else name.removesuffix(".gz").removesuffix(".nii")
