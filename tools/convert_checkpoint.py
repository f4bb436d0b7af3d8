"""Convert a checkpoint of the authors' released code to one that a bundle here uses.

    python tools/convert_checkpoint.py IN OUT --bundle bundles/glims

Reads IN without running anything in it (tensors only), checks every key and shape, writes OUT (flat weights, replaced
as a whole), and prints the options with which the bundle uses it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from pydoc import locate

import fire
import torch
from monai.bundle import ConfigParser

from hybrid_nets import InputError, convert_released
from hybrid_nets.checkpoints import read_checkpoint, save_atomic
from hybrid_nets.convert import RELEASED_OPTIONS, released_options


def convert_checkpoint(source: str, target: str, bundle: str) -> None:
    """Convert SOURCE, a released checkpoint, to TARGET, for the bundle in folder BUNDLE."""
    config = Path(bundle) / "configs" / "inference.json"
    if not config.is_file():
        raise InputError(f"{bundle} is not a bundle: it has no configs/inference.json.")
    content = read_checkpoint(source)
    parser = ConfigParser()
    parser.read_config(str(config))
    kind = locate(parser["network_def"]["_target_"])
    try:
        options = released_options(kind, content) if kind in RELEASED_OPTIONS else {}
        defaults = {name: parser.get_parsed_content(name) for name in options}
        changed = {name: value for name, value in options.items() if value != defaults[name]}
        parser.update({**changed, "variant": "released", "device": "cpu"})
        with torch.device("meta"):  # shapes are all that is needed
            network = parser.get_parsed_content("network_def")
        save_atomic(convert_released(network, content), target)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: {error.args[0]}") from error
    overrides = " ".join(f"--{name} {value}" for name, value in changed.items())
    print(f"wrote {target}; use it with")
    print(
        f"    python -m monai.bundle run --config_file {config.as_posix()} "
        f"--checkpoints \"['{Path(target).resolve().as_posix()}']\" --variant released {overrides}".rstrip()
    )


if __name__ == "__main__":
    try:
        fire.Fire(convert_checkpoint)
    except InputError as error:
        sys.exit(f"error: {error}")
