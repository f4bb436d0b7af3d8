"""Check bundles as MONAI's Model Zoo does before it takes one, and more, without the network.

    python tools/verify_bundles.py                      # all of bundles/
    python tools/verify_bundles.py bundles/glims        # one
    python tools/verify_bundles.py bundles/glims --feature_size 12 --exports script

Prints a line per check and ends with exit status 1 if any failed. Options other than these set keys of the configs:

--exports: which ways out of Python are tried and compared with the network itself, of script, export and onnx;
    "script" falls back on a trace where the network says that it can't be scripted.
--strict: first list all that a bundle could run and the bundles of this repository don't (tools/bundle_code.py), and
    end there if there is anything, before any of it is run. For bundles of others.
--exact_versions: also fail where metadata.json names other versions than are installed here; without it that is a note.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import fire
import monai.bundle
import onnxruntime
import torch
import yaml
from bundle_code import unknown_code
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "tools" / "meta_schema_20240725.json"
FILES = ("LICENSE", "configs/metadata.json", "configs/train.json", "configs/inference.json", "docs/README.md")
# What the zoo's own checks ask for.
KEYS = {
    "inference": [
        "bundle_root",
        "device",
        "network_def",
        "inferer",
        "output_dir",
        "dataset_dir",
        "dataset",
        "evaluator",
    ],
    "train": [
        *("bundle_root", "device", "dataset_dir", "output_dir", "val_interval"),
        *(
            f"train#{key}"
            for key in ("trainer", "trainer#max_epochs", "dataset", "dataset#data", "handlers", "inferer")
        ),
        *(f"validate#{key}" for key in ("evaluator", "handlers", "dataset", "dataset#data")),
    ],
}
# What MONAI, or a program that takes bundles, reads by its name.
ENTRY_KEYS = {"imports", "initialize", "run", "finalize", "network_def", "network", "train", "validate", "evaluator"}
ENTRY_KEYS |= {"preprocessing", "postprocessing", "inferer", "dataset", "device"}
# What each config runs with; one that is not named here lies over any of the three.
BASES = [["train"], ["train", "evaluate"], ["inference"]]
RUN_WITH = {"train": BASES[:2], "evaluate": BASES[1:2], "inference": BASES[2:]}
RUN_WITH |= {"multi_gpu_train": BASES[:1], "multi_gpu_evaluate": BASES[1:2], "multi_gpu_inference": BASES[2:]}
MEGABYTE = 2**20
LARGE = 25 * MEGABYTE
PERSONAL = re.compile(r"(/home/|/root/|/Users/|/work/|/tmp/|[A-Za-z]:\\\\?Users)[\w./\\-]*")
TOLERANCE = 1e-4  # of the largest value


class Bundle:
    """A bundle's folder, its configs, and options that were given for them."""

    def __init__(self, folder: Path, options: dict) -> None:
        self.folder, self.options = folder, options
        self.configs = folder / "configs"

    def read(self, *names: str) -> ConfigParser:
        """The configs ``names``, laid over each other, with the options that any of them knows."""
        parser = ConfigParser()
        parser.read_config([str(self.configs / f"{name}.json") for name in names])
        parser.update({key: value for key, value in self.options.items() if key in parser})
        return parser

    def known_options(self, name: str) -> dict:
        """Those of the options that the config NAME has."""
        parser = self.read(name)
        return {key: value for key, value in self.options.items() if key in parser}

    def metadata(self) -> dict:
        return json.loads((self.configs / "metadata.json").read_text())

    def files(self) -> list[Path]:
        """What belongs to the bundle; in a git checkout not what git ignores, such as somebody's trainings."""
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        names = listed.stdout.split("\0") if listed.returncode == 0 else []
        found = [self.folder / name for name in names if name]
        return [f for f in found if f.is_file()] or [f for f in self.folder.rglob("*") if f.is_file()]

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return self.read("inference").get_parsed_content("network_def").eval()

    def example(self) -> torch.Tensor:
        """An input of the smallest size that metadata.json promises to work, but twice that in one direction."""
        image = self.metadata()["network_data_format"]["inputs"]["image"]
        sides = [eval_shape(side) for side in image["spatial_shape"]]
        return torch.rand(1, image["num_channels"], *sides[:-1], 2 * sides[-1])


def eval_shape(side: int | str) -> int:
    """The smallest side that ``"32*n"`` allows; n is 2, as normalisation needs more than one voxel at the bottom."""
    return side if isinstance(side, int) else 2 * int(side.split("*")[0])


def check_files(bundle: Bundle) -> Iterator[str]:
    yield from (f"{name} is missing" for name in FILES if not (bundle.folder / name).is_file())


