"""Dual Cross-Attention on the skips of a network that was written without it.

Paper: arXiv 2303.17696, which claims any U-shaped network; this is the general form, by hooks on its modules.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from hybrid_nets.blocks.dca import DualCrossAttention

__all__ = ["attach_dca"]

# Sides of the inputs that are tried to find the skips' channels, per number of axes.
SIDES = {2: (64, 32, 96, 128, 48, 16, 224, 256, 512), 3: (64, 32, 96, 128, 48, 16)}


def attach_dca(
    network: nn.Module,
    skips: Sequence[str],
    decoders: Sequence[str],
    grid: int | Sequence[int] | None = None,
    *,
    example: torch.Tensor | None = None,
    **options: Any,
) -> nn.Module:
    """Refine the skips of ``network`` by Dual Cross-Attention (DCA), without editing it.

    What the modules ``skips`` return is recorded. When the first of the modules ``decoders`` is called, DCA refines
    all skips at once, and every decoder gets the refined ones in place of the recorded ones, wherever they stand among
    its arguments. All other modules, so the encoder's own path down, get what they got before. An output of DCA is the
    skip plus DCA's contribution, without norm and activation: with all of DCA's parameters 0 the network does what it
    did.

    DCA becomes the submodule ``network.dca``: it is trained, moved and saved with the network. To load saved weights,
    attach again to a new network first. The network can be copied, pickled and traced, not scripted; of several
    processes, ``DistributedDataParallel`` works and ``DataParallel`` doesn't. Modules named here must not run under
    activation checkpointing.

    To find the channels, the network runs once without gradients and in eval mode, which changes nothing in it.

    Args:
        network: a network with 2 or 3 spatial axes; changed in place.
        skips: names of the modules that each return one skip ``(b, c, *)``, as ``network.named_modules()`` has them.
        decoders: names of the modules that take the skips as arguments, or inside lists, tuples or dicts.
        grid: DCA's grid of tokens, one entry per axis; an int is repeated; 28 in 2-D, as in the paper, and 8 in 3-D if
            not given.
        example: an input for finding the channels. If not given, zeros of some sizes are tried, with the channels of
            the first convolution in ``network``.
        options: further arguments of :class:`hybrid_nets.DualCrossAttention`: ``blocks``, ``channel_heads``, …

    Returns:
        ``network``.

    Raises:
        ValueError: a name is unknown, or there is none; ``network`` has a ``dca`` already; no input was found that the
            network takes; a skip isn't one tensor, is computed after the first decoder starts, not at all, or doesn't
            reach a decoder; the skips' channels don't fit ``options``. Then ``network`` is as it was.

    Example::

        >>> from monai.networks.nets import BasicUNet
        >>> net = BasicUNet(spatial_dims=2, in_channels=1, out_channels=2, features=(8, 8, 16, 32, 64, 8))
        >>> encoder = ["conv_0", "down_1", "down_2", "down_3"]
        >>> net = attach_dca(net, encoder, ["upcat_1", "upcat_2", "upcat_3", "upcat_4"], grid=7)
        >>> net.dca.channels
        [8, 8, 16, 32]
        >>> net(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 2, 64, 64])
    """
    if hasattr(network, "dca"):
        raise ValueError(f"this {type(network).__name__} has a `dca` already; attach once, naming all skips.")
    check_names(network, "skips", skips)
    check_names(network, "decoders", decoders)
    channels, num_axes = find_channels(network, skips, decoders, example)
    if grid is None:
        grid = 28 if num_axes == 2 else 8
    dca = DualCrossAttention(num_axes, channels, grid, **{"post_norm": False, **options})
    parameter = next(network.parameters())
    network.dca = dca.to(parameter.device, parameter.dtype).train(network.training)
    SkipHooks(dca, skips, decoders).register(network)
    return network


class SkipHooks:
    """Records the outputs of some modules, and gives others what ``refine`` makes of them all.

    Holds tensors from the start of the network's forward pass to its end only, even if that is an exception.
    """

    def __init__(
        self,
        refine: Callable[[list[torch.Tensor]], list[torch.Tensor]],
        names: Sequence[str],
        decoders: Sequence[str],
    ) -> None:
        self.refine, self.names, self.decoders = refine, list(names), list(decoders)
        self.running = False
        self.clear()

    def clear(self) -> None:
        self.skips: list[torch.Tensor | None] = [None] * len(self.names)
        self.refined: list[torch.Tensor] = []
        self.reached: set[int] = set()

    def register(self, network: nn.Module) -> list[Any]:
        """Hook into ``network``; returns the handles that undo it."""
        handles = [
            network.register_forward_pre_hook(self.start),
            network.register_forward_hook(self.stop, always_call=True),
        ]
        for i, name in enumerate(self.names):
            handles.append(network.get_submodule(name).register_forward_hook(partial(self.record, i)))
        for name in self.decoders:
            hook = partial(self.replace, name)
            handles.append(network.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True))
        return handles

    def start(self, module: nn.Module, args: Any) -> None:
        self.clear()
        self.running = True

    def stop(self, module: nn.Module, args: Any, output: Any) -> None:
        astray = [name for i, name in enumerate(self.names) if i not in self.reached]
        self.running = False
        self.clear()
        if astray and output is not None:  # it is after an exception, which is the one to be seen
            raise SkipError(
                f"skips {astray} reach none of the decoders {self.decoders}; name the modules whose output these take "
                "as it is, and all decoders that take a skip."
            )

    def record(self, index: int, module: nn.Module, args: Any, output: Any) -> None:
        name = self.names[index]
        if not isinstance(output, torch.Tensor):
            raise SkipError(f"skip {name!r} returns {type(output).__name__}, not one tensor; name a module that does.")
        if self.refined:
            raise SkipError(f"skip {name!r} is computed after the first decoder starts; leave it out.")
        if self.running:
            self.skips[index] = output

    def replace(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if not self.running:
            raise RuntimeError(
                f"decoder {name!r} runs outside of the network it belongs to; call network(x), not network.forward(x), "
                "and switch off activation checkpointing around it."
            )
        if not self.refined:
            self.refined = self.refine(self.computed(name))
        return self.swap(args), self.swap(kwargs)

    def computed(self, decoder: str) -> list[torch.Tensor]:
        """All skips, which must be there when the first decoder starts."""
        missing = [name for name, skip in zip(self.names, self.skips) if skip is None]
        if missing:
            raise SkipError(
                f"not computed when decoder {decoder!r} starts: skips {missing}; leave out those, or that decoder."
            )
        return [skip for skip in self.skips if skip is not None]

    def swap(self, value: Any) -> Any:
        """``value`` with every recorded tensor in it replaced by the refined one."""
        if isinstance(value, torch.Tensor):
            for i, skip in enumerate(self.skips):
                if skip is value:
                    self.reached.add(i)
                    return self.refined[i]
        elif isinstance(value, dict):
            return {key: self.swap(entry) for key, entry in value.items()}
        elif isinstance(value, list | tuple):
            entries = [self.swap(entry) for entry in value]
            if any(new is not old for new, old in zip(entries, value)):  # keeps torch.Size and its like as they are
                return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
        return value


class SkipError(ValueError):
    """The skips are not what they were said to be, whatever the size of the input."""


def find_channels(
    network: nn.Module, skips: Sequence[str], decoders: Sequence[str], example: torch.Tensor | None
) -> tuple[list[int], int]:
    """Each skip's channels and the number of spatial axes, as seen in a run that also shows where the skips go."""
    shapes: list[torch.Size] = []

    def see(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        shapes[:] = [tensor.shape for tensor in tensors]
        return tensors

    handles = SkipHooks(see, skips, decoders).register(network)
    try:
        with undisturbed(network):
            if example is None:
                try_sizes(network)
            else:
                network(example)
    finally:
        for handle in handles:
            handle.remove()
    return [shape[1] for shape in shapes], len(shapes[0]) - 2


def try_sizes(network: nn.Module) -> None:
    """Run ``network`` on zeros of the first size that it takes."""
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)), None)
    if first is None:
        raise ValueError("the network has no convolution to read its input channels from; pass example=, an input.")
    num_axes, error = len(first.kernel_size), None
    for side in SIDES[num_axes]:
        try:
            network(first.weight.new_zeros(1, first.in_channels, *[side] * num_axes))
            return
        except SkipError:
            raise
        except Exception as refusal:  # whatever a network raises at a size that it doesn't take
            error = refusal
    sides = ", ".join(map(str, SIDES[num_axes]))
    raise ValueError(
        f"the network takes no zeros of {first.in_channels} channels and {num_axes} sides of {sides}; pass example=, "
        f"an input that it takes. Its last error: {error}"
    ) from error


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards modes and random states are what they were."""
    modes = [(module, module.training) for module in network.modules()]
    devices = {parameter.device for parameter in network.parameters() if parameter.is_cuda}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            network.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def check_names(network: nn.Module, what: str, names: Sequence[str]) -> None:
    """Refuse names that ``network`` has no module of, and lists of no or repeated names."""
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise ValueError(f"{what} must be a list of one or more different module names, got {names!r}.")
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or known[:10]
            raise ValueError(
                f"{what}: the network has no module {name!r}; close names: {', '.join(close)} "
                "(network.named_modules() lists all)."
            )
