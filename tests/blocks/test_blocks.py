from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import SwinTransformerBlock, compute_mask, get_window_size

from hybrid_nets.blocks.norm import ChannelNorm
from hybrid_nets.blocks.position import PositionEmbedding
from hybrid_nets.blocks.swin import SwinStage
from hybrid_nets.blocks.windows import bias_index, clamp_window, join_windows, shift_mask, split_windows


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(2, 8, 6, 5, 4), (1, 3, 7, 9, 11), (2, 4, 16, 16, 16)])
def test_channel_norm_is_instance_norm(shape: tuple[int, ...], affine: bool) -> None:
    torch.manual_seed(0)
    norm, x, grad = ChannelNorm(shape[1], affine), torch.randn(shape) * 3 + 10, torch.randn(shape)
    if affine:
        torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    results = []
    for dtype in (torch.float32, torch.float64):  # float64 goes through PyTorch's own group_norm
        module, inputs = norm.to(dtype), x.to(dtype).requires_grad_()
        y = module(inputs)
        results.append([y, *torch.autograd.grad(y, [inputs, *module.parameters()], grad.to(dtype))])
    for ours, reference in zip(*results):
        torch.testing.assert_close(ours.double(), reference, rtol=1e-3, atol=1e-4)
    expected = F.instance_norm(x.double(), weight=norm.weight, bias=norm.bias)
    torch.testing.assert_close(results[0][0].double(), expected, rtol=1e-3, atol=1e-4)


def test_channel_norm_is_exact_on_large_maps() -> None:
    """PyTorch's group_norm is off by 1e-4 and more here in channels-last memory, which is why this norm exists."""
    torch.manual_seed(0)
    x = (torch.randn(1, 4, 64, 64, 64) * 3 + 5).contiguous(memory_format=torch.channels_last_3d)
    assert (ChannelNorm(4)(x) - F.group_norm(x.double(), 4)).abs().max() < 1e-5


def test_channel_norm_keeps_autocast_dtypes() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ChannelNorm(4)(torch.randn(1, 4, 8, 8, 8).bfloat16()).isfinite().all()


def test_position_embedding_follows_the_grid() -> None:
    embedding = PositionEmbedding(4, (6, 6, 6))
    x = torch.zeros(1, 4, 6, 6, 6)
    assert torch.equal(embedding(x), embedding.weight)
    expected = F.interpolate(embedding.weight, (3, 6, 12), mode="trilinear", align_corners=False)
    assert torch.equal(embedding(torch.zeros(1, 4, 3, 6, 12)), expected)


def test_windows_come_back() -> None:
    x = torch.randn(2, 14, 7, 21, 5)
    assert torch.equal(join_windows(split_windows(x, [7, 7, 7]), [7, 7, 7], [14, 7, 21]), x)


@pytest.mark.parametrize("grid", [(12, 12, 12), (12, 6, 16), (8, 8, 8)])
def test_shift_mask_is_monai_s(grid: tuple[int, int, int]) -> None:
    window, shift = clamp_window(list(grid), 7)
    assert (tuple(window), tuple(shift)) == get_window_size(grid, (7, 7, 7), (3, 3, 3))
    padded = [side + -side % w for side, w in zip(grid, window)]
    ours = shift_mask(list(grid), window, shift, torch.device("cpu"), torch.float32)[:, 0]
    assert torch.equal(ours, compute_mask(padded, tuple(window), tuple(shift), torch.device("cpu")))


def test_bias_index_names_offsets() -> None:
    full = bias_index([7, 7, 7], 7, False, torch.device("cpu"))
    small = bias_index([2, 6, 3], 7, False, torch.device("cpu"))
    assert full.unique().numel() == 13**3
    assert small.shape == (36, 36) and small.unique().numel() == 3 * 11 * 5
    assert (small.diagonal() == full[0, 0]).all()  # offset zero is one row whatever the window
    assert torch.equal(bias_index([2, 6, 3], 7, True, torch.device("cpu")), full[:36, :36])


def test_stage_agrees_with_monai_s_block() -> None:
    """On a grid that windows tile exactly, a stage is MONAI's SwinTransformerBlock with a PReLU in its MLP."""
    torch.manual_seed(0)
    stage = SwinStage(12, depth=2, num_heads=3, grid=(14, 14, 14)).eval()
    torch.nn.init.normal_(stage.blocks[1].attn.bias_table)
    x = stage.embed(torch.randn(1, 12, 14, 14, 14)).permute(0, 2, 3, 4, 1)
    mask = compute_mask([14] * 3, (7, 7, 7), (3, 3, 3), x.device)
    for i, block in enumerate(stage.blocks):
        reference = SwinTransformerBlock(12, 3, (7, 7, 7), (3, 3, 3) if i else (0, 0, 0), act_layer="PRELU").eval()
        names = {
            "attn.bias_table": "attn.relative_position_bias_table",
            "mlp.0": "mlp.linear1",
            "mlp.1": "mlp.fn",
            "mlp.3": "mlp.linear2",
        }
        state = block.state_dict()
        for ours, theirs in names.items():
            state = {key.replace(ours, theirs): value for key, value in state.items()}
        reference.load_state_dict({**state, "attn.relative_position_index": reference.attn.relative_position_index})
        window, shift = clamp_window([14] * 3, 7)
        index = bias_index(window, 7, False, x.device)
        with torch.no_grad():
            ours = block(x, window, shift, index, shift_mask([14] * 3, window, shift, x.device, x.dtype))
            torch.testing.assert_close(ours, reference(x, mask), rtol=1e-4, atol=1e-5)
