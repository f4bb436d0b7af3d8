"""What a network is made of and who reads whom, seen in a forward pass on tensors without data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hybrid_nets import InputError

INPUT = "input"
# What a box counts instead of its layers, by class, and what kind of block it is.
BLOCKS = {
    "DACB": ("DACB", "convolution"),
    "ConvUtr": ("ConvUtr", "convolution"),
    "LocalAggregation": ("local aggregation", "convolution"),
    "CSAB": ("CSAB", "attention"),
    "SwinBlock": ("Swin block", "attention"),
    "ConvTransformer": ("transformer block", "attention"),
    "TransformerBlock": ("transformer block", "attention"),
    "ReadMap": ("cross-attention", "attention"),
    "ReadTokens": ("cross-attention", "attention"),
    "ChannelCrossAttention": ("channel attention", "attention"),
    "SpatialCrossAttention": ("spatial attention", "attention"),
}
PLURAL = ("Swin block", "transformer block", "cross-attention")

Place = tuple[float, float] | tuple[float, float, float]


@dataclass
class Drawing:
    """A network and where its boxes stand.

    Attributes:
        build: makes the network.
        size: of the input ``(channels, *)``.
        title: what stands above.
        places: name of a module → column and row; with a third number the box goes on down to that row. A module that
            others with a place are part of stands for what comes out of it.
    """

    build: Callable[[], nn.Module]
    size: tuple[int, ...]
    title: str
    places: dict[str, Place]


@dataclass
class Box:
    """What was seen of a module: shapes of its outputs, and PyTorch's records of its inputs and outputs."""

    module: nn.Module
    shapes: list[torch.Size] = field(default_factory=list)
    reads: list = field(default_factory=list)
    gives: list = field(default_factory=list)


def look_at(drawing: Drawing) -> tuple[dict[str, Box], list[tuple[str, str]], nn.Module]:
    """The modules that have a place, who reads whom, and the network.

    Raises:
        InputError: a module that the drawing should show was not run.
    """
    with torch.device("meta"):
        network, x = drawing.build().eval(), torch.empty(1, *drawing.size, requires_grad=True)
    # From the outside in: what a part gives out is its own, also where it is its parent's result too.
    names = sorted(set(drawing.places) - {INPUT}, key=lambda name: name.count("."))
    boxes = {name: Box(network.get_submodule(name)) for name in names}
    for box in boxes.values():
        box.module.register_forward_hook(lambda _, inputs, outputs, box=box: note(box, inputs, outputs))
    start = x * 1  # a tensor with a past, as all others have
    with sdpa_kernel(SDPBackend.MATH):
        network(start)
    missing = [name for name, box in boxes.items() if not box.shapes]
    if missing:
        raise InputError(f"{', '.join(missing)} did not run; mend the places in tools/draw_networks.py.")
    if INPUT in drawing.places:
        boxes[INPUT] = Box(nn.Identity(), [start.shape], [], [start.grad_fn])
    makers = {node: name for name, box in boxes.items() for node in box.gives}
    arrows = []
    for name, box in boxes.items():
        whole = any(other.startswith(f"{name}.") for other in boxes)
        reads = box.gives if whole else box.reads
        arrows += [(source, name) for source in find_sources(reads, makers, name)]
    return boxes, arrows, network


def note(box: Box, inputs: object, outputs: object) -> None:
    box.shapes = [tensor.shape for tensor in tensors(outputs)]
    box.reads = [tensor.grad_fn for tensor in tensors(inputs)]
    box.gives = [tensor.grad_fn for tensor in tensors(outputs)]


def tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)


def find_sources(reads: Iterable, makers: dict, own: str) -> list[str]:
    """Names of the boxes that made what these records come from, without going further back than to them."""
    found, seen, ahead = set(), set(), list(reads)
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if makers.get(node, own) != own:
            found.add(makers[node])
        else:
            ahead += [before for before, _ in node.next_functions]
    return sorted(found)


def contents(module: nn.Module) -> tuple[list[str], str]:
    """What a module holds, in words, and what kind that makes it."""
    counts = Counter(parts(module))
    kinds = {kind for text, kind in BLOCKS.values() if text in counts}
    kinds |= {"convolution"} if any(text.startswith("conv") for text in counts) else set()
    kind = "both" if len(kinds) > 1 else next(iter(kinds), "other")
    return [f"{count} {text}{'s' * (text in PLURAL)}" if count > 1 else text for text, count in counts.items()], kind


def parts(module: nn.Module) -> Iterator[str]:
    """Blocks and convolutions of a module in words, in their order; what blocks are made of is left out."""
    if type(module).__name__ in BLOCKS:
        yield BLOCKS[type(module).__name__][0]
    elif isinstance(module, nn.modules.conv._ConvNd):
        side = f"{module.kernel_size[0]}{'²' if len(module.kernel_size) == 2 else '³'}"
        arrow = " ↑2" if module.transposed else " ↓2" if module.stride[0] > 1 else ""
        yield f"conv {side}{arrow}"
    elif isinstance(module, nn.Upsample):
        yield "↑2"
    elif isinstance(module, nn.Linear):
        yield "linear"
    else:
        for child in module.children():
            yield from parts(child)


def write_shape(shape: torch.Size) -> str:
    """Channels and sides, as in "24 × 96³"; of tokens their number and size."""
    channels, sides = shape[1], shape[2:]
    if len(sides) == 1:
        return f"{channels} tokens of {sides[0]}"
    if len(set(sides)) == 1:
        return f"{channels} × {sides[0]}{'²' if len(sides) == 2 else '³'}"
    return " × ".join(map(str, shape[1:]))
