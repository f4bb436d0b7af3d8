"""Checkpoints that are whole or not there, load strictly, and let training go on where it stopped."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.utils import set_determinism
from torch import nn

from hybrid_nets.atomic import replacing
from hybrid_nets.bundle import flag
from hybrid_nets.distributed import from_first_process, is_first_process, rank_and_count
from hybrid_nets.errors import InputError

__all__ = ["CheckpointHandler", "Ensemble", "load_network", "needs_all_weights", "save_atomic"]

logger = logging.getLogger(__name__)

# Seeds of processes lie so far apart that no epoch's number reaches from one to the next.
PROCESS_STRIDE = 1_000_000


def save_atomic(content: object, path: str | Path) -> None:
    """``torch.save``, whole or not at all."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: str | Path) -> dict:
    """The content of a checkpoint, tensors and plain values only.

    Raises:
        InputError: no such file, or not a checkpoint that is safe to read.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(
            f"no checkpoint at {path}; train first (python -m monai.bundle run --config_file …/configs/train.json), "
            "convert a released one (tools/convert_checkpoint.py), or give its path with --checkpoints."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} can't be read as a checkpoint of tensors ({reason}); give another file.") from error


def load_strictly(network: nn.Module, path: str | Path) -> None:
    """Load the weights in ``path``, flat or under ``model``; every key and shape must agree.

    Raises:
        InputError: they don't; names the first differences.
    """
    content = read_checkpoint(path)
    fit_weights(network, content.get("model", content), path)


def fit_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Load ``weights``, which come from ``path``; every key and shape must agree, as for :func:`load_strictly`."""
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


def load_network(
    network: nn.Module, checkpoints: str | Path | Sequence[str | Path], device: str | torch.device = "cpu"
) -> nn.Module:
    """``network`` with the weights of one checkpoint, or an :class:`Ensemble` of copies of it with those of several.

    Raises:
        InputError: a checkpoint is missing, unsafe to read, or of another configuration.
    """
    paths = [checkpoints] if isinstance(checkpoints, (str, Path)) else list(checkpoints)
    members = [network, *(copy.deepcopy(network) for _ in paths[1:])]
    for member, path in zip(members, paths):
        load_strictly(member, path)
        logger.info("Loaded the weights in %s.", path)
    return (members[0] if len(members) == 1 else Ensemble(members)).to(device)


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


class CheckpointHandler:
    """Saves what training needs to go on, and the weights to use, after each epoch; resumes from the former.

    ``last.pt`` holds network, optimizer, schedule, epoch, gradient scaler and best score. ``model.pt`` holds weights
    only: those of the best validation so far, and before the first validation those of the last epoch, so that
    inference works after any number of epochs. Both are replaced as a whole or not at all. Training that does not
    resume renames the ones it finds to ``*_previous.pt``.

    Random numbers start anew from ``seed`` and the epoch's number at each epoch: a resumed training draws the same
    crops, augmentations and dropout masks as one that was never stopped. Of several processes each draws its own; the
    first one writes, and reads for all.

    Args:
        ckpt_dir: folder of the checkpoints.
        network: what is trained, as it is or in ``DistributedDataParallel``.
        optimizer: its optimizer.
        lr_scheduler: its schedule. If ``epochs`` was raised, the schedule keeps the length it is built with now.
        evaluator: the validation engine, whose key metric says what is best.
        seed: of all random numbers.
        resume: go on from ``last.pt`` if there is one.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        evaluator: Engine,
        seed: int = 0,
        resume: bool | str = False,
    ) -> None:
        self.last, self.best = Path(ckpt_dir) / "last.pt", Path(ckpt_dir) / "model.pt"
        self.network = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.evaluator, self.seed, self.resume = evaluator, int(seed), flag(resume)
        self.best_score: float | None = None
        self.validated = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_STARTED, self.seed_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        self.evaluator.add_event_handler(Events.COMPLETED, self.note_validation)

    def start(self, engine: Engine) -> None:
        if not self.resume:
            if is_first_process():
                self.keep_previous()
            return
        state = from_first_process(read_checkpoint(self.last) if is_first_process() and self.last.is_file() else None)
        if state is None:
            logger.warning("Nothing to resume at %s: training starts from the beginning.", self.last)
            return
        fit_weights(self.network, state["model"], self.last)
        self.optimizer.load_state_dict(state["optimizer"])
        length = {k: v for k, v in vars(self.lr_scheduler).items() if k in ("T_max", "total_iters")}
        self.lr_scheduler.load_state_dict({**state["lr_scheduler"], **length})
        if state["scaler"] and getattr(engine, "scaler", None):
            engine.scaler.load_state_dict(state["scaler"])
        self.best_score = state["best_score"]
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * engine.state.epoch_length
        logger.info("Resumed from %s after epoch %d.", self.last, state["epoch"])

    def keep_previous(self) -> None:
        """Training anew must not lose what was trained before: one generation of checkpoints is kept."""
        for path in (self.last, self.best):
            if path.is_file():
                kept = path.with_stem(f"{path.stem}_previous")
                os.replace(path, kept)
                logger.warning("Training anew; kept %s as %s (to go on from it: --resume true).", path, kept.name)

    def seed_epoch(self, engine: Engine) -> None:
        seed = self.seed + engine.state.epoch + PROCESS_STRIDE * rank_and_count()[0]
        set_determinism(seed)
        transform = getattr(getattr(engine.data_loader, "dataset", None), "transform", None)
        if hasattr(transform, "set_random_state"):
            transform.set_random_state(seed)

    def note_validation(self, engine: Engine) -> None:
        self.validated = True

    def save(self, engine: Engine) -> None:
        if not is_first_process():
            return
        weights = self.network.state_dict()
        score = self.evaluator.state.metrics.get(self.evaluator.state.key_metric_name) if self.validated else None
        self.validated = False
        if score is not None and math.isfinite(score) and (self.best_score is None or score > self.best_score):
            self.best_score = float(score)
            save_atomic(weights, self.best)
            logger.info("Best validation so far (%.4f): saved %s.", score, self.best)
        elif self.best_score is None:
            save_atomic(weights, self.best)
        save_atomic(self.state(engine.state.epoch, weights, getattr(engine, "scaler", None)), self.last)

    def state(self, epoch: int, weights: Mapping, scaler: torch.amp.GradScaler | None) -> dict:
        """What ``last.pt`` holds."""
        return {
            "model": weights,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "epoch": epoch,
            "best_score": self.best_score,
        }
