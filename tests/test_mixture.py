"""Probabilities made sharper by an image's own brightness."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from hybrid_nets import InputError, IntensityMixtured

SIZE = (40, 40, 40)


@pytest.fixture
def truth() -> torch.Tensor:
    """Background outside a cube; in it, three classes in stripes two voxels wide."""
    label = torch.zeros(SIZE, dtype=torch.long)
    label[5:35, 5:35, 5:35] = 1 + torch.arange(30) // 2 % 3
    return label


def blurred(label: torch.Tensor, sure: float = 0.4) -> torch.Tensor:
    """What a network might say that knows the background well, and little more of the classes than how many."""
    hot = torch.nn.functional.one_hot(label, 4).movedim(-1, 0).float()
    guess = torch.where(label > 0, torch.tensor([0.0, 1, 1, 1])[:, None, None, None] / 3, hot)
    return torch.where((torch.arange(SIZE[0]) % 4 == 0)[:, None, None], (1 - sure) * guess + sure * hot, guess)


def light(label: torch.Tensor, values: tuple[float, ...], noise: float = 0.03) -> torch.Tensor:
    torch.manual_seed(0)
    drift = 1 + 0.3 * torch.linspace(-1, 1, SIZE[0])[:, None, None]
    return (torch.tensor(values)[label] * drift + noise * torch.randn(SIZE))[None]


@pytest.mark.parametrize("values", [(0.0, 0.2, 0.5, 0.8), (0.0, 0.9, 0.3, 0.6)])
def test_classes_are_told_apart_by_brightness_in_any_order_and_uneven_light(
    truth: torch.Tensor, values: tuple[float, ...]
) -> None:
    prior = blurred(truth)
    found = IntensityMixtured("pred", width=8.0, iterations=10)({"image": light(truth, values), "pred": prior})["pred"]
    before, after = ((p.argmax(0) == truth)[truth > 0].float().mean() for p in (prior, found))
    assert before < 0.6 and after > 0.97
    assert torch.equal(found[0], prior[0])
    torch.testing.assert_close(found.sum(0), torch.ones(SIZE))


def test_where_brightness_tells_nothing_the_network_is_believed(truth: torch.Tensor) -> None:
    prior = blurred(truth)
    found = IntensityMixtured("pred")({"image": light(truth, (0.5, 0.5, 0.5, 0.5)), "pred": prior})["pred"]
    sure = prior.max(0).values > 0.5
    assert torch.equal(found.argmax(0)[sure], prior.argmax(0)[sure])


def test_neighbours_help_against_noise() -> None:
    label = torch.zeros(SIZE, dtype=torch.long)
    label[5:35, 5:35, 5:35] = 1 + torch.arange(30) // 10  # thick enough that most voxels have their like around
    data = {"image": light(label, (0.0, 0.2, 0.5, 0.8), noise=0.2), "pred": blurred(label)}
    alone, coupled = (IntensityMixtured("pred", width=8.0, coupling=c)(data)["pred"].argmax(0) for c in (0.0, 3.0))
    wrong = [(found != label)[label > 0].float().mean() for found in (alone, coupled)]
    assert wrong[1] < 0.5 * wrong[0]


def test_classes_that_are_absent_and_images_without_any(truth: torch.Tensor) -> None:
    prior = blurred(truth.clamp(max=1))
    prior[1:, truth > 0] = torch.tensor([1.0, 0.0, 0.0])[:, None]
    image = light(truth, (0.0, 0.2, 0.2, 0.2))
    assert torch.equal(IntensityMixtured("pred")({"image": image, "pred": prior})["pred"].argmax(0), truth.clamp(max=1))
    nothing = torch.zeros(4, *SIZE)
    nothing[0] = 1
    torch.testing.assert_close(IntensityMixtured("pred")({"image": image, "pred": nothing})["pred"], nothing)


def test_the_result_is_new_and_keeps_its_place(truth: torch.Tensor) -> None:
    prior = MetaTensor(blurred(truth), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    kept = prior.clone()
    found = IntensityMixtured("pred")({"image": light(truth, (0.0, 0.2, 0.5, 0.8)), "pred": prior})["pred"]
    assert torch.equal(found.affine, prior.affine) and torch.equal(prior, kept)


@pytest.mark.parametrize("shape", [(2, *SIZE), (1, 40, 40, 39)])
def test_images_that_do_not_belong_are_refused(shape: tuple[int, ...], truth: torch.Tensor) -> None:
    with pytest.raises(InputError, match="same grid"):
        IntensityMixtured("pred")({"image": torch.zeros(shape), "pred": blurred(truth)})
