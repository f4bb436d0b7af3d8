"""The shell commands in the documents: print those of one name, or check that each block says how it is run.

    python tools/readme_commands.py README.md run      # the commands of the README's blocks named "run"
    python tools/readme_commands.py check              # name every block that nothing runs

A comment on the line before a block says how it is run:

- ``<!-- ci: NAME -->``: word for word, by ``.ci/run`` or by one of the tests in ``TESTED``;
- ``<!-- ci: small -->``: on small phantoms, by ``tools/readme_small.py``;
- ``<!-- ci: not, REASON -->``: not as it stands; the reason may name a test that does the same.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "bundles/*/docs/README.md")
SHELLS = {"bash", "sh", "shell", "console"}
# Blocks that a test runs instead of .ci/run.
TESTED = {
    ("docs/monai_label.md", "monai_label"): "tests/ecosystem/test_monai_label.py",
    ("docs/federated_nvflare.md", "nvflare"): "tests/ecosystem/test_nvflare.py",
    ("docs/federated_nvflare.md", "nvflare_job"): "tests/ecosystem/test_nvflare.py",
    ("docs/reliability.md", "long"): "tests/reliability/test_long.py",
    ("docs/inferer_notes.md", "memory"): "docs/inferer_notes.md",  # its small block writes it to a file
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, what its comment says after ``ci:`` ("" without), its text."""

    document: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def readme_commands(file: str, name: str) -> str:
    """The content of FILE's blocks named NAME, joined."""
    blocks = [block.text for block in read_blocks(file, Path(file).read_text()) if block.mark == name]
    if not blocks:
        raise SystemExit(f"error: {file} has no code block named {name!r}.")
    return "".join(blocks).rstrip()


def read_blocks(document: str, text: str) -> list[Block]:
    """All fenced blocks of a document."""
    found = []
    for fence in re.finditer(r"^( *)```(\S*)[^\n]*\n(.*?)^ *```[^\n`]*$", text, flags=re.DOTALL | re.MULTILINE):
        before = text[: fence.start()]
        comment = re.search(r"<!-- ci: ([^\n]*?) -->\n\Z", before)
        mark = comment[1] if comment else ""
        found.append(Block(document, before.count("\n") + 1, fence[2], mark, fence[3]))
    return found


def all_blocks(root: Path = ROOT) -> list[Block]:
    files = sorted(file for pattern in DOCUMENTS for file in root.glob(pattern))
    return [block for file in files for block in read_blocks(file.relative_to(root).as_posix(), file.read_text())]


def check(root: Path = ROOT) -> list[str]:
    """What is wrong with the blocks' comments, a line each."""
    blocks = all_blocks(root)
    named = {*run_by_ci((root / ".ci" / "run").read_text()), *TESTED}
    wrong = [f"{block}: {problem}" for block in blocks if (problem := find_problem(block, named, root))]
    marks = {(block.document, block.mark) for block in blocks}
    return wrong + [f"{document}: no block is named {name!r}, which is to be run" for document, name in named - marks]


def find_problem(block: Block, named: set[tuple[str, str]], root: Path) -> str:
    if not block.mark:
        unmarked = "no <!-- ci: … --> on the line before; tools/readme_commands.py says which there are"
        return unmarked if block.language in SHELLS else ""
    if block.mark == "small":
        return ""
    if block.mark.split(",")[0] == "not":
        reason = block.mark.partition(",")[2].strip()
        missing = [file for file in re.findall(r"[\w./]+/\w+(?:\.py)?\b", reason) if not (root / file).exists()]
        return f"{', '.join(missing)} is not there" if missing else "" if reason else "not, and no reason"
    return "" if (block.document, block.mark) in named else f"nothing runs the name {block.mark!r}"


def run_by_ci(script: str) -> Iterator[tuple[str, str]]:
    """Document and name of the blocks that ``.ci/run`` runs by its function ``commands``, its loops written out."""
    loops = {variable: words.split() for variable, words in re.findall(r"for (\w+) in (.+?); do", script)}
    for words in re.findall(r'^ *commands "?([^\s"]+\.md)"? "?([\w$]+)', script, flags=re.MULTILINE):
        used = [variable for variable in loops if any(f"${variable}" in word for word in words)]
        for values in itertools.product(*(loops[variable] for variable in used)):
            document, name = words
            for variable, value in zip(used, values):
                document, name = (word.replace(f"${variable}", value) for word in (document, name))
            yield document, name


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        sys.exit("\n".join(check()) or 0)
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(readme_commands(*sys.argv[1:]))
