"""What ``hybrid-nets segment --demo`` segments: scans that need neither data of one's own nor a network."""

from __future__ import annotations

import re
from pathlib import Path

from hybrid_nets.errors import InputError

__all__ = ["demo_input"]


def demo_input(bundle: Path) -> Path:
    """The file or folder to try ``bundle`` on, from the data set that its inference.json names.

    Raises:
        InputError: it names none, or that of the brain and nilearn, which ships the scan, is not installed.
    """
    found = re.search(r"phantom_dir\('(\w+)'\)", (bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    if not found:
        raise InputError(f"{bundle.name} has no built-in data to try it on; give scans with -i.")
    if found[1] == "brain_tissue":
        from hybrid_nets.synthesis.atlas import atlas_file

        return atlas_file("t1")
    from hybrid_nets.bundle import PHANTOMS

    return PHANTOMS[found[1]]() / "imagesTs"
