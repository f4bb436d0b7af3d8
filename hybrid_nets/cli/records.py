"""What is done, kept beside the results: so that a run goes on, and several processes share one folder."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from hybrid_nets.atomic import remove_leftovers, replacing
from hybrid_nets.cli.cases import Case
from hybrid_nets.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: one process at a time
    fcntl = None  # type: ignore[assignment]

__all__ = ["Records"]

FOLDER = ".hybrid_nets"


class Records:
    """A JSON file per case, written when its results are there, in a hidden folder of the results.

    A case is complete if its record says so, its files exist, and its image is as it was. A lock, which the system
    takes away from a process that ends in whatever way, keeps others from a case that somebody works on.

    Args:
        output: folder of the results.
        run: a name that the processes of one run share, and no other run has.
        redo: whether what other runs did counts for nothing.
    """

    def __init__(self, output: Path, run: str, redo: bool = False) -> None:
        self.output, self.run, self.redo = output, run, redo
        self.folder = output / FOLDER

    def fit_settings(self, settings: dict) -> None:
        """Keep what the results of this folder were made with, or compare with what was kept.

        Raises:
            InputError: earlier results were made with other settings; says which.
        """
        file = self.folder / "settings.json"
        earlier = read(file)
        differing = sorted(key for key in {*earlier, *settings} if earlier.get(key) != settings.get(key))
        if earlier and differing and not self.redo:
            raise InputError(
                f"{self.output} has results of other settings ({', '.join(differing[:5])}); give another folder with "
                "-o, or segment all cases again with --overwrite."
            )
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")

    def state(self, case: Case, outputs: list[str]) -> str:
        """``complete``, ``failed`` in this run, ``open``, or why the case's files can't be written.

        A case of an earlier run that failed is open: its image may be mended.
        """
        record = read(self.file(case, ".json"))
        if record.get("run") == self.run:
            return "failed" if record["status"] == "failed" else "complete"
        if self.redo:
            return "open"
        if record.get("status") == "done":
            if record["source"] != case.source():
                return f"{outputs[-1]} belongs to another image; give another folder with -o, or --overwrite."
            there = all((self.output / name).is_file() for name in record["outputs"])
            same = record["fingerprint"] == case.fingerprint() and set(outputs) <= set(record["outputs"])
            return "complete" if there and same else "open"
        foreign = [name for name in outputs if (self.output / name).exists()]
        if foreign and not self.file(case, ".lock").exists():
            return f"{foreign[-1]} is there already and not of this command; move it away, or give --overwrite."
        return "open"

    def write(self, case: Case, **content: Any) -> None:
        with replacing(self.file(case, ".json")) as temporary:
            temporary.write_text(json.dumps({"case": case.name, "run": self.run, **content}) + "\n")

    def all(self) -> list[dict]:
        """The records of all cases, in the order of their names."""
        files = (self.folder / "cases").rglob("*.json")
        found = (read(file) for file in files if not file.name.startswith("."))
        return sorted((record for record in found if record), key=lambda record: record["case"])

    def file(self, case: Case, ending: str) -> Path:
        return self.folder / "cases" / f"{case.name}{ending}"

    def claim(self, case: Case) -> Claim | None:
        """The right to work on ``case``, or None if another process has it."""
        return Claim.take(self.file(case, ".lock"))

    def remove_leftovers(self, outputs: list[str]) -> None:
        """What a killed process left under temporary names; for who holds the claim."""
        for name in outputs:
            with contextlib.suppress(OSError):
                remove_leftovers(self.output / name)


class Claim:
    """An open, locked file."""

    def __init__(self, path: Path, handle: Any) -> None:
        self.path, self.handle = path, handle

    @classmethod
    def take(cls, path: Path) -> Claim | None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a")  # noqa: SIM115 - it stays open as long as the claim is held
        if fcntl is None:
            return cls(path, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                return cls(path, handle)
        except (BlockingIOError, FileNotFoundError):
            pass  # another has it, or had it and has just removed it
        handle.close()
        return None

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
        self.handle.close()


def read(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
