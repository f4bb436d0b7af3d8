from __future__ import annotations

import itertools

import pytest
import torch
from golden_files import Golden
from network_tester import LeanNetworkTester

from hybrid_nets import convert_released, unets
from hybrid_nets.blocks.excite import SqueezeExcite
from hybrid_nets.nets.dca_unet import BACKBONES, DCAUNet

# Few levels, most with more than one skip; channels that give squeeze and excitation two hidden units or more.
CHANNELS = {"resunetpp": (16, 32, 32, 32), "doubleunet": (16,)}
# In Dual Cross-Attention with one block: what softmax removes, and what the BatchNorm at its end removes.
DCA_WITHOUT_EFFECT = r"spatial\.levels\.\d\.(key|value|proj)\.bias|expand\.\d\.conv\.bias"
WITHOUT_EFFECT = {
    "resunetpp": r"bottom\.branches\.\d\.adn\.N\.bias",
    "doubleunet": r"\.body\.body\.[02]\.bias|encoder2\.\d\.body\.0\.bias|branches\.0\.body\.bias",
}


class TestDCAUNet(LeanNetworkTester):
    @pytest.fixture(
        autouse=True,
        params=itertools.product(BACKBONES, (2, 3), (True, False)),
        ids=lambda param: f"{param[0]}-{param[1]}d-{'dca' if param[2] else 'plain'}",
    )
    def configuration(self, request) -> None:
        self.backbone, self.spatial_dims, self.dca = request.param
        self.good_sizes = ((8, 12), (16, 4)) if self.spatial_dims == 2 else ((8, 12, 8), (4, 8, 16))
        self.bad_sizes = ((8, 9), (1, 8)) if self.spatial_dims == 2 else ((8, 8, 9), (1, 8, 8))
        parts = [WITHOUT_EFFECT.get(self.backbone), DCA_WITHOUT_EFFECT if self.dca else None]
        self.without_effect = "|".join(filter(None, parts)) or LeanNetworkTester.without_effect
        if self.spatial_dims == 2 and self.backbone != "doubleunet":
            self.golden = (f"dca_{self.backbone}_{'dca' if self.dca else 'plain'}",)

    def build(self, **options: object) -> DCAUNet:
        channels = CHANNELS.get(self.backbone, (4, 8, 12))
        if not self.dca and self.backbone != "doubleunet":
            channels = channels[:-1]  # a level less is a third less to export
        settings = {"dca": self.dca, "grid": 3, "channels": channels, **options}
        network = DCAUNet(self.backbone, self.spatial_dims, self.in_channels, self.out_channels, **settings)
        for module in network.modules():
            if isinstance(module, SqueezeExcite):  # a small hidden layer may be all zero by chance: now one unit isn't
                weight = module.gate[0].weight.data
                weight[1] = -weight[0]
        return network

    def build_golden(self, golden: Golden) -> DCAUNet:
        grid = golden.input().shape[2] // golden.config["patch_size"]
        options = {name: value for name, value in golden.config.items() if name not in ("net", "patch_size")}
        return DCAUNet(grid=grid, **options).eval()


LEVELS = 32 + 64 + 128 + 256  # one bias per channel, at each level but the coarsest
WIDE, WIDEST = 51 + 105 + 212 + 426, 853  # channels of MultiRes blocks
# Biases that the next BatchNorm subtracts again with the channel's mean: with Dual Cross-Attention, and also without.
GONE = {
    "unet": (LEVELS + 2 * 512 + 3 * LEVELS, 0),  # first of each level, bottom, decoder
    "vnet": (
        # all but the last of each level down, up; last of the bottom; last and transposed of each level up
        (64 + 2 * 128 + 2 * 256 + 2 * 512) + (2 * 256 + 2 * 128 + 64) + 512 + 2 * LEVELS,
        LEVELS + (3 * 32 + 32),  # last of each level down; the 1×1 convolution that only Dual Cross-Attention reads
    ),
    "r2unet": (2 * LEVELS + 512 + LEVELS + (512 + LEVELS), LEVELS),  # recurrent, up, 1×1; 1×1 of the encoder
    "resunetpp": (32 + 2 * (64 + 128 + 256) + 2 * (128 + 256 + 512) + 5 * 512 + 5 * 32, 0),  # pyramids have five
    "multiresunet": (
        # chain and shortcut of each block, up, Res paths without their last steps; BatchNorms of these
        2 * (2 * WIDE + WIDEST) + LEVELS + 2 * (3 * 32 + 2 * 64 + 128) + 2 * LEVELS,
        2 * LEVELS - 2 * LEVELS,  # biases of the last steps, instead of the BatchNorms
    ),
}


@pytest.mark.parametrize("dca", [False, True])
@pytest.mark.parametrize("backbone", GONE)
def test_parameters_that_are_gone(backbone: str, dca: bool) -> None:
    golden = Golden(f"dca_{backbone}_{'dca' if dca else 'plain'}")
    with torch.device("meta"):
        count = sum(p.numel() for p in DCAUNet(backbone, out_channels=2, dca=dca).parameters())
    always, without_dca = GONE[backbone]
    assert golden.n_params - count == always + (0 if dca else without_dca)


def test_doubleunet_has_all_released_parameters() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in DCAUNet("doubleunet", dca=dca).parameters()) for dca in (False, True)]
    assert counts == [29_683_556, 30_584_516]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_keys_without_the_wrapper(backbone: str) -> None:
    wrapped = DCAUNet(backbone, grid=3, channels=CHANNELS.get(backbone, (4, 8, 12)))
    inner = BACKBONES[backbone](dca=True, grid=3, channels=CHANNELS.get(backbone, (4, 8, 12)))
    assert list(wrapped.state_dict()) == [f"network.{name}" for name in inner.state_dict()]


def test_checkpoint_of_the_wrong_kind() -> None:
    with_dca, without = Golden("dca_unet_dca").state_dict(), Golden("dca_unet_plain").state_dict()
    with pytest.raises(KeyError, match=r"unknown keys \['DCA.avg_map"):
        convert_released(unets.UNet(out_channels=2), with_dca)
    with pytest.raises(KeyError, match=r"unknown keys \[\], missing keys \['refine.embed.0"):
        convert_released(unets.UNet(out_channels=2, dca=True), without)
    with pytest.raises(ValueError, match="out.conv.weight is"):
        convert_released(DCAUNet("unet", out_channels=1), with_dca)
    with pytest.raises(TypeError, match="DoubleUNet; known: GLIMS, .*MultiResUNet"):
        convert_released(DCAUNet("doubleunet", channels=(8,)), with_dca)


def test_construction_errors() -> None:
    with pytest.raises(ValueError, match="backbone must be one of 'unet', 'vnet', .*got 'swin'"):
        DCAUNet("swin")
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3"):
        DCAUNet(spatial_dims=1)
    with pytest.raises(ValueError, match="grid needs 3 entries"):
        DCAUNet(spatial_dims=3, grid=(6, 6))
    with pytest.raises(ValueError, match=r"channels needs 2 or more positive entries, one per level, got \[8\]"):
        DCAUNet(channels=(8,))
    with pytest.raises(ValueError, match="numbers that do: 1, 2, 3, 6"):
        DCAUNet(channels=(6, 12, 8))
    assert DCAUNet(channels=(6, 12, 8), dca_options={"spatial_heads": 3, "blocks": 2}).network.refine.num_axes == 2
