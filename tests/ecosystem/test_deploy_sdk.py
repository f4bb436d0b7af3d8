"""Packed bundles in the MONAI Deploy App SDK: its bundle operator gives what the bundle itself gives.

The SDK wants some 3 GB of packages, so it has an environment of its own: the one in ``HYBRID_NETS_DEPLOY_ENV``, or
``.cache/deploy_sdk``, which the first test makes (a minute or two, from the package index).
"""

from __future__ import annotations

import os
import subprocess
import venv
import zipfile
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import ROOT
from conftest import TINY as OPTIONS
from monai.bundle import ConfigParser
from monai.transforms import Compose
from pack_bundle import pack_bundle

from hybrid_nets.phantoms import make_abdomen

pytestmark = pytest.mark.deploy_sdk

# The SDK leaves out the last two, without which even `import monai` fails once it is installed.
PACKAGES = ("monai-deploy-app-sdk==4.0.0", "highdicom", "pydicom")
# An app as the SDK's users write it: a volume in memory goes to the operator, its label map to a file.
APP = """
import sys
from pathlib import Path
import numpy as np
from holoscan.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Image, IOType, Operator
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping, MonaiBundleInferenceOperator
from monai.transforms import LoadImage

bundle, image, result = sys.argv[1:]


class Source(Operator):
    def setup(self, spec):
        spec.output("image")

    def compute(self, op_input, op_output, context):
        volume = LoadImage()(image)
        op_output.emit(Image(volume.numpy(), {**volume.meta, "spacing": volume.pixdim}), "image")


class Sink(Operator):
    def setup(self, spec):
        spec.input("pred")

    def compute(self, op_input, op_output, context):
        label = op_input.receive("pred").asnumpy()
        np.save(result, label.swapaxes(0, 2))  # the SDK's images are (depth, height, width)


class App(Application):
    def compose(self):
        network = MonaiBundleInferenceOperator(
            self,
            app_context=AppContext({}),
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            bundle_path=Path(bundle),
            name="network",
        )
        self.add_flow(Source(self, CountCondition(self, 1), name="source"), network, {("image", "image")})
        self.add_flow(network, Sink(self, name="sink"), {("pred", "pred")})


App([]).run()
"""


@pytest.fixture(scope="module")
def sdk_python() -> Path:
    """Python with the SDK and what a packed bundle needs, without hybrid_nets."""
    root = Path(os.environ.get("HYBRID_NETS_DEPLOY_ENV", ROOT / ".cache" / "deploy_sdk")).resolve()
    python = root / "bin" / "python"
    if not (root / "complete").is_file():
        venv.create(root, with_pip=True)  # on top of what is there
        install = [str(python), "-m", "pip", "install", "--quiet"]
        version = torch.__version__.partition("+")[0]
        subprocess.run([*install, f"torch=={version}"], check=True)  # first: the build that suits this machine
        needs = pack("dca_unet", root / "bundles", weights="none") / "requirements.txt"
        subprocess.run([*install, *PACKAGES, "-r", str(needs)], check=True)
        (root / "complete").touch()
    return python


def pack(bundle: str, folder: Path, **options: object) -> Path:
    """Pack with the small settings, and unpack again to ``folder``; returns the bundle's own."""
    folder.mkdir(parents=True, exist_ok=True)
    pack_bundle(str(ROOT / "bundles" / bundle), str(folder / "packed.zip"), **OPTIONS[bundle], **options)
    with zipfile.ZipFile(folder / "packed.zip") as archive:
        archive.extractall(folder)
    return folder / bundle


@pytest.fixture(scope="module")
def abdomen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_abdomen(tmp_path_factory.mktemp("data") / "abdomen", num_training=1, num_test=1)


def varied_weights(parser: ConfigParser) -> dict[str, torch.Tensor]:
    """Random weights with which batch norms have seen the data and foreground is neither rare nor everything.

    Raises:
        RuntimeError: twenty draws of the biases gave no such weights.
    """
    torch.manual_seed(0)
    network, inferer, labels = map(parser.get_parsed_content, ("network_def", "inferer", "to_labels"))
    image, activation = parser.get_parsed_content("dataset")[0]["image"], parser.get_parsed_content("activation")
    for _ in range(20):
        for key, parameter in network.named_parameters():
            if key.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.2)
        for norms_learn in (True, False):
            for module in network.eval().modules():
                module.training = norms_learn and isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            with torch.no_grad():
                logits = inferer(image[None], network)[0]
        foreground = (Compose([activation, *labels])({"pred": logits})["pred"] > 0).float().mean()
        if 0.1 < foreground < 0.9:
            return network.state_dict()
    raise RuntimeError("twenty draws of the biases gave no weights with which 10 to 90 % of the voxels are foreground")


@pytest.mark.parametrize("name", OPTIONS)
def test_the_operator_gives_what_the_bundle_gives(
    sdk_python: Path, name: str, abdomen: Path, small_phantom: Path, tmp_path: Path
) -> None:
    data = small_phantom if name == "glims" else abdomen
    parser = ConfigParser()
    parser.read_config(ROOT / "bundles" / name / "configs" / "inference.json")
    parser.update({**OPTIONS[name], "dataset_dir": str(data)})
    torch.save(varied_weights(parser), tmp_path / "weights.pt")
    bundle = pack(name, tmp_path, weights=str(tmp_path / "weights.pt"))
    config = bundle / "configs" / "inference.json"
    monai.bundle.run(config_file=str(config), dataset_dir=str(data), output_dir=str(tmp_path / "eval"), device="cpu")
    (image,), (result,) = (data / "imagesTs").iterdir(), (tmp_path / "eval").iterdir()
    expected = np.asarray(nib.load(result).dataobj)
    assert len(np.unique(expected)) > 1

    for model, folder in ((bundle, None), (bundle / "models" / "model.ts", bundle)):
        # The file alone holds weights and configs; the code it is told where to find.
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables |= {"PYTHONPATH": str(folder)} if folder else {}
        command = [str(sdk_python), "-c", APP, str(model), str(image), str(tmp_path / "found.npy")]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-8000:]
        found = np.load(tmp_path / "found.npy")
        (tmp_path / "found.npy").unlink()
        assert found.shape == expected.shape and (found != expected).mean() < 1e-3  # sums differ in their order
