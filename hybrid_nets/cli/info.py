"""What bundles there are, from their metadata alone."""

from __future__ import annotations

import json
from pathlib import Path

from hybrid_nets.bundle import task_overlays
from hybrid_nets.cli.options import find_bundle, list_bundles
from hybrid_nets.errors import InputError

__all__ = ["describe_bundle", "show_info"]

MEGABYTE = 2**20


def show_info(name: str | None) -> None:
    """Print the bundle ``name``, or a paragraph for each one that is found.

    Raises:
        InputError: no bundle of that name, or none at all.
    """
    bundles = [find_bundle(name)] if name else list_bundles()
    if not bundles:
        raise InputError("no bundles here; give a bundle's folder: hybrid-nets info FOLDER.")
    print("\n\n".join(describe_bundle(folder, whole=bool(name)) for folder in bundles))


def describe_bundle(folder: Path, whole: bool = False) -> str:
    """A bundle in a few lines; ``whole`` adds its description, intended use and references."""
    meta = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    formats = meta["network_data_format"]
    image, result = formats["inputs"]["image"], formats["post_processed_outputs"]["pred"]
    structures = [name for name in result["channel_def"].values() if name != "background"]
    rows = {
        "task": meta["task"],
        "input": f"{image['modality']}, {channels(image)}",
        "sizes": f"windows of {' x '.join(str(side) for side in image['spatial_shape'])} voxels, n = 1, 2, …",
        "output": f"label map of {len(structures)}: {', '.join(structures)}",
        "overlays": ", ".join(task_overlays(folder)) or "none",
        "weights": weights(folder),
    }
    if "memory" in meta:
        rows["memory"] = meta["memory"] if isinstance(meta["memory"], str) else json.dumps(meta["memory"])
    if whole:
        rows |= {"about": meta["description"], "intended use": meta["intended_use"]}
        rows |= {"references" if i == 0 else " " * (i + 1): text for i, text in enumerate(meta["references"])}
    lines = [f"{folder.name} {meta['version']} ({meta['name']})"]
    return "\n".join([*lines, *(f"  {name:<13} {text}" for name, text in rows.items())])


def channels(image: dict) -> str:
    names = ", ".join(image["channel_def"].values())
    return f"{image['num_channels']} channel{'s' * (image['num_channels'] > 1)} ({names})"


def weights(folder: Path) -> str:
    file = folder / "models" / "model.pt"
    if not file.is_file():
        return f"none yet: hybrid-nets train {folder.name}, or tools/convert_checkpoint.py for a released checkpoint"
    return f"models/model.pt, {file.stat().st_size / MEGABYTE:.0f} MiB"
