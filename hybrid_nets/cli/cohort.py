"""Segment many cases: the next one is read and the last one written while one is inferred."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from hybrid_nets import __version__
from hybrid_nets.cli.cases import Case
from hybrid_nets.cli.checks import check_content, check_files, explain, stops_everything
from hybrid_nets.cli.model import BundleModel
from hybrid_nets.cli.records import Claim, Records
from hybrid_nets.cli.tables import measure
from hybrid_nets.distributed import is_first_process
from hybrid_nets.errors import InputError

__all__ = ["Cohort"]

# Seconds between two looks at cases that other processes work on.
PATIENCE = 0.5


class Cohort:
    """Cases on their way to results. A case that fails costs nothing but its own result.

    At any time one case is being read, one inferred and one written at most, each in a thread of its own, so memory
    does not grow with the number of cases. Of several processes each takes what no other has taken, and all end when
    there is nothing left.

    Args:
        cases: all, the same in each process.
        model: what segments them.
        records: of the folder of results.
        dicom_seg: whether DICOM cases get a DICOM segmentation.
    """

    def __init__(self, cases: Sequence[Case], model: BundleModel, records: Records, dicom_seg: bool = True) -> None:
        self.cases, self.model, self.records, self.dicom_seg = list(cases), model, records, dicom_seg
        self.claims: dict[str, Claim] = {}
        self.counts = {"segmented": 0, "complete": 0, "failed": 0}
        self.writing: Future | None = None

    def run(self) -> None:
        """Segment what is not complete.

        Raises:
            InputError: nothing can be written any more, as when the disk is full.
        """
        pending = self.cases
        bar = tqdm(total=len(pending), desc="Segmenting", unit="case", disable=not is_first_process())
        with bar as self.bar, ThreadPoolExecutor(1) as self.reader, ThreadPoolExecutor(1) as self.writer:
            while pending:
                pending = self.sweep(pending)
                if pending:
                    time.sleep(PATIENCE)

    def sweep(self, cases: Sequence[Case]) -> list[Case]:
        """Work on the cases that nobody else works on; returns those that somebody does."""
        taken: list[Case] = []
        for case, reading in self.read_ahead(self.claim(cases, taken)):
            try:
                item = self.predict(reading.result())
            except Exception as error:
                self.wait()
                self.fail(case, error)
                continue
            self.wait()
            self.writing = self.writer.submit(self.write, case, item)
            del item, reading
        self.wait()
        return taken

    def predict(self, item: dict) -> dict:
        """On a GPU that the case before still takes memory of, once more when that is written."""
        try:
            return self.model.predict(item)
        except torch.OutOfMemoryError:
            self.wait()
        torch.cuda.empty_cache()
        return self.model.predict(item)

    def read_ahead(self, cases: Iterator[Case]) -> Iterator[tuple[Case, Future]]:
        """Each case with what is read of it, while the one before is inferred."""
        ahead: tuple[Case, Future] | None = None
        for case in cases:
            before, ahead = ahead, (case, self.reader.submit(self.read, case))
            if before:
                yield before
                before = None
        if ahead:
            yield ahead

    def claim(self, cases: Sequence[Case], taken: list[Case]) -> Iterator[Case]:
        """The cases that are open and now this process's own; those of others are added to ``taken``."""
        for case in cases:
            outputs = self.outputs(case)
            state = self.records.state(case, outputs)
            if state in self.counts:
                self.count(state)
                continue
            claim = self.records.claim(case)
            if claim is None:
                taken.append(case)
                continue
            self.claims[case.name] = claim
            ended = self.records.state(case, outputs)  # another may have ended it a moment ago
            if ended in self.counts:
                self.release(case)
                self.count(ended)
            elif state != "open" or case.problem:
                self.fail(case, InputError(case.problem or state))
            else:
                self.records.remove_leftovers(outputs)
                yield case

    def outputs(self, case: Case) -> list[str]:
        """The names of the case's files, the label map last."""
        segmentation = [f"{case.name}_seg.dcm"] if case.series and self.dicom_seg else []
        return segmentation + self.model.outputs(case)

    def read(self, case: Case) -> dict:
        check_files(case)
        check_content(case)
        return self.model.load(case)

    def write(self, case: Case, item: dict) -> None:
        """In the writing thread: the case's files, then its record."""
        try:
            stem = self.records.output / case.name
            before = self.write_dicom(case, stem) if case.series and self.dicom_seg else (lambda _: None)
            labels = self.model.save(item, stem, before)
            volumes = measure(labels, self.model.structures, self.model.pictures)
            source = {"source": case.source(), "fingerprint": case.fingerprint(), "outputs": self.outputs(case)}
            self.records.write(case, status="done", **source, images=case.images(), volumes=volumes)
        except Exception as error:
            self.fail(case, error)
        else:
            self.release(case)
            self.count("segmented")

    def write_dicom(self, case: Case, stem: Path) -> Callable[[torch.Tensor], None]:
        from hybrid_nets.dicom.segmentation import write_segmentation

        def write(labels: torch.Tensor) -> None:
            array = labels.as_subclass(torch.Tensor)[0].cpu().numpy()
            name = self.model.metadata["name"]
            target = f"{stem}_seg.dcm"
            write_segmentation(target, array, case.series[0], self.model.structures, name, __version__)

        return write

    def wait(self) -> None:
        """Until the case before is written; its result is let go."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()

    def fail(self, case: Case, error: BaseException) -> None:
        if stops_everything(error):
            raise InputError(
                f"{explain(error)} in {self.records.output}; mend that, the same command goes on."
            ) from error
        self.records.write(case, status="failed", reason=explain(error))
        self.release(case)
        self.count("failed")
        gc.collect()  # the error's frames hold the image
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def release(self, case: Case) -> None:
        self.claims.pop(case.name).release()

    def count(self, state: str) -> None:
        self.counts[state] += 1
        self.bar.update()
