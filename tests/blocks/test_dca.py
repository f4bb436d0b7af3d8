from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_files import Golden

from hybrid_nets import DualCrossAttention, convert_released
from hybrid_nets.blocks.cross_attention import ChannelCrossAttention, SpatialCrossAttention


def skips(*channels: int, dims: int = 2, batch: int = 1) -> list[torch.Tensor]:
    sizes = [(12, 20, 9), (6, 10, 5), (3, 5, 2)]
    return [torch.randn(batch, c, *size[:dims]) for c, size in zip(channels, sizes)]


def test_golden() -> None:
    golden = Golden("dca_module_p8")
    refine = DualCrossAttention(2, golden.config["features"], golden.config["grid"]).eval()
    assert sum(p.numel() for p in refine.parameters()) == golden.n_params == 110_560
    refine.load_state_dict(convert_released(refine, golden.state_dict()))
    spec = json.loads(str(golden.arrays["input"]))
    draws = [np.random.RandomState(spec["seed"] + i).standard_normal(shape) for i, shape in enumerate(spec["shape"])]
    with torch.no_grad():
        outputs = refine([torch.from_numpy(draw.astype("float32")) for draw in draws])
    assert max(golden.error(i, output) for i, output in enumerate(outputs)) < 5e-5


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("options", [{}, {"blocks": 2, "post_norm": False, "spatial_attention": False}])
def test_shapes_and_script(dims: int, options: dict) -> None:
    grid = (2, 7, 3)[:dims]  # coarser and finer than the skips
    refine, inputs = DualCrossAttention(dims, (4, 8, 12), grid, **options).eval(), skips(4, 8, 12, dims=dims)
    outputs = refine(inputs)
    assert [y.shape for y in outputs] == [x.shape for x in inputs]
    for ours, scripted in zip(outputs, torch.jit.script(refine)(inputs)):
        torch.testing.assert_close(ours, scripted)


def test_both_endings() -> None:
    torch.manual_seed(0)
    ended, bare = DualCrossAttention(2, (4, 8), 3).train(), DualCrossAttention(2, (4, 8), 3, post_norm=False)
    bare.load_state_dict({key: tensor for key, tensor in ended.state_dict().items() if ".adn." not in key})
    inputs = skips(4, 8, batch=3)
    for i, (output, total) in enumerate(zip(ended(inputs), bare(inputs))):
        torch.testing.assert_close(output, ended.expand[i].adn(total))
    for parameter in bare.parameters():
        parameter.data.zero_()
    assert all(torch.equal(output, x) for output, x in zip(bare(inputs), inputs))


@pytest.mark.parametrize("heads", [1, 2])
def test_channel_attention_is_what_the_paper_says(heads: int) -> None:
    attention, own, everything = ChannelCrossAttention(4, 12, heads), torch.randn(2, 9, 4), torch.randn(2, 9, 12)
    query, key, value = attention.query(own), attention.key(everything), attention.value(everything)
    parts = []
    for q, k, v in zip(query.chunk(heads, 2), key.chunk(heads, 2), value.chunk(heads, 2)):
        parts.append((q.mT @ k / 12**0.5).softmax(2) @ v.mT)  # (2, channels, tokens)
    torch.testing.assert_close(attention(own, everything), attention.proj(torch.cat(parts, 1).mT))


@pytest.mark.parametrize("heads", [1, 2])
def test_spatial_attention_is_what_the_paper_says(heads: int) -> None:
    attention, own, everything = SpatialCrossAttention(4, 12, heads), torch.randn(2, 9, 4), torch.randn(2, 9, 12)
    query, key, value = attention.query(everything), attention.key(everything), attention.value(own)
    parts = []
    for q, k, v in zip(query.chunk(heads, 2), key.chunk(heads, 2), value.chunk(heads, 2)):
        parts.append((q @ k.mT / (12 / heads) ** 0.5).softmax(2) @ v)
    torch.testing.assert_close(attention(own, everything), attention.proj(torch.cat(parts, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3"),
        ({"channels": ()}, "channels needs numbers of 1 or more"),
        ({"grid": (3, 3, 3)}, "grid needs 2 entries"),
        ({"grid": 0}, "grid needs numbers of 1 or more"),
        ({"blocks": 0}, "blocks needs numbers of 1 or more"),
        ({"channel_heads": 0}, "channel_heads needs numbers of 1 or more"),
        ({"channel_heads": 3}, r"channel_heads=3 does not divide all channels \[4, 8\]; numbers that do: 1, 2, 4."),
        ({"spatial_heads": 8}, r"spatial_heads=8 does not divide all channels \[4, 8\]; numbers that do: 1, 2, 4."),
        ({"channel_attention": False, "spatial_attention": False}, "both off; turn at least one on"),
    ],
)
def test_construction_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DualCrossAttention(**{"spatial_dims": 2, "channels": (4, 8), "grid": 3, **options})


def test_heads_of_an_attention_that_is_off_do_not_matter() -> None:
    DualCrossAttention(2, (3, 6), 3, spatial_attention=False)


def test_wrong_skips() -> None:
    refine = DualCrossAttention(2, (4, 8), 3)
    with pytest.raises(ValueError, match="built for 2 skips, got 3"):
        refine(skips(4, 8, 8))
    with pytest.raises(ValueError, match=r"skip 0 must be \(batch, 4, height, width\), got \[1, 8, 12, 20\]"):
        refine(skips(8, 4))
    with pytest.raises(ValueError, match="skip 0 must be"):
        refine(skips(4, 8, dims=3))
