"""Checkpoints that are whole or not there, and load strictly."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch
from ignite.engine import Engine
from torch import nn

from hybrid_nets.atomic import replacing
from hybrid_nets.errors import InputError

__all__ = [
    "Ensemble",
    "StrictCheckpointLoader",
    "load_network",
    "needs_all_weights",
    "replicate",
    "save_atomic",
    "save_weights",
]

logger = logging.getLogger(__name__)

SAFETENSORS = ".safetensors"


def save_atomic(content: object, path: str | Path, save: Callable | None = None) -> None:
    """``torch.save``, or another ``save(content, path)``, whole or not at all.

    Raises:
        InputError: it can't be written there, as on a full disk; ``path`` is what it was before.
    """
    try:
        with replacing(path) as temporary:
            (save or torch.save)(content, temporary)
    except (OSError, RuntimeError) as error:  # the latter is what torch makes of a failed write
        folder = next(folder for folder in Path(path).absolute().parents if folder.is_dir())
        free = shutil.disk_usage(folder).free / 2**20
        raise InputError(
            f"{path} can't be written ({str(error).splitlines()[0]}); {free:.0f} MiB are free in {folder}. Make room, "
            "or give another place."
        ) from error


def save_weights(weights: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Flat ``weights``, in the format of safetensors where ``path`` ends in ``.safetensors``, else as torch has it.

    Raises:
        InputError: it can't be written there, or safetensors is not installed.
    """
    if Path(path).suffix == SAFETENSORS:
        # Tensors that share memory, as some layers' do, each get their own.
        save_atomic(
            {key: tensor.clone().contiguous() for key, tensor in weights.items()}, path, safetensors().save_file
        )
    else:
        save_atomic(dict(weights), path)


def read_checkpoint(path: str | Path) -> dict:
    """The content of a checkpoint, tensors and plain values only: no code in it is run.

    Raises:
        InputError: no such file, or not a checkpoint that is safe to read, or safetensors is not installed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(
            f"no checkpoint at {path}; train first (python -m monai.bundle run --config_file …/configs/train.json), "
            "convert a released one (tools/convert_checkpoint.py), or give its path with --checkpoints."
        )
    load = safetensors().load_file if path.suffix == SAFETENSORS else load_tensors
    try:
        content = load(path)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} can't be read as a checkpoint of tensors ({reason}); give another file.") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not weights by name; give another file.")
    return content


def load_tensors(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def safetensors() -> ModuleType:
    try:
        from safetensors import torch as module
    except ImportError as error:
        raise InputError(
            'files that end in .safetensors need safetensors: pip install "hybrid-nets[safetensors]".'
        ) from error
    return module


def load_strictly(network: nn.Module, path: str | Path) -> None:
    """Load the weights in ``path``, flat or under ``model``; every key and shape must agree.

    Raises:
        InputError: they don't; names the first differences.
    """
    content = read_checkpoint(path)
    fit_weights(network, content.get("model", content), path)


def fit_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Load ``weights``, which come from ``path``; every key and shape must agree, as for :func:`load_strictly`."""
    if not isinstance(weights, Mapping):
        raise InputError(f"{path} holds a {type(weights).__name__} instead of weights by name; give another file.")
    wrong = [key for key in weights if not isinstance(key, str) or not isinstance(weights[key], torch.Tensor)]
    if wrong:
        raise InputError(f"{path} holds something else than weights, such as {wrong[0]!r}; give another file.")
    own = network.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    differences = [f"lacks {key}" for key in missing] + [f"has an unknown {key}" for key in unknown]
    differences += [
        f"has {key} of shape {list(weights[key].shape)}, the network {list(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if weights[key].shape != own[key].shape and not key.endswith("position.weight")
    ]
    if differences:
        raise InputError(
            f"{path} does not fit the network: it {'; it '.join(sorted(differences, reverse=True)[:2])}"
            f" ({len(differences)} differences). Give the options it was trained with, such as --feature_size."
        )
    network.load_state_dict(weights)


