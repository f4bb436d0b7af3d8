from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, CropForegroundd, EnsureChannelFirstd, Invertd, Orientationd, Spacingd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hybrid_nets import InputError
from hybrid_nets.inferers import SlabInferer

CLASSES = 5


def network(x: torch.Tensor, classes: int = CLASSES) -> torch.Tensor:
    """Logits that depend on the image and on where in the window a voxel is, so that each blend differs."""
    place = torch.zeros(())
    for axis, side in enumerate(x.shape[2:]):
        ramp = torch.linspace(0, 2 + axis, side, dtype=x.dtype)
        place = place + ramp.reshape(-1, *[1] * (x.ndim - 3 - axis))
    return torch.cat([torch.sin((k + 1) * (x[:, :1] + place)) for k in range(classes)], 1).to(x.dtype)


def make_image(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Recorder:
    """The network, keeping where its windows were: an image's last channel holds the numbers of its voxels."""

    def __init__(self, size: tuple[int, ...]) -> None:
        self.size = size
        self.corners: list[tuple[int, ...]] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        first = x[:, -1].flatten(1)[:, 0].long()
        self.corners += [tuple(int(i) for i in np.unravel_index(int(i), self.size)) for i in first]
        return network(x)


def numbered(image: torch.Tensor) -> torch.Tensor:
    """``image`` (1, c, *) with the channel that Recorder reads."""
    size = image.shape[2:]
    return torch.cat([image, torch.arange(float(size.numel())).reshape(1, 1, *size)], 1)


def foreground(image: torch.Tensor) -> torch.Tensor:
    """Foreground of a numbered image: its first channel differs from 0."""
    return image[:1] != 0


def box_of(mask: torch.Tensor, margin: int = 0, roi: int = 0) -> tuple[slice, ...]:
    box = []
    for axis, side in enumerate(mask.shape):
        hit = torch.where(mask.movedim(axis, 0).flatten(1).any(1))[0]
        low, high = max(int(hit[0]) - margin, 0), min(int(hit[-1]) + 1 + margin, side)
        assert high - low >= roi, "the tests that use this have boxes of at least a window"
        box.append(slice(low, high))
    return tuple(box)


CASES = [
    # shape, roi, overlap, further options
    ((1, 1, 21, 34), (8, 8), 0.5, {}),
    ((1, 2, 40, 17), (16, 5), (0.25, 0.6), {"mode": "gaussian"}),
    ((1, 1, 19, 23, 14), (8, 8, 8), 0.5, {}),
    ((1, 1, 19, 23, 14), (8, 10, 6), 0.25, {"mode": "gaussian", "sigma_scale": 0.2}),
    ((1, 1, 19, 23, 14), (8, 8, 8), 0.7, {"mode": "gaussian", "sw_batch_size": 5}),
    ((1, 1, 5, 23, 9), (8, 8, 8), 0.5, {"cval": -3.0}),
    ((1, 1, 5, 7, 6), (8, 8, 8), 0.5, {"mode": "gaussian", "padding_mode": "replicate"}),
    ((1, 1, 16, 16, 16), (16, 16, 16), 0.5, {}),
    ((1, 1, 20, 11, 13), (-1, 8, 8), 0.0, {"sw_batch_size": 3}),
    ((1, 1, 12, 12, 12), 6, 0.9, {}),
    ((3, 1, 15, 12, 9), (8, 8, 8), 0.5, {}),
    ((2, 1, 15, 12), (8, 8), 0.5, {"sw_batch_size": 4, "mode": "gaussian"}),
    ((1, 1, 17, 12), (8, 8), 0.5, {"cache_roi_weight_map": True, "mode": "gaussian"}),
]


@pytest.mark.parametrize(("shape", "roi", "overlap", "options"), CASES)
def test_labels_are_those_of_monai(shape: tuple, roi: tuple, overlap: float, options: dict) -> None:
    image = make_image(*shape)
    wanted = SlidingWindowInferer(roi, overlap=overlap, **options)(image, network)
    labels = SlabInferer(roi, overlap=overlap, reduce="argmax", **options)(image, network)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, wanted.argmax(1, keepdim=True).to(torch.uint8))
    assert len(labels.unique()) == CLASSES  # that equality says something


