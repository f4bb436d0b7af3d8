"""Run the documents' blocks marked ``<!-- ci: small -->``, with small networks on small phantoms.

    python tools/readme_small.py                    # all documents, two at a time
    python tools/readme_small.py docs/report.md bundles/glims/docs/README.md --jobs 1

Each document's blocks run in their order in a copy of the repository in a temporary folder, so nothing is left behind.
There the configs' defaults are small and each bundle has weights, random ones where it comes without; what the commands
say is changed as in ``CHANGES`` and ``DATA``, and no more. Prints the commands as they are run, and at the end the
seconds of each block; exit status 1 if one failed, with the end of what it printed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import fire
from readme_commands import Block, all_blocks
from readme_small_copy import DATA, RELEASED, prepare, released_checkpoint

LIMIT = 1800  # seconds for a block, many times what one takes
# Pattern → replacement, for what a document says of its reader's machine or of sizes.
CHANGES = (
    (r"--(epochs|val_interval|rounds|local_epochs) \d+", r"--\1 1"),
    (r"--roi_size \"\[96,96,96\]\"", '--roi_size "[32,32,32]"'),
    (r"--spacing (\"?)\[[\d.,]+\]", r"--spacing \1[9,9,9]"),
    (r"(hybrid-nets plan .*?)(?=  #|$)", r"\1 --memory 0.2"),
    (r"\b512 512 800\b", "96 96 128"),
    (r"\bNAME\b", "mobileutr"),
    (r"(?<=\s)/models\b", "models"),
    (r"/tmp/federated\b", "federated"),
    (r"\bpip install (?=-)", "pip install --quiet --dry-run "),  # the environment is whoever's started this
)


@dataclass(frozen=True)
class Result:
    block: Block
    seconds: float
    failure: str  # the end of what it printed, or "" if it ran well


def main(*documents: str, jobs: int = 2) -> None:
    """Run the small blocks of DOCUMENTS, or of all, JOBS documents at a time."""
    blocks = [block for block in all_blocks() if block.mark == "small"]
    names = list(documents) or sorted({block.document for block in blocks})
    by_document = {name: [block for block in blocks if block.document == name] for name in names}
    if empty := [name for name, found in by_document.items() if not found]:
        sys.exit(f"error: no block is marked small in {', '.join(empty)}.")
    with TemporaryDirectory(prefix="readme_small_") as folder:
        prepare(Path(folder))
        longest_first = sorted(by_document.values(), key=lambda found: -sum(len(block.text) for block in found))
        with ThreadPoolExecutor(jobs) as pool:
            parts = pool.map(lambda found: run_document(found, Path(folder)), longest_first)
            results = [result for part in parts for result in part]
    for result in results:
        print(f"{result.seconds:6.0f} s  {result.block}{'  FAILED' if result.failure else ''}")
    sys.exit(any(result.failure for result in results))


def run_document(blocks: list[Block], prepared: Path) -> list[Result]:
    """Run blocks of one document in a copy of their own; each finds the bundles as at first, and no results."""
    copy = prepared / "copies" / re.sub(r"\W", "_", blocks[0].document)
    shutil.copytree(prepared / "repository", copy)
    results = []
    for block in blocks:
        shutil.rmtree(copy / "bundles")
        shutil.rmtree(copy / "results", ignore_errors=True)
        released = [name for name in RELEASED if name in block.text]  # these are of networks of full size
        shutil.copytree(prepared / ("full_bundles" if released else "repository/bundles"), copy / "bundles")
        for name in released:
            released_checkpoint(copy / name)
        results.append(run_block(block, copy, prepared))
    shutil.rmtree(copy)
    return results


def run_block(block: Block, folder: Path, prepared: Path) -> Result:
    commands = small_commands(block.text, prepared / "data")
    variables = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HYBRID_NETS_CACHE": str(prepared / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    begin = time.monotonic()
    with (folder / "output.txt").open("w+", errors="replace") as output:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            status = f"none after {LIMIT} s"
            os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        text = output.read()
    failure = f"{block} failed, exit status {status}:\n{text[-6000:]}\n" if status else ""
    print(f"== {block}\n{commands}{failure}", flush=True)
    return Result(block, time.monotonic() - begin, failure)


def small_commands(text: str, data: Path) -> str:
    """The commands of a block, on the data sets in folder ``data``.

    Raises:
        KeyError: a folder below ``/data`` that ``DATA`` doesn't have.
    """
    for pattern, replacement in CHANGES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    scans = "brain_tumor" if "glims" in text else "abdomen"

    def folder(name: str) -> str:
        kind = DATA[name]
        return name if kind is None else str(data / (scans if kind == "scans" else kind))

    text = re.sub(r"/data/(\w+)", lambda found: folder(found[1]), text)
    text = re.sub(r"(?<=-i )scans\b", str(data / scans / "imagesTr"), text)
    return re.sub(r"(?<=--labels )labels\b", str(data / scans / "labelsTr"), text)


if __name__ == "__main__":
    fire.Fire(main)
