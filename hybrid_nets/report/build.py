"""The command ``hybrid-nets report``: from a folder of results to a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybrid_nets.atomic import replacing
from hybrid_nets.errors import InputError

__all__ = ["Wish", "build_report"]

NAMES = ("report.html", "report")  # of the page and of the folder of its pictures, below the results


@dataclass(frozen=True)
class Wish:
    """What was typed; see :func:`hybrid_nets.cli.commands.report`."""

    results: Path
    labels: Path | None = None
    input: Path | None = None
    tolerance: float = 1.0
    convention: str = "radiological"


def build_report(wish: Wish) -> Path:
    """Write ``report.html`` and the PNG files in ``report/`` into the folder of results; returns the page.

    Cases are read, drawn and measured one at a time, and their pictures go into the page from their files, so memory
    doesn't grow with the pictures of the cohort.

    Raises:
        InputError: no results, no such folder, or matplotlib is missing.
    """
    need_matplotlib()
    from hybrid_nets.report.references import References
    from hybrid_nets.report.results import read_results
    from hybrid_nets.report.study import study, worst_first
    from hybrid_nets.report.views import CONVENTIONS

    if wish.convention not in CONVENTIONS:
        raise InputError(f"--convention is {' or '.join(CONVENTIONS)}, got {wish.convention!r}.")
    if not wish.tolerance > 0:
        raise InputError(f"--tolerance is {wish.tolerance:g}; give a distance above 0, in mm.")
    results, failed = read_results(wish.results)
    if wish.input:
        find_images(wish, results)
    references = References(wish.labels) if wish.labels else None
    pictures, page = wish.results / NAMES[1], wish.results / NAMES[0]
    findings = worst_first(study(results, pictures, references, wish.tolerance, wish.convention))
    write(page, wish, findings, failed, pictures)
    return page


def need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError('the report needs matplotlib: pip install "hybrid-nets[report]".') from error


def find_images(wish: Wish, results: Sequence) -> None:
    """Tell ``results`` the images in ``wish.input`` that they were made of."""
    from hybrid_nets.cli.cases import Wanted
    from hybrid_nets.cli.inputs import find_inputs
    from hybrid_nets.report.results import add_inputs, read_channels

    cases, reasons = [], []
    for modality in ("CT", "MR"):  # of DICOM series; by their digests only those that were segmented are taken
        try:
            cases += find_inputs(wish.input, Wanted(read_channels(wish.results), modality, results[0].picture))[0]
        except InputError as error:
            reasons.append(error)
    if not cases:
        raise reasons[0]
    add_inputs(results, cases)


def write(page: Path, wish: Wish, findings: Sequence, failed: Sequence, pictures: Path) -> None:
    from hybrid_nets.report.page import write_page

    title = f"Segmentation report: {wish.results.resolve().name}"
    with replacing(page) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        write_page(file, title, all_sections(title, wish, findings, failed, pictures))


def all_sections(
    title: str, wish: Wish, findings: Sequence, failed: Sequence, pictures: Path
) -> Iterator[Iterator[str]]:
    from hybrid_nets.report import sections

    yield sections.heading(title, findings, len(failed), wish.convention, wish.tolerance)
    yield sections.cohort_table(findings)
    yield sections.plots_section(findings, pictures)
    yield sections.failures_table(failed)
    yield sections.cases_table(findings)
    for index, finding in enumerate(findings):
        yield sections.case_section(index, finding)
