"""What holds for every bundle, from its files alone."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties

import hybrid_nets

BUNDLES = sorted(path for path in (ROOT / "bundles").iterdir() if (path / "configs").is_dir())
COMMON = [
    "evaluate.json",
    "multi_gpu_train.json",
    "multi_gpu_evaluate.json",
    "multi_gpu_inference.json",
    "logging.conf",
]
FILES = [
    "LICENSE",
    *(f"configs/{name}" for name in ("train.json", "inference.json", "metadata.json", *COMMON)),
    *(f"docs/{name}" for name in ("README.md", "data_license.txt")),
]
# Keys in which training and inference differ on purpose.
DIFFERENT = {"network", "cases", "spatial_keys", "load_transforms", "num_workers", "labels_only", "run"}


def read(bundle: Path, name: str) -> dict:
    return json.loads((bundle / "configs" / f"{name}.json").read_text())


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_files(bundle: Path) -> None:
    assert [name for name in FILES if not (bundle / name).is_file()] == []


def test_same_keys_mean_the_same(bundle: Path) -> None:
    train, inference = read(bundle, "train"), read(bundle, "inference")
    shared = [key for key in inference if key in train and key not in DIFFERENT]
    differing = {key for key in shared if train[key] != inference[key]}
    network = {k: v for k, v in train["network_def"]["network"].items() if k != "use_checkpoint"}
    assert differing <= {"network_def"} and network == inference["network_def"]["network"]
    assert [key for key in train if key in inference] == [key for key in inference if key in train]  # same order


def test_defaults_are_the_network_s_own(bundle: Path) -> None:
    config = ConfigParser(read(bundle, "train"))
    network = read(bundle, "train")["network_def"]["network"]
    kind = getattr(hybrid_nets, network["_target_"].removeprefix("hybrid_nets."))
    # What the task says, the recipe's choice, and one of memory against time; a token grid of 5 is one of (5, 5).
    chosen = {"spatial_dims", "in_channels", "out_channels", "deep_supervision", "use_checkpoint", "token_grid"}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.default is not inspect.Parameter.empty and name in network and name not in chosen:
            value = config.get_parsed_content(f"network_def#network#{name}")
            assert (tuple(value) if isinstance(value, list) else value) == parameter.default, name


def test_metadata(bundle: Path) -> None:
    meta, train = read(bundle, "metadata"), read(bundle, "train")
    assert meta["version"] == next(iter(meta["changelog"])) == hybrid_nets.__version__
    assert f"## {meta['version']}" in (ROOT / "CHANGELOG.md").read_text()
    formats = meta["network_data_format"]
    channels, outputs = formats["inputs"]["image"], formats["outputs"]["pred"]
    config = ConfigParser(train)
    assert list(channels["channel_def"].values()) == train["channels"]
    assert channels["num_channels"] == config.get_parsed_content("in_channels")
    # MONAI Label names the values of the label map by it, also where the channels are regions, as in glims.
    assert outputs["channel_def"] == config.get_parsed_content("labels")
    assert outputs["num_channels"] == config.get_parsed_content("out_channels")
    assert formats["post_processed_outputs"]["pred"]["channel_def"] == config.get_parsed_content("labels")
    for packages in ("monai_version", "pytorch_version", "numpy_version", "required_packages_version"):
        assert meta[packages] == read(BUNDLES[0], "metadata")[packages]
    assert "Research use only" in meta["description"]
    assert "esearch use only" in (bundle / "docs" / "README.md").read_text()


@pytest.mark.parametrize(("name", "properties"), [("train", TrainProperties), ("inference", InferProperties)])
def test_monai_s_properties(bundle: Path, name: str, properties: dict) -> None:
    config = ConfigParser(read(bundle, name))
    required = [p["id"] for p in properties.values() if p["required"]]
    assert [key for key in required if key not in config] == []
    handlers = config.get("train#handlers", [])
    validation = [h for h in handlers if h["_target_"] == "ValidationHandler"]
    assert all(h["validator"] == "@validate#evaluator" for h in validation)


def test_bundles_do_things_in_one_way(bundle: Path) -> None:
    """What is not a bundle's own network, data or recipe is the same in all, and stands in the same order."""
    first = BUNDLES[0]
    for file in ("LICENSE", *(f"configs/{name}" for name in COMMON)):
        assert (bundle / file).read_text() == (first / file).read_text(), file
    for name in ("train", "inference"):
        own, other = read(bundle, name), read(first, name)
        assert [key for key in own if key in other] == [key for key in other if key in own]
        for key in ("imports", "output_dir", "ckpt_dir", "device", "amp", "seed", "cases", "spatial_keys", "handlers"):
            assert own.get(key) == other.get(key), key
        for key in ("load_transforms", "preprocessing", "dataset", "dataloader", "restore", "save_label_map"):
            assert own.get(key) == other.get(key), key
        for key in ("postprocessing", "evaluator", "initialize", "run", "validate"):
            assert own.get(key) == other.get(key), key
    own, other = read(bundle, "train")["train"], read(first, "train")["train"]
    loss = {own["trainer"].pop("loss_function"), other["trainer"].pop("loss_function")}
    assert own == other and loss <= {"@loss", "@deep_loss"}


CT = ["mobileutr", "hylt", "dca_unet"]
NETWORK = {"spatial_dims", "size", "widths", "token_grid", "variant", "grid", "backbone", "dca", "network_def"}


@pytest.mark.parametrize("name", ["train", "inference"])
def test_volumes_of_ct_are_treated_alike(name: str) -> None:
    """The BTCV protocol stands in the bundles mobileutr and hylt, and in overlays of the other two."""
    mobileutr, hylt = (read(ROOT / "bundles" / bundle, name) for bundle in CT[:2])
    organs, volumes = read(ROOT / "bundles/glims", "multi_organ"), read(ROOT / "bundles/dca_unet", "volumes")
    differing = {key for key in mobileutr.keys() | hylt.keys() if mobileutr.get(key) != hylt.get(key)}
    assert differing <= NETWORK | {"bundle_root", "organs"}
    for key in mobileutr.keys() & organs.keys():
        assert organs[key] == mobileutr[key], key
    for key in mobileutr.keys() & volumes.keys() - {"spatial_dims"}:
        assert volumes[key] == mobileutr[key], key


def test_pictures_are_treated_alike() -> None:
    recipe = {"roi_size", "batch_size", "epochs", "learning_rate", "random_transforms"}
    recipe |= {"loss", "optimizer", "lr_scheduler"}
    overlays = [read(ROOT / "bundles" / bundle, "images") for bundle in CT]
    common = [{key: value for key, value in overlay.items() if key not in recipe} for overlay in overlays]
    assert common[0] == common[1] == common[2]


def test_no_absolute_path(bundle: Path) -> None:
    for file in (bundle / "configs").iterdir():
        assert "/home/" not in file.read_text() and "/work/" not in file.read_text(), file


@pytest.mark.parametrize("compiled", [False, True])
def test_compile_is_torch_s(bundle: Path, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes a minute; that the network comes to ``torch.compile`` is what a bundle has to see to."""
    seen = []
    monkeypatch.setattr(torch, "compile", lambda network, **kwargs: seen.append(network) or network)
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update({"compile": str(compiled), "network": "$@network_def", "device": "cpu", "dataloader": "$[]"})
    evaluator = parser.get_parsed_content("evaluator")
    assert bool(evaluator.compile) is compiled and seen == ([evaluator.network] if compiled else [])
