"""What the bundles beside glims do on files: volumes of CT, and pictures.

The commands run in this process, which saves the seconds that each new one takes to import its packages; that they work
as typed is shown for glims, and for all by the README's commands, which CI runs.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import itk
import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import ROOT, save_nifti
from monai.data import MetaTensor
from monai.transforms import Resize

from hybrid_nets import InputError, load_network
from hybrid_nets.errors import find_input_error
from hybrid_nets.phantoms import make_abdomen, make_ultrasound

VOLUME = {"roi_size": [32, 32, 32], "spacing": [7.0, 7.0, 7.0], "num_samples": 1}
SLICE = {"roi_size": [64, 64], "num_samples": 2}
NETWORKS = {
    "mobileutr": {},
    "hylt": {"widths": [4, 8, 8, 12, 16]},
    "dca_unet": {"widths": [4, 8, 12, 16, 16], "grid": 4},
}
TASKS = {
    "mobileutr": ("mobileutr", (), VOLUME),
    "hylt": ("hylt", (), VOLUME),
    "dca_unet": ("dca_unet", (), SLICE),
    "dca_unet volumes": ("dca_unet", ("volumes",), VOLUME),
    "mobileutr images": ("mobileutr", ("images",), {"roi_size": [64, 64]}),
    "hylt images": ("hylt", ("images",), {"roi_size": [64, 64]}),
    "dca_unet images": ("dca_unet", ("images",), {"roi_size": [64, 64]}),
}
# What says how long the schedule is, where it depends on that.
LENGTHS = {
    **dict.fromkeys(("mobileutr", "hylt", "dca_unet volumes"), "T_max"),
    "mobileutr images": "total_iters",
}


class Task:
    """A bundle with its overlays, run with small settings on small data."""

    def __init__(self, name: str, data: dict[str, Path], root: Path) -> None:
        self.name = name
        self.bundle, self.overlays, options = TASKS[name]
        self.pictures = "images" in self.overlays
        self.data = data["pictures" if self.pictures else "volumes"]
        self.root = root
        self.options = {
            **options,
            **NETWORKS[self.bundle],
            "num_workers": 0,
            "device": "cpu",
            "ckpt_dir": root / "models",
        }

    def run(self, *configs: str, **options: object) -> Path:
        """Run ``configs`` with the overlays; returns where the output went."""
        files = [
            str(ROOT / "bundles" / self.bundle / "configs" / f"{name}.json") for name in (*configs, *self.overlays)
        ]
        output = self.root / "_".join(configs)
        settings = {"dataset_dir": self.data, "output_dir": output, **self.options, **options}
        texts = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
        monai.bundle.run(config_file=files, **texts)
        return Path(settings["output_dir"])

    def train(self, **options: object) -> Path:
        return self.run("train", **{"batch_size": 2, "epochs": 1, **options})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    return {
        "volumes": make_abdomen(root / "volumes", num_training=3, num_test=1),
        "pictures": make_ultrasound(root / "pictures", num_training=5, num_test=2),
    }


@pytest.fixture(scope="module", params=TASKS)
def trained(request: pytest.FixtureRequest, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Task:
    task = Task(request.param, data, tmp_path_factory.mktemp("trained"))
    task.train()
    return task


def test_train_infer_evaluate(trained: Task) -> None:
    assert sorted(file.name for file in (trained.root / "models").iterdir()) == ["model.pt", "resume.pt"]
    found = trained.run("inference", save_probabilities=True)
    (check_pictures if trained.pictures else check_volumes)(trained, found)
    evaluated = trained.run("train", "evaluate")
    rows = list(csv.DictReader((evaluated / "metrics.csv").read_text().splitlines()))
    metadata = json.loads((ROOT / "bundles" / trained.bundle / "configs" / "metadata.json").read_text())
    organs = list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())[1:]
    expected = ["foreground"] if trained.pictures else organs
    assert [row["class"] for row in rows] == expected
    assert f"hd95_{'px' if trained.pictures else 'mm'}" in rows[0]
    assert json.loads((evaluated / "summary.json").read_text()).keys() == set(expected)


@pytest.mark.parametrize("trained", [name for name in TASKS if "images" not in name], indirect=True)
def test_low_memory(trained: Task, tmp_path: Path) -> None:
    """On the network's own grid labels are the same; on another they are restored to nearest neighbours."""
    with pytest.raises(RuntimeError) as raised:
        trained.run("inference", low_memory=True, save_probabilities=True)
    assert "keeps no probabilities" in find_input_error(raised.value)
    (source,) = (trained.data / "imagesTs").iterdir()
    image = nib.load(source)
    side, slices = trained.options["roi_size"][0], 20
    voxels = MetaTensor(np.asarray(image.dataobj, np.float32)[None])
    small = Resize((side, side, slices))(voxels)[0].numpy()
    cases = tmp_path / "cases"
    save_nifti(cases / "same_grid.nii.gz", small, np.diag([7.0, 7, 7, 1]))
    shutil.copy(source, cases / "other_grid.nii.gz")
    options = {"dataset_dir": cases, "roi_size": trained.options["roi_size"]}
    whole = trained.run("inference", output_dir=tmp_path / "whole", **options)
    found = trained.run("inference", output_dir=tmp_path / "low", low_memory=True, **options)
    for name in ("same_grid", "other_grid"):
        expected, result = (nib.load(folder / f"{name}_seg.nii.gz") for folder in (whole, found))
        assert result.shape == expected.shape and np.array_equal(result.affine, expected.affine)
        assert result.get_data_dtype() == np.uint8
        same = np.asarray(result.dataobj) == np.asarray(expected.dataobj)
        assert same.all() if name == "same_grid" else same.mean() > 0.8


