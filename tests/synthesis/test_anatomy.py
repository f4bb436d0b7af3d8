from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from hybrid_nets import DecodeAnatomyd, InputError
from hybrid_nets.synthesis import encode_anatomy
from hybrid_nets.synthesis.anatomy import CHANNELS, REGIONS, anatomy_shares, decode_channel
from hybrid_nets.synthesis.atlas import atlas_file
from hybrid_nets.synthesis.folded import folded_anatomy


def test_shares_survive_to_half_a_step() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([1, 1, 1], 1000)[:, :2].T
    codes = encode_anatomy(*shares, rng.integers(0, len(REGIONS), 1000), np.ones(1000, bool))
    assert np.abs(anatomy_shares(codes) - shares).max() < 1 / 7
    assert np.abs(anatomy_shares(codes)[0] - shares[0]).max() <= 0.5 / 7 + 1e-6


def test_decoding_gives_regions_and_distances() -> None:
    axes = np.meshgrid(*[np.arange(21) - 10] * 3, indexing="ij")
    radius = np.linalg.norm(axes, axis=0)
    region = np.where(radius < 3, REGIONS.index("ventricles"), REGIONS.index("cerebellum"))
    white = (radius >= 3).astype(float)
    codes = encode_anatomy(0 * white, white, region, radius < 8)
    decoded = DecodeAnatomyd("image")({"image": MetaTensor(torch.from_numpy(codes)[None])})["image"]
    assert decoded.shape == (len(CHANNELS), 21, 21, 21) and decoded.dtype == torch.uint8
    along = decoded[:, 10, 10].float()
    np.testing.assert_allclose(decode_channel(along, "brain")[10:], np.arange(11) - 7.5, atol=0.6)
    np.testing.assert_allclose(decode_channel(along, "ventricles")[10:], np.arange(11) - 2.5, atol=0.6)
    assert decode_channel(along, "cerebellum")[10:].tolist() == [0] * 3 + [1] * 5 + [0] * 3
    assert decode_channel(along, "white")[10:].tolist() == [0] * 3 + [1] * 5 + [0] * 3


@pytest.mark.parametrize("value", [-1, 200, 0.5])
def test_what_is_no_anatomy_is_refused(value: float) -> None:
    scan = MetaTensor(torch.full((1, 4, 4, 4), float(value)))
    with pytest.raises(InputError, match="not an anatomy"):
        DecodeAnatomyd("image")({"image": scan})


def test_other_voxels_are_refused() -> None:
    coarse = MetaTensor(torch.zeros(1, 4, 4, 4), affine=np.diag([2, 2, 2, 1]))
    with pytest.raises(InputError, match=r"spacing \[1, 1, 1\]"):
        DecodeAnatomyd("image")({"image": coarse})


def test_missing_nilearn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybrid_nets.synthesis.atlas.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install nilearn"):
        atlas_file("gm")


@pytest.mark.parametrize("name", ["average", "folded"])
def test_anatomies_are_of_a_brain_s_size(name: str, request: pytest.FixtureRequest) -> None:
    codes, affine = request.getfixturevalue(name)
    grey, white = anatomy_shares(codes)
    litres = (codes > 0).sum() / 1e6, grey.sum() / 1e6, white.sum() / 1e6
    assert 1.2 < litres[0] < 2.2 and 0.4 < litres[1] < 1.3 and 0.4 < litres[2] < 0.9
    region = (codes.astype(int) - 1) // 36
    volumes = [int(((region == i) & (codes > 0)).sum()) for i in range(len(REGIONS))]
    assert all(1e4 < volume < 3e5 for volume in volumes[1:])
    fluid = 1 - grey - white
    assert fluid[(region == REGIONS.index("ventricles")) & (codes > 0)].mean() > 0.7
    # the origin of MNI space is in the middle, somewhat above the brain's base
    brain = affine[:3, :3] @ np.argwhere(codes > 0).mean(0) + affine[:3, 3]
    assert np.abs(brain - [0, -20, 10]).max() < 12


def test_folded_anatomies_differ_by_seed_alone(folded: tuple[np.ndarray, np.ndarray]) -> None:
    first, (again, other) = folded[0], (folded_anatomy(seed)[0] for seed in (0, 1))
    assert (first == again).all() and 0.05 < (first != other).mean() < 0.5


def test_the_average_s_brain_is_that_of_its_image(average: tuple[np.ndarray, np.ndarray]) -> None:
    mask, image = average[0] > 0, np.asarray(nib.load(atlas_file("t1")).dataobj) > 0
    assert 2 * (mask & image).sum() / (mask.sum() + image.sum()) > 0.98
