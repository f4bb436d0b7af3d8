"""What holds for any input, on random ones: transforms, converters, component rules and the streaming inferer.

The same few inputs each time. ``HYBRID_NETS_EXAMPLES=1000 pytest tests/reliability/test_properties.py`` draws as many
new ones for each property.
"""

from __future__ import annotations

from collections import deque
from itertools import product

import numpy as np
import pytest
import torch
from fuzz import examples
from golden_files import Golden
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer
from monai.transforms import ConvertToMultiChannelBasedOnBratsClassesd

from hybrid_nets import (
    BratsLabelsd,
    BratsRegionsd,
    CheckImaged,
    DualCrossAttention,
    InputError,
    MaskToForegroundd,
    PictureChannelsd,
    SlabInferer,
    StandardizeChannelsd,
    StandardizeLabelsd,
    convert_released,
)
from hybrid_nets.conventions import SYNONYMS, channel_order, label_mapping

SEEDS = st.integers(0, 2**32 - 1)


def draw_numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def sliding_windows(draw: st.DrawFn) -> dict:
    """An image, MONAI's settings for its windows, and a network of 2 to 5 classes."""
    dims = draw(st.integers(2, 3))
    side = st.integers(1, 12 if dims == 3 else 20)
    channels, seed = draw(st.integers(1, 2)), draw(SEEDS)
    overlap = st.floats(0, 0.85)
    return {
        "image": draw_numbers(seed, draw(st.integers(1, 2)), channels, *(draw(side) for _ in range(dims))),
        "weight": draw_numbers(seed + 1, draw(st.integers(2, 5)), channels),
        "slab_dim": draw(st.integers(-dims, dims - 1)),
        "windows": {
            "roi_size": [draw(st.sampled_from([-1, 1, 2, 3, 4, 5, 8])) for _ in range(dims)],
            "sw_batch_size": draw(st.integers(1, 4)),
            "overlap": draw(st.one_of(overlap, st.tuples(*[overlap] * dims))),
            "mode": draw(st.sampled_from(["constant", "gaussian"])),
        },
    }


def make_network(weight: torch.Tensor) -> torch.nn.Module:
    """Logits that depend on where in the window a voxel is, as those of networks do near borders."""

    def network(x: torch.Tensor) -> torch.Tensor:
        logits = torch.einsum("kc,nc...->nk...", weight, x)
        ramp = torch.linspace(0, 1, x.shape[-1])
        return logits + ramp * logits.flip(2)

    return network


def check_labels(labels: torch.Tensor, logits: torch.Tensor, exact: bool, where: torch.Tensor | bool = True) -> None:
    """``labels`` are the largest of ``logits``; unless ``exact``, one that comes as near as rounding is as good."""
    assert labels.shape == (logits.shape[0], 1, *logits.shape[2:]) and labels.dtype == torch.uint8
    best = logits.max(1, keepdim=True).values
    chosen = logits.gather(1, labels.long())
    right = labels == logits.argmax(1, keepdim=True) if exact else best - chosen <= 1e-4 * (1 + best.abs())
    assert (right | ~torch.as_tensor(where)).all()


@examples(60)
@given(sliding_windows())
def test_labels_of_the_streaming_inferer_are_those_of_monai(case: dict) -> None:
    network, image = make_network(case["weight"]), case["image"]
    logits = SlidingWindowInferer(**case["windows"])(image, network)
    inferer = SlabInferer(**case["windows"], reduce="argmax", slab_dim=case["slab_dim"])
    first = case["slab_dim"] in (0, 2 - image.ndim)
    check_labels(inferer(image, network), logits, exact=first)


@examples(30)
@given(sliding_windows(), SEEDS, st.floats(0, 1), st.integers(0, 3))
def test_foreground_has_what_monai_gives_there(case: dict, seed: int, part: float, margin: int) -> None:
    network, image = make_network(case["weight"]), case["image"]
    mask = torch.rand(image.shape[2:], generator=torch.Generator().manual_seed(seed)) < part
    options = {"foreground": lambda x: mask[None], "margin": margin, "box": False, "slab_dim": case["slab_dim"]}
    logits = SlidingWindowInferer(**case["windows"])(image, network)
    found = SlabInferer(**case["windows"], **options)(image, network)
    torch.testing.assert_close(found.where(mask, 0), logits.where(mask, 0), rtol=1e-4, atol=1e-4)
    labels = SlabInferer(**case["windows"], **options, reduce="argmax")(image, network)
    check_labels(labels, logits, exact=False, where=mask)


