"""What runs on a CPU slab by slab computes what the modules do."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from hybrid_nets import GLIMS
from hybrid_nets.blocks import slabs
from hybrid_nets.blocks.conv import PointwiseConv, conv_norm_act, upsample_and_fuse
from hybrid_nets.blocks.csab import CSAB
from hybrid_nets.blocks.dacb import DACB
from hybrid_nets.blocks.depthwise import depthwise, depthwise_weight_grad
from hybrid_nets.blocks.folded_conv import folded_conv3d
from hybrid_nets.blocks.norm import ChannelNorm


@pytest.fixture(autouse=True, params=[2**19, 2**11, 1], ids=["one slab", "many slabs", "slabs of a slice or voxel"])
def slab_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB", request.param)
    torch.manual_seed(
        0
    )  # with others a value may lie so near an activation's kink that float64 has it on the other side


def randomise(module: nn.Module) -> nn.Module:
    """Weights, biases and slopes that all matter; slopes on both sides of 0 and 1."""
    with torch.no_grad():
        for i, weight in enumerate(module.parameters()):
            weight.normal_() if weight.numel() > 1 else weight.fill_((0.25, -0.3, 0.0, 1.4)[i % 4])
    return module


def volume(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 1


def check_against_double(module: nn.Module, *inputs: torch.Tensor) -> None:
    """Result and gradients are those in float64, where the modules run one by one; and so is it without gradients."""
    exact = copy.deepcopy(module).double()
    given = [x.clone().requires_grad_() for x in inputs]
    wanted = [x.double().requires_grad_() for x in inputs]
    out, reference = module(*given), exact(*wanted)
    torch.testing.assert_close(out.double(), reference, rtol=1e-4, atol=1e-4)
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(pull), reference.backward(pull.double())
    found = [*given, *module.parameters()]
    for part, other in zip(found, [*wanted, *exact.parameters()], strict=True):
        assert (part.grad is None) == (other.grad is None)
        if other.grad is not None:
            assert (part.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-4
    with torch.no_grad():
        torch.testing.assert_close(module(*(x.clone() for x in inputs)).double(), reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 6, 7, 5, 9), (1, 4, 2, 3, 1), (1, 12, 8, 8, 8)])
def test_dacb(shape: tuple) -> None:
    check_against_double(randomise(DACB(3, shape[1])), volume(*shape))


def test_dacb_in_place() -> None:
    block, x = randomise(DACB(3, 6, in_place=True)), volume(2, 6, 5, 7, 8)
    check_against_double(block, x)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        assert block(x).data_ptr() == x.data_ptr()
    assert block(x).data_ptr() != x.data_ptr()  # gradients need the input


def test_dacb_keeps_its_input_only() -> None:
    kept: list[torch.Size] = []
    block, x = DACB(3, 6), volume(1, 6, 8, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        block(x)
    assert [shape for shape in kept if shape.numel() >= x.numel()] == [x.shape]


def test_training_after_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that both write to outlives inference."""
    monkeypatch.setattr(slabs.KEPT, "flat", torch.empty(0))
    block, x = DACB(3, 6), volume(1, 6, 4, 4, 4)
    with torch.inference_mode():
        block(volume(1, 6, 8, 8, 8))
    block(x).sum().backward()
    assert all(weight.grad is not None for weight in block.parameters())


