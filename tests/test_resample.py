"""Resampling slab by slab against MONAI's of the whole volume."""

from __future__ import annotations

import monai.transforms as monai_transforms
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd, SpatialResample

from hybrid_nets import resample
from hybrid_nets.resample import SlabResample, Spacingd, steps


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "SLAB", 150)


def volume(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int = 0) -> MetaTensor:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-20, 7, 3]
    return MetaTensor(values, affine=affine)


@pytest.mark.parametrize("shape", [(1, 17, 9, 12), (3, 8, 21, 5), (1, 41, 5, 31)])
@pytest.mark.parametrize("pixdim", [(1.5, 1.5, 2.0), (0.47, 3.1, 0.93), (0.83, 1.13, 2.51)])
# Spacings at which no place lies halfway between two voxels, where "nearest" is a matter of rounding.
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_there_and_back_is_monai_s(shape: tuple, pixdim: tuple, mode: str) -> None:
    results = []
    for kind in (monai_transforms.Spacingd, Spacingd):
        case = {"image": volume(shape, (0.83, 1.13, 2.51))}
        spacing = Compose([Orientationd("image", "LPS", labels=None), kind("image", pixdim=pixdim, mode=mode)])
        there = spacing(case)
        results.append((there["image"], spacing.inverse(there)["image"]))
    for theirs, ours in zip(*results):
        assert ours.dtype == theirs.dtype == torch.float32
        torch.testing.assert_close(ours.as_tensor(), theirs.as_tensor(), rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.affine, theirs.affine)
        assert len(ours.applied_operations) == len(theirs.applied_operations)


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
def test_turned_and_sheared_grids(padding_mode: str) -> None:
    """Slabs then need slices of the source that slant through them."""
    image = volume((2, 14, 12, 13), (1, 1, 1))
    after = image.affine @ torch.tensor(
        [[0.9, 0.3, -0.2, 1], [-0.3, 0.8, 0.1, 2], [0.1, 0.2, 1.1, -3], [0, 0, 0, 1]], dtype=torch.float64
    )
    options = {"dst_affine": after, "spatial_size": (18, 9, 11), "padding_mode": padding_mode}
    ours, theirs = SlabResample()(image, **options), SpatialResample()(image, **options)
    assert len(list(steps(torch.linalg.solve(image.affine, after), (14, 12, 13), [18, 9, 11], 2))) == 18
    torch.testing.assert_close(ours.as_tensor(), theirs.as_tensor(), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.affine, theirs.affine)


@pytest.mark.parametrize("pixdim", [(1.5, 1.5, 2.0), (0.83, 1.13, 2.51)])
def test_label_maps_keep_their_type_on_the_way_back(pixdim: tuple) -> None:
    restored = []
    for kind in (monai_transforms.Spacingd, Spacingd):
        spacing = Compose([kind("image", pixdim=pixdim)])
        case = spacing({"image": volume((1, 17, 9, 12), (0.83, 1.13, 2.51))})
        case["pred"] = (case["image"] > 0).to(torch.uint8)
        restore = Invertd("pred", spacing, orig_keys="image", nearest_interp=True)
        restored.append(restore(case)["pred"])
    assert restored[1].dtype == torch.uint8
    assert torch.equal(restored[1].as_tensor(), restored[0].as_tensor().byte())
    torch.testing.assert_close(restored[1].affine, restored[0].affine)


def test_no_more_than_a_slab_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    sampler = resample.AffineTransform.forward
    monkeypatch.setattr(
        resample.AffineTransform,
        "forward",
        lambda self, src, theta, spatial_size: (
            sizes.append((src.numel(), torch.Size(spatial_size).numel())) or sampler(self, src, theta, spatial_size)
        ),
    )
    Spacingd("image", pixdim=(1, 1, 1))({"image": volume((1, 60, 10, 10), (1, 0.9, 1.1))})
    assert len(sizes) > 50 and max(max(pair) for pair in sizes) < 600
