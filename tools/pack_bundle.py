"""Pack a bundle into a zip that works where hybrid_nets is not installed: configs, weights, documents, and its code.

    python tools/pack_bundle.py bundles/glims glims.zip --feature_size 12 --roi_size "[64,64,64]"

Unpacked anywhere, its configs run from any folder (``python -m monai.bundle run``, ``monai.bundle.load``, MONAI Label,
the MONAI Deploy App SDK), also several packed bundles in one process, of the same version of hybrid_nets or of others.
That takes three things:

- The code gets a name of its own, such as ``hybrid_nets_glims_0_2_0_1a2b3c4d``, whose end is a hash of all that is
  packed: a process imports a name once, and two bundles with a ``hybrid_nets`` each would share the first one's.
- MONAI puts a bundle's folder on ``sys.path`` only when ``run`` begins, after ``initialize``, and elsewhere not at all.
  So the configs find their folder themselves: ``bundle_root``, unless it is given, is the one that holds that package,
  of the config's own, those on the command line, ``sys.path`` and the current one.
- Where a config says ``hybrid_nets``, the packed one says ``@hybrid_nets``, an entry that imports it from there.

The weights must fit the network strictly. They are also packed as ``models/model.ts``: scripted, not traced, so that
any size of input is right, by MONAI's own ``ckpt_export`` on the packed files in a process that can't import
hybrid_nets; its output must be the network's, at two sizes. The same input gives the same bytes, with the same versions
of torch and MONAI. See docs/packing.md.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from configparser import ConfigParser as IniParser
from pathlib import Path

import fire
import torch
from monai.bundle import ConfigParser
from torch import nn

import hybrid_nets
from hybrid_nets import InputError, flag, load_network
from hybrid_nets.atomic import replacing
from hybrid_nets.bundle import task_overlays

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(hybrid_nets.__file__).parent
BASES = ("inference", "train")
TOLERANCE = 1e-4  # of the largest output: TorchScript adds up in another order
IMPORTS = ("os", "pkgutil", "re", "sys", "traceback")
# The entries with which a packed config finds its code; "package" comes before them. MONAI can't parse an expression
# that holds both "@" and the word "import".
OWN_CODE = {
    "roots": "$[os.path.abspath(path) for path in"
    " [os.path.join(frame.f_locals['self'].config_root_path, '..') for frame, _ in traceback.walk_stack(None)"
    " if isinstance(frame.f_locals.get('self'), monai.bundle.ConfigWorkflow)]"
    " + [os.path.join(word.strip('[]\\'\" '), '..', '..') for word in re.split('[=,]', '='.join(sys.argv))]"
    " + [*sys.path, '.']]",
    "bundle_root": "$next((root for root in @roots if os.path.isdir(os.path.join(root, @package))), None)"
    " or (_ for _ in ()).throw(FileNotFoundError('set bundle_root to the folder of this bundle, which holds '"
    " + @package))",
    "hybrid_nets": "$(sys.path.extend({@bundle_root} - set(sys.path)), pkgutil.resolve_name(@package))[1]",
}
# What metadata says of images by their channels, where an overlay changes these.
IMAGES = {
    ("CT",): {"format": "hounsfield", "modality": "CT", "value_range": [0, 1]},
    ("red", "green", "blue"): {"format": "rgb", "modality": "RGB pictures", "value_range": [0, 1]},
}
MODEL_CARD = """\
---
tags:
- monai
- medical
library_name: monai
license: apache-2.0
---
{title}

This folder is complete: a MONAI bundle {contents} and its code, hybrid-nets under a name of its own
(`{package}`; the configs call it `@hybrid_nets`). It may lie anywhere and be run from anywhere:

