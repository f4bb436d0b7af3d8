"""A progress bar for MONAI's engines, and how long a training waits for its data."""

from __future__ import annotations

import logging
import time

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

from hybrid_nets.distributed import is_first_process

__all__ = ["ProgressHandler"]

logger = logging.getLogger(__name__)


class ProgressHandler:
    """Ignite's progress bar as a MONAI handler; a trainer's shows the loss beside it. Only the first process has one.

    After each epoch of a trainer it logs the epoch's seconds, without validation, and the share of them that was spent
    waiting for the loader. Where that is much, more loader processes help (``num_workers``), or more cases in memory
    (``cache_num``).

    Args:
        description: what stands before the bar.
    """

    def __init__(self, description: str) -> None:
        self.bar = ProgressBar(desc=description)
        self.start = self.asked = self.waited = 0.0

    def attach(self, engine: Engine) -> None:
        if not is_first_process():
            return
        self.bar.attach(engine, output_transform=show_loss)
        engine.add_event_handler(Events.EPOCH_STARTED, self.begin)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.ask)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.get)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.note)

    def begin(self, _: Engine) -> None:
        self.start, self.waited = time.perf_counter(), 0.0

    def ask(self, _: Engine) -> None:
        self.asked = time.perf_counter()

    def get(self, _: Engine) -> None:
        self.waited += time.perf_counter() - self.asked

    def note(self, engine: Engine) -> None:
        """Log at the epoch's last iteration."""
        if show_loss(engine.state.output) and engine.state.iteration % engine.state.epoch_length == 0:
            seconds = time.perf_counter() - self.start
            share = self.waited / seconds
            logger.info("Epoch %d: %.1f s, %.0f %% of it waiting for data.", engine.state.epoch, seconds, 100 * share)


def show_loss(output: list[dict]) -> dict:
    """The loss of an engine's output, if it has one."""
    loss = output[0].get("loss") if output else None
    return {} if loss is None else {"loss": f"{float(loss):.4f}"}
