"""Packed bundles, used as someone uses them who has MONAI but not hybrid_nets."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import monai.bundle
import nibabel as nib
import numpy as np
import pack_bundle
import pytest
import torch
from conftest import ROOT
from conftest import TINY as OPTIONS
from monai.bundle import ConfigParser

import hybrid_nets
from hybrid_nets import InputError
from hybrid_nets.phantoms import make_abdomen

BUNDLES = list(OPTIONS)
SCRIPTED = ("dca_unet", "mobileutr")  # in three and two dimensions; that all four can be is tested with the networks
SCHEMA = ROOT / "tools" / "meta_schema_20240725.json"


def config_file(bundle: str, name: str, root: Path = ROOT / "bundles") -> Path:
    return root / bundle / "configs" / f"{name}.json"


def read(bundle: str, name: str, root: Path = ROOT / "bundles") -> dict:
    return json.loads(config_file(bundle, name, root).read_text())


def build(bundle: str, seed: int = 0) -> torch.nn.Module:
    """The network of the bundle that is not packed, with random weights."""
    parser = ConfigParser()
    parser.read_config(config_file(bundle, "inference"))
    parser.update(OPTIONS[bundle])
    torch.manual_seed(seed)
    return parser.get_parsed_content("network_def").eval()


def pack(bundle: str, out: Path, **options: object) -> Path:
    options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    pack_bundle.pack_bundle(str(ROOT / "bundles" / bundle), str(out), **{**OPTIONS[bundle], **options})
    return out


def unpack(file: Path, folder: Path) -> Path:
    """Unpack a bundle; returns its own folder."""
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
        return folder / archive.namelist()[0].split("/")[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("weights")
    for bundle in BUNDLES:
        torch.save({"model": build(bundle).state_dict(), "epoch": 1}, root / f"{bundle}.pt")
    return {bundle: root / f"{bundle}.pt" for bundle in BUNDLES}


@pytest.fixture(scope="module")
def zips(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("zips")
    return {
        bundle: pack(bundle, root / f"{bundle}.zip", weights=weights[bundle], torchscript=bundle in SCRIPTED)
        for bundle in BUNDLES
    }


@pytest.fixture(scope="module")
def unpacked(zips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all four lie side by side."""
    root = tmp_path_factory.mktemp("bundles")
    for file in zips.values():
        unpack(file, root)
    return root


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Run Python where hybrid_nets is not installed, in a folder that has nothing to do with any bundle."""
    root = tmp_path_factory.mktemp("outside")
    venv.create(root / "venv", symlinks=True)
    (site,) = root.glob("venv/lib/python*/site-packages")
    # Adds the packages installed here, but does not follow the link of an editable install of hybrid_nets.
    (site / "installed_here.pth").write_text(sysconfig.get_path("purelib"))
    (site / "hybrid_nets.py").write_text("raise ModuleNotFoundError('hybrid_nets is not installed')")  # nor any other
    (root / "here").mkdir()

    def run(*command: object, check: bool = True) -> subprocess.CompletedProcess:
        words = [str(root / "venv" / "bin" / "python"), *map(str, command)]
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        options = {"cwd": root / "here", "env": variables, "capture_output": True, "text": True, "timeout": 600}
        done = subprocess.run(words, **options)
        assert not check or done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-8000:]}"
        return done

    assert "hybrid_nets is not installed" in run("-c", "import hybrid_nets", check=False).stderr
    return run


@pytest.fixture(scope="module")
def data(small_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    abdomen = make_abdomen(tmp_path_factory.mktemp("data") / "abdomen", num_training=2, num_test=1)
    return {bundle: small_phantom if bundle == "glims" else abdomen for bundle in BUNDLES}


def jobs(bundle: str, data: Path, out: Path, weights: Path | None = None, **chosen: object) -> list[tuple[list, dict]]:
    """One epoch of training; inference and evaluation with the bundle's weights, or those given."""
    common = {"dataset_dir": str(data), "device": "cpu", "num_workers": 0, **chosen}
    train = {"ckpt_dir": str(out / "models"), "output_dir": str(out / "log"), "batch_size": 2, "epochs": 1}
    common_use = {**common, **({"checkpoints": [str(weights)]} if weights else {})}
    return [
        (["train"], {**common, **train}),
        (["inference"], {**common_use, "output_dir": str(out / "eval"), "save_probabilities": True}),
        (["train", "evaluate"], {**common_use, "output_dir": str(out / "metrics")}),
    ]