def check_volumes(task: Task, found: Path) -> None:
    (source,) = (task.data / "imagesTs").iterdir()
    name = source.name.removesuffix(".nii.gz")
    assert sorted(file.name for file in found.iterdir()) == [f"{name}_prob.nii.gz", f"{name}_seg.nii.gz"]
    image, result = nib.load(source), nib.load(found / f"{name}_seg.nii.gz")
    assert result.shape == image.shape and result.get_data_dtype() == np.uint8
    np.testing.assert_allclose(result.affine, image.affine, atol=1e-5)
    probabilities = np.asarray(nib.load(found / f"{name}_prob.nii.gz").dataobj)
    total = probabilities.sum(-1)  # 0 outside the box that preprocessing cut out
    assert total.max() < 1.001 and (total > 0.999).mean() > 0.5
    np.testing.assert_array_equal(probabilities.argmax(-1), np.asarray(result.dataobj))


def check_pictures(task: Task, found: Path) -> None:
    sources = [file for file in (task.data / "images").iterdir() if not (task.data / "masks" / file.name).exists()]
    assert len(sources) == 2
    expected = [f"{file.stem}_{end}" for file in sources for end in ("prob.tif", "seg.png")]
    assert sorted(file.name for file in found.iterdir()) == sorted(expected)
    for file in sources:
        mask, probability = (
            itk.array_from_image(itk.imread(str(found / f"{file.stem}_{end}"))) for end in ("seg.png", "prob.tif")
        )
        assert mask.shape == probability.shape == itk.array_from_image(itk.imread(str(file))).shape[:2]
        np.testing.assert_array_equal(mask, np.where(probability >= 0.5, 255, 0))


def test_resumed_training_equals_an_undisturbed_one(trained: Task, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"epochs": 2, "val_interval": 2, "output_dir": tmp_path}
    trained.train(**options, ckpt_dir=whole)
    length = {f"lr_scheduler#{LENGTHS[trained.name]}": 2} if trained.name in LENGTHS else {}
    trained.train(**{**options, "epochs": 1}, **length, ckpt_dir=parts)
    trained.train(**options, ckpt_dir=parts, resume=True)
    states = [torch.load(folder / "resume.pt", weights_only=True) for folder in (whole, parts)]
    assert states[0]["epoch"] == states[1]["epoch"] == 2
    assert all(torch.equal(tensor, states[1]["model"][key]) for key, tensor in states[0]["model"].items())


@pytest.mark.parametrize("trained", NETWORKS, indirect=True)  # metadata.json describes bundles without overlays
def test_offline_checks_of_monai(trained: Task, tmp_path: Path) -> None:
    configs = ROOT / "bundles" / trained.bundle / "configs"
    meta, inference = str(configs / "metadata.json"), str(configs / "inference.json")
    checkpoint, script = trained.root / "models" / "model.pt", tmp_path / "model.ts"
    network = {key: trained.options[key] for key in NETWORKS[trained.bundle]}
    monai.bundle.verify_metadata(meta_file=meta, filepath=str(ROOT / "tools" / "meta_schema_20240725.json"))
    monai.bundle.verify_net_in_out("network_def", meta_file=meta, config_file=inference, device="cpu", **network)
    files = {"filepath": str(script), "ckpt_file": str(checkpoint), "meta_file": meta, "config_file": inference}
    monai.bundle.ckpt_export("network_def", **files, **network)
    parser = monai.bundle.ConfigParser()
    parser.read_config(inference)
    parser.update(network)
    built = load_network(parser.get_parsed_content("network_def"), checkpoint).eval()
    x = torch.rand(1, 1, *trained.options["roi_size"])
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(script)(x), built(x), rtol=1e-4, atol=1e-4)


def test_an_undeclared_label_is_one_line(data: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(data["volumes"], tmp_path / "data")
    file = next((folder / "labelsTr").iterdir())
    label = nib.load(file)
    values = np.asarray(label.dataobj).copy()
    values[0, 0, 0] = 20
    save_nifti(file, values, label.affine)
    task = Task("mobileutr", {"volumes": folder}, tmp_path)
    with pytest.raises(RuntimeError) as caught:
        task.train()
    message = find_input_error(caught.value)
    assert file.name in message and "label values 20 that are not declared" in message


def test_organs_by_name_or_by_number(data: dict[str, Path]) -> None:
    """HyLT's spleen is 1, whatever its value in the data set; with --out_channels the data set's own values count."""
    spleen, numbered = read_labels(data["volumes"]), read_labels(data["volumes"], out_channels=14)
    liver = read_labels(data["volumes"], organs=["background", "liver"])
    assert spleen.sum() > 0 and torch.equal(spleen == 1, numbered == 1) and spleen.max() == 1
    assert liver.sum() > 0 and torch.equal(liver == 1, numbered == 6) and liver.max() == 1
    with pytest.raises(InputError, match="has no label named tumour"):
        read_labels(data["volumes"], organs=["background", "liver", "tumour"])


def read_labels(folder: Path, **options: object) -> MetaTensor:
    parser = monai.bundle.ConfigParser()
    parser.read_config(ROOT / "bundles" / "hylt" / "configs" / "train.json")
    parser.update({"dataset_dir": str(folder), **options})
    cases, load = parser.get_parsed_content("cases"), parser.get_parsed_content("load_transforms")
    case = cases.training[0]
    for transform in load:
        case = transform(case)
    return case["label"]
