"""Passes over large volumes on a CPU, in slabs that stay in the processor's cache.

On a CPU the 3-D blocks of GLIMS spend most of their time on memory: a layer's output that is mapped anew costs more
than the arithmetic that fills it. So the functions here walk over a volume slab by slab, do several things to each
while it is in the cache, and write to memory that is there already. A volume ``(b, c, d, h, w)`` is seen as ``b · d``
images, channels innermost in memory, which PyTorch's 2-D convolutions have fast kernels for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from copy import copy

import torch
import torch.nn.functional as F

from hybrid_nets.memory import keep_small_memory

__all__ = [
    "FOLD",
    "Moments",
    "NormAct",
    "affine",
    "as_images",
    "as_rows",
    "as_tokens",
    "as_volume",
    "captured",
    "channels_last",
    "covers",
    "new_map",
    "project",
    "sample_tokens",
    "slabs",
    "work_maps",
]

SLAB = 2**19  # numbers in a slab of one map and thread: 2 MiB
FOLD = 32  # tokens in a row, see `as_rows`


def covers(x: torch.Tensor) -> bool:
    """Whether the functions here apply: eager float32 volumes on a CPU. Everything else runs PyTorch's modules."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.ndim != 5 or x.numel() == 0:
        return False
    return not captured() and not torch.is_autocast_enabled("cpu") and type(x) in (torch.Tensor, torch.nn.Parameter)


def captured() -> bool:
    """Whether the graph of operations is being recorded for another runtime."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def new_map(shape: tuple[int, ...] | torch.Size) -> torch.Tensor:
    """An empty float32 volume ``(b, c, d, h, w)``, channels innermost in memory."""
    b, c, *size = shape
    return torch.empty(b, *size, c).permute(0, 4, 1, 2, 3)


class Kept(threading.local):
    """Each thread's memory for maps that live no longer than one block's pass; grows to the largest that was asked."""

    flat = torch.empty(0)


KEPT = Kept()


def work_maps(like: torch.Tensor, channels: list[int]) -> list[torch.Tensor]:
    """Images of the size of ``like`` ``(d, c, h, w)``, one tensor per entry of ``channels``.

    Their memory is given out again by the next call.
    """
    keep_small_memory()
    d, _, h, w = like.shape
    count = d * h * w
    if len(KEPT.flat) < count * sum(channels):
        KEPT.flat = torch.empty(0)  # let go before asking for more
        with torch.inference_mode(False):  # or training could not write to it later
            KEPT.flat = torch.empty(count * sum(channels))
    parts = KEPT.flat[: count * sum(channels)].split([count * c for c in channels])
    return [part.view(d, h, w, c).permute(0, 3, 1, 2) for part, c in zip(parts, channels)]


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """``x`` (b, c, d, h, w) with channels innermost in memory, copied only where it is not so already."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def as_images(x: torch.Tensor, index: int = 0) -> torch.Tensor:
    """Sample ``index`` of a channels-last volume ``(b, c, d, h, w)`` as images ``(d, c, h, w)``; shares its memory."""
    return x[index].transpose(0, 1)


def as_volume(images: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`as_images`, ``(1, c, d, h, w)``, with strides that PyTorch knows as channels-last."""
    return images.permute(0, 2, 3, 1)[None].permute(0, 4, 1, 2, 3)


def as_tokens(images: torch.Tensor) -> torch.Tensor:
    """Channels-last images ``(s, c, h, w)`` as tokens ``(s · h · w, c)``; shares its memory."""
    return images.permute(0, 2, 3, 1).view(-1, images.shape[1])


def sample_tokens(x: torch.Tensor, index: int) -> torch.Tensor:
    """Sample ``index`` of a channels-last volume as tokens ``(d · h · w, c)``; shares its memory."""
    return as_tokens(as_images(x, index))


def as_rows(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens ``(n, c)`` as rows of up to ``FOLD`` of them, which take less time than as many narrow rows."""
    fold = FOLD
    while len(tokens) % fold:
        fold //= 2
    return tokens.view(-1, fold * tokens.shape[1])


def slabs(x: torch.Tensor, channels: int) -> Iterator[slice]:
    """Slices along the first axis of images or tokens, so that a map of ``channels`` channels stays in the cache."""
    step = max(1, SLAB * torch.get_num_threads() // (x[0, 0].numel() * channels))
    step -= step % FOLD if step > FOLD else 0
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))


def project(
    parts: list[torch.Tensor], weight: torch.Tensor, out: torch.Tensor, bias: torch.Tensor | None = None
) -> None:
    """A linear layer of tokens ``(n, c_i)`` side by side, without copying them together.

    ``weight`` is ``(o, Σ c_i)``; ``out`` ``(n, o)`` takes the result.
    """
    # Not by convolution as in `products`: that can neither write into a place nor add to it, and the copies cost more.
    before = out if bias is None else bias
    for i, (part, columns) in enumerate(zip(parts, weight.T.split([part.shape[1] for part in parts]))):
        torch.addmm(before, part, columns, beta=int(i > 0 or bias is not None), out=out)
        before = out


