"""What runs on a CPU in place of PyTorch's modules agrees with them, and so do its gradients where it trains."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Norm

from hybrid_nets import DualCrossAttention
from hybrid_nets.blocks import convutr_cpu, dca_cpu, norm, products
from hybrid_nets.blocks.conv import conv_norm_act
from hybrid_nets.blocks.fast_conv import FastConv3d, FastConvolution
from hybrid_nets.blocks.products import FEWEST, FastLinear, attend, attend_plain
from hybrid_nets.nets.mobileutr import ConvUtr


def check_gradients(fast: torch.Tensor, plain: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(fast)
    for one, other in zip(torch.autograd.grad(fast, inputs, weight), torch.autograd.grad(plain, inputs, weight)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def randomise_norms(module: torch.nn.Module) -> None:
    """Statistics and weights of BatchNorm unlike those it starts with."""
    for name, tensor in module.state_dict().items():
        if ".N." in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 2)


def test_attention_by_convolutions() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, n, 3 * c, requires_grad=True) for n, c in ((20, 8), (12, 8), (12, 5)))
    fast, plain = attend(query, key, value, 3, 0.7), attend_plain(query, key, value, 3, 0.7)
    check_gradients(fast, plain, [query, key, value])


def test_attention_without_gradients_takes_some_queries_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(products, "SCORES", 2**15)
    query, key, value = torch.randn(2, FEWEST + 7, 3, 3, 8).unbind(2)  # as they lie in one map of all three
    query, key, value = (part.flatten(2) for part in (query, key, value))
    with torch.no_grad():
        fast, plain = attend(query, key, value, 3), attend_plain(query, key, value, 3, None)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    assert not torch.equal(fast, plain)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_by_convolution(bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = FastLinear(24, 16, bias), torch.randn(2, FEWEST, 3, 24).transpose(1, 2)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("options", [{}, {"channel_heads": 2, "blocks": 2}, {"post_norm": False}])
def test_dual_cross_attention_all_levels_at_once(dims: int, options: dict) -> None:
    torch.manual_seed(0)
    refine = DualCrossAttention(dims, (8, 16), (16, 17, 2)[:dims], **options).eval()
    randomise_norms(refine)
    skips = [torch.randn(2, 8, 20, 36, 6)[(...,) + (0,) * (3 - dims)], torch.randn(2, 16, *(10, 18, 3)[:dims])]
    before = [skip.clone() for skip in skips]
    with torch.no_grad():
        fast = refine(skips)
    for ours, plain, skip, copy in zip(fast, refine(skips), skips, before):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
        assert torch.equal(skip, copy)


def test_channels_attention_without_subnormal_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    refine, seen = DualCrossAttention(2, (8, 16), 16, spatial_attention=False).eval(), []
    monkeypatch.setattr(dca_cpu, "product", lambda a, b, *rest: seen.append(b) or products.product(a, b, *rest))
    for level in refine.blocks[0].channel.levels:  # scores that lie far apart
        level.query.weight.data.fill_(2)
        level.key.weight.data.fill_(2)
    with torch.no_grad():
        refine([torch.randn(1, 8, 32, 32), torch.randn(1, 16, 16, 16)])
    weights = seen[-1]
    assert ((weights == 0) | (weights.abs() > torch.finfo(torch.float32).tiny)).all()
    assert (weights == 0).any()


@pytest.mark.parametrize("size", [(6, 4, 5), (40, 40, 5)])  # on both sides of PyTorch's threshold
def test_convolution_by_onednn(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    unit = FastConvolution(3, 16, 4, kernel_size=3, act="relu", norm="batch").train()
    x = torch.randn(1, 16, *size, requires_grad=True)
    check_gradients(unit(x), unit.adn(unit.conv(x)), [x, unit.conv.weight])


@pytest.mark.parametrize(("dims", "norm_name"), [(2, "batch"), (3, "channel")])
def test_conv_utr_slab_by_slab(dims: int, norm_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(convutr_cpu, "WIDE", 2**13)
    block = ConvUtr(dims, 8, norm_name, 7).eval()
    randomise_norms(block)
    x = torch.randn(2, 8, *(12, 19, 10)[:dims])
    before = x.clone()
    with torch.no_grad():
        fast, plain = block(x), block.mix(x)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(x, before)


def test_conv_utr_learns_statistics_without_gradients() -> None:
    torch.manual_seed(0)
    block, x = ConvUtr(2, 8, "batch", 3).train(), torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        block(x)
    assert all(unit.adn.N.num_batches_tracked == 1 for unit in (block.spatial, *block.pointwise))


def test_next_to_another_copy_of_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a packed bundle brings one: MONAI's table of norms then names that copy's class."""
    monkeypatch.setattr(Norm, "components", dict(Norm.components))
    spec = importlib.util.spec_from_file_location("copy_of_norm", norm.__file__)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert Norm["channel", 3] is copy.ChannelNorm
    unit, x = conv_norm_act(3, 4, 8), torch.randn(1, 4, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(unit(x), unit.adn.A(unit.adn.N(unit.conv(x))))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("kernel", "groups"), [((3, 3, 3), 6), ((5, 1, 7), 6), ((1, 1, 1), 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_convolutions(layout: torch.memory_format, kernel: tuple, groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = FastConv3d(6, 6, kernel, padding=tuple(side // 2 for side in kernel), groups=groups, bias=bias)
    x = torch.randn(2, 6, 4, 9, 5).to(memory_format=layout).requires_grad_()
    out = conv(x)
    assert out.is_contiguous(memory_format=layout)
    check_gradients(out, conv._conv_forward(x, conv.weight, conv.bias), [x, *conv.parameters()])


def test_convolutions_in_bfloat16() -> None:
    torch.manual_seed(0)
    conv, x = FastConv3d(6, 6, 3, padding=1, groups=6), torch.randn(1, 6, 4, 9, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), conv._conv_forward(x, conv.weight, conv.bias), rtol=0.02, atol=0.02)
    out.sum().backward()
    assert conv.weight.grad.dtype == torch.float32