```bash
pip install -r {name}/requirements.txt
python -m monai.bundle run --config_file {name}/configs/inference.json \\
    --dataset_dir /data/new_scans --output_dir /data/results
```
{choices}
Running it runs code: its own, and what its configs say. Do so only if you trust whoever gave it to you.
Commands below that name `tools/` need the repository of hybrid-nets.
"""


def pack_bundle(
    bundle: str,
    out: str,
    overlay: str | None = None,
    weights: str | None = "",
    torchscript: bool = True,
    **options: object,
) -> None:
    """Write OUT, a zip of the bundle in folder BUNDLE that needs MONAI but not hybrid_nets.

    Args:
        bundle: folder such as bundles/glims.
        out: the zip to write; it is replaced as a whole.
        overlay: the task that the weights are for, by the name of its config, such as multi_organ. It becomes part of
            the configs, and other overlays are left out.
        weights: the checkpoint; without it models/model.pt of BUNDLE. "none" packs no weights.
        torchscript: also pack the weights as models/model.ts, which the MONAI Deploy App SDK reads.
        options: top-level keys of the configs and the values they get in the zip, at least those that the weights were
            trained with: --feature_size 12.
    """
    folder = Path(bundle)
    if not (folder / "configs" / "inference.json").is_file():
        raise InputError(f"{bundle} is not a bundle: it has no configs/inference.json.")
    check_portable(options)
    configs = read_configs(folder, overlay, options)
    network = load_weights(configs["inference"], folder, weights)
    content = b"" if network is None else weights_file(network)
    name = f"{folder.resolve().name}_{overlay}" if overlay else folder.resolve().name
    package = name_package(name, configs, content)

    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / name
        write_configs(target / "configs", configs, package, has_weights=network is not None)
        write_documents(target, folder, package, describe_choices(overlay, options), has_weights=network is not None)
        write_package(target / package, package)
        if network is not None:
            write(target / "models" / "model.pt", content)
            if flag(torchscript):
                export_script(target)
                check_script(target / "models" / "model.ts", network, configs)
        with replacing(out) as zipped:
            files = sorted(file for file in target.rglob("*") if file.is_file())
            write_zip(zipped, ((file.relative_to(temporary).as_posix(), file.read_bytes()) for file in files))
    print(f"wrote {out} ({Path(out).stat().st_size / 2**20:.1f} MiB); its code is {package}")


def check_portable(options: Mapping[str, object]) -> None:
    """Refuse a path of this machine."""
    for name, value in options.items():
        if re.search(r'"(/|~|[A-Za-z]:[\\/])', json.dumps(value)):
            raise InputError(f"--{name} {value} is a path of this machine; give it to whoever runs the bundle instead.")


def read_configs(folder: Path, overlay: str | None, options: Mapping[str, object]) -> dict[str, dict]:
    """The bundle's JSON files by name, with the overlay and the options in them."""
    configs = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("configs/*.json"))}
    tasks = task_overlays(folder)
    if overlay is not None and overlay not in tasks:
        raise InputError(f"{folder} has no overlay {overlay!r}; it has {tasks}.")
    common = {name: config for name, config in configs.items() if name not in (*tasks, "metadata")}
    if overlay is not None:
        task = configs[overlay]
        for name, config in common.items():
            config.update(task if name in BASES else {key: value for key, value in task.items() if key in config})
        configs = {**common, "metadata": configs["metadata"]}
    for key, value in options.items():
        holders = [config for config in common.values() if key in config]
        if not holders:
            known = sorted(set().union(*(common[base] for base in BASES)))
            raise InputError(f"the configs have no option {key!r}; they have {', '.join(known)}.")
        for config in holders:
            config[key] = value
    return configs


def load_weights(inference: dict, folder: Path, weights: str | None) -> nn.Module | None:
    """The configs' network with the weights, which must fit it strictly; None if none are wanted."""
    if weights is None or weights.lower() == "none":
        return None
    path = Path(weights or folder / "models" / "model.pt").expanduser()
    if not path.is_file():
        raise InputError(
            f"no weights at {path}; give a checkpoint with --weights FILE (training writes one, "
            "tools/convert_checkpoint.py converts released ones), or pack without: --weights none."
        )
    try:
        network = ConfigParser(copy.deepcopy(inference)).get_parsed_content("network_def")
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"no network can be built with these options: {error.__cause__ or error}") from error
    return load_network(network, path).eval()


def weights_file(network: nn.Module) -> bytes:
    """The network's weights as MONAI's bundles hold them: flat, and nothing else of the checkpoint they came from."""
    buffer = io.BytesIO()
    torch.save({key: tensor.clone() for key, tensor in network.state_dict().items()}, buffer)
    return buffer.getvalue()


def name_package(name: str, configs: dict, weights: bytes) -> str:
    """A name that no other bundle's code has, nor this bundle's with other weights, configs or code."""
    digest = hashlib.sha256(json.dumps(configs, sort_keys=True).encode() + weights)
    for file in package_files():
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + file.read_bytes())
    return re.sub(r"\W", "_", f"hybrid_nets_{name}_{hybrid_nets.__version__}_{digest.hexdigest()[:8]}")


def package_files() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), PACKAGE / "py.typed"])


