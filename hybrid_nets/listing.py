"""A data list as MSD and nnU-Net write it: its cases, its channels and its labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hybrid_nets.conventions import channel_order, label_mapping
from hybrid_nets.errors import InputError

__all__ = ["read_channels", "read_json", "read_labels", "read_meaning", "read_section"]


def read_json(path: Path) -> dict:
    """The content of a data list.

    Raises:
        InputError: it is not JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); mend it or give another datalist.") from error
    if not isinstance(content, dict):
        raise InputError(f'{path} must be an object with a "training" or a "test" list, as MSD\'s dataset.json.')
    return content


def read_channels(content: Mapping) -> list[str]:
    """Names of the channels in order, none if the list doesn't say."""
    stated = content.get("modality") or content.get("channel_names") or {}
    try:
        return [str(name) for _, name in sorted(stated.items(), key=lambda item: int(item[0]))]
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError('the data list\'s "modality" must map numbers to names, such as {"0": "CT"}.') from error


def read_labels(content: Mapping) -> dict[int, str]:
    """Label value → name, none if the list doesn't say; nnU-Net maps names to values, MSD values to names."""
    stated = content.get("labels") or {}
    try:
        pairs = [(value, name) if isinstance(value, int) else (name, value) for name, value in stated.items()]
        return {int(value): str(name) for value, name in pairs}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            'the data list\'s "labels" must map numbers to names, such as {"0": "background", "1": "liver"}, or names '
            "to one number each."
        ) from error


def read_meaning(
    content: Mapping, channels: Sequence[str] | None, names: dict[int, str] | None, other_labels: int | None
) -> dict:
    """What a data list says of channels and labels, in terms of the bundle's; every case gets it."""
    meaning: dict = {}
    found = read_channels(content) if channels else []
    if found:
        meaning["channel_order"] = channel_order(found, channels)
    stated = read_labels(content) if names else {}
    if stated:
        meaning["label_values"] = label_mapping(stated, names, other_labels)
    return meaning


def read_section(content: Mapping, section: str, root: Path) -> list[dict]:
    """The cases that a data list has under ``section``, with paths that start at ``root``.

    Raises:
        InputError: it is no list of files and of entries with an image.
    """
    listed = content.get(section) or []
    if not isinstance(listed, list):
        raise InputError(f'the data list\'s "{section}" must be a list of {{"image": …}} entries.')
    return [read_entry(item, f"{section}[{number}]", root) for number, item in enumerate(listed)]


def read_entry(item: object, place: str, root: Path) -> dict:
    entry = {"image": item} if isinstance(item, str) else item
    if not isinstance(entry, dict) or "image" not in entry:
        raise InputError(f'{place} in the data list must be a file or an entry {{"image": …}}, not {short(item)}.')
    fold = entry.get("fold")
    if not isinstance(fold, int | None):
        raise InputError(f"{place} in the data list has the fold {short(fold)}; give a number.")
    files = {key: read_files(entry[key], f'"{key}" of {place}', root) for key in ("image", "label") if key in entry}
    return {**entry, **files}


def read_files(files: object, place: str, root: Path) -> str | list[str]:
    several = files if isinstance(files, list) else [files]
    if not several or not all(isinstance(file, str) and file for file in several):
        raise InputError(f"{place} in the data list must be a file or a list of files, not {short(files)}.")
    found = [str(root / file) for file in several]
    return found if isinstance(files, list) else found[0]


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}…"
