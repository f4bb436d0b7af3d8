from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
if sys.argv[1] == "keep":
    from hybrid_nets import keep_memory
    assert keep_memory()
faults = []
for _ in range(24):  # blocks may move up through what was got at once before they take an old place
    torch.empty(2**24).fill_(1)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-5])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sets an option of glibc")
def test_freed_memory_is_used_again() -> None:
    """64 MiB are 16,384 pages, which come anew each of four times, or once at most."""
    counts = {
        mode: int(subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, check=True).stdout)
        for mode in ("keep", "return")
    }
    assert counts["keep"] <= counts["return"] / 3