def check_keys(bundle: Bundle) -> Iterator[str]:
    for name, keys in KEYS.items():
        parser = bundle.read(name)
        yield from (f"{name}.json has no {key}" for key in keys if key not in parser)


def check_properties(bundle: Bundle) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        torch.save(bundle.network().state_dict(), Path(folder) / "model.pt")
        weights = {"train": {}, "inference": {"checkpoints": [f"{folder}/model.pt"]}}
        for name in KEYS:
            workflow = ConfigWorkflow(
                config_file=str(bundle.configs / f"{name}.json"),
                meta_file=str(bundle.configs / "metadata.json"),
                logging_file=False,
                workflow_type=name,
                **bundle.known_options(name),
                **weights[name],
            )
            workflow.initialize()
            missing = workflow.check_properties() or []
            yield from (f"{name}.json lacks MONAI's property {key}" for key in missing)


def check_metadata(bundle: Bundle) -> Iterator[str]:
    meta = bundle.metadata()
    try:
        monai.bundle.verify_metadata(meta_file=str(bundle.configs / "metadata.json"), filepath=str(SCHEMA))
    except Exception as error:
        yield f"metadata.json does not fit the schema: {str(error).splitlines()[0]}"
    if meta["version"] != next(iter(meta["changelog"])):
        yield f"version {meta['version']} is not the changelog's newest, {next(iter(meta['changelog']))}"


def stated_versions(bundle: Bundle) -> dict[str, str]:
    """Package → version in metadata.json, for those that are installed as another one here."""
    meta = bundle.metadata()
    stated = {"monai": meta["monai_version"], "torch": meta["pytorch_version"], "numpy": meta["numpy_version"]}
    stated |= meta["required_packages_version"]
    installed = {name: version(name).split("+")[0] for name in stated}
    return {name: f"{stated[name]}, installed is {found}" for name, found in installed.items() if found != stated[name]}


def check_versions(bundle: Bundle) -> Iterator[str]:
    yield from (f"metadata.json says {name} {text}" for name, text in stated_versions(bundle).items())


def check_keys_are_read(bundle: Bundle) -> Iterator[str]:
    """A key that nothing reads is an option that does nothing."""
    for file in sorted(bundle.configs.glob("*.json")):
        if file.stem == "metadata":
            continue
        combinations = [
            names if file.stem in names else [*names, file.stem] for names in RUN_WITH.get(file.stem, BASES)
        ]
        contents = [json.dumps(bundle.read(*names).config) for names in combinations]
        for key in json.loads(file.read_text()):
            if key.split("#")[0] not in ENTRY_KEYS and not any(is_read(key, content) for content in contents):
                yield f"{file.name}: nothing reads {key}"


def is_read(key: str, content: str) -> bool:
    return re.search(rf"@{re.escape(key)}(?![A-Za-z0-9_])", content) is not None


def check_no_personal_path(bundle: Bundle) -> Iterator[str]:
    for file in bundle.files():
        if file.suffix in (".json", ".md", ".txt", ".conf", ".yml", ".yaml", ".py"):
            found = PERSONAL.search(file.read_text())
            if found:
                yield f"{file.relative_to(bundle.folder)} has the path {found[0]}"


def check_large_files(bundle: Bundle) -> Iterator[str]:
    listing = bundle.folder / "large_files.yml"
    content = yaml.safe_load(listing.read_text()) if listing.is_file() else {}
    listed = {entry["path"]: entry for entry in content.get("large_files", [])}
    for path, entry in listed.items():
        if entry.get("hash_type") != "sha256" or not re.fullmatch("[0-9a-f]{64}", str(entry.get("hash_val"))):
            yield f"large_files.yml gives no sha256 for {path}"
    for file in bundle.files():
        name = file.relative_to(bundle.folder).as_posix()
        if name not in listed and file.stat().st_size > LARGE:
            yield f"{name} has {file.stat().st_size / MEGABYTE:.0f} MB: list it in large_files.yml with its sha256"
        if name in listed and hashlib.sha256(file.read_bytes()).hexdigest() != listed[name].get("hash_val"):
            yield f"{name} is not the file whose sha256 large_files.yml gives"


def check_net_in_out(bundle: Bundle) -> Iterator[str]:
    try:
        monai.bundle.verify_net_in_out(
            "network_def",
            meta_file=str(bundle.configs / "metadata.json"),
            config_file=str(bundle.configs / "inference.json"),
            device="cpu",
            n=2,
            **bundle.known_options("inference"),
        )
    except Exception as error:
        yield str(error).splitlines()[0]


