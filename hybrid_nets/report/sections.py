"""The parts of the page: the cohort in tables and box plots, and its cases."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from hybrid_nets.evaluation import summarize
from hybrid_nets.report.measures import METRICS
from hybrid_nets.report.page import image, number, swatch, table, themed
from hybrid_nets.report.plots import draw_boxes
from hybrid_nets.report.study import Finding, sizes_of
from hybrid_nets.report.views import colour

__all__ = ["case_section", "cases_table", "cohort_table", "failures_table", "heading", "plots_section"]

RADIOLOGICAL = "Radiological convention: the patient's right (R) is at the left of axial and coronal pictures."
NEUROLOGICAL = "Neurological convention: the patient's left (L) is at the left of axial and coronal pictures."
COUNTS = (
    "Empty: in the segmentation. Missed: in the reference only. Made up: in the segmentation only. Dice, surface Dice "
    "and HD95 are means over the cases, in brackets, for which they are defined."
)
NOTES = {"radiological": RADIOLOGICAL, "neurological": NEUROLOGICAL}


def heading(title: str, findings: Sequence[Finding], failed: int, convention: str, tolerance: float) -> Iterator[str]:
    compared = sum(bool(finding.rows) for finding in findings)
    warned = sum(bool(finding.warnings) for finding in findings)
    unit = findings[0].unit
    yield f"<h1>{escape(title)}</h1>\n<p>{plural(len(findings), 'case')} segmented, {failed} failed; "
    yield f"{warned} with warnings; {compared} compared with a reference.</p>\n"
    notes = [] if unit == "px" else [NOTES[convention]]
    notes += ["Contours: the segmentation in the structures' colours"]
    notes[-1] += ", the reference dashed in white." if compared else "."
    if compared:
        notes.append(f"Surface Dice at {tolerance:g} {unit}. A structure that only one of the two has counts 0.")
    yield f'<p class="soft">{" ".join(notes)} Research use only; not for diagnosis.</p>\n'


def plural(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def colours_of(findings: Sequence[Finding]) -> dict[str, str]:
    return {name: colour(value) for finding in findings for value, name in finding.structures.items()}


def cohort_table(findings: Sequence[Finding]) -> Iterator[str]:
    """Per structure its volumes, how often it is empty, and how it compares with the references."""
    sizes, colours, unit = sizes_of(findings), colours_of(findings), findings[0].unit
    rows = [row for finding in findings for row in finding.rows]
    summary = summarize(rows, sizes, METRICS) if rows else {}
    size = "median mL" if unit == "mm" else "median pixels"
    columns = ["structure", "cases", size, "smallest", "largest", "empty"]
    if summary:
        columns += ["missed", "made up", "Dice", "surface Dice", f"HD95 {unit}"]
    yield "<h2>Cohort</h2>\n"
    yield from table(columns, (cohort_row(name, sizes, summary, colours, unit) for name in sizes))
    if summary:
        yield f'<p class="soft">{COUNTS}</p>\n'


def cohort_row(name: str, sizes: Mapping, summary: Mapping, colours: Mapping[str, str], unit: str) -> list[str]:
    volumes = [volume for volume in sizes[name].values() if volume > 0]
    digits = 1 if unit == "mm" else 0
    middle = [statistics.median(volumes), min(volumes), max(volumes)] if volumes else [None] * 3
    cells = [swatch(name, colours[name]), str(len(sizes[name])), *(number(value, digits) for value in middle)]
    cells.append(str(len(sizes[name]) - len(volumes)))
    if summary:
        own = summary[name]
        cells += [str(own["missed"]), str(own["made_up"])]
        cells += [f"{number(own[metric]['mean'])} ({own[metric]['cases']})" for metric in METRICS]
    return cells


def plots_section(findings: Sequence[Finding], folder: Path) -> Iterator[str]:
    """Box plots, which are drawn into ``folder``."""
    colours, unit = colours_of(findings), findings[0].unit
    volumes = {name: [v for v in found.values() if v > 0] for name, found in sizes_of(findings).items()}
    plots = {"volumes": ("Volume, mL" if unit == "mm" else "Area, pixels", volumes, True)}
    rows = [row for finding in findings for row in finding.rows]
    for metric, label in zip(METRICS, ("Dice", "Surface Dice", f"HD95, {unit}")):
        defined = {name: [r[metric] for r in rows if r["class"] == name and r[metric] == r[metric]] for name in volumes}
        if any(defined.values()):
            plots[metric] = (label, defined, False)
    yield '<div class="plots">\n'
    for name, (label, values, log) in plots.items():
        if any(values.values()):
            files = draw_boxes(folder / name, values, colours, label, log)
            yield f"<figure>{themed(files, f'Box plot: {label} per structure')}</figure>\n"
    yield "</div>\n"


def cases_table(findings: Sequence[Finding]) -> Iterator[str]:
    """The cases in the order of the page, each with a link."""
    compared = any(finding.rows for finding in findings)
    order = "Worst first: by mean Dice; then the cases without reference." if compared else "Most warnings first."
    yield f'<h2>Cases</h2>\n<p class="soft">{order}</p>\n<div class="cases">\n'
    columns = ["case", *(["mean Dice"] if compared else []), "warnings"]
    yield from table(columns, (case_row(i, finding, compared) for i, finding in enumerate(findings)))
    yield "</div>\n"


def case_row(index: int, finding: Finding, compared: bool) -> list[str]:
    link = f'<a href="#case-{index}">{escape(finding.name)}</a>'
    return [link, *([number(finding.dice)] if compared else []), escape("; ".join(finding.warnings)) or "–"]


def failures_table(failed: Sequence[Mapping]) -> Iterator[str]:
    if failed:
        yield '<h2>Failed</h2>\n<div class="cases">\n'
        yield from table(("case", "reason"), ([escape(row["case"]), escape(row["reason"])] for row in failed))
        yield "</div>\n"


def case_section(index: int, finding: Finding) -> Iterator[str]:
    """A case: its views, warnings and numbers."""
    dice = f' <span class="soft">mean Dice {number(finding.dice)}</span>' if finding.rows else ""
    yield f'<article id="case-{index}">\n<h3>{escape(finding.name)}{dice}</h3>\n'
    if finding.warnings:
        items = "".join(f"<li>{escape(text)}</li>" for text in finding.warnings)
        yield f'<ul class="warnings">{items}</ul>\n'
    yield '<div class="views">\n'
    for view, file in finding.views.items():
        picture = image(file, f"{view} slice of {finding.name} with contours")
        yield f"<figure>{picture}<figcaption>{escape(view)}</figcaption></figure>\n"
    yield f"</div>\n<details open><summary>{plural(len(finding.structures), 'structure')}</summary>\n"
    size, digits = ("mL", 2) if finding.unit == "mm" else ("pixels", 0)
    columns = ["structure", size]
    if finding.rows:
        columns += ["Dice", "surface Dice", f"HD95 {finding.unit}", "reference voxels", "voxels"]
    yield from table(columns, structure_rows(finding, digits))
    yield "</details>\n</article>\n"


def structure_rows(finding: Finding, digits: int) -> Iterator[list[str]]:
    compared = {row["label"]: row for row in finding.rows}
    for row in finding.volumes:
        volume = float(row.get("volume_ml", row["voxels"]))
        cells = [swatch(row["structure"], colour(int(row["label"]))), number(volume, digits)]
        if compared:
            own = compared[int(row["label"])]
            cells += [*(number(own[metric]) for metric in METRICS), str(own["label_voxels"]), str(own["pred_voxels"])]
        yield cells