@pytest.fixture(scope="module")
def expected(weights: dict, data: dict, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the bundles give that are not packed."""
    root = tmp_path_factory.mktemp("expected")
    for bundle in BUNDLES:
        for names, options in jobs(bundle, data[bundle], root / bundle, weights[bundle], **OPTIONS[bundle]):
            monai.bundle.run(config_file=[str(config_file(bundle, name)) for name in names], **options)
    return {bundle: root / bundle for bundle in BUNDLES}


def check_same(found: Path, expected: Path) -> None:
    names = sorted(file.name for file in (expected / "eval").iterdir())
    assert sorted(file.name for file in (found / "eval").iterdir()) == names
    assert [name.rpartition("_")[2] for name in names] == ["prob.nii.gz", "seg.nii.gz"]
    for name in names:
        one, other = (nib.load(folder / "eval" / name) for folder in (found, expected))
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
        np.testing.assert_array_equal(one.affine, other.affine)
    one, other = (torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (found, expected))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_commands_from_anywhere(outside, unpacked: Path, data: dict, expected: dict, tmp_path: Path) -> None:
    """As typed, one process each."""
    for (name, *others), options in jobs("mobileutr", data["mobileutr"], tmp_path):
        if not others:
            words = [word for option, value in options.items() for word in (f"--{option}", value)]
            outside("-m", "monai.bundle", "run", "--config_file", config_file("mobileutr", name, unpacked), *words)
    check_same(tmp_path, expected["mobileutr"])


SIDE_BY_SIDE = """
import json, sys, monai.bundle
for files, options in json.load(open(sys.argv[1])):
    monai.bundle.run(config_file=files, **options)
print(sorted(name for name in sys.modules if name.startswith("hybrid_nets") and "." not in name))
"""


def test_side_by_side_in_one_process(outside, unpacked: Path, data: dict, expected: dict, tmp_path: Path) -> None:
    bundles = ["glims", "hylt", "dca_unet"]
    runs = [
        ([str(config_file(bundle, name, unpacked)) for name in names], options)
        for bundle in bundles
        for names, options in jobs(bundle, data[bundle], tmp_path / bundle)
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(runs))
    modules = outside("-c", SIDE_BY_SIDE, tmp_path / "jobs.json").stdout.splitlines()[-1]
    assert len(re.findall(r"'hybrid_nets_(?:dca_unet|glims|hylt)_\d+_\d+_\d+_[0-9a-f]{8}'", modules)) == 3
    for bundle in bundles:
        check_same(tmp_path / bundle, expected[bundle])
        measured, wanted = (
            (root / "metrics" / "metrics.csv").read_text() for root in (tmp_path / bundle, expected[bundle])
        )
        assert measured == wanted


MIXED = """
import importlib, json, pathlib, sys, torch, monai.bundle
found, modules = {}, {}
x = torch.linspace(-1, 1, 32**3).reshape(1, 1, 32, 32, 32)

def keep(name, network):
    modules[name] = type(network).__module__.split(".")[0]
    with torch.no_grad():
        found[name] = network.eval()(x).flatten()[::1000].tolist()

root = pathlib.Path(sys.argv[1])
for name in ("mobileutr", "other/mobileutr", "newer/mobileutr"):
    keep(name, monai.bundle.load(name, bundle_dir=root, workflow_type="inference", device="cpu"))
    parser = monai.bundle.ConfigParser()
    parser.read_config(root / name / "configs" / "inference.json")
    parser.config.update({"bundle_root": str(root / name)})  # as MONAI Label does
    keep(name + " parsed", parser.get_parsed_content("network"))
versions = {key: importlib.import_module(key).__version__ for key in modules.values()}
print(json.dumps([found, modules, versions]))
"""


def test_versions_and_weights_do_not_mix(
    outside, unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bundle three times: as it is, with other weights, and from a hybrid_nets that computes something else."""
    shutil.copytree(unpacked / "mobileutr", tmp_path / "mobileutr")
    torch.save(build("mobileutr", seed=1).state_dict(), tmp_path / "other.pt")
    options = {"weights": tmp_path / "other.pt", "torchscript": False}
    unpack(pack("mobileutr", tmp_path / "other.zip", **options), tmp_path / "other")
    newer = shutil.copytree(Path(hybrid_nets.__file__).parent, tmp_path / "hybrid_nets")
    with open(newer / "nets" / "mobileutr.py", "a") as file:
        file.write("\nforward = MobileUtr.forward\nMobileUtr.forward = lambda self, x: -forward(self, x)\n")
    with open(newer / "__init__.py", "a") as file:
        file.write('\n__version__ = "0.9.0"\n')
    monkeypatch.setattr(pack_bundle, "PACKAGE", newer)
    monkeypatch.setattr(hybrid_nets, "__version__", "0.9.0")
    unpack(pack("mobileutr", tmp_path / "newer.zip", **options), tmp_path / "newer")

    found, modules, versions = json.loads(outside("-c", MIXED, tmp_path).stdout.splitlines()[-1])
    x = torch.linspace(-1, 1, 32**3).reshape(1, 1, 32, 32, 32)
    with torch.no_grad():
        first, second = (build("mobileutr", seed)(x).flatten()[::1000].tolist() for seed in (0, 1))
    computed = {"mobileutr": first, "other/mobileutr": second, "newer/mobileutr": [-value for value in second]}
    for name, values in computed.items():
        assert found[name] == found[f"{name} parsed"] == pytest.approx(values, rel=1e-4, abs=1e-4), name
    assert len({modules[name] for name in computed}) == 3
    assert versions[modules["newer/mobileutr"]] == "0.9.0" != versions[modules["mobileutr"]]


CHECKS = """
import pathlib, sys, torch, monai.bundle
root, schema = pathlib.Path(sys.argv[1]), sys.argv[2]
for folder in sorted(path for path in root.iterdir() if path.is_dir()):
    meta, config = (str(folder / "configs" / name) for name in ("metadata.json", "inference.json"))
    monai.bundle.verify_metadata(meta_file=meta, filepath=schema)
    sys.argv = ["monai.bundle", "verify_net_in_out", f"--config_file={config}"]  # as on the command line
    monai.bundle.verify_net_in_out("network_def", meta_file=meta, config_file=config, device="cpu")
    if (folder / "models" / "model.ts").exists():
        eager = monai.bundle.load(folder.name, bundle_dir=root, workflow_type="train", device="cpu").eval()
        script, metadata, _ = monai.bundle.load(folder.name, bundle_dir=root, load_ts_module=True, device="cpu")
        image = metadata["network_data_format"]["inputs"]["image"]
        for size in ([32, 64, 32], [64, 32, 32], [32, 32, 64], [64, 32, 64]):
            x = torch.rand(1, image["num_channels"], *size[: len(image["spatial_shape"])])
            with torch.no_grad():
                torch.testing.assert_close(script(x), eager(x), rtol=1e-4, atol=1e-4)
        print("compared", folder.name)
    for overlay in ("images", "multi_organ", "volumes"):
        if (folder / "configs" / f"{overlay}.json").exists():
            parser = monai.bundle.ConfigParser()
            parser.read_config([str(folder / "configs" / f"{name}.json") for name in ("train", overlay)])
            for key in ("bundle_root", "load_transforms", "space_transforms", "encode_labels", "loss"):
                parser.get_parsed_content(key)
            print("read", overlay, "of", folder.name)
    print("checked", folder.name)
"""


def test_monai_s_checks_and_torchscript(outside, unpacked: Path, tmp_path: Path) -> None:
    root = shutil.copytree(unpacked, tmp_path / "bundles")
    unpack(pack("glims", tmp_path / "task.zip", overlay="multi_organ", weights="none"), root)
    images = {"overlay": "images", "weights": "none", "roi_size": [64, 64], "spacing": [1.0, 1.0]}
    unpack(pack("mobileutr", tmp_path / "task.zip", **images), root)
    done = outside("-c", CHECKS, root, SCHEMA).stdout
    assert re.findall("compared (.*)", done) == sorted(SCRIPTED)
    overlays = ["multi_organ of glims", *(f"images of {bundle}" for bundle in ("dca_unet", "hylt", "mobileutr"))]
    assert sorted(re.findall("read (.*)", done)) == sorted([*overlays, "volumes of dca_unet"])
    assert re.findall("checked (.*)", done) == sorted([*BUNDLES, "glims_multi_organ", "mobileutr_images"])


def test_an_overlay_becomes_part_of_the_configs(tmp_path: Path) -> None:
    images = {"overlay": "images", "weights": "none", "roi_size": [64, 64], "spacing": [1.0, 1.0]}
    folder = unpack(pack("mobileutr", tmp_path / "a.zip", **images), tmp_path)
    configs = {name: read(folder.name, name, tmp_path) for name in ("inference", "train", "evaluate", "metadata")}
    assert not (folder / "configs" / "images.json").exists() and (folder / "configs/multi_gpu_train.json").exists()
    for base in ("inference", "train"):
        assert configs[base]["roi_size"] == [64, 64] and configs[base]["channels"] == ["red", "green", "blue"]
        assert configs[base]["writer" if base == "inference" else "optimizer"] != read("mobileutr", base).get("writer")
    assert configs["evaluate"]["unit"] == "px" and "channels" not in configs["evaluate"]
    meta = configs["metadata"]
    formats = meta["network_data_format"]
    assert formats["inputs"]["image"]["num_channels"] == 3 and formats["inputs"]["image"]["format"] == "rgb"
    for kind, name in (("inputs", "image"), ("outputs", "pred"), ("post_processed_outputs", "pred")):
        assert len(formats[kind][name]["spatial_shape"]) == 2
    assert formats["outputs"]["pred"]["num_channels"] == 1
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "background", "255": "foreground"}
    assert formats["post_processed_outputs"]["pred"]["value_range"] == [0, 255]
    assert "CT" not in " ".join(str(meta[key]) for key in ("task", "description", "intended_use", "pred_classes"))
    assert "--overlay images --roi_size '[64, 64]'" in (folder / "README.md").read_text()