@pytest.mark.parametrize(("shape", "roi", "overlap", "options"), CASES)
def test_logits_are_those_of_monai_where_all_is_foreground(
    shape: tuple, roi: tuple, overlap: float, options: dict
) -> None:
    image = make_image(*shape)
    wanted = SlidingWindowInferer(roi, overlap=overlap, **options)(image, network)
    logits = SlabInferer(roi, overlap=overlap, foreground=0, **options)(image, network)
    assert torch.equal(logits, wanted)
    assert torch.equal(SlabInferer(roi, overlap=overlap, **options)(image, network), wanted)


def test_labels_are_those_of_monai_for_any_setting() -> None:
    draw = random.Random(0)
    for _ in range(80):
        dims = draw.choice([2, 3])
        image = make_image(1, 1, *(draw.randint(3, 20) for _ in range(dims)))
        settings = {
            "roi_size": [draw.randint(2, 12) for _ in range(dims)],
            "overlap": draw.choice([0.0, 0.25, 0.5, 0.8]),
            "mode": draw.choice(["constant", "gaussian"]),
            "sw_batch_size": draw.randint(1, 7),
        }
        wanted = SlidingWindowInferer(**settings)(image, network).argmax(1, keepdim=True)
        labels = SlabInferer(reduce="argmax", **settings)(image, network)
        assert torch.equal(labels, wanted.to(torch.uint8)), (image.shape, settings)


@pytest.mark.parametrize("slab_dim", [1, 2, -1, -3])
def test_slabs_across_any_axis(slab_dim: int) -> None:
    image = make_image(1, 1, 19, 23, 14)
    wanted = SlidingWindowInferer((8, 10, 6), 2, 0.5, "gaussian")(image, network)
    inferer = SlabInferer((8, 10, 6), 2, 0.5, "gaussian", reduce="argmax", slab_dim=slab_dim)
    best = wanted.topk(2, dim=1).values
    clear = (best[:, :1] - best[:, 1:]) > 1e-5
    assert clear.float().mean() > 0.99
    assert torch.equal(inferer(image, network)[clear], wanted.argmax(1, keepdim=True).to(torch.uint8)[clear])
    logits = SlabInferer((8, 10, 6), 2, 0.5, "gaussian", foreground=0, slab_dim=slab_dim)(image, network)
    torch.testing.assert_close(logits, wanted)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["constant", "gaussian"])
def test_labels_are_those_of_monai_in_half_precision(precision: torch.dtype, mode: str) -> None:
    """A network under autocast returns half precision for images of single precision."""
    image = make_image(1, 1, 19, 23)

    def half(x: torch.Tensor) -> torch.Tensor:
        return network(x).to(precision)

    wanted = SlidingWindowInferer((8, 8), 2, 0.5, mode)(image, half)
    labels = SlabInferer((8, 8), 2, 0.5, mode, reduce="argmax")(image, half)
    assert torch.equal(labels, wanted.argmax(1, keepdim=True).to(torch.uint8))


def make_two_bodies() -> torch.Tensor:
    """Air of 0 with two bodies at opposite corners of their box, so that the box has windows without foreground."""
    image = torch.zeros(1, 1, 44, 40, 36)
    image[..., 5:13, 6:15, 4:12] = 1 + make_image(8, 9, 8).abs()
    image[..., 28:39, 24:33, 21:30] = -1 - make_image(11, 9, 9).abs()
    return numbered(image)