def unwrap(network: nn.Module) -> nn.Module:
    """``network`` without ``DistributedDataParallel``, whose prefix no checkpoint of ours has."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def load_network(
    network: nn.Module, checkpoints: str | Path | Sequence[str | Path], device: str | torch.device = "cpu"
) -> nn.Module:
    """``network`` with the weights of one checkpoint, or an :class:`Ensemble` of copies of it with those of several.

    Raises:
        InputError: a checkpoint is missing, unsafe to read, or of another configuration.
    """
    network = replicate(network, checkpoints)
    load_checkpoints(network, checkpoints)
    return network.to(device)


def replicate(network: nn.Module, checkpoints: str | Path | Sequence[str | Path]) -> nn.Module:
    """``network``, or an :class:`Ensemble` of copies of it for several checkpoints; nothing is loaded."""
    count = 1 if isinstance(checkpoints, (str, Path)) else len(checkpoints)
    return network if count < 2 else Ensemble([network, *(copy.deepcopy(network) for _ in range(count - 1))])


def load_checkpoints(network: nn.Module, checkpoints: str | Path | Sequence[str | Path]) -> None:
    paths = [checkpoints] if isinstance(checkpoints, (str, Path)) else list(checkpoints)
    if not paths:
        raise InputError("no checkpoint is named; give at least one: --checkpoints \"['models/model.pt']\".")
    for member, path in zip(network.members if isinstance(network, Ensemble) else [network], paths):
        load_strictly(member, path)
        logger.info("Loaded the weights in %s.", path)


class StrictCheckpointLoader:
    """Engine handler that loads ``checkpoints`` into ``network`` when it is attached.

    A handler, because programs that bring weights of their own, as MONAI's federated client does, switch off what is
    called CheckpointLoader.

    Args:
        network: from :func:`replicate`, or any other for one checkpoint.
        checkpoints: one file, or one for each member of an :class:`Ensemble`.

    Raises:
        InputError: on attaching: a checkpoint is missing, unsafe to read, or of another configuration.
    """

    def __init__(self, network: nn.Module, checkpoints: str | Path | Sequence[str | Path]) -> None:
        self.network, self.checkpoints = unwrap(network), checkpoints

    def attach(self, engine: Engine) -> None:
        load_checkpoints(self.network, self.checkpoints)


def needs_all_weights(network: nn.Module) -> nn.Module:
    """``network``, which from now on refuses weights that leave some of its own as they are.

    MONAI Label loads with ``strict=False``: a checkpoint of another network, or in a form it doesn't know, leaves
    random weights there, and these answer with a label map. For a partial load on purpose give the rest as well:
    ``network.load_state_dict({**network.state_dict(), **some})``.

    Raises:
        InputError: when such weights are loaded; names the first that is missing.

    Example::

        >>> network = needs_all_weights(nn.Conv1d(1, 1, 1))
        >>> network.load_state_dict({"state_dict": {}}, strict=False)
        Traceback (most recent call last):
        ...
        hybrid_nets.errors.InputError: the checkpoint lacks weight and 1 more of the Conv1d's 2 entries: it is ...
    """
    network.register_load_state_dict_post_hook(refuse_missing)
    return network


def refuse_missing(network: nn.Module, keys: nn.modules.module._IncompatibleKeys) -> None:
    if keys.missing_keys:
        first, *others = keys.missing_keys
        raise InputError(
            f"the checkpoint lacks {first} and {len(others)} more of the {type(network).__name__}'s "
            f"{len(network.state_dict())} entries: it is another network's, has other options, or holds its weights "
            "neither at the top nor under 'model'. Use the model.pt that this bundle's training wrote, or convert a "
            "released one with tools/convert_checkpoint.py."
        )


class Ensemble(nn.Module):
    """The mean of several networks' logits; shapes as theirs."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)
