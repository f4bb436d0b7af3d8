"""A real MONAI Label server with all bundles, started as docs/monai_label.md says: it segments, learns, and refuses.

The environment it needs takes minutes to make and 3 GB; it is made once, in ``$HYBRID_NETS_MONAI_LABEL_ENV`` or else in
``.cache/monai_label``. The networks are small and random, with heads set so that several classes come up; the images
are thinned phantoms. The server is given proxies that don't exist, as if there were no network.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
import torch
from conftest import ROOT, save_nifti
from monai.bundle import ConfigParser
from scipy.spatial.transform import Rotation
from torch import nn

from hybrid_nets.conventions import label_mapping
from hybrid_nets.phantoms import Case, abdomen, abdomen_case, brain_tumor, brain_tumor_case

pytestmark = pytest.mark.monai_label

ENVIRONMENT = Path(os.environ.get("HYBRID_NETS_MONAI_LABEL_ENV", ROOT / ".cache" / "monai_label")).resolve()
PYTHON = ENVIRONMENT / "bin" / "python"
# What makes the bundles quick; all else in them is as it comes.
VOLUME = {"roi_size": [32, 32, 32], "val_interval": 1}
SMALL = {
    "glims": {**VOLUME, "feature_size": 12},
    "mobileutr": {**VOLUME, "spacing": [7.0, 7.0, 7.0]},
    "hylt": {**VOLUME, "spacing": [7.0, 7.0, 7.0], "widths": [4, 8, 8, 12, 16]},
    "dca_unet": {"roi_size": [64, 64], "val_interval": 1, "widths": [4, 8, 12, 16, 16], "grid": 4},
}
BUNDLES = list(SMALL)
BRAIN = "mobileutr_brain"  # comes with weights, so it is served as it is
DOCUMENTED = ",".join([*BUNDLES, BRAIN])
IMAGES = {b: [f"{'brain_tumor' if b == 'glims' else 'abdomen'}_{i:03d}" for i in range(3)] for b in BUNDLES}
IMAGES[BRAIN] = ["head"]


class Server:
    """The documented commands in a folder of their own, the server's process, and what a viewer asks of it."""

    def __init__(self, folder: Path, data: Path, bundles: list[str]) -> None:
        self.folder, self.app, self.studies = folder, folder / "app", folder / "studies"
        self.phantoms, self.log = folder / "phantoms", folder / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["Connection"] = "close"  # the server drops the connection after an error
        self.process: subprocess.Popen | None = None
        nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
        self.variables = {
            **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "no_proxy", "NO_PROXY")},
            **nowhere,
            "OMP_NUM_THREADS": "1",  # sums come out the same in the server and in the bundle's own run
            "HYBRID_NETS_CACHE": str(self.phantoms),
            "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        }
        named = {
            "~/monai_label": ENVIRONMENT,
            "my_app": self.app,
            "my_scans": self.studies,
            "8000": port,
            DOCUMENTED: ",".join(bundles),
        }
        block = [sys.executable, ROOT / "tools" / "readme_commands.py", ROOT / "docs" / "monai_label.md", "monai_label"]
        lines = subprocess.run(block, capture_output=True, text=True, check=True).stdout.splitlines()
        install, activate, *commands = [[str(named.get(word, word)) for word in shlex.split(line)] for line in lines]
        assert install[0] == "python" and activate == [".", "~/monai_label/bin/activate"]
        self.make, self.serve = [[str(PYTHON), *command[1:]] for command in commands]
        shutil.copytree(data / "studies", self.studies)
        finish([sys.executable, *install[1:]], os.environ, timeout=1800)
        finish(self.make, self.variables)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.serve, cwd=ROOT, env=self.variables, stdout=log, stderr=log, start_new_session=True
            )
        self.wait("server", lambda: self.is_up(), seconds=120)

    def is_up(self) -> bool:
        assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()[-4000:]}"
        try:
            return self.http.get(f"{self.url}/info/", timeout=30).ok
        except requests.ConnectionError:
            return False

    def wait(self, what: str, done: Callable[[], bool], seconds: int) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"no {what} after {seconds} s:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server and what it started, a training for example."""
        for kind in (signal.SIGTERM, signal.SIGKILL) if self.process else ():
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass

    def info(self) -> dict:
        return self.http.get(f"{self.url}/info/", timeout=60).json()

    def model(self, bundle: str) -> Path:
        return self.app / "model" / bundle / "models" / "model.pt"

    def infer(self, bundle: str, image: str) -> requests.Response:
        return self.http.post(f"{self.url}/infer/{bundle}", params={"image": image, "output": "image"}, timeout=300)

    def segment(self, bundle: str, image: str) -> nib.Nifti1Image:
        answer = self.infer(bundle, image)
        assert answer.status_code == 200, self.log.read_text()[-6000:]
        file = self.folder / "answer.nii.gz"
        file.write_bytes(answer.content)
        return read(file)

    def segment_by_command(self, bundle: str, image: str) -> nib.Nifti1Image:
        """What the bundle itself makes of the same file with the same weights."""
        data, output = self.folder / "data", self.folder / "output"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        shutil.copy(self.studies / f"{image}.nii.gz", data)
        config = self.app / "model" / bundle / "configs" / "inference.json"
        command = [PYTHON, "-m", "monai.bundle", "run", "--config_file", config]
        finish([*command, "--dataset_dir", data, "--output_dir", output], self.variables)
        return read(output / f"{image}_seg.nii.gz")

    def train(self, bundle: str, labels: Path, settings: dict, watch: Callable[[], None] = lambda: None) -> dict:
        """Submit ``labels``, train two epochs, take the labels back; what the server says of the training."""
        label_url, train_url = f"{self.url}/datastore/label", f"{self.url}/train/"
        task: dict = {}

        def is_done() -> bool:
            watch()
            task.update(self.http.get(train_url, timeout=60).json())
            return task["status"] not in ("SUBMITTED", "RUNNING")

        try:
            for image in IMAGES[bundle]:
                with (labels / f"{image}.nii.gz").open("rb") as file:
                    sent = self.http.put(label_url, params={"image": image}, files={"label": file}, timeout=60)
                assert sent.status_code == 200, sent.text
            started = self.http.post(train_url + bundle, json={**settings, "max_epochs": 2}, timeout=60)
            assert started.status_code == 200, started.text
            self.wait("end of training", is_done, seconds=300)
        finally:  # the next one must not find it running, nor these labels
            self.http.delete(train_url, timeout=60)
            for image in IMAGES[bundle]:
                self.http.delete(label_url, params={"id": image, "tag": "final"}, timeout=60)
        return {"status": task["status"], "output": "\n".join(task["details"])}

    def slicer_settings(self, bundle: str) -> dict:
        """All settings of a training, as 3D Slicer's plugin sends them: the first of each list, else the default."""
        shown = self.info()["trainers"][bundle]["config"]
        return {name: value[0] if isinstance(value, list) else value for name, value in shown.items()}


