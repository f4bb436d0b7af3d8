"""From a checkpoint of the authors' released code to one that our network loads."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import nn

from hybrid_nets.blocks import dca
from hybrid_nets.blocks.position import resize_grid
from hybrid_nets.nets import dca_unet, glims, hylt, mobileutr
from hybrid_nets.unets import multiresunet, r2unet, resunetpp, unet, vnet

__all__ = ["convert_released", "released_options"]

RELEASED_KEYS = {
    glims.GLIMS: glims.RELEASED_KEYS,
    hylt.HyLT: hylt.RELEASED_KEYS,
    mobileutr.MobileUtr: mobileutr.RELEASED_KEYS,
    dca.DualCrossAttention: dca.RELEASED_KEYS,
    unet.UNet: unet.RELEASED_KEYS,
    vnet.VNet: vnet.RELEASED_KEYS,
    r2unet.R2UNet: r2unet.RELEASED_KEYS,
    resunetpp.ResUNetPlusPlus: resunetpp.RELEASED_KEYS,
    multiresunet.MultiResUNet: multiresunet.RELEASED_KEYS,
}
# Which running mean takes in a bias that our network has none for: (pattern of the bias, replacement).
RELEASED_FOLDS = {
    vnet.VNet: vnet.RELEASED_FOLDS,
    r2unet.R2UNet: r2unet.RELEASED_FOLDS,
    resunetpp.ResUNetPlusPlus: resunetpp.RELEASED_FOLDS,
    multiresunet.MultiResUNet: multiresunet.RELEASED_FOLDS,
}
CONVOLUTION_FOLD = (r"conv\.bias$", "adn.N.running_mean")  # as MONAI's Convolution names them
# What our network may have been built without; the checkpoint always has it.
RELEASED_OPTIONAL = {
    glims.GLIMS: r"^heads\.[1-9]\d*\.",
    vnet.VNet: vnet.RELEASED_OPTIONAL,
    multiresunet.MultiResUNet: multiresunet.RELEASED_OPTIONAL,
}
RELEASED_OPTIONS = {
    glims.GLIMS: glims.released_options,
    hylt.HyLT: hylt.released_options,
    mobileutr.MobileUtr: mobileutr.released_options,
    dca_unet.DCAUNet: dca_unet.released_options,
}


def convert_released(network: nn.Module, state_dict: Mapping) -> dict[str, torch.Tensor]:
    """A released checkpoint's weights under our names, ready for ``network.load_state_dict(…, strict=True)``.

    Dead keys (see each network's ``RELEASED_KEYS``) are dropped. So are the auxiliary heads of a network that has none
    (``deep_supervision=False``), other parts that it doesn't use as it is configured, and biases of layers that have
    none here because the next step removes them; where that step is a BatchNorm, its running mean takes the bias in.
    Depthwise 1×1 convolutions become one factor and one bias per channel. Position embeddings of another ``img_size``
    are resampled; stored flat, they are taken to be cubic, as the released code's always are. Neither argument is
    changed.

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
    if isinstance(network, dca_unet.DCAUNet):
        inner = convert_released(network.network, state_dict)
        return {f"network.{name}": tensor for name, tensor in inner.items()}
    kind = next((kind for kind in RELEASED_KEYS if isinstance(network, kind)), None)
    if kind is None:
        known = ", ".join(kind.__name__ for kind in RELEASED_KEYS)
        raise TypeError(f"no released checkpoints are known for {type(network).__name__}; known: {known}.")
    expected = network.state_dict()
    converted: dict[str, torch.Tensor] = {}
    left_out: dict[str, torch.Tensor] = {}  # biases
    unknown, reshaped = [], []
    for key, tensor in unwrap(state_dict).items():
        name = rename(key, RELEASED_KEYS[kind])
        if name is None or is_left_out_part(name, expected, RELEASED_OPTIONAL.get(kind)):
            continue
        if is_left_out_bias(name, expected) and isinstance(tensor, torch.Tensor):
            left_out[name] = tensor
            continue
        if name not in expected or not isinstance(tensor, torch.Tensor):
            unknown.append(key)
            continue
        converted[name] = fit(name, tensor, expected[name])
        if converted[name].shape != expected[name].shape:
            reshaped.append(f"{key} is {list(tensor.shape)}, needs {list(expected[name].shape)}")
    if not unknown and not reshaped:
        reshaped += fold_biases(left_out, converted, (CONVOLUTION_FOLD, *RELEASED_FOLDS.get(kind, ())))
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


def released_options(kind: type[nn.Module], state_dict: Mapping) -> dict:
    """The constructor options that a released checkpoint was built with, as far as its tensors show them.

    Args:
        kind: class of the network.
        state_dict: the checkpoint, wrapped or not.

    Raises:
        KeyError: it is no released checkpoint of that network.
    """
    try:
        return RELEASED_OPTIONS[kind](unwrap(state_dict))
    except KeyError as error:
        raise KeyError(f"not a released {kind.__name__} checkpoint: missing keys [{error}].") from error
    except (AttributeError, IndexError) as error:
        raise KeyError(f"not a released {kind.__name__} checkpoint: its weights have other shapes.") from error


def unwrap(checkpoint: Mapping) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that may be nested under ``state_dict`` and carry DataParallel's prefix."""
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, Mapping):
        raise ValueError(f"the checkpoint's state_dict is a {type(state).__name__}, not tensors by name.")
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}