def write_package(target: Path, package: str) -> None:
    """All of hybrid_nets: it is small, and what a config or an overlay needs of it can't be missing then."""
    for file in package_files():
        source = re.sub(r"(?m)^(\s*(?:from|import) )hybrid_nets\b", rf"\g<1>{package}", file.read_text("utf-8"))
        write(target / file.relative_to(PACKAGE), source)


def write_configs(target: Path, configs: dict[str, dict], package: str, has_weights: bool) -> None:
    for name, config in configs.items():
        if name == "metadata":
            config = describe(config, configs["inference"], has_weights)
        elif name in BASES:
            config = add_own_code(use_own_code(config), package)
        else:
            config = use_own_code(config)
        write(target / f"{name}.json", json.dumps(config, indent=4) + "\n")


def use_own_code(config: object) -> object:
    """``config`` with each mention of hybrid_nets turned into one of the entry ``@hybrid_nets``."""
    if isinstance(config, dict):
        return {key: use_own_code(value) for key, value in config.items()}
    if isinstance(config, list):
        return [use_own_code(value) for value in config]
    if isinstance(config, str) and config.startswith("$"):
        return re.sub(r"(?<![\w.@])hybrid_nets\.", "@hybrid_nets.", config)
    if isinstance(config, str) and config.startswith("hybrid_nets."):
        known = hasattr(hybrid_nets, config.removeprefix("hybrid_nets."))  # a class or function, not a logger's name
        return f"$@{config}" if known else config
    return config


def add_own_code(config: dict, package: str) -> dict:
    imports = [line for line in config["imports"] if line != "$import hybrid_nets"]
    imports += [f"$import {module}" for module in IMPORTS]
    rest = {key: value for key, value in config.items() if key not in ("imports", "bundle_root")}
    return {"imports": imports, "package": package, **OWN_CODE, **rest}


def describe(metadata: dict, inference: dict, has_weights: bool) -> dict:
    """The metadata of what is packed: its weights, channels and classes, where overlay and options change them."""
    meta, parser = copy.deepcopy(metadata), ConfigParser(copy.deepcopy(inference))
    meta["required_packages_version"].pop("hybrid-nets", None)
    if has_weights:
        meta["description"] = meta["description"].replace("Comes without weights. ", "")
    channels, classes, labels = (parser.get_parsed_content(key) for key in ("channels", "class_names", "labels"))
    pictures = channels == ["red", "green", "blue"]
    if pictures:
        labels = {"0": "background", "255": ", ".join(classes)}
    formats = meta["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    result = formats["post_processed_outputs"]["pred"]
    step = image["spatial_shape"][0]
    shape = [step] * len(parser.get_parsed_content("roi_size"))
    definition = {str(i): channel for i, channel in enumerate(channels)}
    image.update(num_channels=len(channels), channel_def=definition, spatial_shape=shape)
    # MONAI Label names the values of the label map by the output's channels, so that is what they are called.
    pred.update(num_channels=len(classes), channel_def=labels, spatial_shape=shape)
    result["channel_def"] = labels
    if formats == metadata["network_data_format"]:
        return meta
    listed = ", ".join(f"{value} {label}" for value, label in labels.items())
    result["value_range"] = [0, max(map(int, labels))]
    result["spatial_shape"] = ["*"] * (2 if pictures else 3)
    image.update(IMAGES.get(tuple(channels), {}))
    foreground = ", ".join(name for name in classes if name != "background")
    meta["task"] = f"Segmentation of {foreground} in {image['modality']}"
    meta["description"] = f"{meta['name']}, packed for this task: {meta['task']}. Research use only."
    meta["data_source"] = "see README.md; synthetic phantoms are built in"
    meta["intended_use"] = (
        "Research and a baseline for comparison. Not a medical device; not for diagnosis or treatment decisions."
    )
    meta["image_classes"] = f"{image['modality']}; channels: {', '.join(channels)}"
    meta["label_classes"] = f"label map: {listed}"
    meta["pred_classes"] = f"logits, in this order: {', '.join(classes)}; after post-processing as in label_classes"
    return meta


def describe_choices(overlay: str | None, options: Mapping[str, object]) -> str:
    chosen = {"overlay": overlay, **options} if overlay else options
    if not chosen:
        return ""
    words = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in chosen.items())
    return f"\nPacked with `{words}`. Where the text below says otherwise, the configs count.\n"


