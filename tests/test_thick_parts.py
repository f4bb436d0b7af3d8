"""What is thick stays, with what lies beside it."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from hybrid_nets import KeepThickPartsd

SIZE = 48


def as_probabilities(label: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(label, 4).movedim(-1, 0).float()


def distance(*centre: int) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.arange(SIZE)] * 3, indexing="ij")
    return torch.stack([(axis - c) ** 2 for axis, c in zip(axes, centre)]).sum(0).sqrt()


@pytest.fixture
def head() -> torch.Tensor:
    """A ball of class 3 in a shell of 2 and one of 1, in a thin scalp of 2; a small and a smaller ball of 2."""
    label, middle = torch.zeros(SIZE, SIZE, SIZE, dtype=torch.long), distance(20, 24, 24)
    for radius, value in ((20, 2), (18, 0), (15, 1), (13, 2), (9, 3)):
        label[middle < radius] = value
    label[distance(42, 24, 24) < 5.6] = 2
    label[distance(44, 6, 6) < 3.5] = 2
    return label


def keep(label: torch.Tensor, **options: object) -> torch.Tensor:
    found = KeepThickPartsd("pred", classes=[2, 3], **options)({"pred": as_probabilities(label)})["pred"]
    assert torch.equal(found.sum(0), torch.ones_like(found[0]))
    return found.argmax(0)


def test_sheets_and_small_pieces_go_and_what_lies_beside_stays(head: torch.Tensor) -> None:
    found = keep(head, radius=4, margin=3, closing=2)
    inner = torch.where(distance(20, 24, 24) < 15, head, 0)
    assert torch.equal(found, inner)


def test_a_second_large_piece_stays_if_its_share_is_enough(head: torch.Tensor) -> None:
    assert keep(head, radius=2, margin=1, closing=0, share=0.001)[42, 24, 24] == 2
    assert keep(head, radius=2, margin=1, closing=0, share=0.5)[42, 24, 24] == 0


@pytest.mark.parametrize(("doubt", "expected"), [(0.05, 0), (0.3, 2)])
def test_a_second_large_piece_goes_if_the_network_is_less_sure_of_it(doubt: float, expected: int) -> None:
    label = torch.where(distance(14, 24, 24) < 12, 3, torch.where(distance(38, 24, 24) < 9, 2, 0))
    pred = as_probabilities(label)
    pred[:2, 28:] = pred[:2, 28:] * 0.8 + 0.1  # of the second piece it is sure to 0.8
    pred[2:, 28:] *= 0.8
    found = KeepThickPartsd("pred", classes=[2, 3], radius=3, closing=0, doubt=doubt)({"pred": pred})["pred"]
    assert found[:, 14, 24, 24].argmax() == 3 and found[:, 38, 24, 24].argmax() == expected


def test_what_thick_parts_enclose_stays() -> None:
    middle = distance(24, 24, 24)
    label = torch.where(middle < 22, 3, 0)
    label[middle < 9] = 1  # farther from any thick part than the margin
    assert torch.equal(keep(label, radius=3, margin=1, closing=0), label)


def test_bays_stay_that_are_narrower_than_the_closing() -> None:
    label = torch.where(distance(24, 24, 24) < 22, 3, 0)
    label[20:28, :, 24:] = torch.where(label[20:28, :, 24:] == 3, 1, 0)  # a fissure as wide as 8 voxels
    assert keep(label, radius=3, margin=1, closing=0)[23, 24, 40] == 0
    assert keep(label, radius=3, margin=1, closing=6)[23, 24, 40] == 1


def test_a_structure_cut_by_the_border_is_no_sheet() -> None:
    label = torch.zeros(20, 20, 20, dtype=torch.long)
    label[:, :, :7] = 2
    assert torch.equal(keep(label, radius=5, margin=0), label)
    assert torch.equal(keep(torch.full_like(label, 3)), torch.full_like(label, 3))


def test_without_anything_thick_nothing_changes(head: torch.Tensor) -> None:
    for label in (head * (head == 1), torch.zeros_like(head)):
        assert torch.equal(keep(label), label)


def test_the_result_is_new_and_keeps_its_place(head: torch.Tensor) -> None:
    pred = MetaTensor(as_probabilities(head), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    kept = pred.clone()
    found = KeepThickPartsd("pred", classes=[2, 3])({"pred": pred})["pred"]
    assert torch.equal(found.affine, pred.affine) and torch.equal(pred, kept)