def finish(command: list, variables: dict, timeout: int = 300) -> str:
    parts = [str(part) for part in command]
    done = subprocess.run(parts, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{shlex.join(parts)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def read(file: Path) -> nib.Nifti1Image:
    """The image in memory, so that its file may go."""
    image = nib.load(file)
    return nib.Nifti1Image(np.asarray(image.dataobj), image.affine)


def write_head(studies: Path, labels: Path) -> None:
    """The middle of a phantom head's T1 image, and a label map of its brain."""
    case = brain_tumor_case(0)
    part = (slice(22, 70), slice(30, 78), slice(22, 70))
    affine = case.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [axis.start for axis in part]
    image = case.image[(brain_tumor.ABOUT.modality.index("T1"), *part)]
    save_nifti(studies / "head.nii.gz", image.astype(np.int16), affine)
    save_nifti(labels / "head.nii.gz", (image > 0).astype(np.uint8), affine)


def write_case(case: Case, studies: Path, labels: dict[Path, dict[int, int]]) -> None:
    """Thin ``case`` out, flip an axis, swap two, turn the whole; labels go to several folders, their values mapped."""
    grid = np.diag([-3.0, 3.0, 2.0, 1.0])
    thin = case.label[::-3, ::3, ::2]
    grid[0, 3] = case.label.shape[0] - 1
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [12, -9, 7], degrees=True).as_matrix()
    affine = turn @ case.affine @ grid @ np.eye(4)[:, [2, 1, 0, 3]]
    assert np.count_nonzero(np.abs(affine[:3, :3]) > 0.1) > 3  # oblique
    image = np.moveaxis(case.image[:, ::-3, ::3, ::2], 0, -1).swapaxes(0, 2).astype(np.int16)
    save_nifti(studies / f"{case.name}.nii.gz", image.squeeze(), affine)
    for folder, mapping in labels.items():
        values = np.vectorize(mapping.get, otypes=[np.uint8])(thin).swapaxes(0, 2)
        save_nifti(folder / f"{case.name}.nii.gz", values, affine)


def label_names(bundle: str) -> dict[int, str]:
    """Label value → name of what the bundle writes, by its metadata."""
    metadata = json.loads((ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())
    formats = metadata["network_data_format"]["post_processed_outputs"]["pred"]["channel_def"]
    return {int(value): name for value, name in formats.items()}


def shrink(server: Server, bundle: str) -> ConfigParser:
    for name in ("train", "inference"):
        file = server.app / "model" / bundle / "configs" / f"{name}.json"
        config = {**json.loads(file.read_text()), **SMALL[bundle]}
        file.write_text(json.dumps(config))
    return ConfigParser(config)


def make_weights(server: Server, bundle: str, config: ConfigParser) -> None:
    """Random ones, whose head gives each class its share of a case's voxels."""
    torch.manual_seed(1)  # not the seed that a training would draw them from
    network = config.get_parsed_content("network_def").eval()
    case = config.get_parsed_content("preprocessing")({"image": str(server.studies / f"{IMAGES[bundle][0]}.nii.gz")})
    image = torch.as_tensor(case["image"])
    size = config["roi_size"]
    patch = nn.functional.interpolate(image[None], size if len(size) == 3 else [*size, 4])
    patch = patch if len(size) == 3 else patch[0].permute(3, 0, 1, 2)
    outputs: list = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            module.register_forward_hook(lambda module, _, output: outputs.append((module, output)))
    with torch.no_grad():
        logits = network(patch)
        head = next(module for module, output in outputs if output is logits or torch.equal(output, logits))
        axes = (0, *range(2, logits.ndim))
        gain = 5 / logits.std(axes)
        head.bias.copy_((head.bias - logits.mean(axes)) * gain)
        head.weight.mul_(gain.reshape(-1, *[1] * (head.weight.ndim - 1)))
    torch.save(network.state_dict(), server.model(bundle))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``studies`` with three images of each kind; ``labels/NAME`` with their labels in the values of bundle NAME."""
    root = tmp_path_factory.mktemp("data")
    for make, module in ((abdomen_case, abdomen), (brain_tumor_case, brain_tumor)):
        names = dict(enumerate(module.ABOUT.labels))
        bundles = [b for b in BUNDLES if (b == "glims") == (make is brain_tumor_case)]
        mappings = {root / "labels" / b: label_mapping(names, label_names(b), others=0) for b in bundles}
        for index in range(3):
            write_case(make(index), root / "studies", mappings)
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), data, BUNDLES)
    for bundle in BUNDLES:
        make_weights(server, bundle, shrink(server, bundle))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> str:
    return request.param


def test_offers_each_bundle_with_its_labels(server: Server, bundle: str) -> None:
    info = server.info()
    model = info["models"][bundle]
    assert model["type"] == "segmentation"
    assert model["labels"] == {name.lower(): value for value, name in label_names(bundle).items() if value}
    assert model["config"]["model_filename"][0] == "model.pt"
    assert bundle in info["trainers"]


def test_segments_as_the_bundle_s_own_command_does(server: Server, bundle: str) -> None:
    image = IMAGES[bundle][0]
    source, result = read(server.studies / f"{image}.nii.gz"), server.segment(bundle, image)
    assert result.shape == source.shape[:3]
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-4)
    assert len(np.unique(result.dataobj)) > 1
    np.testing.assert_array_equal(result.dataobj, server.segment_by_command(bundle, image).dataobj)


def test_goes_on_from_its_weights_with_submitted_labels(server: Server, data: Path, bundle: str) -> None:
    image, model = IMAGES[bundle][0], server.model(bundle)
    old, before = torch.load(model, weights_only=True), server.segment(bundle, image)
    there: set[bool] = set()
    settings = server.slicer_settings(bundle)
    task = server.train(bundle, data / "labels" / bundle, settings, lambda: there.add(model.is_file()))
    assert task["status"] == "DONE", task["output"]
    assert there == {True}  # or else the server would have answered with random weights meanwhile
    assert not server.phantoms.exists()  # nothing but the submitted labels was read
    new = torch.load(model, weights_only=True)
    old, new = (torch.cat([w.flatten() for key, w in ws.items() if key.endswith("weight")]) for ws in (old, new))
    assert 0 < (new - old).norm() < 0.3 * old.norm()  # a step from the old ones, not from others
    after = server.segment(bundle, image)
    assert (np.asarray(after.dataobj) != np.asarray(before.dataobj)).any()
    np.testing.assert_array_equal(after.dataobj, server.segment_by_command(bundle, image).dataobj)


@pytest.mark.parametrize("kind", ["other key", "other network"])
def test_refuses_weights_that_do_not_fit(server: Server, bundle: str, kind: str) -> None:
    image, model = IMAGES[bundle][0], server.model(bundle)
    good = model.read_bytes()
    if kind == "other key":
        torch.save({"state_dict": torch.load(model, weights_only=True)}, model)
    else:
        shutil.copyfile(server.model(BUNDLES[BUNDLES.index(bundle) - 1]), model)
    written = server.log.stat().st_size
    try:
        answer = server.infer(bundle, image)
    finally:
        model.write_bytes(good)
    assert answer.status_code == 500 and answer.headers["content-type"].startswith("text/plain"), answer.headers
    reason = b"InputError: the checkpoint lacks "  # logged after the answer is sent
    server.wait("reason in the log", lambda: reason in server.log.read_bytes()[written:], seconds=20)
    assert len(np.unique(server.segment(bundle, image).dataobj)) > 1


def test_training_refuses_weights_that_do_not_fit(server: Server, data: Path) -> None:
    model = server.model("hylt")
    good = model.read_bytes()
    shutil.copyfile(server.model("dca_unet"), model)
    bad = model.read_bytes()
    try:
        task = server.train("hylt", data / "labels" / "hylt", server.slicer_settings("hylt"))
        assert task["status"] == "ERROR" and "error: the checkpoint lacks " in task["output"]
        assert model.read_bytes() == bad
    finally:
        model.write_bytes(good)


def test_training_refuses_labels_of_another_bundle(server: Server, data: Path) -> None:
    good = server.model("hylt").read_bytes()
    task = server.train("hylt", data / "labels" / "mobileutr", server.slicer_settings("hylt"))
    assert task["status"] == "ERROR" and "that are not declared; known are 0 (background), 1 (spleen)" in task["output"]
    assert server.model("hylt").read_bytes() == good


def test_first_training_and_a_new_start(tmp_path: Path, data: Path) -> None:
    """Without weights a bundle can only be trained; then, once the server starts anew, it segments."""
    server = Server(tmp_path, data, ["dca_unet"])
    server.model("dca_unet").unlink(missing_ok=True)  # of a training in the repository's own folder
    shrink(server, "dca_unet")
    image = IMAGES["dca_unet"][0]
    try:
        server.start()
        assert "dca_unet has no weights" in server.log.read_text()
        assert server.info()["models"] == {}
        assert server.infer("dca_unet", image).status_code == 500
        task = server.train("dca_unet", data / "labels" / "dca_unet", {})
        assert task["status"] == "DONE", task["output"]
        server.stop()
        server.start()
        assert server.info()["models"]["dca_unet"]["config"]["model_filename"][0] == "model.pt"
        result = server.segment("dca_unet", image)
    finally:
        server.stop()
    np.testing.assert_array_equal(result.dataobj, server.segment_by_command("dca_unet", image).dataobj)


def test_the_brain_bundle_answers_as_it_comes(tmp_path: Path) -> None:
    """Its own weights are in the app, so it segments right after the first start; it trains on no scans."""
    write_head(tmp_path / "studies", tmp_path / "labels")
    server = Server(tmp_path / "server", tmp_path, [BRAIN])
    comes_with = ROOT / "bundles" / BRAIN / "models" / "model.pt"
    assert server.model(BRAIN).read_bytes() == comes_with.read_bytes()
    source = read(server.studies / "head.nii.gz")
    try:
        server.start()
        info = server.info()["models"][BRAIN]
        result = server.segment(BRAIN, "head")
        task = server.train(BRAIN, tmp_path / "labels", {})
    finally:
        server.stop()
    assert info["labels"] == {"csf": 1, "grey matter": 2, "white matter": 3}
    assert result.shape == source.shape and set(np.unique(result.dataobj)) == {0, 1, 2, 3}
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-4)
    assert task["status"] == "ERROR" and "not an anatomy" in task["output"]
    assert server.model(BRAIN).read_bytes() == comes_with.read_bytes()
    np.testing.assert_array_equal(result.dataobj, server.segment_by_command(BRAIN, "head").dataobj)
