"""What tools/benchmark.py measures: networks, their time in turns, and their peak memory in a process of its own.

python tools/benchmark_measure.py "U-Net" --part training --side 224    # the peak memory of one training step, MiB
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import fire
import torch
import torch.nn.functional as F
from monai.networks.nets import UNETR, BasicUNet, DynUNet, MedNeXt, SegResNet, SwinUNETR
from torch import nn

from hybrid_nets import GLIMS, DCAUNet, HyLT, InputError, MobileUtr, keep_memory, show_short_errors

PARTS = ("forward", "training")
VARIANTS = ("", "autocast", "channels_last", "compile")
DENSE = (64, 48)  # channels and side of the dense 3³ convolution whose rate the floors are made with


class Network(NamedTuple):
    """A network for ``side`` voxels an axis, ``dims`` axes, ``channels`` in."""

    build: Callable[[int], nn.Module]
    channels: int
    dims: int
    side: int

    def example(self, side: int, device: str) -> torch.Tensor:
        return torch.randn(1, self.channels, *[side] * self.dims, device=device)


def dyn_unet(side: int) -> nn.Module:
    """With the five levels that nnU-Net plans for a window of 96³."""
    strides = [1, 2, 2, 2, 2]
    return DynUNet(3, 4, 3, [3] * 5, strides, strides[1:], norm_name="instance")


NETWORKS = {
    "GLIMS": Network(lambda side: GLIMS(4, 3, side), 4, 3, 96),
    "SwinUNETR-48": Network(lambda side: SwinUNETR(4, 3, feature_size=48), 4, 3, 96),
    "MobileUtr 3-D base": Network(lambda side: MobileUtr(3, 1, 14), 1, 3, 96),
    "SegResNet-16": Network(lambda side: SegResNet(3, 16, 1, 14), 1, 3, 96),
    "MobileUtr 3-D large": Network(lambda side: MobileUtr(3, 1, 14, size="large"), 1, 3, 96),
    "HyLT 3-D": Network(lambda side: HyLT(3, 1, 2), 1, 3, 96),
    "UNETR": Network(lambda side: UNETR(4, 3, side), 4, 3, 96),
    "DynUNet": Network(dyn_unet, 4, 3, 96),
    "BasicUNet": Network(lambda side: BasicUNet(3, 4, 3), 4, 3, 96),
    "MedNeXt": Network(lambda side: MedNeXt(3, 32, 4, 3), 4, 3, 96),
    "MobileUtr base": Network(lambda side: MobileUtr(), 3, 2, 256),
    "MobileUtr large": Network(lambda side: MobileUtr(size="large"), 3, 2, 256),
    "HyLT": Network(lambda side: HyLT(), 3, 2, 224),
    "U-Net": Network(lambda side: DCAUNet("unet", dca=False), 3, 2, 224),
    "U-Net with DCA": Network(lambda side: DCAUNet("unet"), 3, 2, 224),
}


class Job:
    """One network on a device, ready to run its forward pass or a training step."""

    def __init__(self, name: str, side: int = 0, device: str = "cpu", variant: str = "") -> None:
        network = NETWORKS[name]
        torch.manual_seed(0)
        self.device, self.variant = torch.device(device), variant
        side = side or network.side
        self.x, self.network = network.example(side, device), network.build(side).to(device)
        if variant == "channels_last":
            layout = torch.channels_last if network.dims == 2 else torch.channels_last_3d
            self.x, self.network = self.x.to(memory_format=layout), self.network.to(memory_format=layout)
        self.call = torch.compile(self.network) if variant == "compile" else self.network

    def forward(self) -> None:
        self.network.eval()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=self.variant == "autocast"):
            self.call(self.x)

    def training(self) -> None:
        """Forward pass, loss and backward pass; no optimiser."""
        self.network.train()
        with torch.autocast(self.device.type, enabled=self.variant == "autocast"):
            logits = self.call(self.x)
        F.binary_cross_entropy_with_logits(logits.float(), torch.zeros_like(logits, dtype=torch.float32)).backward()
        self.network.zero_grad(set_to_none=True)


class DenseConvolution:
    """What the floors are made with; its ``macs`` over its time is the machine's rate."""

    macs = 27 * DENSE[0] ** 2 * DENSE[1] ** 3

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.x = torch.randn(1, DENSE[0], *[DENSE[1]] * 3, device=device)
        self.conv = nn.Conv3d(DENSE[0], DENSE[0], 3, padding=1, bias=False, device=device)

    def forward(self) -> None:
        with torch.no_grad():
            self.conv(self.x)


def seconds(run: Callable[[], None], device: torch.device) -> float:
    """How long one run takes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Worker:
    """A job in a process of its own, which waits until it is asked; what one network does to memory hits no other."""

    def __init__(self, name: str, side: int, device: str, variant: str, threads: int, keep: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, name, side, device, variant, threads, keep), daemon=True
        )
        self.process.start()
        theirs.close()

    def seconds(self, part: str) -> float:
        """How long one run of ``part`` takes."""
        self.pipe.send(part)
        try:
            return self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self.name} ended; its error is above.") from None


def serve(pipe: Connection, name: str, side: int, device: str, variant: str, threads: int, keep: bool) -> None:
    """What a :class:`Worker` runs; "dense" is the dense convolution."""
    configure(threads, keep)
    job = DenseConvolution(device) if name == "dense" else Job(name, side, device, variant)
    while part := pipe.recv():
        pipe.send(seconds(getattr(job, part), job.device))


def take_turns(workers: dict[str, Worker], part: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each worker in each round, in turns, after a first run that does not count."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    for i in range(rounds + 1):
        for name, worker in workers.items():
            elapsed = worker.seconds(part)
            if i > 0:
                times[name].append(elapsed)
        print(f"{part}: round {i} of {rounds} done", file=sys.stderr)
    for worker in workers.values():
        worker.pipe.send(None)
        worker.process.join()
    return times


def resident() -> float:
    """The most memory that this process had resident so far, MiB.

    On Linux not from ``ru_maxrss``, which a process takes over from the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def peak(
    name: str, part: str = "forward", side: int = 0, device: str = "cpu", threads: int = 0, keep: bool = False
) -> str:
    """Print the peak memory of one run, in MiB, weights included, what the imports need not."""
    configure(threads, keep)
    before = resident()
    job = Job(name, side, device)
    getattr(job, part)()
    most = torch.cuda.max_memory_allocated() / 2**20 if job.device.type == "cuda" else resident() - before
    return json.dumps({"MiB": round(most, 1)})


def peak_elsewhere(*arguments: object, **options: object) -> float:
    """:func:`peak` in a fresh process."""
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, __file__, *map(str, arguments), *given]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])["MiB"]


def configure(threads: int, keep: bool) -> None:
    """Threads of this process (0: PyTorch's own choice), and whether it keeps freed memory."""
    if threads:
        torch.set_num_threads(threads)
    if keep and not keep_memory():
        raise InputError("freed memory can only be kept on Linux with glibc; leave out --keep_memory.")


def check_names(names: Iterable[str], known: Iterable[str], what: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"no {what} {', '.join(map(repr, unknown))}; choose from {', '.join(map(repr, known))}.")


if __name__ == "__main__":
    show_short_errors()
    fire.Fire(peak)
