"""The results of ``hybrid-nets segment`` in a folder, as it recorded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybrid_nets.cli.cases import Case
from hybrid_nets.cli.records import FOLDER, Records, read
from hybrid_nets.errors import InputError
from hybrid_nets.folders import PICTURES

__all__ = ["Result", "add_inputs", "read_channels", "read_results"]


@dataclass
class Result:
    """A case that was segmented.

    Attributes:
        name: of the case, with folders.
        label_map: its file.
        structures: label value → name.
        volumes: the case's rows of ``volumes.csv``.
        source: digest of the image's files.
        images: files of the image, empty where they are not known.
        case: the case as it was found anew, for DICOM series.
    """

    name: str
    label_map: Path
    structures: dict[int, str]
    volumes: list[dict]
    source: str
    images: tuple[str, ...] = field(default=())
    case: Case | None = None

    @property
    def picture(self) -> bool:
        return self.label_map.name.lower().endswith(PICTURES)


def read_results(folder: Path) -> tuple[list[Result], list[dict]]:
    """The cases that are complete, and records of those that failed.

    Raises:
        InputError: none are complete.
    """
    records = Records(folder, "").all()
    done = [read_record(folder, record) for record in records if record["status"] == "done"]
    if not done:
        raise InputError(f"{folder} holds no results of hybrid-nets segment; give the folder that was its -o.")
    gone = [result.label_map for result in done if not result.label_map.is_file()]
    if gone:
        raise InputError(f"{gone[0]} is not there any more; the same segment command makes it again.")
    return done, [record for record in records if record["status"] == "failed"]


def read_record(folder: Path, record: Mapping) -> Result:
    rows = record["volumes"]
    names = {int(row["label"]): str(row["structure"]) for row in rows}
    label_map = folder / record["outputs"][-1]
    return Result(record["case"], label_map, names, rows, record["source"], tuple(record.get("images", ())))


def read_channels(folder: Path) -> list[str]:
    """Names of the channels of the network that made the results."""
    found = read(folder / FOLDER / "settings.json").get("channels")
    return [str(name) for name in found] if isinstance(found, list) else ["image"]


def add_inputs(results: Sequence[Result], cases: Sequence[Case]) -> None:
    """Tell ``results`` the images among ``cases`` that they were made of, whatever these are called now."""
    found = {case.source(): case for case in cases}
    for result in results:
        if result.source in found:
            result.case = found[result.source]
            result.images = result.case.image
