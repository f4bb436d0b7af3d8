"""How a training went: a table that grows by a row per epoch, and curves at its end."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from hybrid_nets.atomic import replacing
from hybrid_nets.distributed import is_first_process
from hybrid_nets.errors import InputError

__all__ = ["HistoryHandler"]

logger = logging.getLogger(__name__)

FIRST = ("epoch", "loss", "learning_rate")


class HistoryHandler:
    """Trainer handler that writes ``history.csv`` after each epoch and ``curves.png`` after the last.

    A row has the epoch, the mean loss of its steps, the learning rate they were made with, and the evaluator's metrics
    if it was validated. A resumed training goes on after the epoch that it resumes from; one that starts anew keeps
    the table it finds as ``history_previous.csv``. Of several processes the first one writes, its own loss.

    Stands after the ``ValidationHandler`` and before the ``CheckpointHandler``: a training that is killed between the
    two makes the epoch again, and its row.

    Args:
        output_dir: folder of the two files.
        optimizer: the one that trains.
        evaluator: the validation engine.
    """

    def __init__(self, output_dir: str | Path, optimizer: Optimizer, evaluator: Engine) -> None:
        self.file, self.picture = Path(output_dir) / "history.csv", Path(output_dir) / "curves.png"
        self.optimizer, self.evaluator = optimizer, evaluator
        self.rows: list[dict] = []
        self.losses: list[float] = []
        self.learning_rate = math.nan
        self.validated, self.begun = False, False

    def attach(self, engine: Engine) -> None:
        if not is_first_process():
            return
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.note_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)
        engine.add_event_handler(Events.COMPLETED, self.draw)
        self.evaluator.add_event_handler(Events.COMPLETED, self.note_validation)

    def start(self, _: Engine) -> None:
        self.begun = False  # only in its first epoch is it known where a resumed training goes on

    def start_epoch(self, engine: Engine) -> None:
        if not self.begun:
            self.begin(engine.state.epoch - 1)
        self.losses = []
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])

    def begin(self, done: int) -> None:
        """Go on after epoch ``done``, with the rows up to it."""
        if not done and self.file.is_file():
            self.file.replace(self.file.with_stem("history_previous"))
        self.rows = [row for row in read_rows(self.file) if int(row["epoch"]) <= done]
        self.begun = True

    def note_loss(self, engine: Engine) -> None:
        self.losses.append(float(engine.state.output[0]["loss"]))

    def note_validation(self, _: Engine) -> None:
        self.validated = True

    def end_epoch(self, engine: Engine) -> None:
        loss = sum(self.losses) / len(self.losses) if self.losses else math.nan
        metrics = self.evaluator.state.metrics if self.validated else {}
        self.validated = False
        numbers = {name: float(value) for name, value in metrics.items()}
        row = dict(zip(FIRST, (engine.state.epoch, loss, self.learning_rate))) | numbers
        self.rows.append({name: "" if value != value else value for name, value in row.items()})
        write_rows(self.file, self.rows)

    def draw(self, _: Engine) -> None:
        if not self.begun:
            return  # there was no epoch to train
        try:
            draw_curves(self.picture, self.rows)
        except ImportError:
            logger.info('No curves.png: that needs matplotlib (pip install "hybrid-nets[report]").')


def read_rows(file: Path) -> list[dict]:
    """The rows of ``file``, none if there is no such file.

    Raises:
        InputError: it is not the table of a training.
    """
    if not file.is_file():
        return []
    try:
        with open(file, newline="", encoding="utf-8") as content:
            rows = list(csv.DictReader(content))
        for row in rows:
            int(row["epoch"]), [float(value or 0) for value in row.values()]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{file} is not the table of a training ({error}); move it elsewhere to go on.") from error
    return rows


def write_rows(file: Path, rows: Sequence[dict]) -> None:
    """All ``rows``, as there are few: a killed training leaves a whole table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(file) as temporary, open(temporary, "w", newline="", encoding="utf-8") as content:
        writer = csv.DictWriter(content, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def draw_curves(file: Path, rows: Sequence[dict]) -> None:
    """Loss, metrics and learning rate over epochs, one below the other."""
    from matplotlib.figure import Figure

    metrics = sorted({name for row in rows for name in row} - set(FIRST))
    panels = [["loss"], metrics, ["learning_rate"]] if metrics else [["loss"], ["learning_rate"]]
    figure = Figure(figsize=(8, 2.6 * len(panels)), layout="constrained")
    for axes, names in zip(figure.subplots(len(panels), 1, sharex=True), panels):
        for name in names:
            points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name) not in (None, "")]
            # A mean is drawn over the classes that it is made of.
            strong = len(names) == 1 or "mean" in name
            style = {"linewidth": 2 if strong else 1, "alpha": 1 if strong else 0.7, "marker": "o", "markersize": 3}
            style |= {"color": "black"} if strong and len(names) > 1 else {}
            axes.plot(*zip(*points), label=name.removeprefix("val_"), zorder=3 if strong else 2, **style)
        if len(names) > 1:
            axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
        axes.set_ylabel("validation" if names is metrics else names[0].replace("_", " "))
        axes.grid(alpha=0.3)
    figure.get_axes()[-1].set_xlabel("epoch")
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=110)
