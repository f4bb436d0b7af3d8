"""From a checkpoint of the authors' released code to one that our network loads."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import nn

from hybrid_nets.blocks.position import resize_grid
from hybrid_nets.nets import glims, hylt, mobileutr

__all__ = ["convert_released", "released_options"]

RELEASED_KEYS = {
    glims.GLIMS: glims.RELEASED_KEYS,
    hylt.HyLT: hylt.RELEASED_KEYS,
    mobileutr.MobileUtr: mobileutr.RELEASED_KEYS,
}
RELEASED_OPTIONS = {
    glims.GLIMS: glims.RELEASED_OPTIONS,
    hylt.HyLT: hylt.RELEASED_OPTIONS,
    mobileutr.MobileUtr: mobileutr.RELEASED_OPTIONS,
}


def convert_released(network: nn.Module, state_dict: Mapping) -> dict[str, torch.Tensor]:
    """A released checkpoint's weights under our names, ready for ``network.load_state_dict(…, strict=True)``.

    Dead keys (see each network's ``RELEASED_KEYS``) are dropped. So are the auxiliary heads of a network that has none
    (``deep_supervision=False``), and biases of layers that have none here because the next step removes them; where
    that step is a BatchNorm, its running mean takes the bias in. Position embeddings of another ``img_size`` are
    resampled; stored flat, they are taken to be cubic, as the released code's always are. Neither argument is changed.

    Args:
        network: the network that will load the result, of the same configuration as the checkpoint's.
        state_dict: the checkpoint, as it is or as ``{"state_dict": …}``, with or without ``module.`` before each key.

    Raises:
        TypeError: there are no released checkpoints of this kind of network.
        KeyError: keys are missing or unknown; all are listed.
        ValueError: a tensor has another shape than the network's; the first ones are listed.

    Example::

        network = GLIMS(4, 3, variant="released")
        checkpoint = torch.load("fold2.pt", weights_only=True)
        network.load_state_dict(convert_released(network, checkpoint))
    """
    rules = next((keys for kind, keys in RELEASED_KEYS.items() if isinstance(network, kind)), None)
    if rules is None:
        known = ", ".join(kind.__name__ for kind in RELEASED_KEYS)
        raise TypeError(f"no released checkpoints are known for {type(network).__name__}; known: {known}.")
    expected = network.state_dict()
    converted: dict[str, torch.Tensor] = {}
    left_out: dict[str, torch.Tensor] = {}  # biases
    unknown, reshaped = [], []
    for key, tensor in unwrap(state_dict).items():
        name = rename(key, rules)
        if name is None or is_absent_head(name, expected):
            continue
        if is_left_out_bias(name, expected):
            left_out[name] = tensor
            continue
        if name not in expected:
            unknown.append(key)
            continue
        converted[name] = fit_position(tensor, expected[name]) if name.endswith("position.weight") else tensor
        if converted[name].shape != expected[name].shape:
            reshaped.append(f"{key} is {list(tensor.shape)}, needs {list(expected[name].shape)}")
    fold_biases(left_out, converted)
    for name, own in expected.items():
        if name.endswith("num_batches_tracked"):  # a count of training steps, which nothing here reads
            converted.setdefault(name, torch.zeros(own.shape, dtype=own.dtype))
    missing = [name for name in expected if name not in converted]
    if unknown or missing:
        raise KeyError(
            f"not a released {type(network).__name__} checkpoint: unknown keys {unknown}, missing keys {missing}."
        )
    if reshaped:
        raise ValueError(
            f"the checkpoint has another configuration than the network ({len(reshaped)} shapes differ): "
            f"{'; '.join(reshaped[:3])}. Build the network with the checkpoint's options (channels, feature_size, …)."
        )
    return converted


def released_options(kind: type[nn.Module], state_dict: Mapping) -> dict[str, int]:
    """The constructor options that a released checkpoint was built with, as far as its tensors show them.

    Args:
        kind: class of the network.
        state_dict: the checkpoint, wrapped or not.

    Raises:
        KeyError: it is no released checkpoint of that network.
    """
    weights = unwrap(state_dict)
    absent = [key for _, key, _ in RELEASED_OPTIONS[kind] if key not in weights]
    if absent:
        raise KeyError(f"not a released {kind.__name__} checkpoint: missing keys {absent}.")
    return {option: weights[key].shape[axis] for option, key, axis in RELEASED_OPTIONS[kind]}


def unwrap(checkpoint: Mapping) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that may be nested under ``state_dict`` and carry DataParallel's prefix."""
    state = checkpoint.get("state_dict", checkpoint)
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def rename(key: str, rules: tuple) -> str | None:
    """Our name for a released key, None for a dead one."""
    for pattern, replacement in rules:
        if replacement is None:
            if re.search(pattern, key):
                return None
        else:
            key = re.sub(pattern, replacement, key)
    return key


def is_absent_head(name: str, expected: Mapping) -> bool:
    """Whether ``name`` belongs to an auxiliary head that this network was built without."""
    return bool(re.match(r"heads\.[1-9]\d*\.", name)) and name not in expected and "heads.0.weight" in expected


def is_left_out_bias(name: str, expected: Mapping) -> bool:
    """Whether the network has this bias' layer without its bias."""
    layer, _, kind = name.rpartition(".")
    return kind == "bias" and name not in expected and f"{layer}.weight" in expected


def fold_biases(biases: Mapping, converted: dict[str, torch.Tensor]) -> None:
    """Subtract the bias of each convolution from the running mean of the BatchNorm after it, if there is one."""
    for name, bias in biases.items():
        mean = name.removesuffix("conv.bias") + "adn.N.running_mean"  # as MONAI's Convolution names them
        if mean in converted:
            converted[mean] = converted[mean] - bias


def fit_position(embedding: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A flat (1, c, n) or gridded (1, c, *) position embedding on the grid of ``like`` (1, c, *), if it can be."""
    if embedding.ndim == 3:
        dims = like.ndim - 2
        side = round(embedding.shape[2] ** (1 / dims))
        grid = [side] * dims if side**dims == embedding.shape[2] else like.shape[2:]
        if embedding.shape[2] == math.prod(grid):
            embedding = embedding.unflatten(2, grid)
    fits = embedding.ndim == like.ndim and embedding.shape[:2] == like.shape[:2]
    return resize_grid(embedding, like.shape[2:]) if fits else embedding
