from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hybrid_nets import StructureLoss


def reference(logits: torch.Tensor, target: torch.Tensor, side: int) -> torch.Tensor:
    """The loss by its formula, one voxel and its neighbourhood at a time."""
    dims, half = logits.ndim - 2, side // 2
    padded = F.pad(target, [half] * 2 * dims)
    for axis in range(2, logits.ndim):
        padded = padded.unfold(axis, side, 1)
    weight = 1 + 5 * (padded.flatten(logits.ndim).mean(-1) - target).abs()
    losses = []
    for w, x, y in zip(weight.flatten(0, 1), logits.flatten(0, 1), target.flatten(0, 1)):
        p = torch.sigmoid(x)
        entropy = -(y * p.log() + (1 - y) * (1 - p).log())
        overlap, union = (w * p * y).sum(), (w * (p + y - p * y)).sum()
        losses.append((w * entropy).sum() / w.sum() + 1 - (overlap + 1) / (union + 1))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("shape", "side"), [((2, 1, 12, 9), 5), ((1, 2, 40, 33), 31), ((2, 2, 8, 6, 7), 3)])
def test_structure_loss_is_its_formula(shape: tuple[int, ...], side: int) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(shape, dtype=torch.float64), (torch.rand(shape) > 0.7).double()
    loss = StructureLoss(len(shape) - 2, kernel_size=side)(logits, target)
    torch.testing.assert_close(loss, reference(logits, target, side))


def test_structure_loss_weighs_boundaries() -> None:
    """Of two mistakes of one voxel, the one at the boundary costs more: not so in the released code's cross entropy."""
    target = torch.zeros(1, 1, 64, 64)
    target[..., 16:48, 16:48] = 1
    logits = 8 * target - 4
    inside, boundary = logits.clone(), logits.clone()
    inside[..., 32, 32] = boundary[..., 16, 16] = -4
    loss = StructureLoss()
    assert loss(logits, target) < loss(inside, target) < loss(boundary, target)


def test_structure_loss_trains() -> None:
    logits = torch.zeros(2, 1, 16, 16, requires_grad=True)
    target = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    target[..., 4:12, 4:12] = 1
    optimizer = torch.optim.Adam([logits], lr=0.5)
    loss = StructureLoss()
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, target).backward()
        optimizer.step()
    assert ((logits > 0) == (target > 0)).all()


def test_structure_loss_refuses() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd, got 30"):
        StructureLoss(kernel_size=30)
    with pytest.raises(ValueError, match=r"target must have the shape of the logits, \[1, 1, 8, 8\], got \[1, 8, 8\]"):
        StructureLoss()(torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8))
