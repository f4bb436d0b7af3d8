"""What a bundle's JSON needs to know about where it lies and what was typed."""

from __future__ import annotations

import logging
import os
import re
import sys
from functools import cache, partial
from importlib import import_module
from pathlib import Path

__all__ = ["bundle_root", "flag", "phantom_dir", "task_overlays"]

logger = logging.getLogger(__name__)


def drawn_by(module: str, kind: str) -> Path:
    """The folder of a phantom; what draws it is imported here, as commands need this module before torch is wanted."""
    return getattr(import_module(f"{__package__}.{module}"), f"{kind}_dir")()


PHANTOMS = {
    **{kind: partial(drawn_by, "phantoms", kind) for kind in ("brain_tumor", "abdomen", "ultrasound")},
    "brain_tissue": partial(drawn_by, "synthesis", "brain_tissue"),
}


def bundle_root(name: str) -> str:
    """The folder of the bundle whose config is running, so that outputs land there and not where one happens to stand.

    MONAI doesn't tell a config its own path. It is, in this order: from ``--config_file`` on the command line; the
    current folder if it is the bundle; ``bundles/<name>`` below the current folder or beside this package.
    Otherwise the current folder, as in MONAI's own bundles.

    Args:
        name: the bundle's folder name.
    """
    for argument, value in zip(sys.argv, [*sys.argv[1:], ""]):
        option, _, inline = argument.partition("=")
        if option == "--config_file":
            first = (inline or value).strip("[]()\"' ").split(",")[0].strip("\"' ")
            candidate = Path(first).expanduser().resolve().parent.parent
            if is_bundle(candidate):
                return str(candidate)
    here = Path.cwd()
    for candidate in (here, here / "bundles" / name, Path(__file__).resolve().parents[1] / "bundles" / name):
        if is_bundle(candidate):
            return str(candidate)
    return str(here)


def is_bundle(folder: Path) -> bool:
    return (folder / "configs" / "metadata.json").is_file()


def task_overlays(folder: str | Path) -> list[str]:
    """Names of the configs in a bundle's ``folder`` that turn it to another task, such as ``images``."""
    names = sorted(file.stem for file in (Path(folder) / "configs").glob("*.json"))
    return [name for name in names if not re.fullmatch(r"train|inference|evaluate|metadata|multi_gpu_.*", name)]


def flag(value: object) -> bool:
    """A switch as it comes from JSON or the command line, where ``--resume true`` arrives as a string.

    Raises:
        ValueError: neither true nor false.

    Example::

        >>> flag(True), flag("true"), flag("False"), flag(0)
        (True, True, False, False)
    """
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "none": False}
    word = str(value).strip().lower()
    if word not in words:
        raise ValueError(f"expected true or false, got {value!r}.")
    return words[word]


class PhantomFolder(os.PathLike):
    """The folder of a built-in phantom data set, which is made when somebody asks for its path."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @cache  # noqa: B019 - a config has one, for as long as the program runs
    def __fspath__(self) -> str:
        folder = str(PHANTOMS[self.kind]())
        message = "No dataset_dir given: running on the built-in %s phantom in %s. For your own data add --dataset_dir."
        logger.warning(message, self.kind, folder)
        return folder

    __str__ = __fspath__


def phantom_dir(kind: str) -> PhantomFolder:
    """The folder of a built-in phantom data set, to stand in for real data where none are given.

    Nothing is written before the path is used: MONAI Label evaluates the whole config and then gives data of its own.
    A line in the log says when the phantom is used.

    Args:
        kind: ``"abdomen"``, ``"brain_tumor"``, ``"brain_tissue"`` or ``"ultrasound"``.

    Raises:
        ValueError: another kind.
    """
    if kind not in PHANTOMS:
        raise ValueError(f"unknown phantom {kind!r}; known are {list(PHANTOMS)}.")
    return PhantomFolder(kind)
