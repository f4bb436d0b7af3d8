from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from hybrid_nets import RandBrainScand
from hybrid_nets.synthesis import draw_scan
from hybrid_nets.synthesis.anatomy import CHANNELS
from hybrid_nets.synthesis.artefacts import spoil
from hybrid_nets.synthesis.contrast import HEAD, draw_contrast
from hybrid_nets.synthesis.warp import Pose, draw_pose, sample, smooth_field

SIZE = (32, 40, 24)
MIDDLE = (0, -16, 10)


def draw(anatomy: MetaTensor, seed: int, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return draw_scan(anatomy.as_tensor(), np.asarray(anatomy.affine), options.pop("size", SIZE), rng, **options)


def test_scans_are_finite_and_labelled(anatomy: MetaTensor) -> None:
    found = set()
    for seed in range(12):
        image, label = draw(anatomy, seed)
        assert image.shape == label.shape == SIZE and image.dtype == label.dtype == torch.float32
        assert torch.isfinite(image).all() and image.min() >= 0
        found |= set(label.unique().tolist())
    assert found == {0, 1, 2, 3}


def test_seed_decides_everything(anatomy: MetaTensor) -> None:
    transform = RandBrainScand(["image", "label"], SIZE)

    def run(seed: int) -> dict:
        transform.set_random_state(seed)
        return transform({"image": anatomy, "label": torch.zeros(1)})

    first, again, other = run(1), run(1), run(2)
    assert first["image"].shape == first["label"].shape == (1, *SIZE)
    for key in ("image", "label"):
        assert torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key])


def test_the_anatomy_is_left_as_it_is(anatomy: MetaTensor) -> None:
    before = anatomy.clone()
    draw(anatomy, 3)
    assert torch.equal(before, anatomy)


def test_heads_and_stripped_brains_both_occur(anatomy: MetaTensor) -> None:
    """At the brain's border all that is outside is 0, or there is a head."""
    brightest = []
    for seed in range(16):
        image, label = draw(anatomy, seed, centre=(0, -16, 66))
        brightest.append(float(image[label == 0].max()))
    stripped = [value == 0 for value in brightest]
    assert 3 <= sum(stripped) <= 13 and all(value > 0.1 for value in brightest if value > 0)


def test_tissues_take_any_order_of_brightness() -> None:
    orders = set()
    for seed in range(120):
        contrast = draw_contrast(np.random.default_rng(seed))
        orders.add(tuple(np.argsort(contrast.tissues)))
        assert set(contrast.head) == set(HEAD) and min(contrast.head.values()) >= 0
    assert len(orders) == 6


def test_brains_differ_in_how_much_fluid_they_hold(anatomy: MetaTensor) -> None:
    scans = [draw(anatomy, seed, size=(48,) * 3, centre=(0, -16, 10)) for seed in range(6)]
    fluid = [float((label == 1).float().mean()) for _, label in scans]
    assert max(fluid) > 1.2 * min(fluid) > 0


def test_ventricles_widen_and_push_what_is_near(anatomy: MetaTensor) -> None:
    affine, raw = np.asarray(anatomy.affine), anatomy.as_tensor()
    index = list(CHANNELS).index("ventricles")

    def fluid(amount: float) -> float:
        mm = draw_pose(np.array(MIDDLE, float), (56, 56, 40), np.random.default_rng(0)).mm
        pose = Pose(mm, np.eye(3, dtype=np.float32))
        if amount:
            pose.widen_ventricles(raw, affine, Fixed(amount))
        return float((sample(raw[index : index + 1], affine, pose.mm) < CHANNELS["ventricles"][0]).float().mean())

    small, own, large = (fluid(amount) for amount in (-1.5, 0, 5))
    assert 0 < small < own < large


class Fixed:
    """Stands for a generator whose uniform numbers are all the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return 0.0

    def uniform(self, low: float, high: float) -> float:
        return self.value


def test_places_outside_take_the_border_s_value() -> None:
    volume = torch.arange(8, dtype=torch.uint8).reshape(1, 2, 2, 2)
    mm = torch.tensor([[-5.0, 0.0, 0.5, 9.0]] * 3)[:, :, None, None]
    found = sample(volume, np.eye(4), mm)
    assert found.flatten().tolist() == pytest.approx([0, 0, 3.5, 7])


def test_places_are_found_through_the_affine() -> None:
    volume = torch.arange(27, dtype=torch.uint8).reshape(1, 3, 3, 3)
    affine = np.eye(4)
    affine[:3, 3] = [10, 20, 30]
    mm = torch.tensor([11.0, 22.0, 30.0])[:, None, None, None]
    assert sample(volume, affine, mm).item() == volume[0, 1, 2, 0]


def test_a_spoiled_image_keeps_its_size_and_mean() -> None:
    image = smooth_field(SIZE, 6, np.random.default_rng(0))[0].clamp(-2, 2) / 8 + 0.5
    for seed in range(20):
        spoiled = spoil(image, np.random.default_rng(seed))
        assert spoiled.shape == image.shape and torch.isfinite(spoiled).all()
        assert 0.2 < spoiled.mean() < 1.5
