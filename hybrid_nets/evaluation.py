"""Dice, surface Dice and 95 % Hausdorff distance per case and class, in millimetres, with the cases they rest on."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.handlers import MeanDice
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from hybrid_nets.atomic import replacing
from hybrid_nets.distributed import gather, is_first_process, rank_and_count
from hybrid_nets.tables import write_csv

__all__ = ["CaseMetrics", "ClassDice", "summarize"]

logger = logging.getLogger(__name__)

UNITS = ("mm", "px")


class ClassDice:
    """Evaluator handler that adds ``val_dice_<class>`` to the engine's metrics, the mean over cases with that class.

    Of a class that no case has it is NaN, not a number that looks like a bad result.

    Args:
        class_names: names of the channels of ``pred`` and ``label``, ``(c, *)``; ``background`` is left out.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.channels = foreground(class_names)

    def attach(self, engine: Engine) -> None:
        for name, channel in self.channels.items():
            metric = DefinedDice(include_background=True, output_transform=partial(select_channel, channel=channel))
            metric.attach(engine, f"val_dice_{name.replace(' ', '_')}")


class DefinedDice(MeanDice):
    """MONAI's ``MeanDice``, which gives 0 where there is no case to average over; this gives NaN."""

    def compute(self) -> object:
        found = super().compute()
        return math.nan if bool(torch.isnan(self.metric_fn.get_buffer()).all()) else found


def foreground(class_names: Sequence[str]) -> dict[str, int]:
    """Class name → channel, without the background."""
    return {name: channel for channel, name in enumerate(class_names) if name != "background"}


def select_channel(output: list[dict], channel: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """One channel of prediction and label of each item of a batch, for a MONAI metric."""
    pick = slice(channel, channel + 1)
    return [item["pred"][pick] for item in output], [item["label"][pick] for item in output]


class CaseMetrics:
    """Evaluator handler that writes ``metrics.csv``, a row per case and class, and ``summary.json``, the means.

    A metric is left empty where it is undefined: all of them where the class is neither in reference nor prediction,
    distances where it is in one of the two only (Dice and surface Dice are then 0). Means are over the rest, and the
    summary says how many that are and how many cases were empty or missed.

    Args:
        output_dir: folder of the two files.
        class_names: names of the channels of ``pred`` and ``label``, which are one-hot or multi-label ``(c, *)``;
            ``background`` is left out.
        tolerance: surface Dice counts surface points closer than this.
        unit: of the tolerance and of distances, ``"mm"``, or ``"px"`` for pictures, whose files know no millimetres.

    Raises:
        ValueError: another unit.
    """

    def __init__(
        self, output_dir: str | Path, class_names: Sequence[str], tolerance: float = 1.0, unit: str = "mm"
    ) -> None:
        if unit not in UNITS:
            raise ValueError(f"unit must be one of {UNITS}, got {unit!r}.")
        self.output_dir, self.channels = Path(output_dir), foreground(class_names)
        self.tolerance, self.unit = tolerance, unit
        self.metrics = ("dice", "surface_dice", f"hd95_{unit}")
        self.rows: list[dict] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def measure(self, engine: Engine) -> None:
        for item in engine.state.output:
            pred, label = item["pred"], item["label"]
            file = str(pred.meta.get("filename_or_obj", f"case {len(self.rows)} of process {rank_and_count()[0]}"))
            sides = pred.pixdim[: pred.ndim - 1]  # before MONAI 1.6 pictures have three as well
            spacing = [float(side) if self.unit == "mm" else 1.0 for side in sides]
            for name, channel in self.channels.items():
                maps = (x.as_tensor()[None, channel : channel + 1] for x in (pred, label))
                self.rows.append({"case": file, "class": name, **self.compare(*maps, spacing)})

    def compare(self, pred: torch.Tensor, label: torch.Tensor, spacing: Sequence[float]) -> dict:
        """Metrics and voxel counts of one class: binary (1, 1, *) maps of voxels with sides ``spacing``."""
        counts = {"pred_voxels": int(pred.sum()), "label_voxels": int(label.sum())}
        if not any(counts.values()):
            values = [math.nan] * 3
        elif not all(counts.values()):
            values = [0.0, 0.0, math.nan]
        else:
            options = {"include_background": True, "spacing": spacing}
            values = [
                float(compute_dice(pred, label)),
                float(compute_surface_dice(pred, label, class_thresholds=[self.tolerance], **options)),
                float(compute_hausdorff_distance(pred, label, percentile=95, **options)),
            ]
        return dict(zip(self.metrics, values)) | counts

    def write(self, engine: Engine) -> None:
        # Where there are fewer cases than processes, several have measured the same one.
        unique = {(row["case"], row["class"]): row for row in gather(self.rows)}
        self.rows = sorted(unique.values(), key=lambda row: row["case"])
        if not self.rows or not is_first_process():
            return
        rows = [{**row, "case": Path(row["case"]).name} for row in self.rows]
        known = ({key: "" if value != value else value for key, value in row.items()} for row in rows)
        write_csv(self.output_dir / "metrics.csv", list(rows[0]), known)
        summary = summarize(rows, self.channels, self.metrics)
        with replacing(self.output_dir / "summary.json") as temporary:
            temporary.write_text(json.dumps(summary, indent=2) + "\n")
        for name, values in summary.items():
            dice, surface, distance = (values[metric] for metric in self.metrics)
            logger.info(
                "%s: Dice %s, surface Dice at %g %s %s, HD95 %s %s (over %d, %d and %d cases; %d empty, %d missed)",
                name,
                *(dice["mean"], self.tolerance, self.unit, surface["mean"], distance["mean"], self.unit),
                *(dice["cases"], surface["cases"], distance["cases"], values["empty"], values["missed"]),
            )


def summarize(rows: Sequence[dict], class_names: Iterable[str], metrics: Sequence[str]) -> dict:
    """Per class: mean and number of cases of each metric, and how many cases had it empty, missed or made up."""
    summary = {}
    for name in class_names:
        own = [row for row in rows if row["class"] == name]
        defined = {metric: [row[metric] for row in own if not math.isnan(row[metric])] for metric in metrics}
        summary[name] = {
            metric: {"mean": round(sum(v) / len(v), 4) if v else None, "cases": len(v)} for metric, v in defined.items()
        }
        summary[name] |= {
            "empty": sum(not row["label_voxels"] for row in own),
            "missed": sum(bool(row["label_voxels"]) and not row["pred_voxels"] for row in own),
            "made_up": sum(bool(row["pred_voxels"]) and not row["label_voxels"] for row in own),
        }
    return summary