@examples(30)
@given(sliding_windows())
def test_without_foreground_and_reduction_the_inferer_is_monais(case: dict) -> None:
    network, image = make_network(case["weight"]), case["image"]
    ours = SlabInferer(**case["windows"], slab_dim=case["slab_dim"])(image, network)
    assert torch.equal(ours, SlidingWindowInferer(**case["windows"])(image, network))


@st.composite
def volumes(draw: st.DrawFn, values: int) -> np.ndarray:
    shape = [draw(st.integers(1, 6)) for _ in range(3)]
    return np.random.default_rng(draw(SEEDS)).integers(0, values, shape)


@examples(30)
@given(volumes(4))
def test_brats_regions_are_monais_and_give_the_labels_back(labels: np.ndarray) -> None:
    data = {"label": torch.from_numpy(labels)[None]}
    regions = BratsRegionsd("label")(data)["label"]
    assert torch.equal(regions, ConvertToMultiChannelBasedOnBratsClassesd("label", et_label=3)(data)["label"].bool())
    back = BratsLabelsd("pred", min_size=(0, 0, 0))({"pred": regions.float()})["pred"]
    hole = (back == 1) & (data["label"] != 1)  # holes inside enhancing tumour become necrotic core
    assert back.dtype == torch.uint8 and torch.equal(back.where(~hole, 0), data["label"].where(~hole, 0).byte())


def components(mask: np.ndarray) -> list[list[tuple]]:
    """Voxels of ``mask`` that touch, at faces, edges or corners, found one by one."""
    left, found = set(zip(*np.nonzero(mask))), []
    while left:
        group, queue = [], deque([left.pop()])
        while queue:
            voxel = queue.popleft()
            group.append(voxel)
            near = {tuple(int(a) + b for a, b in zip(voxel, step)) for step in product((-1, 0, 1), repeat=3)} & left
            left -= near
            queue.extend(near)
        found.append(group)
    return found


@examples(40)
@given(volumes(4), SEEDS, st.integers(1, 30), st.floats(0.2, 0.9))
def test_small_uncertain_components_fall_back(labels: np.ndarray, seed: int, size: int, limit: float) -> None:
    confidence = np.random.default_rng(seed).random(labels.shape)
    expected = labels.copy()
    for group in components(labels == 3):
        voxels = tuple(np.transpose(group))
        if len(group) < size and confidence[voxels].mean() < limit:
            expected[voxels] = 1
    found = labels.copy()
    BratsLabelsd("pred", min_confidence=limit).drop_small(found, 3, 1, confidence, size)
    np.testing.assert_array_equal(found, expected)


@examples(30)
@given(SEEDS, st.lists(st.integers(1, 7), min_size=3, max_size=3))
def test_brats_labels_stay_in_their_set_and_their_region(seed: int, shape: list[int]) -> None:
    probabilities = torch.from_numpy(np.random.default_rng(seed).random((3, *shape)))
    labels = BratsLabelsd("pred")({"pred": probabilities})["pred"]
    assert labels.shape == (1, *shape) and labels.max() <= 3
    anything = (probabilities >= torch.tensor([0.6, 0.5, 0.6]).reshape(3, 1, 1, 1)).any(0, keepdim=True)
    inside_et = (labels == 1) & ~anything  # a filled hole
    assert not labels[~anything & ~inside_et].any()


@examples(30)
@given(st.dictionaries(st.integers(0, 9), st.integers(0, 3), min_size=1), volumes(12))
def test_labels_are_mapped_or_refused(mapping: dict[int, int], label: np.ndarray) -> None:
    names = {value: str(value) for value in range(4)}
    data = {"label": torch.from_numpy(label)[None], "label_values": mapping}
    if set(label.ravel()) <= mapping.keys():
        out = StandardizeLabelsd("label", names)(data)["label"]
        np.testing.assert_array_equal(out[0], np.vectorize(mapping.get, otypes=[int])(label))
    else:
        with pytest.raises(InputError, match="that are not declared"):
            StandardizeLabelsd("label", names)(data)


