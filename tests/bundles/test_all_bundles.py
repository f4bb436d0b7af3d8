"""What holds for every bundle, from its files alone."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from conftest import ROOT
from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties

import hybrid_nets

BUNDLES = sorted(path for path in (ROOT / "bundles").iterdir() if (path / "configs").is_dir())
FILES = [
    "LICENSE",
    *(f"configs/{name}" for name in ("train.json", "inference.json", "evaluate.json", "metadata.json", "logging.conf")),
    *(f"docs/{name}" for name in ("README.md", "data_license.txt")),
]
# Keys in which training and inference differ on purpose.
DIFFERENT = {"network", "cases", "spatial_keys", "load_transforms", "num_workers", "run"}


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
    network = {k: v for k, v in train["network_def"].items() if k != "use_checkpoint"}
    assert differing <= {"network_def"} and network == inference["network_def"]
    assert [key for key in train if key in inference] == [key for key in inference if key in train]  # same order


def test_defaults_are_the_network_s_own(bundle: Path) -> None:
    config = ConfigParser(read(bundle, "train"))
    network = read(bundle, "train")["network_def"]
    kind = getattr(hybrid_nets, network["_target_"].removeprefix("hybrid_nets."))
    for name, parameter in inspect.signature(kind).parameters.items():
        chosen = name in ("deep_supervision", "use_checkpoint")  # the recipe's choice, and one of memory against time
        if parameter.default is not inspect.Parameter.empty and name in network and not chosen:
            value = config.get_parsed_content(f"network_def#{name}")
            assert (tuple(value) if isinstance(value, list) else value) == parameter.default, name


def test_metadata(bundle: Path) -> None:
    meta, train = read(bundle, "metadata"), read(bundle, "train")
    assert meta["version"] == next(iter(meta["changelog"])) == hybrid_nets.__version__
    assert f"## {meta['version']}" in (ROOT / "CHANGELOG.md").read_text()
    formats = meta["network_data_format"]
    channels, outputs = formats["inputs"]["image"], formats["outputs"]["pred"]
    assert list(channels["channel_def"].values()) == train["channels"] and channels["num_channels"] == len(
        train["channels"]
    )
    assert list(outputs["channel_def"].values()) == train["class_names"]
    assert formats["post_processed_outputs"]["pred"]["channel_def"] == train["labels"]
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


def test_no_absolute_path(bundle: Path) -> None:
    for file in (bundle / "configs").iterdir():
        assert "/home/" not in file.read_text() and "/work/" not in file.read_text(), file