@pytest.mark.parametrize(("margin", "batch", "mode"), [(0, 1, "constant"), (3, 4, "gaussian"), (100, 1, "gaussian")])
@pytest.mark.parametrize("slab_dim", [0, 2])
def test_foreground_rule(margin: int, batch: int, mode: str, slab_dim: int) -> None:
    """The docstring's rule, told by where the network's windows were."""
    image, roi = make_two_bodies(), 8
    size, body = image.shape[2:], image[0, 0] != 0
    near = body.clone()  # a voxel within the margin of foreground is foreground
    for axis, side in enumerate(size):
        moved = near.movedim(axis, 0).clone()
        for i in range(side):
            near.movedim(axis, 0)[i] = moved[max(i - margin, 0) : i + margin + 1].any(0)
    box = box_of(body, margin, roi)

    every = Recorder(size)
    full = SlidingWindowInferer(roi, 1, 0.5, mode)(image[(..., *box)], every)
    ran = Recorder(size)
    options = {"foreground": foreground, "margin": margin, "slab_dim": slab_dim}
    logits = SlabInferer(roi, batch, 0.5, mode, **options)(image, ran)

    covered = torch.zeros(size, dtype=torch.bool)
    for corner in every.corners:
        window = tuple(slice(first, first + roi) for first in corner)
        assert (corner in ran.corners) == bool(near[window].any())
        covered[window] |= corner in ran.corners
    assert len(set(ran.corners)) == len(ran.corners) and set(ran.corners) <= set(every.corners)
    skipped = len(every.corners) - len(ran.corners)
    assert skipped == 0 if margin == 100 else skipped > len(every.corners) // 4

    inside = torch.zeros(1, CLASSES, *size)
    inside[(..., *box)] = full
    if slab_dim == 0:
        assert torch.equal(logits[..., near], inside[..., near])
    torch.testing.assert_close(logits[..., near], inside[..., near])
    away = logits[..., ~covered]
    assert torch.equal(away, torch.tensor([-20.0, -40, -40, -40, -40])[None, :, None].expand_as(away))

    labels = SlabInferer(roi, batch, 0.5, mode, reduce="argmax", **options)(image, network)
    assert torch.equal(labels, logits.argmax(1, keepdim=True).to(torch.uint8))
    assert (labels[..., ~covered] == 0).all()


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
def test_without_the_box_foreground_is_as_in_the_full_run(mode: str) -> None:
    image, roi = make_two_bodies(), 8
    body, every, ran = image[0, 0] != 0, Recorder(image.shape[2:]), Recorder(image.shape[2:])
    wanted = SlidingWindowInferer(roi, 1, 0.5, mode)(image, every)
    logits = SlabInferer(roi, 1, 0.5, mode, foreground=foreground, box=False)(image, ran)
    assert torch.equal(logits[..., body], wanted[..., body])
    assert not torch.equal(logits, wanted)
    assert set(ran.corners) < set(every.corners) and len(ran.corners) < len(every.corners) // 4


def test_foreground_by_value() -> None:
    """Whatever differs from the value in any channel is foreground: above or below, here or there."""
    image = torch.full((1, 2, 40, 40), -1.0)
    image[0, 0, 3, 17], image[0, 1, 36, 20] = -2, 5
    calls = []
    out = SlabInferer(8, foreground=-1)(image, lambda x: calls.append(x) or network(x))
    # 34 × 8 voxels around the two, in windows of 8 × 8 by 6: the first and the last.
    assert len(calls) == 2
    background = (out.argmax(1) == 0) & (out[:, 0] == -20)
    assert background.sum() == 40 * 40 - 2 * 64
    assert not background[0, 3, 17] and not background[0, 36, 20]


@pytest.mark.parametrize("size", [(40, 40), (40, 5), (5, 6)])
@pytest.mark.parametrize("corner", [(0, 0), (-1, -1), (2, 3)])
def test_foreground_smaller_than_a_window(size: tuple[int, int], corner: tuple[int, int]) -> None:
    """One window of the image's own voxels; what the image lacks is padded as by MONAI."""
    image = torch.zeros(1, 1, *size)
    image[(..., *corner)] = 1
    seen = []
    settings = {"roi_size": 8, "cval": 7.0}
    out = SlabInferer(foreground=0, **settings)(image, lambda x: seen.append(x) or network(x))
    assert len(seen) == 1 and seen[0].shape == (1, 1, 8, 8)
    assert (seen[0] == 1).sum() == 1
    assert (seen[0] == 7).sum() == 64 - min(size[0], 8) * min(size[1], 8)
    assert out.shape == (1, CLASSES, *size)
    if size == (5, 6):
        assert torch.equal(out, SlidingWindowInferer(**settings)(image, network))


def test_without_foreground_all_is_background() -> None:
    image, calls = torch.zeros(1, 1, 30, 30), []
    logits = SlabInferer(8, foreground=0)(image, lambda x: calls.append(x) or network(x))
    assert len(calls) == 1  # to learn the number of classes
    assert torch.equal(logits[0, :, 4, 5], torch.tensor([-20.0, -40, -40, -40, -40]))
    assert (logits == logits[..., :1, :1]).all()
    assert not SlabInferer(8, foreground=0, reduce="argmax")(image, network).any()


def test_images_of_a_batch_have_boxes_of_their_own() -> None:
    image = torch.zeros(2, 1, 40, 40)
    image[0, 0, 2:9, 2:9], image[1, 0, 30:34, 25:31] = 1, 2
    for reduce in (None, "argmax"):
        inferer = SlabInferer(8, overlap=0.5, foreground=0, reduce=reduce)
        both = inferer(image, network)
        assert torch.equal(both, torch.cat([inferer(image[:1], network), inferer(image[1:], network)]))