def write_documents(target: Path, folder: Path, package: str, choices: str, has_weights: bool) -> None:
    """README.md, with the heading that a model card needs, and what else is not code.

    It lies beside the configs' folder, not in docs/: push_to_hf_hub takes it as it is then, and links to pictures hold.
    """
    text = (folder / "docs" / "README.md").read_text("utf-8")
    text = text.replace(f"bundles/{folder.resolve().name}/", f"{target.name}/")
    text = re.sub(r"(?m)^From the repository's root.*:$", "From the folder above this one:", text)
    text = re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)", lambda link: keep_link(link, folder, target), text)
    license_text = (folder / "docs" / "data_license.txt").read_text("utf-8")
    if has_weights:
        text = text.replace(" The bundle comes without weights.", "")
        license_text = license_text.replace("contains no data and no weights", "contains no data")
    title, _, text = text.partition("\n")
    contents = "with its weights" if has_weights else "without weights"
    card = MODEL_CARD.format(title=title, contents=contents, package=package, name=target.name, choices=choices)
    write(target / "README.md", card + text)
    write(target / "docs" / "data_license.txt", license_text)
    write(target / "LICENSE", (folder / "LICENSE").read_text("utf-8"))
    write(target / "configs" / "logging.conf", (folder / "configs" / "logging.conf").read_text("utf-8"))
    setup = IniParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    needs = [line.replace(" ", "") for line in setup["options"]["install_requires"].splitlines() if line]
    write(target / "requirements.txt", "\n".join(needs) + "\n")


def keep_link(link: re.Match, folder: Path, target: Path) -> str:
    """A link to a picture, which is copied; of a link to another file of the repository only the text."""
    if not link[1]:
        return link[2]
    source = (folder / "docs" / link[3]).resolve()
    if not source.is_relative_to(ROOT) and not source.is_relative_to(folder.resolve()):
        raise InputError(f"{folder}/docs/README.md shows {link[3]}, which lies outside the bundle; it is not packed.")
    write(target / "docs" / source.name, source.read_bytes())
    return f"![{link[2]}](docs/{source.name})"


def export_script(target: Path) -> None:
    """Have MONAI write models/model.ts, in a process that knows nothing of this one."""
    configs, models = target / "configs", target / "models"
    files = {"config": configs / "inference.json", "meta": configs / "metadata.json", "ckpt": models / "model.pt"}
    given = [word for kind, file in files.items() for word in (f"--{kind}_file", str(file))]
    script = models / "model.ts"
    command = [sys.executable, "-m", "monai.bundle", "ckpt_export", "network_def", *given, "--filepath", str(script)]
    with tempfile.TemporaryDirectory() as elsewhere:
        (Path(elsewhere) / "hybrid_nets.py").write_text("raise ImportError('a packed bundle asked for hybrid_nets')")
        path = os.pathsep.join([elsewhere, *filter(None, [os.environ.get("PYTHONPATH")])])
        # TorchScript writes down sets in the order of their hashes.
        settings = {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=elsewhere, env={**os.environ, **settings}, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise InputError(
            f"the packed network can't be scripted: {''.join(reason)}; --torchscript false packs without model.ts."
        )
    # Debugging information names source files by their paths on this machine, and the id is a hash of that.
    with zipfile.ZipFile(script) as archive:
        names = [name for name in archive.namelist() if not name.endswith((".debug_pkl", "/.data/serialization_id"))]
        kept = [(name, archive.read(name)) for name in names]
    write_zip(script, kept)


def check_script(script: Path, network: nn.Module, configs: dict[str, dict]) -> None:
    """Compare with ``network``; the second run of one size is optimized for it, and the third must not mind."""
    scripted, parser = torch.jit.load(script), ConfigParser(copy.deepcopy(configs["inference"]))
    channels, dims = parser.get_parsed_content("in_channels"), len(parser.get_parsed_content("roi_size"))
    step = int(configs["metadata"]["network_data_format"]["inputs"]["image"]["spatial_shape"][0].split("*")[0])
    side = step * math.ceil(32 / step)
    high, wide = [side] * (dims - 1) + [2 * side], [2 * side] + [side] * (dims - 1)
    for size in (high, high, wide):
        x = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected, result = network(x), scripted(x)
        if not (result - expected).abs().max() <= TOLERANCE * expected.abs().max():
            raise InputError(
                f"model.ts gives another output than the network at size {size}; --torchscript false packs without it."
            )


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """A zip without times, owners or compression, whose bytes depend on nothing but ``files``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            if name.startswith("/") or ".." in name.split("/"):
                raise InputError(f"{name} would be unpacked outside the folder that the zip is unpacked to.")
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o644 << 16  # as on Unix, whatever this is
            archive.writestr(info, content)


if __name__ == "__main__":
    try:
        fire.Fire(pack_bundle)
    except InputError as error:
        sys.exit(f"error: {error}")
