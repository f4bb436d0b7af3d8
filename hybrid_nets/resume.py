"""Training that can go on where it stopped."""

from __future__ import annotations

import logging
import math
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.utils import set_determinism
from torch import nn

from hybrid_nets.atomic import remove_leftovers, replacing
from hybrid_nets.bundle import flag
from hybrid_nets.checkpoints import fit_weights, read_checkpoint, save_atomic, unwrap
from hybrid_nets.distributed import from_first_process, is_first_process, rank_and_count
from hybrid_nets.errors import InputError

__all__ = ["CheckpointHandler"]

logger = logging.getLogger(__name__)

# Seeds of processes lie so far apart that no epoch's number reaches from one to the next.
PROCESS_STRIDE = 1_000_000


class CheckpointHandler:
    """Saves what training needs to go on, and the weights to use, after each epoch; resumes from the former.

    ``resume.pt`` holds network, optimizer, schedule, epoch, gradient scaler and best score. ``model.pt`` holds weights
    only: those of the best validation so far, and before the first validation those of the last epoch, so that
    inference works after any number of epochs. Both are replaced as a whole or not at all. Training that does not
    resume renames the ones it finds to ``*_previous.pt``. Weights that are not numbers are never saved.

    A resumed training goes on with the learning rate that a training with the options given now would have in that
    epoch: with more epochs a finished schedule goes on along the longer one, and ``--learning_rate`` counts.

    Random numbers start anew from ``seed`` and the epoch's number at each epoch: a resumed training draws the same
    crops, augmentations and dropout masks as one that was never stopped. Of several processes each draws its own; the
    first one writes, and reads for all.

    Args:
        ckpt_dir: folder of the checkpoints.
        network: what is trained, as it is or in ``DistributedDataParallel``.
        optimizer: its optimizer.
        lr_scheduler: its schedule.
        evaluator: the validation engine, whose key metric says what is best.
        seed: of all random numbers.
        resume: go on from ``resume.pt`` if there is one.

    Raises:
        InputError: while training: ``resume.pt`` is of another network, weights are not numbers, the disk is full.
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
        self.last, self.best = Path(ckpt_dir) / "resume.pt", Path(ckpt_dir) / "model.pt"
        self.network = unwrap(network)
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
        if engine.state.epoch:
            return  # the same training goes on, as in the rounds of a federated one
        if is_first_process():
            for path in (self.last, self.best):
                remove_leftovers(path)
        if not self.resume:
            if is_first_process():
                self.keep_previous()
            return
        state = from_first_process(read_checkpoint(self.last) if is_first_process() and self.last.is_file() else None)
        if state is None:
            logger.warning("Nothing to resume at %s: training starts from the beginning.", self.last)
            return
        missing = [key for key in ("model", "optimizer", "lr_scheduler", "epoch") if key not in state]
        if missing:
            raise InputError(f"{self.last} is no checkpoint to resume from: it has no {missing[0]}. Remove it.")
        fit_weights(self.network, state["model"], self.last)
        self.restore_optimizer(state)
        if state["scaler"] and getattr(engine, "scaler", None):
            engine.scaler.load_state_dict(state["scaler"])
        self.best_score = state["best_score"]
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * engine.state.epoch_length
        logger.info("Resumed from %s after epoch %d.", self.last, state["epoch"])
        if state["epoch"] >= (engine.state.max_epochs or math.inf):
            logger.warning("It has all of the %d epochs: for more give --epochs.", engine.state.max_epochs)

    def restore_optimizer(self, state: Mapping) -> None:
        """The optimizer's moments as they were, its options as the schedule that is given now has them."""
        if isinstance(self.lr_scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):  # follows what was measured
            self.optimizer.load_state_dict(state["optimizer"])
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for _ in range(state["lr_scheduler"]["last_epoch"]):
                self.lr_scheduler.step()
        options = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, now in zip(self.optimizer.param_groups, options):
            if group["lr"] != now["lr"]:
                logger.warning("The learning rate goes on as %g; it was %g.", now["lr"], group["lr"])
            group.update(now)

    def keep_previous(self) -> None:
        """Training anew must not lose what was trained before: one generation of checkpoints is kept.

        ``model.pt`` stays where it is until there is a better one: somebody may be segmenting with it.
        """
        for path in (self.last, self.best):
            if path.is_file():
                kept = path.with_stem(f"{path.stem}_previous")
                if path == self.last:
                    os.replace(path, kept)
                else:
                    with replacing(kept) as temporary:
                        shutil.copyfile(path, temporary)
                logger.warning("Training anew; kept %s as %s.", path, kept.name)

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
        refuse_broken(weights)
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
        """What ``resume.pt`` holds."""
        return {
            "model": weights,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "epoch": epoch,
            "best_score": self.best_score,
        }


def refuse_broken(weights: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError if there is a weight that is NaN or infinite."""
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(
            f"{broken[0]} and {len(broken) - 1} more of the network's {len(weights)} weights are not numbers after "
            "this epoch, which is not saved: lower --learning_rate, and look for wrong cases with --check_data true."
        )