def rename(key: str, rules: tuple) -> str | None:
    """Our name for a released key, None for a dead one."""
    for pattern, replacement in rules:
        if replacement is None:
            if re.search(pattern, key):
                return None
        else:
            key = re.sub(pattern, replacement, key)
    return key


def is_left_out_part(name: str, expected: Mapping, optional: str | None) -> bool:
    """Whether ``name`` belongs to a part, by the pattern ``optional``, that this network was built without."""
    return optional is not None and name not in expected and re.search(optional, name) is not None


def is_left_out_bias(name: str, expected: Mapping) -> bool:
    """Whether the network has this bias' layer without its bias."""
    layer, _, kind = name.rpartition(".")
    return kind == "bias" and name not in expected and f"{layer}.weight" in expected


def fold_biases(biases: Mapping, converted: dict[str, torch.Tensor], folds: tuple) -> list[str]:
    """Subtract each convolution's bias from the running means of the BatchNorms that read its output, if there are.

    Returns:
        What can't be, as the biases have other shapes.
    """
    reshaped = []
    for name, bias in biases.items():
        for pattern, replacement in folds:
            mean = re.sub(pattern, replacement, name)
            if mean == name or mean not in converted:
                continue
            if bias.shape == converted[mean].shape:
                converted[mean] = converted[mean] - bias
            else:
                reshaped.append(f"{name} is {list(bias.shape)}, needs {list(converted[mean].shape)}")
    return reshaped


def fit(name: str, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor in the shape that ours has, where that is another form of the same thing."""
    if name.endswith("position.weight"):
        return fit_position(tensor, like)
    if like.ndim == 1 and tensor.shape == like.shape + (1,) * (tensor.ndim - 1):  # depthwise, kernels of one voxel
        return tensor.flatten()
    return tensor


def fit_position(embedding: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A flat (1, c, n) or gridded (1, c, *) position embedding on the grid of ``like`` (1, c, *), if it can be."""
    if embedding.ndim == 3:
        dims = like.ndim - 2
        side = round(embedding.shape[2] ** (1 / dims))
        grid = [side] * dims if side**dims == embedding.shape[2] else like.shape[2:]
        if embedding.shape[2] == math.prod(grid):
            embedding = embedding.unflatten(2, grid)
    fits = embedding.ndim == like.ndim and embedding.shape[:2] == like.shape[:2] and embedding.is_floating_point()
    return resize_grid(embedding, like.shape[2:]) if fits else embedding
