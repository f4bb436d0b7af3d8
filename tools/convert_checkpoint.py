"""Convert a checkpoint of the authors' released code to one that a bundle here uses.

    python tools/convert_checkpoint.py IN OUT --bundle bundles/glims
    python tools/convert_checkpoint.py models/model.pt models/model.safetensors

Reads IN without running anything in it (tensors only), checks every key and shape, writes OUT (flat weights, replaced
as a whole), and prints the options with which the bundle uses it. OUT may end in .safetensors, a format that can't hold
code. Without --bundle, IN is a checkpoint of a bundle here, and its weights are written as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from pydoc import locate

import fire
import torch
from monai.bundle import ConfigParser

from hybrid_nets import InputError, convert_released
from hybrid_nets.bundle import task_overlays
from hybrid_nets.checkpoints import read_checkpoint, save_weights
from hybrid_nets.convert import released_options


def convert_checkpoint(source: str, target: str, bundle: str | None = None) -> None:
    """Convert SOURCE, a released checkpoint, to TARGET, for the bundle in folder BUNDLE."""
    if bundle is None:
        change_format(source, target)
        return
    inference = Path(bundle) / "configs" / "inference.json"
    if not inference.is_file():
        raise InputError(f"{bundle} is not a bundle: it has no configs/inference.json.")
    content = read_checkpoint(source)
    try:
        kind = locate(ConfigParser(ConfigParser.load_config_file(inference))["network_def"]["network"]["_target_"])
        files, options = choose_configs(inference, released_options(kind, content))
        parser = read_configs(files, {**options, "device": "cpu"})
        with torch.device("meta"):  # shapes are all that is needed
            network = parser.get_parsed_content("network_def")
        save_weights(convert_released(network, content), target)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: {error.args[0]}") from error
    names = [file.as_posix() for file in files]
    config = names[0] if len(names) == 1 else '"[' + ",".join(f"'{name}'" for name in names) + ']"'
    overrides = "".join(f" --{name} {value}" for name, value in options.items())
    print(f"wrote {target}; use it with")
    print(
        f"    python -m monai.bundle run --config_file {config} "
        f"--checkpoints \"['{Path(target).resolve().as_posix()}']\"{overrides}"
    )


def change_format(source: str, target: str) -> None:
    content = read_checkpoint(source)
    weights = content.get("model", content)
    if not weights or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise InputError(f"{source} is no checkpoint of a bundle here; for a released one say which: --bundle FOLDER.")
    save_weights(weights, target)
    print(f"wrote {target}; use it with --checkpoints \"['{Path(target).resolve().as_posix()}']\"")


def read_configs(files: list[Path], options: dict) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.update(options)
    return parser


def choose_configs(inference: Path, released: dict) -> tuple[list[Path], dict]:
    """inference.json, with the overlay nearest to the ``released`` options if one is, and what still differs."""
    overlays = task_overlays(inference.parents[1])
    candidates = [[inference], *([inference, inference.with_stem(name)] for name in overlays)]

    def differing(files: list[Path]) -> dict:
        parser = read_configs(files, {})
        return {name: value for name, value in released.items() if parser.get_parsed_content(name) != value}

    files = min(candidates, key=lambda files: len(differing(files)))
    return files, differing(files)


if __name__ == "__main__":
    try:
        fire.Fire(convert_checkpoint)
    except InputError as error:
        sys.exit(f"error: {error}")
