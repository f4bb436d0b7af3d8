"""Resampling of large volumes to another voxel size, in memory that follows a slab of the result."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import product

import torch
from monai.data import MetaTensor
from monai.networks.layers import AffineTransform
from monai.transforms import Spacingd as MonaiSpacingd
from monai.transforms import SpatialResample, TraceableTransform
from monai.utils import TraceKeys
from monai.utils.type_conversion import get_equivalent_dtype, get_torch_dtype_from_string

__all__ = ["SlabResample", "Spacingd"]

SLAB = 2**22  # voxels of the result that are computed at once


class Spacingd(MonaiSpacingd):
    """MONAI's ``Spacingd``, in less memory, and not confused by other entries of a case.

    MONAI's keeps 24 bytes of coordinates for each voxel of the result, 5 GB for a CT of 512×512×800; here they exist
    for a slab at a time, on the way there and back.

    From MONAI 1.6 on, its own fails on cases that hold text under a key such as ``image_path``: it takes every entry
    whose key starts with ``image_`` for a dictionary of the image's header. MONAI Label puts the path of the file
    there. Here entries other than ``keys`` pass untouched.

    Example::

        >>> image = MetaTensor(torch.zeros(1, 4, 4, 4))
        >>> Spacingd("image", pixdim=(2, 1, 1))({"image": image})["image"].shape
        torch.Size([1, 2, 4, 4])
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        theirs = self.spacing_transform.sp_resample
        self.spacing_transform.sp_resample = SlabResample(
            theirs.mode, theirs.padding_mode, theirs.align_corners, theirs.dtype, theirs.lazy
        )

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        return {**data, **super().__call__({key: data[key] for key in self.keys if key in data}, lazy)}


class SlabResample(SpatialResample):
    """MONAI's ``SpatialResample`` of volumes ``(c, x, y, z)``, whose results are computed slab by slab.

    Volumes of more than ``SLAB`` voxels alone; results are MONAI's but for the rounding of coordinates (float64).
    On the way back label maps of integers keep their type, where MONAI makes float32 of them. Lazy resampling, splines
    and reflecting borders are MONAI's own.
    """

    def __call__(
        self,
        img: torch.Tensor,
        dst_affine: torch.Tensor | None = None,
        spatial_size: Sequence[int] | torch.Tensor | int | None = None,
        mode: str | int | None = None,
        padding_mode: str | None = None,
        align_corners: bool | None = None,
        dtype: object = None,
        lazy: bool | None = None,
    ) -> torch.Tensor:
        mode, padding_mode = mode or self.mode, padding_mode or self.padding_mode
        align_corners = self.align_corners if align_corners is None else align_corners
        if (self.lazy if lazy is None else lazy) or not covers(img, dst_affine, spatial_size, mode, padding_mode):
            return super().__call__(img, dst_affine, spatial_size, mode, padding_mode, align_corners, dtype, lazy)
        before, after = (torch.as_tensor(affine).double().cpu() for affine in (img.affine, dst_affine))
        size, dtype = [int(side) for side in spatial_size], get_equivalent_dtype(dtype or self.dtype, torch.Tensor)
        there = torch.linalg.solve(before, after)
        unchanged = size == list(img.shape[1:]) and torch.allclose(there, torch.eye(4).double(), atol=1e-3)
        meta = TraceableTransform.track_transform_meta(
            img,
            sp_size=size,
            affine=None if unchanged else there,
            extra_info={
                "dtype": str(dtype)[6:],  # without "torch."
                "mode": str(mode),
                "padding_mode": str(padding_mode),
                "align_corners": align_corners,
                "src_affine": before,
            },
            orig_size=tuple(img.shape[1:]),
            transform_info=self.get_transform_info(),
        )
        voxels = img.as_subclass(torch.Tensor)
        kept = mode == "nearest" and not voxels.is_floating_point()
        out = voxels if unchanged else voxels.new_empty((len(img), *size), dtype=img.dtype if kept else torch.float32)
        sampler = AffineTransform(
            normalized=False, mode=mode, padding_mode=padding_mode, align_corners=align_corners, reverse_indexing=True
        )
        for slab, source, theta in () if unchanged else steps(there, tuple(img.shape[1:]), size, len(img)):
            piece = voxels[:, source].to(dtype)[None]
            out[:, slab] = sampler(piece, theta.to(piece), (slab.stop - slab.start, *size[1:]))[0]
        return MetaTensor(out if kept else out.float()).copy_meta_from(meta)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """``data`` in the space it was resampled from."""
        transform = self.pop_transform(data)
        options = dict(transform[TraceKeys.EXTRA_INFO])
        corners = options["align_corners"]
        with self.trace_transform(False):
            return self(
                data,
                dst_affine=options["src_affine"],
                spatial_size=transform[TraceKeys.ORIG_SIZE],
                mode=options["mode"],
                padding_mode=options["padding_mode"],
                align_corners=False if corners == TraceKeys.NONE else corners,
                dtype=get_torch_dtype_from_string(options["dtype"]),
            )


def covers(img: torch.Tensor, dst_affine: object, size: object, mode: object, padding_mode: object) -> bool:
    """Whether this is large enough to matter, and what SlabResample knows."""
    if not isinstance(img, MetaTensor) or img.ndim != 4 or dst_affine is None or isinstance(size, int) or size is None:
        return False
    sides = [int(side) for side in size]
    known = str(mode) in ("bilinear", "nearest") and str(padding_mode) in ("border", "zeros")
    large = max(img[0].numel(), torch.Size(sides).numel()) > SLAB
    return known and large and len(sides) == 3 and min(sides) > 0 and len(dst_affine) == 4 and len(img.affine) == 4


def steps(
    there: torch.Tensor, before: tuple[int, ...], after: list[int], channels: int
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Slabs of the result along the first axis, the slices of the source each needs, and its affine to these."""
    depth = max(1, SLAB // (after[1] * after[2] * channels))
    for start in range(0, after[0], depth):
        stop = min(start + depth, after[0])
        corners = torch.tensor(
            [(*corner, 1.0) for corner in product((start, stop - 1), *((0, n - 1) for n in after[1:]))]
        )
        places = corners.double() @ there[0]
        # One slice more at each side than interpolation reads.
        low = min(max(int(places.min().floor()) - 1, 0), before[0] - 1)
        high = max(min(int(places.max().ceil()) + 2, before[0]), low + 1)
        theta = there.clone()
        theta[0, 3] += there[0, 0] * start - low
        theta[1:3, 3] += there[1:3, 0] * start
        yield slice(start, stop), slice(low, high), theta
