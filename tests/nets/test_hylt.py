from __future__ import annotations

import pytest
import torch
from golden_files import Golden
from network_tester import LeanNetworkTester

from hybrid_nets import HyLT, convert_released
from hybrid_nets.blocks.pool import GridPool

WIDTHS = (64, 128, 256, 512, 1024)


class TestHyLT(LeanNetworkTester):
    golden = ("hylt_paper_tokens3x3", "hylt_released_tokens3x3")
    spatial_dims = 2
    good_sizes = ((32, 48), (64, 32), (80, 80))
    bad_sizes = ((32, 40), (8, 32))

    def build(self, **options: object) -> HyLT:
        settings = {"channels": (8, 16, 32, 64, 128), "token_dim": 24, **options}
        return HyLT(self.spatial_dims, self.in_channels, self.out_channels, **settings)

    def build_golden(self, golden: Golden) -> HyLT:
        return HyLT(**{name: value for name, value in golden.config.items() if name != "net"}).eval()

    def test_token_grid(self) -> None:
        def count(**options: object) -> int:
            return self.build(**options).tokens.shape[1]

        assert count() == count(token_grid=5) == 5**self.spatial_dims
        assert count(token_grid=(2, 3, 4)[: self.spatial_dims]) == (6 if self.spatial_dims == 2 else 24)
        with pytest.raises(ValueError, match=f"token_grid needs {self.spatial_dims} entries"):
            self.build(token_grid=(3, 3, 3, 3))

    def test_other_depth(self) -> None:
        network = self.build(channels=(4, 8, 12)).eval()
        size = (12, 20, 8)[: self.spatial_dims]
        with torch.no_grad():
            assert network(self.example(size)).shape[2:] == size
        with pytest.raises(ValueError, match="not a multiple of 4; crop to 12 or pad to 16"):
            network(self.example((13, 20, 8)[: self.spatial_dims]))

    def test_construction_errors(self) -> None:
        with pytest.raises(ValueError, match="variant"):
            self.build(variant="original")
        with pytest.raises(ValueError, match="spatial_dims must be 2 or 3"):
            HyLT(spatial_dims=1)


class TestHyLT3D(TestHyLT):
    golden = ()
    spatial_dims = 3
    good_sizes = ((32, 32, 16), (16, 48, 32))
    bad_sizes = ((32, 40, 32), (32, 32, 8))


class TestHyLTReleased(TestHyLT):
    golden = ()

    def build(self, **options: object) -> HyLT:
        return super().build(**{"variant": "released", **options})


@pytest.mark.parametrize("grid", [(5, 5, 5), (2, 3, 4), (9, 1, 6)])
def test_pooling_in_3d_is_adaptive_average_pooling(grid: tuple[int, int, int]) -> None:
    x = torch.randn(2, 3, 7, 12, 5)
    torch.testing.assert_close(GridPool(grid)(x), torch.nn.functional.adaptive_avg_pool3d(x, grid))


def test_released_is_2d_only() -> None:
    with pytest.raises(ValueError, match="spatial_dims=2 only"):
        HyLT(spatial_dims=3, variant="released")


@pytest.fixture(scope="module")
def released() -> dict[str, torch.Tensor]:
    return Golden("hylt_released_tokens3x3").state_dict()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_released_biases_go_into_the_running_mean(released: dict, variant: str) -> None:
    network = HyLT(token_grid=3, variant=variant)
    before = {key: tensor.clone() for key, tensor in released.items()}
    converted = convert_released(network, released)
    assert converted.keys() == network.state_dict().keys()
    expected = released["block1.inconv.conv.1.running_mean"] - released["block1.inconv.conv.0.bias"]
    assert torch.equal(converted["encoder.0.convs.0.adn.N.running_mean"], expected)
    assert all(torch.equal(before[key], released[key]) for key in released)
    # A checkpoint of the released code counts its training steps; the golden files leave the count out.
    counted = {**released, "block1.inconv.conv.1.num_batches_tracked": torch.tensor(7)}
    assert convert_released(network, counted)["encoder.0.convs.0.adn.N.num_batches_tracked"] == 7
    network.load_state_dict(converted, strict=True)


def test_unused_parts_of_a_checkpoint_are_all_that_may_be_there(released: dict) -> None:
    with pytest.raises(KeyError, match=r"unknown keys \['extra.weight'\], missing keys \['head.bias'\]"):
        broken = {key: tensor for key, tensor in released.items() if key != "Conv_1x1.bias"}
        convert_released(HyLT(token_grid=3), {**broken, "extra.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"token is \[1, 9, 192\], needs \[1, 25, 192\]"):
        convert_released(HyLT(), released)


@pytest.mark.parametrize(("grid", "released_count"), [(3, 43_249_089), (5, 43_252_161)])
def test_parameters_that_are_gone(grid: int, released_count: int) -> None:
    """What the released network has more than this one cannot change its output."""
    neck = 1024 * 1024 + 1024 + 2 * 1024  # 1×1 convolution and BatchNorm that the forward pass never uses
    assert neck == 1_051_648
    mids = [min(width, 192) for width in WIDTHS]
    # Biases that the BatchNorm after the convolution subtracts again with the channel's mean:
    encoder = sum(3 * width + 2 * mid for width, mid in zip(WIDTHS, mids))  # two at the start, squeeze, local, expand
    decoder = sum(3 * width for width in WIDTHS[:-1])  # after upsampling, then two
    gone = neck + encoder + decoder
    network = HyLT(token_grid=grid, variant="released")
    assert sum(p.numel() for p in network.parameters()) == released_count - gone
    # Biases of the keys, the same for every key, which softmax removes where heads are heads:
    keys = sum(2 * mid for mid in mids)
    assert sum(p.numel() for p in HyLT(token_grid=grid).parameters()) == released_count - gone - keys
