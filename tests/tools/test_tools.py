"""The scripts people run, run as they run them."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import ROOT, save_nifti
from golden_files import Golden

from hybrid_nets import GLIMS, find_cases


def run_tool(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / name), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_convert_checkpoint_and_use_it(tmp_path: Path) -> None:
    """The printed command runs as it stands."""
    torch.save({"state_dict": Golden("glims_released_fs12").state_dict()}, tmp_path / "in.pt")
    done = run_tool("convert_checkpoint.py", tmp_path / "in.pt", tmp_path / "out.pt", "--bundle", "bundles/glims")
    assert done.returncode == 0, done.stderr
    GLIMS(4, 3, 96, 12, deep_supervision=True).load_state_dict(torch.load(tmp_path / "out.pt", weights_only=True))
    command = next(line.strip() for line in done.stdout.splitlines() if "monai.bundle run" in line)
    assert "--variant released" in command and "--feature_size 12" in command
    save_nifti(tmp_path / "data" / "a.nii.gz", np.random.default_rng(0).random((40, 40, 40, 4)).astype(np.float32))
    extra = ["--dataset_dir", tmp_path / "data", "--output_dir", tmp_path / "eval", "--device", "cpu"]
    run = subprocess.run(
        [sys.executable, *shlex.split(command)[1:], *map(str, extra)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert nib.load(tmp_path / "eval" / "a_seg.nii.gz").shape == (40, 40, 40)


@pytest.mark.parametrize(
    ("golden", "bundle", "configs", "options"),
    [
        ("hylt_released_tokens3x3", "hylt", ["images"], {"token_grid": 3, "variant": "released"}),
        ("mobileutr2d_base", "mobileutr", ["images"], {}),
        ("mobileutr3d_base", "mobileutr", [], {}),
        ("dca_unet_dca", "dca_unet", ["images"], {"out_channels": 2}),
        ("dca_vnet_plain", "dca_unet", ["images"], {"backbone": "vnet", "dca": False, "out_channels": 2}),
        ("dca_resunetpp_dca", "dca_unet", ["images"], {"backbone": "resunetpp", "out_channels": 2}),
    ],
)
def test_convert_checkpoint_of_each_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, golden: str, bundle: str, configs: list, options: dict
) -> None:
    """The configs and options that the printed command names build the network that takes the result."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    from convert_checkpoint import convert_checkpoint, read_configs

    checkpoint = Golden(golden)
    torch.save(checkpoint.state_dict(), tmp_path / "in.pt")
    convert_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", f"bundles/{bundle}")
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    folder = ROOT / "bundles" / bundle / "configs"
    files = [folder / f"{name}.json" for name in ("inference", *configs)]
    assert [Path(name).name for name in words[5].strip("[]").replace("'", "").split(",")] == [f.name for f in files]
    found = dict(zip([word.removeprefix("--") for word in words[8::2]], words[9::2]))
    assert {name: literal(value) for name, value in found.items()} == options
    network = read_configs(files, {name: literal(value) for name, value in found.items()}).get_parsed_content(
        "network_def"
    )
    network.load_state_dict(torch.load(tmp_path / "out.pt", weights_only=True))
    size = [32] * (network_dims := checkpoint.config["spatial_dims"])
    assert network.eval()(torch.zeros(1, checkpoint.config["in_channels"], *size)).ndim == network_dims + 2


def literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def test_convert_checkpoint_refuses(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "code": print}, tmp_path / "code.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    for name, message in (
        ("code.pt", "can't be read as a checkpoint of tensors"),
        ("other.pt", "missing keys"),
        ("no.pt", "no checkpoint at"),
    ):
        done = run_tool("convert_checkpoint.py", tmp_path / name, tmp_path / "out.pt", "--bundle", "bundles/glims")
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "out.pt").exists()


def test_tissue_dataset(tmp_path: Path) -> None:
    done = run_tool("make_tissue_dataset.py", tmp_path / "tissue")
    assert done.returncode == 0, done.stderr
    cases = find_cases(tmp_path / "tissue")
    assert (len(cases.training), len(cases.validation), len(cases.test)) == (1, 1, 1)
    image, label = (nib.load(cases.training[0][key]) for key in ("image", "label"))
    assert image.shape == label.shape == (197, 233, 189) and np.array_equal(image.affine, label.affine)
    image, label = np.asarray(image.dataobj), np.asarray(label.dataobj)
    assert np.array_equal(label > 0, image > 0) and set(np.unique(label)) == {0, 1, 2, 3}
    assert image[label == 1].mean() < image[label == 2].mean() < image[label == 3].mean()  # as T1 shows them
    assert json.loads((tmp_path / "tissue" / "dataset.json").read_text())["labels"]["2"] == "grey matter"
    again = run_tool("make_tissue_dataset.py", tmp_path / "tissue")
    assert again.returncode == 1 and "is not empty" in again.stderr


def test_the_table_of_networks_is_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import model_table

    text = model_table.table()
    monkeypatch.setattr(model_table, "table", lambda: text)
    model_table.main(check=True)
    stale = tmp_path / "README.md"
    stale.write_text((ROOT / "README.md").read_text().replace("| GLIMS | 4 × 96³ |", "| GLIMS | 4 × 128³ |"))
    monkeypatch.setattr(model_table, "README", stale)
    with pytest.raises(SystemExit, match="table of networks is stale"):
        model_table.main(check=True)
    model_table.main()
    assert stale.read_text() == (ROOT / "README.md").read_text()
