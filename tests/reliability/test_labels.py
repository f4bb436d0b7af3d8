"""What is written is what metadata.json declares, and weights that don't belong are refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cli.command import make_image, make_weights, run, tiny_options, words
from conftest import ROOT, TINY, save_nifti
from monai.bundle import ConfigParser

from hybrid_nets.cli.model import BundleModel, check_values
from hybrid_nets.errors import InputError, find_input_error
from hybrid_nets.writers import AtomicNibabelWriter

AFFINE = np.diag([4.0, 4.0, 5.0, 1.0])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for bundle in ("mobileutr", "glims"):
        found[bundle] = make_weights(bundle, tmp_path_factory.mktemp(bundle))
    return found


def segment(bundle: str, weights: Path, folder: Path, **options: object) -> int | str:
    channels = 4 if bundle == "glims" else 1
    image = make_image(0, (24, 22, 16, 4) if channels == 4 else (24, 22, 16))
    scan = save_nifti(folder / "scan.nii.gz", image, AFFINE)
    given = words({**tiny_options(bundle, weights), **options})
    return run("segment", "--bundle", bundle, *given, "-i", scan, "-o", folder / "out")


@pytest.mark.parametrize(
    ("bundle", "other", "options", "difference"),
    [
        ("mobileutr", "mobileutr", {"out_channels": 5}, r"of shape \[14\], the network \[5\]"),
        ("glims", "glims", {"feature_size": 24}, r"of shape \[192\], the network \[384\]"),
        ("mobileutr", "glims", {}, "it lacks .*; it "),
        ("glims", "mobileutr", {}, "it lacks .*; it "),
    ],
)
def test_other_weights_are_refused_with_the_difference(
    bundle: str, other: str, options: dict, difference: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as raised:  # MONAI's, around the one that is shown
        segment(bundle, weights[other], tmp_path, **options)
    message = str(find_input_error(raised.value))
    assert "does not fit the network" in message and re.search(difference, message), message
    assert not list((tmp_path / "out").glob("*_seg.nii.gz"))


@pytest.mark.parametrize("bundle", sorted(TINY))
def test_loading_without_strict_is_refused_as_well(bundle: str) -> None:
    """As MONAI Label loads: it would go on with random weights."""
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundles" / bundle / "configs" / "inference.json"))
    parser.update(TINY[bundle])
    network = parser.get_parsed_content("network_def")
    some = dict(list(network.state_dict().items())[1:])
    for content in ({}, some, {"state_dict": network.state_dict()}):
        with pytest.raises(InputError, match="the checkpoint lacks"):
            network.load_state_dict(content, strict=False)
    network.load_state_dict(network.state_dict(), strict=False)


@pytest.mark.parametrize("bundle", ["mobileutr", "glims"])
def test_written_values_are_declared(bundle: str, weights: dict[str, Path], tmp_path: Path) -> None:
    assert segment(bundle, weights[bundle], tmp_path) == 0
    meta = json.loads((ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())
    declared = {int(value) for value in meta["network_data_format"]["post_processed_outputs"]["pred"]["channel_def"]}
    values = set(np.unique(nib.load(tmp_path / "out" / "scan_seg.nii.gz").dataobj).tolist())
    assert values <= declared and values


def test_a_value_that_is_not_declared_is_refused_before_it_is_written(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BundleModel, "structures", {1: "spleen"})
    assert segment("mobileutr", weights["mobileutr"], tmp_path) == 1
    assert "that it doesn't declare" in (tmp_path / "out" / "failures.csv").read_text()
    assert not list((tmp_path / "out").glob("*.nii.gz"))
    check_values(torch.tensor([[0, 1]]), {0, 1})


@pytest.mark.parametrize("value", [256, -1])
def test_values_that_the_file_can_t_hold_are_refused(value: int, tmp_path: Path) -> None:
    """A cast to 8 bits would make 256 the background."""
    writer = AtomicNibabelWriter(output_dtype=np.uint8)
    writer.set_data_array(np.full((1, 2, 2, 2), value))
    writer.set_metadata({"affine": np.eye(4)})
    with pytest.raises(InputError, match="don't fit into uint8"):
        writer.write(tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())