def test_same_input_same_bytes(zips: dict, weights: dict, tmp_path: Path) -> None:
    """From another folder, in a process of its own with other hashes."""
    words = [sys.executable, ROOT / "tools" / "pack_bundle.py", ROOT / "bundles" / "dca_unet", "new/dca_unet.zip"]
    options = {"weights": weights["dca_unet"], **OPTIONS["dca_unet"]}
    words += [word for name, value in options.items() for word in (f"--{name}", value)]
    variables = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "dca_unet.zip").read_bytes() == zips["dca_unet"].read_bytes()
    assert "its code is hybrid_nets_dca_unet_" in done.stdout


def test_content(zips: dict) -> None:
    """What is there, that nothing names this machine, and that the documents' links hold."""
    places = {
        str(ROOT),
        sys.prefix,
        tempfile.gettempdir(),
        str(Path.home()) + "/",
        str(Path(torch.__file__).parents[1]),
    }
    for bundle, file in zips.items():
        with zipfile.ZipFile(file) as archive:
            files = {name.removeprefix(f"{bundle}/"): archive.read(name) for name in archive.namelist()}
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        (package,) = {name.split("/")[0] for name in files if name.startswith("hybrid_nets")}
        assert {name.split("/")[0] for name in files} == {
            *("LICENSE", "README.md", "configs", "docs", "models", "requirements.txt", package)
        }
        assert ("models/model.ts" in files) == (bundle in SCRIPTED)
        assert not [name for name in files if "__pycache__" in name or name.endswith(".pyc")]
        assert {f"{package}/nets/{bundle}.py", "configs/train.json", "configs/logging.conf"} <= files.keys()
        for name, content in files.items():
            assert not [place for place in places if place.encode() in content], name
            if name.endswith(".json"):
                assert not re.search(rb"(?<![@\w/])hybrid_nets\.(?!validation)", content), name
        assert not [
            name
            for name in files
            if name.endswith(".py") and re.search(rb"(?m)^\s*(from|import) hybrid_nets\b", files[name])
        ]
        readme = files["README.md"].decode()
        assert readme.startswith("---\ntags:\n- monai\n") and "license: apache-2.0\n---\n#" in readme
        assert f"bundles/{bundle}/" not in readme and "without weights" not in readme and "Packed with" in readme
        links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", readme)
        assert links and set(links) <= files.keys()
        metadata, original = json.loads(files["configs/metadata.json"]), read(bundle, "metadata")
        assert "hybrid-nets" not in metadata["required_packages_version"]
        assert "without weights" not in metadata["description"]
        assert metadata["network_data_format"] == original["network_data_format"]
        assert "monai>=1.5.2,<1.7\n" in files["requirements.txt"].decode()


