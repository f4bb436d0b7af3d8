"""Where phantom data sets are kept, so that each is written once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from hybrid_nets.phantoms.folder import is_complete

__all__ = ["cache_dir", "cached_data_set"]

logger = logging.getLogger(__name__)


def cache_dir() -> Path:
    """The folder for generated data: ``$HYBRID_NETS_CACHE``, or ``~/.cache/hybrid_nets`` if that is unset or empty.

    The folder need not exist.

    Example::

        HYBRID_NETS_CACHE=/data/cache python -m monai.bundle run --config_file bundles/glims/configs/train.json
    """
    return Path(os.environ.get("HYBRID_NETS_CACHE") or "~/.cache/hybrid_nets").expanduser()


def cached_data_set(name: str, make: Callable[[Path], Path], cache: str | Path | None = None) -> Path:
    """The folder ``<cache>/phantoms/<name>``, written by ``make(folder)`` unless it already holds a data set.

    Args:
        name: folder name with a version, such as ``"brain_tumor-1"``; raise the version when the data change.
        make: writes a data set to the folder it is given, atomically, and returns that folder.
        cache: used instead of :func:`cache_dir`.
    """
    folder = (cache_dir() if cache is None else Path(cache).expanduser()) / "phantoms" / name
    if is_complete(folder):
        return folder
    start = time.perf_counter()
    make(folder)
    logger.info("wrote the phantom data set %s in %.1f s", folder, time.perf_counter() - start)
    return folder
