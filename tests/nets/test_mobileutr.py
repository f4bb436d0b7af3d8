from __future__ import annotations

import pytest
import torch
from golden_files import Golden
from network_tester import LeanNetworkTester

from hybrid_nets import MobileUtr, convert_released


class TestMobileUtr(LeanNetworkTester):
    golden = ("mobileutr2d_base",)
    spatial_dims = 2
    good_sizes = ((32, 32), (48, 32), (16, 64))
    bad_sizes = ((32, 40), (8, 32))

    def build(self, **options: object) -> MobileUtr:
        return MobileUtr(self.spatial_dims, self.in_channels, self.out_channels, **options)

    def build_complete(self) -> MobileUtr:
        return self.build(drop_path_rate=0.0)

    def build_golden(self, golden: Golden) -> MobileUtr:
        return MobileUtr(**{name: value for name, value in golden.config.items() if name != "net"}).eval()

    def test_large(self) -> None:
        network = self.build(size="large").eval()
        with torch.no_grad():
            assert network(self.example()).shape == (1, self.out_channels, *self.good_sizes[0])

    def test_drop_path(self) -> None:
        """All dropped: the gates of mix and MLP are neutral and attention is skipped; blocks elsewhere are not."""
        network = self.build(drop_path_rate=1.0).train()
        aggregation, transformer = network.local_global[0]
        x = torch.randn(2, 64, *[4] * self.spatial_dims)
        embedded = aggregation.embed(x)
        torch.testing.assert_close(aggregation(x), x + x * (embedded.sigmoid() - 0.5))
        torch.testing.assert_close(transformer(x), x + transformer.embed(x))
        assert all(block.block.drop_path.drop_prob == 0 for block in network.transformer)

    def test_construction_errors(self) -> None:
        with pytest.raises(ValueError, match="size must be one of 'base', 'large', got 'small'"):
            self.build(size="small")
        with pytest.raises(ValueError, match="spatial_dims must be 2 or 3"):
            MobileUtr(spatial_dims=1)


class TestMobileUtr3D(TestMobileUtr):
    golden = ("mobileutr3d_base",)
    spatial_dims = 3
    good_sizes = ((32, 32, 32), (16, 48, 32))
    bad_sizes = ((32, 40, 32), (32, 32, 8))


@pytest.mark.parametrize("dims", [2, 3])
def test_released_biases(dims: int) -> None:
    """They go into BatchNorm's running mean; InstanceNorm removes them by itself."""
    golden = Golden(f"mobileutr{dims}d_base")
    network, released = TestMobileUtr.build_golden(None, golden), golden.state_dict()
    converted = convert_released(network, released)
    assert converted.keys() == network.state_dict().keys()
    if dims == 2:
        expected = released["Up3.up.2.running_mean"] - released["Up3.up.1.bias"]
        assert torch.equal(converted["up3.1.adn.N.running_mean"], expected)
    bias = "patch_embeddings.layer1.block.0.0.fn.0.bias"  # a GELU comes between it and the norm
    assert torch.equal(converted["stage1.blocks.0.spatial.conv.bias"], released[bias])


@pytest.mark.parametrize(
    ("dims", "size", "released_count"),
    [(2, "base", 1_390_305), (2, "large", 6_209_217), (3, "base", 2_758_270), (3, "large", 11_060_206)],
)
def test_parameters_that_are_gone(dims: int, size: str, released_count: int) -> None:
    """Biases that the norm after the convolution subtracts again with the channel's mean."""
    d0, d1, d2, d3 = (16, 32, 64, 128) if size == "base" else (32, 64, 128, 256)
    stem_and_stages = d0 + d0 + d1 + d2
    around_transformer = 2 * d3 + 2 * d2
    decoder = 2 * d2 + d1 + 2 * d1 + d0 + 2 * d0 + d0  # two after each skip, one after each upsampling
    gone = stem_and_stages + around_transformer + decoder
    network = MobileUtr(dims, *((3, 1) if dims == 2 else (1, 14)), size=size)
    assert sum(p.numel() for p in network.parameters()) == released_count - gone