def test_upload_to_hugging_face(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI uploads the folder as it is, with a README.md that the hub takes as model card."""
    shutil.copytree(unpacked / "hylt", tmp_path / "hylt")
    sent = {}

    class Hub:
        def __init__(self, token: str | None) -> None:
            pass

        def create_repo(self, **options: object) -> None:
            pass

        def upload_folder(self, repo_id: str, folder_path: str) -> str:
            sent.update({file.relative_to(folder_path): file.read_bytes() for file in Path(folder_path).rglob("*.*")})
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(monai.bundle.scripts, "huggingface_hub", SimpleNamespace(HfApi=Hub))
    url = monai.bundle.push_to_hf_hub(repo="someone/hylt", name="hylt", bundle_dir=str(tmp_path))
    assert url == "https://hub/someone/hylt"
    assert sent == {file.relative_to(unpacked / "hylt"): file.read_bytes() for file in (unpacked / "hylt").rglob("*.*")}
    assert sent[Path("README.md")].decode().count("library_name: monai") == 1
    assert {Path("models/model.pt"), Path("configs/inference.json")} <= sent.keys()


def test_errors_of_the_packed_code_are_short(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that come from a loader process as text."""
    monkeypatch.syspath_prepend(unpacked / "glims")
    name = read("glims", "inference", unpacked)["package"]
    errors = importlib.import_module(f"{name}.errors")
    worker = f"Caught RuntimeError in worker.\n{name}.errors.InputError: bad file\n\nRuntimeError: x"
    assert errors.find_input_error(RuntimeError(worker)) == "bad file"


def test_a_folder_that_is_not_found(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["python"])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not path.startswith(str(unpacked))])
    monkeypatch.chdir(tmp_path)
    parser = ConfigParser(read("hylt", "inference", unpacked))
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("output_dir")
    causes = [caught.value]
    while causes[-1].__cause__:
        causes.append(causes[-1].__cause__)
    assert "set bundle_root to the folder of this bundle" in str(causes[-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "no.pt"}, "no weights at no.pt; give a checkpoint with --weights FILE .* --weights none"),
        (
            {"feature_size": 24},
            "does not fit the network.* Give the options it was trained with, such as --feature_size",
        ),
        ({"feature_size": 13}, "no network can be built with these options: num_heads must divide"),
        ({"overlay": "images"}, r"has no overlay 'images'; it has \['multi_organ'\]"),
        ({"featuresize": 12}, "the configs have no option 'featuresize'; they have .*feature_size"),
        ({"dataset_dir": "/data/BraTS"}, "--dataset_dir /data/BraTS is a path of this machine"),
        ({"checkpoints": ["C:\\\\model.pt"]}, "--checkpoints .* is a path of this machine"),
    ],
)
def test_refusals(weights: dict, tmp_path: Path, options: dict, message: str) -> None:
    (tmp_path / "out.zip").write_text("older")
    with pytest.raises(InputError, match=message):
        pack("glims", tmp_path / "out.zip", **{"weights": weights["glims"], **options})
    assert [file.name for file in tmp_path.iterdir()] == ["out.zip"] and (tmp_path / "out.zip").read_text() == "older"


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a bundle: it has no configs/inference.json"):
        pack_bundle.pack_bundle(str(tmp_path), str(tmp_path / "out.zip"))


def test_a_script_that_computes_something_else_is_refused(unpacked: Path) -> None:
    configs = {name: read("dca_unet", name) for name in ("inference", "metadata")}
    script = unpacked / "dca_unet" / "models" / "model.ts"
    pack_bundle.check_script(script, build("dca_unet"), configs)
    with pytest.raises(InputError, match="another output than the network"):
        pack_bundle.check_script(script, build("dca_unet", seed=1), configs)
