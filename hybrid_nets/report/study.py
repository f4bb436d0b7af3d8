"""Look at a cohort one case at a time: pictures go to files, numbers are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from hybrid_nets.errors import InputError
from hybrid_nets.report.findings import find_outliers, look_at
from hybrid_nets.report.measures import compare
from hybrid_nets.report.references import References
from hybrid_nets.report.results import Result
from hybrid_nets.report.views import draw_views
from hybrid_nets.report.volumes import Grid, read_image, read_labels

__all__ = ["Finding", "sizes_of", "study", "worst_first"]


@dataclass
class Finding:
    """What is known of a case.

    Attributes:
        name: of the case.
        structures: label value → name.
        volumes: its rows of ``volumes.csv``.
        views: view → file.
        warnings: what somebody should look at.
        rows: its comparison with the reference, a row per structure; empty without one.
        unit: of distances.
    """

    name: str
    structures: dict[int, str]
    volumes: list[dict]
    views: dict[str, Path] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    unit: str = "mm"

    @property
    def dice(self) -> float:
        """Mean over the structures for which it is defined."""
        defined = [row["dice"] for row in self.rows if not math.isnan(row["dice"])]
        return sum(defined) / len(defined) if defined else math.nan


def study(
    results: Sequence[Result], folder: Path, references: References | None, tolerance: float, convention: str
) -> list[Finding]:
    """Draw and measure all ``results``; pictures go to ``folder``.

    A case whose files can't be read gets a warning and what could still be done.
    """
    findings = [
        study_case(result, folder, references, tolerance, convention)
        for result in tqdm(results, desc="Reporting", unit="case")
    ]
    outliers = find_outliers(sizes_of(findings))
    for finding in findings:
        finding.warnings += outliers.get(finding.name, [])
    return findings


def study_case(
    result: Result, folder: Path, references: References | None, tolerance: float, convention: str
) -> Finding:
    finding = Finding(result.name, result.structures, result.volumes, unit="px" if result.picture else "mm")
    labels = attempt(finding, lambda: read_labels(result.label_map))
    if labels is None:
        return finding
    finding.warnings += look_at(labels, result.structures)
    image = attempt(finding, lambda: find_image(result, labels))
    reference = attempt(finding, lambda: find_reference(result, labels, references)) if references else None
    if reference is not None:
        finding.rows = compare(labels, reference, result.structures, result.name, tolerance)
    finding.views = draw_views(folder / result.name, image, labels, reference, result.structures, convention)
    return finding


def attempt(finding: Finding, read: Callable[[], Grid]) -> Grid | None:
    """What ``read`` gives; where it can't, a warning says why."""
    try:
        return read()
    except InputError as error:
        finding.warnings.append(str(error))
        return None


def find_image(result: Result, labels: Grid) -> Grid:
    image = read_image(result)
    if image is None:
        raise InputError("its image is not known; give the folder of the images with --input.")
    if not image.lies_on(labels):
        raise InputError("its image is not the one it was made of: the grids differ.")
    return image


def find_reference(result: Result, labels: Grid, references: References) -> Grid:
    reference = references.read(result, labels)
    if reference is None:
        raise InputError("there is no reference of its name.")
    return reference


def sizes_of(findings: Iterable[Finding]) -> dict[str, dict[str, float]]:
    """Structure → case → volume in mL, of pictures pixels."""
    sizes: dict[str, dict[str, float]] = {}
    for finding in findings:
        for row in finding.volumes:
            sizes.setdefault(row["structure"], {})[finding.name] = row.get("volume_ml", row["voxels"])
    return sizes


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Those that can't be read, then by mean Dice, then those without; among equals those with most warnings first."""
    return sorted(findings, key=lambda finding: (badness(finding), -len(finding.warnings), finding.name))


def badness(finding: Finding) -> float:
    if not finding.views:
        return -1.0
    return 2.0 if math.isnan(finding.dice) else finding.dice
