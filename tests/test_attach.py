from __future__ import annotations

import copy
import io
import re

import pytest
import torch
from monai.networks.nets import UNETR, BasicUNet, DynUNet, SwinUNETR
from torch import nn

from hybrid_nets import attach_dca


def basic_unet(dims: int) -> tuple[nn.Module, list[str], list[str]]:
    network = BasicUNet(dims, 1, 2, features=(4, 4, 8, 8, 16, 4))
    return network, ["conv_0", "down_1", "down_2", "down_3"], [f"upcat_{i}" for i in (4, 3, 2, 1)]


def dyn_unet(dims: int) -> tuple[nn.Module, list[str], list[str]]:
    network = DynUNet(dims, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 16])
    return network, ["input_block", "downsamples.0"], ["upsamples.0", "upsamples.1"]


def unetr(dims: int, img_size: int = 32) -> tuple[nn.Module, list[str], list[str]]:
    options = {"feature_size": 4, "hidden_size": 16, "mlp_dim": 16, "num_heads": 2, "spatial_dims": dims}
    return (
        UNETR(1, 2, img_size, **options),
        [f"encoder{i}" for i in (1, 2, 3, 4)],
        [f"decoder{i}" for i in (5, 4, 3, 2)],
    )


def swin_unetr(dims: int) -> tuple[nn.Module, list[str], list[str]]:
    network = SwinUNETR(1, 2, feature_size=12, depths=(1, 1, 1, 1), window_size=3, spatial_dims=dims)
    return network, [f"encoder{i}" for i in (1, 2, 3, 4)], [f"decoder{i}" for i in (4, 3, 2, 1)]


BUILDERS = [basic_unet, dyn_unet, unetr, swin_unetr]


def example(builder, dims: int, batch: int = 1) -> torch.Tensor:
    size = [64 if builder is swin_unetr else 32, 32, 32][:dims]
    return torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("builder", BUILDERS)
class TestMonaiNetworks:
    def test_refines_and_learns(self, builder, dims: int) -> None:
        network, skips, decoders = builder(dims)
        x = example(builder, dims)
        before = network.eval()(x)
        assert attach_dca(network, skips, decoders, grid=3) is network
        after = network(x)
        assert after.shape == before.shape and not torch.allclose(after, before, rtol=1e-2, atol=1e-3)
        network.double().train()(example(builder, dims).double()).square().mean().backward()
        sizes = {name: parameter.grad.abs().max() for name, parameter in network.dca.named_parameters()}
        noise = {name for name, size in sizes.items() if size < 1e-10 * max(sizes.values())}
        assert noise == {
            name for name in sizes if re.search(r"spatial\.levels\.\d\.key\.bias", name)
        }  # see its docstring

    def test_without_contribution_nothing_changes(self, builder, dims: int) -> None:
        network, skips, decoders = builder(dims)
        x = example(builder, dims, batch=2)
        before = network.eval()(x)
        attach_dca(network, skips, decoders, grid=3)
        assert not network.training and not network.dca.training
        for parameter in network.dca.parameters():
            parameter.data.zero_()
        assert torch.equal(network(x), before)

    def test_save_and_load(self, builder, dims: int, tmp_path) -> None:
        network, other = (attach_dca(*builder(dims), grid=3).eval() for _ in range(2))
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(network(example(builder, dims)), other(example(builder, dims)))


@pytest.mark.parametrize("builder", BUILDERS)
class TestCopies:
    def test_deep_copy_and_pickle_are_on_their_own(self, builder) -> None:
        network, x = attach_dca(*builder(2), grid=3).eval(), example(builder, 2)
        file = io.BytesIO()
        torch.save(network, file)
        file.seek(0)
        before = network(x)
        copies = [copy.deepcopy(network), torch.load(file, weights_only=False)]
        for parameter in network.dca.parameters():
            parameter.data.zero_()
        assert not torch.allclose(network(x), before)
        assert all(torch.equal(other(x), before) for other in copies)

    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
    def test_trace(self, builder, tmp_path) -> None:
        network, x = attach_dca(*builder(2), grid=3).eval(), example(builder, 2)
        with torch.no_grad():
            torch.jit.trace(network, x).save(tmp_path / "net.pt")
            torch.testing.assert_close(torch.jit.load(tmp_path / "net.pt")(x), network(x), rtol=1e-3, atol=1e-5)


class Join(nn.Module):
    def forward(self, skips: dict, bottom: torch.Tensor, size: torch.Size) -> torch.Tensor:
        coarse, (fine,) = skips["all"]
        return nn.functional.interpolate(coarse + bottom, size)[:, :4] + fine


