"""What a data set in MSD's layout holds, from its files, one case at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hybrid_nets.data_check import CaseFacts, inspect_case, oddities, refuse_problems
from hybrid_nets.errors import InputError
from hybrid_nets.listing import read_channels, read_json, read_labels, read_section

__all__ = ["Survey", "survey"]

SAMPLE = 5000  # voxels per case whose intensities count


@dataclass(frozen=True)
class Survey:
    """A data set in numbers.

    Attributes:
        root: its folder.
        channels: their names in order.
        labels: value → name, as ``dataset.json`` states them.
        facts: of each training case.
        notes: what may be a mistake.
    """

    root: Path
    channels: list[str]
    labels: dict[int, str]
    facts: list[CaseFacts]
    notes: list[str]

    @property
    def spacing(self) -> np.ndarray:
        """Median sides of a voxel in mm, to the right, front and head."""
        return np.median([fact.spacing for fact in self.facts], axis=0)

    def shape(self, spacing: np.ndarray) -> np.ndarray:
        """Median number of voxels along these axes, when cases are resampled to ``spacing``."""
        sizes = [np.multiply(fact.shape, fact.spacing) for fact in self.facts]
        return np.maximum(np.rint(np.median(sizes, axis=0) / spacing), 1).astype(int)

    def percentiles(self, *parts: float) -> np.ndarray:
        """``(channels, len(parts))`` percentiles of the intensities in labelled voxels."""
        return np.percentile(np.concatenate([fact.intensities for fact in self.facts], axis=1), parts, axis=1).T

    def share(self, value: int) -> tuple[float, int]:
        """The part of all voxels that has a label, and the number of cases with it."""
        voxels = sum(sum(fact.counts.values()) for fact in self.facts)
        own = [fact.counts.get(float(value), 0) for fact in self.facts]
        return sum(own) / voxels, sum(count > 0 for count in own)


def survey(root: Path) -> Survey:
    """Look at the data set in ``root``, which has a ``dataset.json``.

    Raises:
        InputError: files disagree with each other or with ``dataset.json``; names all reasons.
    """
    listing = root / "dataset.json"
    if not listing.is_file():
        raise InputError(
            f"there is no {listing}; plan needs a data set in MSD's layout, with modality and labels in it."
        )
    content = read_json(listing)
    channels, labels = read_channels(content), dict(sorted(read_labels(content).items()))
    cases = [*read_section(content, "training", root), *read_section(content, "validation", root)]
    reasons = list(faults(channels, labels, len(cases)))
    declared = set(labels) or {0}
    facts = [inspect_case(case, declared, SAMPLE) for case in tqdm(cases, desc="Looking", unit="case")]
    for fact in facts:
        if fact.channels and fact.channels != len(channels):
            stated = f"{len(channels)} ({', '.join(channels)})"
            fact.problems.append(f"it has {fact.channels} channel(s), dataset.json names {stated}.")
    refuse_problems(facts, reasons)
    found = Survey(root.resolve(), channels, labels, facts, list(oddities(facts)))
    absent = [name for value, name in labels.items() if not found.share(value)[1]]
    if not any(found.share(value)[1] for value in labels if value):
        raise InputError("all label maps are empty; there is nothing to learn.")
    found.notes.extend([f"no case has the label(s) {', '.join(absent)}."] if absent else [])
    return found


def faults(channels: list[str], labels: Mapping[int, str], cases: int) -> Iterator[str]:
    """What is wrong with ``dataset.json`` itself."""
    if not channels:
        yield 'dataset.json: "modality" is missing; name the channels, such as {"0": "CT"}.'
    if len(set(channels)) < len(channels):
        yield f"dataset.json: two channels have one name in {channels}."
    if len(labels) < 2 or 0 not in labels:
        yield 'dataset.json: "labels" needs "0", the background, and one more at least.'
    if len({name.lower() for name in labels.values()}) < len(labels):
        yield f"dataset.json: two labels have one name in {list(labels.values())}."
    if cases < 2:
        yield f"dataset.json: it lists {cases} training case(s); training needs 2 at least."
