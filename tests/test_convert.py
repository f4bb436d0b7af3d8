from __future__ import annotations

import pytest
import torch
from golden_files import Golden

from hybrid_nets import GLIMS, convert_released


@pytest.fixture(scope="module")
def released() -> dict[str, torch.Tensor]:
    return Golden("glims_released_fs12").state_dict()


def build(**options: object) -> GLIMS:
    return GLIMS(4, 3, **{"feature_size": 12, "deep_supervision": True, **options})


def test_golden_counts_match_the_manifest(released: dict) -> None:
    golden = Golden("glims_released_fs12")
    assert sum(tensor.numel() for tensor in released.values()) == golden.n_params


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_wrappings(released: dict, variant: str) -> None:
    network = build(variant=variant)
    plain = convert_released(network, released)
    wrapped = convert_released(network, {"state_dict": {f"module.{k}": v for k, v in released.items()}, "epoch": 3})
    assert plain.keys() == wrapped.keys() == network.state_dict().keys()
    assert all(torch.equal(plain[k], wrapped[k]) for k in plain)
    network.load_state_dict(plain, strict=True)


def test_index_buffers_are_dropped(released: dict) -> None:
    buffers = {"t3.layer.blocks.0.attn.relative_position_index": torch.zeros(343, 343, dtype=torch.long)}
    assert convert_released(build(), {**released, **buffers}).keys() == build().state_dict().keys()


def test_network_without_auxiliary_heads(released: dict) -> None:
    network = build(deep_supervision=False)
    network.load_state_dict(convert_released(network, released), strict=True)


def test_position_embeddings_are_resampled(released: dict) -> None:
    network, native = build(img_size=(64, 96, 128)), build()
    converted = convert_released(network, released)
    network.load_state_dict(converted, strict=True)
    flat = convert_released(native, released)["t3.position.weight"]
    assert torch.equal(flat.flatten(2), released["t3.layer.position_embeddings"])  # width varies fastest
    expected = torch.nn.functional.interpolate(flat, (8, 12, 16), mode="trilinear", align_corners=False)
    assert torch.equal(converted["t3.position.weight"], expected)


def test_missing_and_unknown_keys_are_listed(released: dict) -> None:
    broken = {k: v for k, v in released.items() if k != "dmsf_1.l1.conv_1x1.conv.weight"} | {
        "extra.weight": torch.zeros(1)
    }
    with pytest.raises(
        KeyError, match=r"unknown keys \['extra.weight'\], missing keys \['dmsf1.local.0.widen.conv.weight'\]"
    ):
        convert_released(build(), broken)


def test_other_feature_size(released: dict) -> None:
    with pytest.raises(ValueError, match=r"needs \[24, 4, 1, 1, 1\].*feature_size"):
        convert_released(build(feature_size=24), released)


def test_unknown_network(released: dict) -> None:
    with pytest.raises(TypeError, match="Linear; known: GLIMS"):
        convert_released(torch.nn.Linear(1, 1), released)
