"""What several processes share, without starting any; tests/bundles/test_processes.py starts them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hybrid_nets import InputError, is_first_process, join_processes, process_device, share
from hybrid_nets.blocks.sync_norm import SyncBatchNorm, synchronize_norms
from hybrid_nets.distributed import distribute, gather


def shares(monkeypatch: pytest.MonkeyPatch, cases: list, purpose: str, count: int) -> list[list]:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    parts = []
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(share(cases, purpose))
    return parts


def test_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = list(range(5))
    assert shares(monkeypatch, cases, "training", 2) == [[0, 2, 4], [1, 3, 0]]  # same length
    assert shares(monkeypatch, cases, "evaluation", 2) == [[0, 2, 4], [1, 3]]  # each once
    assert shares(monkeypatch, cases[:2], "evaluation", 3) == [[0, 1]] * 3  # all in all: the mean stays
    assert shares(monkeypatch, cases[:2], "inference", 3) == [[0], [1], []]
    with pytest.raises(InputError, match="2 training cases can't be shared by 3 processes"):
        shares(monkeypatch, cases[:2], "training", 3)
    with pytest.raises(ValueError, match="purpose must be"):
        share(cases, "testing")


def test_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_first_process() and gather([1]) == [1]
    monkeypatch.setenv("RANK", "1")
    assert not is_first_process()
    with pytest.raises(InputError, match="have not joined"):
        distribute(nn.Linear(1, 1), "cpu")
    monkeypatch.delenv("RANK")
    with pytest.raises(InputError, match="torchrun --nproc_per_node 2"):
        join_processes("cpu")


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="--nproc_per_node 2"):
        process_device()


def test_norms_keep_state_and_result() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3, affine=False)))
    x = torch.randn(4, 2, 5, 5)
    network(x)
    before, expected = {k: v.clone() for k, v in network.state_dict().items()}, network.eval()(x)
    synced = synchronize_norms(network, torch.device("cpu"))
    assert [type(norm) for norm in (synced[1], synced[2][0])] == [SyncBatchNorm] * 2
    assert all(torch.equal(tensor, before[key]) for key, tensor in synced.state_dict().items())
    assert torch.equal(synced(x), expected)


def test_norm_over_processes_equals_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for all_reduce that adds nothing: one process's own statistics, by the path of many."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    for momentum in (0.1, None):
        plain = nn.BatchNorm3d(3, momentum=momentum)
        nn.init.normal_(plain.weight)
        synced = SyncBatchNorm(3, momentum=momentum)
        synced.load_state_dict(plain.state_dict())
        for _ in range(2):
            x, grad = torch.randn(2, 3, 4, 5, 6) + 100, torch.randn(2, 3, 4, 5, 6)
            (a := x.clone().requires_grad_()), (b := x.clone().requires_grad_())
            for norm, leaf in ((plain, a), (synced, b)):
                norm(leaf).backward(grad)
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(synced(x), plain(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(synced.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)
        assert synced(x.half()).dtype == torch.half
