"""Several processes, one per GPU or a few on CPUs, as ``torchrun`` starts them; what one process needs is unchanged.

The multi-GPU overlays of the bundles call these. Without ``torchrun`` there is one process, and all of them still work.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from monai.data import CacheDataset, partition_dataset
from torch import distributed as dist
from torch import nn

from hybrid_nets.blocks.sync_norm import synchronize_norms
from hybrid_nets.errors import InputError

__all__ = [
    "SharedCacheDataset",
    "distribute",
    "gather",
    "is_first_process",
    "join_processes",
    "leave_processes",
    "process_device",
    "share",
]

# How long a process waits for the others: they may have to make a phantom or to fill a cache first.
PATIENCE = timedelta(minutes=30)


def rank_and_count() -> tuple[int, int]:
    """This process's number and how many there are, also before they have joined."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def is_first_process() -> bool:
    """Whether this process is the one that writes logs, checkpoints and summaries."""
    return rank_and_count()[0] == 0


def process_device() -> torch.device:
    """This process's own GPU, by the number that ``torchrun`` gives it on its machine; the CPU where there is none.

    Raises:
        InputError: more processes on this machine than it has GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, available = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= available:
        raise InputError(f"this machine has {available} GPU(s): start torchrun with --nproc_per_node {available}.")
    return torch.device("cuda", number)


def join_processes(device: torch.device | str) -> None:
    """Meet the other processes that ``torchrun`` started: NCCL between GPUs, gloo between CPUs.

    Only the first process goes on logging what is not a warning.

    Raises:
        InputError: not started by ``torchrun``.
    """
    if dist.is_initialized():
        return
    if "RANK" not in os.environ:
        raise InputError(
            "multi_gpu configs run under torchrun, for example: "
            "torchrun --nproc_per_node 2 -m monai.bundle run --config_file …; for one process leave the overlay out."
        )
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    if not is_first_process():
        logging.getLogger().setLevel(logging.WARNING)


def leave_processes() -> None:
    """Say goodbye, so that no process ends while another waits for it."""
    if dist.is_initialized():
        dist.barrier()
        # gloo's threads drop the tensors of the last operation a moment later, and need the interpreter for it. A
        # process that waits for these threads at its end, interpreter in hand, would hang or abort.
        time.sleep(1)
        dist.destroy_process_group()


def distribute(network: nn.Module, device: torch.device | str) -> nn.Module:
    """``network`` on ``device``, its gradients averaged and its batch statistics taken over all processes.

    So a step equals that of one process with all their crops in its batch.

    Raises:
        InputError: the processes have not joined.
    """
    if not dist.is_initialized():
        raise InputError("the processes have not joined; the config's 'initialize' must call join_processes first.")
    device = torch.device(device)
    network = synchronize_norms(network, device).to(device)
    return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def share(cases: Sequence, purpose: str) -> list:
    """This process's share of ``cases``.

    Args:
        cases: all of them, the same list in each process.
        purpose: ``"training"``: shares of the same length, some cases in two of them where the number does not divide;
            ``"evaluation"``: each case in one share, or all in all where there are fewer cases than processes (their
            mean is then the same); ``"inference"``: each case in one share, which may be empty.

    Raises:
        InputError: fewer training cases than processes.
        ValueError: another purpose.

    Example::

        >>> share(["a", "b"], "training")  # one process has all
        ['a', 'b']
    """
    if purpose not in ("training", "evaluation", "inference"):
        raise ValueError(f"purpose must be training, evaluation or inference, got {purpose!r}.")
    rank, count = rank_and_count()
    if purpose == "inference":
        return list(cases[rank::count])
    if len(cases) >= count:
        return partition_dataset(cases, num_partitions=count, even_divisible=purpose == "training")[rank]
    if purpose == "training":
        raise InputError(f"{len(cases)} training cases can't be shared by {count} processes; start fewer.")
    return list(cases)


class SharedCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset`` of this process's :func:`share` of ``data``.

    Args:
        data: all cases, the same list in each process.
        purpose: ``"training"`` or ``"evaluation"``.
        options: of ``CacheDataset``.
    """

    def __init__(self, data: Sequence, purpose: str, **options: Any) -> None:
        super().__init__(share(data, purpose), **options)


def gather(items: list) -> list:
    """The ``items`` of all processes, in the order of the processes; each gets the whole list."""
    if not dist.is_initialized():
        return items
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def from_first_process(item: object) -> Any:
    """What the first process has as ``item``."""
    if not dist.is_initialized():
        return item
    box = [item]
    dist.broadcast_object_list(box)
    return box[0]
