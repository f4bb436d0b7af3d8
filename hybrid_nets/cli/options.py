"""Which bundle is meant, which of its configs, and whether it knows the options that were given."""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hybrid_nets.bundle import is_bundle, task_overlays
from hybrid_nets.errors import InputError

__all__ = ["check_options", "config_paths", "find_bundle", "list_bundles", "refuse_unexpected"]

PARTS = re.compile("#|::")  # MONAI's separators in the name of a nested value


def list_bundles() -> list[Path]:
    """Bundles in ``bundles/`` of the current folder, or else beside this package."""
    for root in (Path.cwd() / "bundles", Path(__file__).resolve().parents[2] / "bundles"):
        found = sorted(folder for folder in root.glob("*") if is_bundle(folder))
        if found:
            return found
    return []


def find_bundle(name: str) -> Path:
    """The folder of the bundle that ``name`` is the path of, or the name of in ``bundles/``.

    Raises:
        InputError: there is none; says which there are.
    """
    folder = Path(name).expanduser()
    if is_bundle(folder):
        return folder.resolve()
    known = {folder.name: folder for folder in list_bundles()}
    if name in known:
        return known[name].resolve()
    listed = ", ".join(known) or "none in bundles/ here"
    raise InputError(f"{name!r} is not a bundle, which has a configs/metadata.json; known are: {listed}.")


def config_paths(bundle: Path, configs: Sequence[str], overlays: object) -> list[Path]:
    """The files ``configs`` of a bundle and then ``overlays``: names, names with ``.json``, or paths of others.

    Raises:
        InputError: no such file; says which overlays the bundle has.
    """
    wanted = [bundle / "configs" / f"{name}.json" for name in configs]
    for name in as_list(overlays):
        own = bundle / "configs" / f"{Path(name).stem}.json"
        path = own if own.is_file() and name in (own.stem, own.name) else Path(name).expanduser()
        if not path.is_file():
            has = ", ".join(task_overlays(bundle)) or "none"
            raise InputError(f"there is no config {name!r}; overlays of {bundle.name} are: {has}.")
        if path.resolve() not in [file.resolve() for file in wanted]:
            wanted.append(path)
    return wanted


def as_list(names: object) -> list[str]:
    """What was typed for a list of names: one, ``a,b``, or MONAI's ``"['a','b']"``."""
    if names is None:
        return []
    if isinstance(names, (list, tuple)):
        return [str(name) for name in names]
    text = str(names).strip()
    if text.startswith("["):
        try:
            return [str(name) for name in ast.literal_eval(text)]
        except (SyntaxError, ValueError):
            text = text.strip("[]")
    return [name.strip() for name in text.split(",") if name.strip()]


def check_options(options: Mapping[str, object], configs: Sequence[Path], own: Iterable[str] = ()) -> None:
    """Refuse options that none of ``configs`` has; ``own`` are the command's, for the nearest name.

    A new name is allowed inside of what exists, as for an argument that a config leaves at its default.

    Raises:
        InputError: an unknown option; says the nearest known one.
    """
    known: dict = {}
    for file in configs:
        for key, value in json.loads(file.read_text(encoding="utf-8")).items():
            *parents, last = PARTS.split(key)
            inner = known
            for part in parents:
                inner = inner[part] if isinstance(inner, dict) and isinstance(inner.get(part), dict) else {}
            inner[last] = value
    for name in options:
        if not exists(known, PARTS.split(name)):
            refuse(name, [*own, *known])


def exists(known: object, parts: list[str]) -> bool:
    """Whether the path ``parts`` leads to a value, or to a new name in an object below the top."""
    for depth, part in enumerate(parts):
        if isinstance(known, list):
            if not part.isdigit() or int(part) >= len(known):
                return False
            known = known[int(part)]
        elif isinstance(known, dict) and part in known:
            known = known[part]
        else:
            return isinstance(known, dict) and 0 < depth == len(parts) - 1
    return True


def refuse(name: str, known: Iterable[str]) -> None:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean --{nearest[0]}?" if nearest else "see --help, and the keys of the bundle's configs."
    raise InputError(f"unknown option --{name}; {hint}")


def refuse_unexpected(words: Sequence[object], options: Iterable[str] = (), known: Iterable[str] = ()) -> None:
    """Refuse ``words`` that are no option's value, and ``options`` of commands that have few."""
    if words:
        raise InputError(f"{str(words[0])!r} is not expected here; options are given as --name value.")
    for name in options:
        refuse(name, known)