class Toy(nn.Module):
    """Hands its skips over in nested containers; can be told to do what a network must not."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.norm, self.drop, self.join, self.unused = nn.BatchNorm2d(8), nn.Dropout(0.5), Join(), nn.Identity()
        self.two, self.two_fine = nn.LSTM(4, 4), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        if self.fault == "pair":
            self.two(fine.flatten(2).mT)
        bottom = self.drop(self.norm(coarse))
        y = self.join(
            {"all": [coarse, (fine.relu() if self.fault == "astray" else fine,)]}, bottom=bottom, size=x.shape[2:]
        )
        if self.fault == "raise":
            raise RuntimeError("on purpose")
        return y + self.two_fine(x)


def toy(fault: str = "", skips: tuple[str, ...] = ("fine", "coarse"), **options: object) -> Toy:
    return attach_dca(Toy(fault), skips, ["join"], **{"grid": 3, **options})


def test_only_decoders_see_refined_skips() -> None:
    network, x = toy().eval(), torch.randn(2, 3, 10, 12)
    fine = network.fine(x)
    coarse = network.coarse(fine)
    bottom = network.norm(coarse)
    refined = network.dca([fine, coarse])
    expected = network.join.forward({"all": [refined[1], (refined[0],)]}, bottom, x.shape[2:]) + network.two_fine(x)
    torch.testing.assert_close(network(x), expected)
    for size in ((1, 3, 16, 8), (3, 3, 64, 64)):
        assert network(torch.zeros(size)).shape == (size[0], 4, *size[2:])


def test_skips_in_any_order() -> None:
    assert toy(skips=("coarse", "fine")).dca.channels == [8, 4]


def test_attaching_disturbs_nothing() -> None:
    network = Toy().train()
    network.drop.eval()
    state, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    with pytest.raises(ValueError, match="channel_heads=3 does not divide all channels"):
        attach_dca(network, ["fine", "coarse"], ["join"], channel_heads=3)  # the last thing that can go wrong
    assert torch.equal(torch.get_rng_state(), random)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in state.items())
    assert network.training and network.norm.training and not network.drop.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_nothing_is_kept_between_passes() -> None:
    network = toy()
    hooks = next(iter(network._forward_pre_hooks.values())).__self__
    network(torch.zeros(2, 3, 8, 8))
    assert hooks.skips == [None, None] and not hooks.refined and not hooks.running
    network.fault = "raise"
    with pytest.raises(RuntimeError, match="on purpose"):
        network(torch.zeros(2, 3, 8, 8))
    assert hooks.skips == [None, None] and not hooks.refined and not hooks.running


def test_options_reach_dca() -> None:
    network = toy(blocks=2, spatial_attention=False, post_norm=True)
    assert len(network.dca.blocks) == 2 and list(network.dca.blocks[0]) == ["channel"]
    assert toy(grid=None).dca.pool.grid == [28, 28]
    assert attach_dca(*dyn_unet(3)).dca.pool.grid == [8, 8, 8]


def test_fixed_size_needs_an_example() -> None:
    network, skips, decoders = unetr(2, img_size=80)
    with pytest.raises(ValueError, match="takes no zeros of 1 channels and 2 sides of 64, 32.*pass example="):
        attach_dca(network, skips, decoders)
    attach_dca(network, skips, decoders, example=torch.zeros(1, 1, 80, 80))
    assert network(torch.zeros(2, 1, 80, 80)).shape == (2, 2, 80, 80)
    with pytest.raises(ValueError, match="no convolution .* pass example="):
        attach_dca(nn.Sequential(nn.Linear(2, 2)), ["0"], ["0"])


@pytest.mark.parametrize(
    ("fault", "skips", "decoders", "message"),
    [
        ("", ["fine", "corse"], ["join"], "skips: the network has no module 'corse'; close names: coarse"),
        ("", ["fine"], ["joint"], "decoders: the network has no module 'joint'; close names: join"),
        ("", [], ["join"], "skips must be a list of one or more"),
        ("", ["fine", "fine"], ["join"], "skips must be a list of one or more different"),
        ("", "fine", ["join"], "skips must be a list"),
        ("", ["fine"], [], "decoders must be a list"),
        ("", ["fine", "coarse"], ["unused"], r"skips \['fine', 'coarse'\] reach none of the decoders"),
        ("", ["fine", "unused"], ["join"], r"not computed when decoder 'join' starts: skips \['unused'\]"),
        ("", ["fine", "two_fine"], ["join"], r"not computed when decoder 'join' starts: skips \['two_fine'\]"),
        ("astray", ["fine", "coarse"], ["join"], r"skips \['fine'\] reach none of the decoders"),
        ("pair", ["two", "fine"], ["join"], "skip 'two' returns tuple, not one tensor"),
    ],
)
def test_skips_that_cannot_be_refined(fault: str, skips: list[str], decoders: list[str], message: str) -> None:
    network = Toy(fault)
    with pytest.raises(ValueError, match=message):
        attach_dca(network, skips, decoders)
    assert not hasattr(network, "dca")


def test_wrong_use_is_refused() -> None:
    network = toy()
    with pytest.raises(ValueError, match="has a `dca` already"):
        attach_dca(network, ["fine"], ["join"])
    with pytest.raises(RuntimeError, match=r"call network\(x\), not network.forward\(x\)"):
        network.forward(torch.zeros(2, 3, 8, 8))
    network.coarse.weight.data, network.coarse.bias.data = network.coarse.weight[:6], network.coarse.bias[:6]
    network.norm = nn.Identity()
    with pytest.raises(ValueError, match=r"skip 1 must be \(batch, 8, height, width\), got \[2, 6, 4, 4\]"):
        network(torch.zeros(2, 3, 8, 8))


def test_skip_that_training_changes_on_its_way() -> None:
    network = toy(skips=("fine", "norm")).eval()  # there is dropout after this norm, which does nothing in eval mode
    network(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"skips \['norm'\] reach none of the decoders"):
        network.train()(torch.zeros(2, 3, 8, 8))
