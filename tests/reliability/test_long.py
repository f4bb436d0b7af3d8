"""The long runs of docs/reliability.md, each command as it stands there: ``pytest -m long``, or ``-m long -k soak``."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
from conftest import ROOT
from readme_commands import readme_commands

COMMANDS = [shlex.split(line) for line in readme_commands(str(ROOT / "docs" / "reliability.md"), "long").splitlines()]


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: next((w for w in words[2:] if w.isalpha()), "fuzz"))
def test_a_long_run_of_the_documents(command: list[str]) -> None:
    assert command[0] == "python"
    done = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:])  # its figures: pytest -rP shows them
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