class Moments:
    """Sums of a map's values and squares (or products with another map) per channel, gathered slab by slab."""

    def __init__(self, channels: int) -> None:
        self.channels, self.count, self.scratch = channels, 0, torch.empty(0)
        # Added up as they come: small tensors that stay, between large ones that go, would tear the free memory apart.
        self.total, self.product = (torch.zeros(FOLD * channels, dtype=torch.float64) for _ in range(2))

    def add(self, tokens: torch.Tensor, other: torch.Tensor | None = None) -> None:
        """Take in a slab ``(n, c)``."""
        rows = as_rows(tokens)
        if self.scratch.numel() < rows.numel():
            self.scratch = torch.empty(rows.numel())
        goal = self.scratch[: rows.numel()].view(rows.shape)
        torch.mul(rows, rows if other is None else as_rows(other), out=goal)
        self.count += len(tokens)
        self.total[: rows.shape[1]] += rows.sum(0)
        self.product[: rows.shape[1]] += goal.sum(0)

    @classmethod
    def of(cls, tokens: torch.Tensor) -> Moments:
        """Of a map ``(n, c)``."""
        out = cls(tokens.shape[1])
        for slab in slabs(tokens, tokens.shape[1]):
            out.add(tokens[slab])
        return out

    def sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of values and of products, float64 ``(c,)``."""
        return self.total.view(-1, self.channels).sum(0), self.product.view(-1, self.channels).sum(0)


class NormAct:
    """Normalisation of each channel over its voxels, then a (leaky, learned) ReLU: z = scale · x + shift, act(z).

    Args:
        moments: of the raw map.
        weight: the norm's scale, or None.
        bias: the norm's shift, or None.
        eps: added to the variance.
        slope: of the activation below zero, one number; None for no activation.
    """

    def __init__(
        self,
        moments: Moments,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
        slope: torch.Tensor | None,
    ) -> None:
        self.slope = None if slope is None else float(slope)
        total, product = moments.sums()
        self.mean = total / moments.count
        variance = (product / moments.count - self.mean**2).clamp(min=0)
        self.inverse_std = (variance + eps).rsqrt()
        self.gain = self.inverse_std if weight is None else self.inverse_std * weight.detach()
        shift = -self.mean * self.gain
        shift = shift if bias is None else shift + bias.detach()
        self.scale, self.shift = self.gain.float().repeat(FOLD), shift.float().repeat(FOLD)

    def again(self) -> NormAct:
        """A copy for a backward pass, which gathers sums in it."""
        out = copy(self)
        out.grad_slope = torch.zeros(0 if self.slope is None else 1)
        out.gathered = Moments(len(self.mean))
        return out

    def normalise(self, tokens: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """z of a slab ``(n, c)`` of the raw map; ``out`` may be the slab itself."""
        rows = as_rows(tokens)
        z = affine(self.shift, rows, self.scale, None if out is None else as_rows(out))
        return z.view(tokens.shape)

    def apply(self, tokens: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The activated slab of the raw slab ``tokens``; ``out`` may be the same."""
        z = self.normalise(tokens, out)
        return z if self.slope is None else F.leaky_relu_(z, self.slope)

    def pull(self, tokens: torch.Tensor, grad: torch.Tensor) -> None:
        """Turn a slab of the gradient of the result, in place, into that of z, and gather what ``finish`` needs."""
        if self.slope is not None:
            z = self.normalise(tokens)
            self.grad_slope += z.clamp(max=0).flatten() @ grad.flatten()
            torch.ops.aten.leaky_relu_backward.grad_input(grad, z, self.slope, False, grad_input=grad)
        self.gathered.add(grad, tokens)

    def finish(self) -> None:
        """After all slabs were pulled: the gradients of weight and bias, and how that of z becomes that of x."""
        total, product = self.gathered.sums()
        self.grad_weight = ((product - self.mean * total) * self.inverse_std).float()
        self.grad_bias = total.float()
        slope = -self.gain * self.inverse_std * self.grad_weight / self.gathered.count
        shift = -self.gain * total / self.gathered.count - slope * self.mean
        self.back = shift.float().repeat(FOLD), slope.float().repeat(FOLD)

    def push(self, tokens: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """Turn a slab of the gradient of z, in place, into that of the raw slab ``tokens``."""
        (shift, slope), rows = self.back, as_rows(grad)
        affine(affine(shift, as_rows(tokens), slope), rows, self.scale, rows)
        return grad


def affine(
    shift: torch.Tensor, rows: torch.Tensor, scale: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """scale · rows + shift; ``scale`` and ``shift`` for ``FOLD`` tokens, or ``shift`` as large as ``rows``."""
    width = rows.shape[1]
    return torch.addcmul(shift[..., :width], rows, scale[:width], out=out)
