"""Why a training stopped, in a sentence that says how it goes on."""

from __future__ import annotations

import errno
import logging
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch
from ignite.engine import Engine, Events

from hybrid_nets.distributed import rank_and_count
from hybrid_nets.errors import InputError, find_input_error

__all__ = ["StopHandler"]

logger = logging.getLogger(__name__)

# With mixed precision the gradient scaler skips steps whose gradients overflow: so many in a row are normal.
SKIPPED_STEPS = 10

MEMORY = re.compile(
    r"out of memory|can't allocate memory|Cannot allocate memory|\bMemoryError\b|Unable to allocate", re.I
)
WORKER = re.compile(r"DataLoader worker .*(killed|exited)")
DISK = re.compile(r"No space left|Disk quota exceeded")


class StopHandler:
    """Trainer handler that stops on a loss that is not a number, and says of every stop what happened and what to do.

    What a user can mend (a loss of NaN, no memory, a loader process that died, a full disk, a case that can't be used)
    becomes an :class:`hybrid_nets.InputError` with the place, the options to change and the newest checkpoint. The log
    says the same of Ctrl+C, SIGTERM and other errors, which are raised as they are; SIGTERM ends with exit status 143
    and no half-written file. A signal that comes where Python drops exceptions counts from the next iteration on.

    Args:
        ckpt_dir: folder of the checkpoints that the training writes.

    Raises:
        InputError: while training, as above.
    """

    def __init__(self, ckpt_dir: str | Path) -> None:
        self.last = Path(ckpt_dir) / "resume.pt"
        self.skipped = 0
        self.raised: BaseException | None = None
        self.asked: int | None = None
        self.replaced: dict[int, object] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.check_signal)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.check_loss)
        engine.add_event_handler(Events.COMPLETED, self.end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.explain)

    def start(self, _: Engine) -> None:
        self.asked = None  # what stopped a run is no reason to stop the next
        # torchrun ends its processes itself, and other threads than the main one take no signals.
        if threading.current_thread() is not threading.main_thread() or rank_and_count()[1] > 1:
            return
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            if signal.getsignal(number) is usual:
                self.replaced[number] = signal.signal(number, self.stop)

    def end(self, _: Engine | None = None) -> None:
        while self.replaced:
            signal.signal(*self.replaced.popitem())

    def stop(self, number: int, _: FrameType | None = None) -> None:
        self.asked = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    def check_signal(self, _: Engine) -> None:
        """Python drops what is raised while it removes an object or calls back, so a signal may have been lost."""
        if self.asked is not None:
            self.stop(self.asked)

    def check_loss(self, engine: Engine) -> None:
        loss = torch.as_tensor(engine.state.output[0]["loss"])
        if loss.isfinite().all():
            self.skipped = 0
            return
        self.skipped += 1
        scaler = getattr(engine, "scaler", None)
        if scaler is None or not scaler.is_enabled() or self.skipped > SKIPPED_STEPS:
            raise InputError(
                f"the loss is {float(loss.float().mean())}: lower --learning_rate, and look for wrong cases with "
                "--check_data true."
            )

    def explain(self, engine: Engine, error: BaseException) -> None:
        if error is self.raised or not engine.state.epoch:  # ignite passes on what was raised here
            raise error
        self.end()
        state = engine.state
        place = f"epoch {state.epoch}, iteration {(state.iteration - 1) % (state.epoch_length or 1) + 1}"
        sentence = find_input_error(error) or next(filter(None, map(name_cause, causes(error))), None)
        self.raised = error
        if sentence and isinstance(error, Exception):
            self.raised = InputError(f"{sentence} Training stopped in {place}. {self.how_to_go_on()}")
            raise self.raised from error
        what = {KeyboardInterrupt: "interrupted", SystemExit: "ended by SIGTERM"}.get(type(error))
        what = what or f"stopped by {type(error).__name__}"
        logger.warning("Training was %s in %s. %s", what, place, self.how_to_go_on())
        raise error

    def how_to_go_on(self) -> str:
        if not self.last.is_file():
            return "Nothing is saved yet: start it again."
        try:
            epoch = torch.load(self.last, mmap=True, map_location="cpu", weights_only=True)["epoch"]
        except Exception as error:
            return f"{self.last} can't be read ({str(error).splitlines()[0]})."
        return f"{self.last} holds epoch {epoch}: go on from there with --resume true."


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def name_cause(error: BaseException) -> str | None:
    """A sentence on an ``error`` that we know a remedy for; those of loader processes arrive as text."""
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or MEMORY.search(text):
        return (
            "memory ran out: lower --roi_size or --batch_size, or --sw_batch_size if it was in validation; on the "
            "computer's side also --cache_num and --num_workers."
        )
    if WORKER.search(text):
        return (
            "a loader process died, most often because the computer's or the container's shared memory ran out: lower "
            "--num_workers (0 loads in the training process) or --cache_num."
        )
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or DISK.search(text):
        return f"the disk is full ({text}): make room, or give other folders with --ckpt_dir and --output_dir."
    return None