def test_dacb_backward_twice() -> None:
    block, x = DACB(3, 6), volume(1, 6, 4, 4, 4).requires_grad_()
    out = block(x).square().sum()
    first, second = (torch.autograd.grad(out, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("block", [DACB(3, 6), CSAB(3, 6), ChannelNorm(6), PointwiseConv(6, 2)])
def test_no_gradients_of_gradients(block: nn.Module) -> None:
    """They would be wrong, as backward passes write in place."""
    x = volume(1, 6, 4, 4, 4).requires_grad_()
    (first,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("size", [(7, 5, 9), (1, 2, 3)])
def test_depthwise_convolution(dilation: int, size: tuple) -> None:
    images = volume(size[0], 5, *size[1:]).contiguous(memory_format=torch.channels_last)
    weight = volume(5, 1, 3, 3, 3).requires_grad_()
    wanted = F.conv3d(images.transpose(0, 1)[None], weight, padding=dilation, dilation=dilation, groups=5)
    grad = torch.randn_like(wanted)
    wanted.backward(grad)
    out = torch.full_like(images, torch.nan)
    for place, part in depthwise(images, weight.detach(), dilation):
        out[place] = part
    torch.testing.assert_close(out.transpose(0, 1)[None], wanted.detach(), rtol=1e-5, atol=1e-5)
    found = depthwise_weight_grad(images, grad[0].transpose(0, 1), weight.detach(), dilation)
    torch.testing.assert_close(found, weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel_size", "transposed", "beside"), [(1, False, False), (1, False, True), (2, False, False), (2, True, False)]
)
def test_convolution_norm_prelu(kernel_size: int, transposed: bool, beside: bool) -> None:
    unit = randomise(conv_norm_act(3, 8 if beside else 5, 4, kernel_size, kernel_size, transposed))
    check_against_double(unit, volume(2, 5, 6, 4, 8), *([volume(2, 3, 6, 4, 8)] if beside else []))


def test_upsample_and_fuse() -> None:
    up, fuse = randomise(conv_norm_act(3, 6, 3, 2, 2, transposed=True)), randomise(conv_norm_act(3, 6, 3))
    x, skip = volume(2, 6, 3, 2, 4), volume(2, 3, 6, 4, 8).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        wanted = copy.deepcopy(fuse).double()(copy.deepcopy(up).double()(x.double()), skip.double())
        found = upsample_and_fuse(up, fuse, x, skip)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    assert found.data_ptr() == skip.data_ptr()


@pytest.mark.parametrize("constant", [False, True])
def test_csab(constant: bool) -> None:
    block = randomise(CSAB(3, 6, constant))
    check_against_double(block, volume(2, 6, 5, 7, 4))


def test_csab_in_place() -> None:
    block, x = randomise(CSAB(3, 6, in_place=True)), volume(2, 6, 5, 7, 4)
    check_against_double(block, x)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        assert block(x).data_ptr() == x.data_ptr()
        before = x.clone()
        assert CSAB(3, 6)(x).data_ptr() != x.data_ptr()
    assert torch.equal(x, before)


@pytest.mark.parametrize("kernel_size", [3, 7, 9])
@pytest.mark.parametrize("size", [(5, 6, 7), (1, 8, 4), (9, 1, 2)])
def test_folded_convolution(kernel_size: int, size: tuple) -> None:
    x, weight = volume(2, 3, *size).double(), volume(2, 3, *[kernel_size] * 3).double()
    torch.testing.assert_close(folded_conv3d(x, weight), F.conv3d(x, weight, padding="same"))


def test_pointwise_convolution() -> None:
    check_against_double(PointwiseConv(5, 3), volume(2, 5, 6, 4, 8))


@pytest.mark.parametrize("affine", [False, True])
def test_channel_norm(affine: bool) -> None:
    check_against_double(randomise(ChannelNorm(4, affine)), volume(2, 4, 5, 6, 7))


def test_a_metatensor_takes_the_same_path_and_keeps_its_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB", max(slabs.SLAB, 2**11))  # voxel by voxel it would take minutes
    network = GLIMS(1, 2, img_size=32, feature_size=12, deep_supervision=True)
    x = volume(1, 1, 32, 32, 32)
    seen: list[bool] = []
    monkeypatch.setattr("hybrid_nets.blocks.dacb.covers", lambda x: seen.append(slabs.covers(x)) or seen[-1])
    with torch.no_grad():
        many = network(MetaTensor(x, meta={"filename_or_obj": "a.nii.gz"}))
        out = network.eval()(MetaTensor(x, meta={"filename_or_obj": "a.nii.gz"}))
        assert torch.equal(out.as_tensor(), network(x))
    assert all(seen) and seen
    assert [part.meta["filename_or_obj"] for part in [*many, out]] == ["a.nii.gz"] * 5


def test_other_inputs_take_pytorchs_path() -> None:
    assert slabs.covers(volume(1, 1, 2, 2, 2))
    assert not slabs.covers(volume(1, 1, 2, 2, 2).double())
    assert not slabs.covers(volume(1, 1, 2, 2))
    assert not slabs.covers(volume(1, 1, 2, 2, 2).to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not slabs.covers(volume(1, 1, 2, 2, 2))