def compare(
    name: str, bundle: Bundle, export: Callable[[nn.Module, torch.Tensor, Path], torch.Tensor]
) -> Iterator[str]:
    """Problems of one way to export the network: it fails, or what was saved and loaded again gives something else."""
    network, x = bundle.network(), bundle.example()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        try:
            expected, result = network(x), export(network, x, Path(folder))
        except Exception as error:
            yield f"{name} failed: {type(error).__name__}: {str(error).splitlines()[0]}"
            return
    off = float((result - expected).abs().max() / expected.abs().max())
    if not off <= TOLERANCE:
        yield f"{name} is off by {off:.1e} of the largest value"


def check_script(bundle: Bundle) -> Iterator[str]:
    """``monai.bundle ckpt_export``, which the zoo runs: script, or a trace where that is not possible."""

    def export(network: nn.Module, x: torch.Tensor, folder: Path) -> torch.Tensor:
        torch.save(network.state_dict(), folder / "model.pt")
        monai.bundle.ckpt_export(
            "network_def",
            filepath=str(folder / "model.ts"),
            ckpt_file=str(folder / "model.pt"),
            meta_file=str(bundle.configs / "metadata.json"),
            config_file=str(bundle.configs / "inference.json"),
            **bundle.known_options("inference"),
        )
        return torch.jit.load(folder / "model.ts")(x)

    yield from compare("TorchScript", bundle, export)


def check_export(bundle: Bundle) -> Iterator[str]:
    def export(network: nn.Module, x: torch.Tensor, folder: Path) -> torch.Tensor:
        torch.export.save(torch.export.export(network, (x,)), folder / "net.pt2")
        return torch.export.load(folder / "net.pt2").module()(x)

    yield from compare("torch.export", bundle, export)


def check_onnx(bundle: Bundle) -> Iterator[str]:
    def export(network: nn.Module, x: torch.Tensor, folder: Path) -> torch.Tensor:
        torch.onnx.export(network, (x,), str(folder / "net.onnx"), dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(str(folder / "net.onnx"))
        return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])

    yield from compare("ONNX", bundle, export)


CHECKS = (check_files, check_keys, check_properties, check_metadata, check_versions, check_keys_are_read)
CHECKS += (check_no_personal_path, check_large_files, check_net_in_out)
EXPORTS = {"script": check_script, "export": check_export, "onnx": check_onnx}


def verify_bundles(
    *bundles: str,
    exports: str | tuple[str, ...] = tuple(EXPORTS),
    exact_versions: bool = False,
    strict: bool = False,
    **options: object,
) -> None:
    """Check BUNDLES, all in bundles/ if none is named; OPTIONS set keys of their configs."""
    wanted = [exports] if isinstance(exports, str) else list(exports)
    unknown = [name for name in wanted if name not in EXPORTS]
    if unknown:
        raise SystemExit(f"error: --exports takes {', '.join(EXPORTS)}, got {', '.join(unknown)}.")
    folders = [Path(b).resolve() for b in bundles] or sorted(f.parent for f in (ROOT / "bundles").glob("*/configs"))
    problems = 0
    if strict:
        refuse_unknown_code(folders)
    for folder in folders:
        for check in (*CHECKS, *(EXPORTS[name] for name in wanted)):
            found = run_check(check, Bundle(folder, options))
            if check is check_versions and not exact_versions:
                print(*(f"note  {folder.name}: {text}" for text in found), sep="\n", end="\n" if found else "")
                continue
            print(f"{'FAIL' if found else 'ok  '}  {folder.name}: {check.__name__.removeprefix('check_')}", flush=True)
            print(*(f"        {text}" for text in found), sep="\n", end="\n" if found else "")
            problems += len(found)
    print(f"{problems} problem(s) in {len(folders)} bundle(s)")
    if problems:
        sys.exit(1)


def refuse_unknown_code(folders: list[Path]) -> None:
    """Before anything of the bundles is run, end if they have code that ours don't."""
    found = {folder.name: unknown_code(folder) for folder in folders}
    for name, unknown in found.items():
        print(f"{'FAIL' if unknown else 'ok  '}  {name}: code", *(f"        {text}" for text in unknown), sep="\n")
    if any(found.values()):
        print(f"{sum(map(len, found.values()))} piece(s) of code that are not known; nothing was run")
        sys.exit(1)


def run_check(check: Callable[[Bundle], Iterator[str]], bundle: Bundle) -> list[str]:
    """What ``check`` finds, without what MONAI and the exporters print meanwhile."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            return list(check(bundle))
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    fire.Fire(verify_bundles)