@examples(30)
@given(st.permutations(range(5)), st.integers(1, 5), SEEDS)
def test_channels_are_taken_in_order(order: list[int], count: int, seed: int) -> None:
    image = draw_numbers(seed, 5, 2, 3)
    out = StandardizeChannelsd("image")({"image": image, "channel_order": order[:count]})["image"]
    assert out.shape[0] == count and all(torch.equal(out[i], image[order[i]]) for i in range(count))


@examples(30)
@given(SEEDS, st.integers(0, 4), st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_images_with_voxels_that_are_no_numbers_are_refused(seed: int, count: int, value: float) -> None:
    image = draw_numbers(seed, 1, 4, 5, 6)
    where = np.random.default_rng(seed).choice(120, count, replace=False)
    image.view(-1)[where] = value
    if count:
        with pytest.raises(InputError, match=f"has {count} voxels that are NaN or infinite"):
            CheckImaged("image", 1)({"image": image})
    else:
        assert torch.equal(CheckImaged("image", 1)({"image": image})["image"], image)


@examples(30)
@given(SEEDS, st.integers(1, 4), st.sampled_from([1, 3]))
def test_pictures_get_the_channels_and_keep_their_range(seed: int, channels: int, wanted: int) -> None:
    picture = draw_numbers(seed, channels, 3, 4).abs().clamp(max=1) * 255
    out = PictureChannelsd("image", wanted)({"image": picture})["image"]
    assert out.shape == (wanted, 3, 4) and out.min() >= 0 and out.max() <= 255 + 1e-3
    mask = MaskToForegroundd("label")({"label": picture})["label"]
    again = MaskToForegroundd("label")({"label": mask * 255})["label"]
    assert mask.shape == (1, 3, 4) and set(mask.unique().tolist()) <= {0, 1} and torch.equal(mask, again)


NAMES = [name for name in SYNONYMS if name != "segmentation"]


@examples(30)
@given(st.data(), st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
def test_channels_and_labels_are_found_under_any_of_their_names(data: st.DataObject, names: list[str]) -> None:
    spelt = [data.draw(st.sampled_from([name, *SYNONYMS[name]])).upper() for name in names]
    wanted = data.draw(st.permutations(names))[: data.draw(st.integers(1, len(names)))]
    assert [names[i] for i in channel_order(spelt, wanted)] == wanted
    ours = dict(enumerate(data.draw(st.permutations(names))))
    mapping = label_mapping(dict(enumerate(spelt)), ours)
    assert [ours[mapping[i]] for i in range(len(names))] == names


RELEASED = Golden("dca_module_p8")


def make_module() -> DualCrossAttention:
    return DualCrossAttention(2, RELEASED.config["features"], RELEASED.config["grid"])


@examples(15)
@given(st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_a_released_checkpoint_converts_in_any_order_and_wrapping(chance, module: bool, nested: bool) -> None:
    plain = RELEASED.state_dict()
    keys = chance.sample(sorted(plain), len(plain))
    state = {("module." if module else "") + key: plain[key] for key in keys}
    found = convert_released(make_module(), {"state_dict": state, "epoch": 3} if nested else state)
    expected = convert_released(make_module(), plain)
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@examples(20)
@given(st.sampled_from(sorted(RELEASED.state_dict())), st.sampled_from(["lost", "renamed", "reshaped"]))
def test_a_released_checkpoint_that_does_not_fit_is_refused_by_name(key: str, how: str) -> None:
    state = RELEASED.state_dict()
    network, tensor = make_module(), state.pop(key)
    if convert_released(make_module(), {**state, key: tensor}).keys() == left_over(network, state):
        return  # one of the dead keys, which nothing misses
    state |= {"lost": {}, "renamed": {f"other.{key}": tensor}, "reshaped": {key: torch.zeros(3, 5, 7, 2, 2)}}[how]
    with pytest.raises((KeyError, ValueError), match="missing keys|shapes differ|unknown keys"):
        convert_released(network, state)


def left_over(network: DualCrossAttention, state: dict) -> set | None:
    try:
        return convert_released(network, state).keys()
    except KeyError:
        return None
