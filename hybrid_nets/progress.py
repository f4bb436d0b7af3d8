"""A progress bar for MONAI's engines."""

from __future__ import annotations

from ignite.engine import Engine
from ignite.handlers import ProgressBar

from hybrid_nets.distributed import is_first_process

__all__ = ["ProgressHandler"]


class ProgressHandler:
    """Ignite's progress bar as a MONAI handler; a trainer's shows the loss beside it. Only the first process has one.

    Args:
        description: what stands before the bar.
    """

    def __init__(self, description: str) -> None:
        self.bar = ProgressBar(desc=description)

    def attach(self, engine: Engine) -> None:
        if is_first_process():
            self.bar.attach(engine, output_transform=show_loss)


def show_loss(output: list[dict]) -> dict:
    """The loss of an engine's output, if it has one."""
    loss = output[0].get("loss") if output else None
    return {} if loss is None else {"loss": f"{float(loss):.4f}"}