def test_default_background_is_background_to_all() -> None:
    away = SlabInferer(8, foreground=0)(torch.zeros(1, 1, 16, 16), network)
    assert (away.argmax(1) == 0).all()
    assert (away.softmax(1)[:, 0] > 0.9999).all()
    assert (away.sigmoid() < 1e-6).all()


def test_given_background() -> None:
    image = torch.zeros(1, 1, 16, 16)
    away = SlabInferer(8, foreground=0, background=[5, 4, 3, 2, 1])(image, network)
    assert away[0, :, 3, 9].tolist() == [5, 4, 3, 2, 1]
    with pytest.raises(InputError, match="background has 2 values; give one for each of the network's 5 classes"):
        SlabInferer(8, foreground=0, background=[0, 1])(image, network)


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.uint8), (257, torch.int16)])
def test_labels_fit_their_type(classes: int, dtype: torch.dtype) -> None:
    labels = SlabInferer(8, reduce="argmax")(
        torch.zeros(1, 1, 8, 8), lambda x: torch.cat([x] * (classes - 1) + [x + 1], 1)
    )
    assert labels.dtype == dtype
    assert (labels == classes - 1).all()


# What MONAI's own code does instead, with the reason in the warning.
def pair(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return network(x), -network(x)


def named(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"a": network(x), "b": -network(x)}


def smaller(x: torch.Tensor) -> torch.Tensor:
    return network(x)[..., ::2, ::2]


def with_place(x: torch.Tensor, windows: list) -> torch.Tensor:
    return network(x) + torch.tensor([float(w[2].start) for w in windows]).reshape(-1, 1, 1, 1)


def with_condition(x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    return network(x + condition)


@pytest.mark.parametrize("settings", [{"foreground": 0}, {"reduce": "argmax"}])
@pytest.mark.parametrize(
    ("net", "options", "call", "reason"),
    [
        (pair, {}, {}, "returns more than one tensor"),
        (named, {}, {}, "returns more than one tensor"),
        (smaller, {}, {}, r"returns size \(4, 4\) for windows of \(8, 8\)"),
        (network, {"buffer_steps": 2, "buffer_dim": 0}, {}, "buffer_steps"),
        (network, {}, {"buffer_steps": 2}, "buffer_steps"),
        (with_place, {"with_coord": True}, {}, "with_coord"),
        (with_condition, {}, {"condition": torch.ones(1, 1, 30, 20)}, "condition"),
    ],
)
def test_monai_does_what_is_not_covered(settings: dict, net: object, options: dict, call: dict, reason: str) -> None:
    image = make_image(1, 1, 30, 20)
    wanted = SlidingWindowInferer((8, 8), 2, 0.5, **options)(image, net, **call)
    with pytest.warns(UserWarning, match=reason):
        out = SlabInferer((8, 8), 2, 0.5, **options, **settings)(image, net, **call)
    assert type(out) is type(wanted)
    parts = wanted.items() if isinstance(wanted, dict) else enumerate(wanted if isinstance(wanted, tuple) else [wanted])
    for key, part in parts:
        got = out if isinstance(out, torch.Tensor) else out[key]
        assert torch.equal(got, part.argmax(1, keepdim=True).to(torch.uint8) if "reduce" in settings else part)


def test_arguments_reach_the_network() -> None:
    image = make_image(1, 1, 20, 20)

    def scaled(x: torch.Tensor, factor: float, shift: float = 0.0) -> torch.Tensor:
        return network(x) * factor + shift

    out = SlabInferer(8, foreground=0)(image, scaled, 3.0, shift=1.0, device="cpu")
    assert torch.equal(out, SlidingWindowInferer(8)(image, scaled, 3.0, shift=1.0))


@pytest.mark.parametrize(
    ("options", "call"), [({"device": "meta"}, {}), ({}, {"device": "meta"}), ({"cpu_thresh": 1}, {})]
)
def test_result_is_where_monai_leaves_it(options: dict, call: dict) -> None:
    image = make_image(1, 1, 20, 20)
    for settings in ({"foreground": 0}, {"reduce": "argmax"}):
        out = SlabInferer(8, **options, **settings)(image, network, **call)
        assert out.device.type == ("cpu" if options.get("cpu_thresh") else "meta")


def test_nothing_given_is_changed() -> None:
    """The identity's output is the window itself, which gaussian weights must not scale."""
    image = make_image(1, 2, 20, 20)
    before = image.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SlabInferer(8, mode="gaussian", reduce="argmax")(image, lambda x: x)
    assert torch.equal(image, before)


class LargestStorage(TorchDispatchMode):
    """The size in bytes of the largest tensor that any operation returns."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        sizes = [part.untyped_storage().nbytes() for part in tree_leaves(out) if isinstance(part, torch.Tensor)]
        self.bytes = max(self.bytes, *sizes, 0)
        return out


@pytest.mark.parametrize(("length", "slab_dim"), [(64, 0), (128, 0), (128, -3)])
def test_memory_follows_the_slab(length: int, slab_dim: int) -> None:
    image = make_image(1, 1, length, 16, 16)
    with LargestStorage() as own:
        SlabInferer(8, overlap=0.5, reduce="argmax", slab_dim=slab_dim)(image, network)
    assert own.bytes == max(8 * 16 * 16 * CLASSES, length * 16 * 16) * 4  # the slab's logits, or the image
    with LargestStorage() as monai:
        SlidingWindowInferer(8, overlap=0.5)(image, network)
    assert monai.bytes >= length * 16 * 16 * CLASSES * 4


def test_progress_bar(capfd: pytest.CaptureFixture) -> None:
    image = torch.zeros(1, 1, 40, 40)
    image[..., 4:12, 4:20] = 1
    SlabInferer(8, foreground=0, overlap=0)(image, network)
    assert "window" not in capfd.readouterr().err
    SlabInferer(8, foreground=0, overlap=0, progress=True)(image, network)
    assert "2/2" in capfd.readouterr().err


def test_labels_go_back_to_the_original_space() -> None:
    """MetaTensor in and out: Invertd finds the label map's transforms, and nearest neighbours keep it labels."""
    data = torch.zeros(1, 30, 26, 22)
    data[:, 5:25, 6:20, 4:18] = 1 + make_image(1, 20, 14, 14).abs()
    affine = torch.tensor([[-1.5, 0, 0, 9], [0, 2.0, 0, -4], [0, 0, 1.0, 2], [0, 0, 0, 1]], dtype=torch.float64)
    keys = "image"
    before = Compose(
        [
            EnsureChannelFirstd(keys, channel_dim=0),
            Orientationd(keys, axcodes="RAS", labels=None),
            Spacingd(keys, pixdim=(1.0, 1.0, 2.0)),
            CropForegroundd(keys, source_key=keys, allow_smaller=True),
        ]
    )
    batch = list_data_collate([before({"image": MetaTensor(data, affine=affine)})])
    batch["pred"] = SlabInferer(8, overlap=0.5, foreground=0, reduce="argmax")(batch["image"], network)
    reference = SlidingWindowInferer(8, overlap=0.5)(batch["image"], network)
    assert isinstance(batch["pred"], MetaTensor)
    assert torch.equal(batch["pred"].affine, reference.affine)
    after = Invertd("pred", transform=before, orig_keys="image", nearest_interp=True, to_tensor=True)
    back = after(decollate_batch(batch)[0])["pred"]
    assert back.shape == data.shape
    torch.testing.assert_close(back.affine, affine)
    assert set(back.unique().tolist()) == set(range(CLASSES))


def test_in_a_bundle() -> None:
    parser = ConfigParser(
        {
            "inferer": {
                "_target_": "hybrid_nets.inferers.SlabInferer",
                "roi_size": [8, 8],
                "overlap": 0.5,
                "foreground": "$lambda image: image > 0.5",
                "reduce": "argmax",
            }
        }
    )
    inferer = parser.get_parsed_content("inferer")
    image = torch.full((1, 1, 30, 30), 0.4)
    image[..., 3:6, 3:6] = 0.6
    calls = []
    assert inferer(image, lambda x: calls.append(x) or network(x)).shape == (1, 1, 30, 30)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduce": "softmax"}, "reduce is 'softmax'"),
        ({"margin": -1}, "margin is -1"),
        ({"reduce": "argmax", "slab_dim": 2}, "slab_dim is 2, but there are 2 spatial axes"),
        ({"reduce": "argmax", "overlap": 1.0}, "overlap is"),
        ({"reduce": "argmax", "roi_size": (8, 8, 8)}, "3"),
    ],
)
def test_refuses(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SlabInferer(**{"roi_size": 8, **settings})(torch.zeros(1, 1, 16, 16), network)


def test_refuses_labels_of_one_class() -> None:
    with pytest.raises(InputError, match="leave reduce null"):
        SlabInferer(8, reduce="argmax")(torch.zeros(1, 1, 16, 16), lambda x: x)
