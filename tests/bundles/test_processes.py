"""Bundles on several processes, started by torchrun as users do; here they share CPUs and talk by gloo."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import monai.bundle
import pytest
import torch
from conftest import ROOT

from hybrid_nets.phantoms import make_abdomen

NETWORKS = {
    "glims": {"feature_size": 12, "num_folds": 2},  # two cases to train on
    "mobileutr": {"network_def#network#drop_path_rate": 0.0, "spacing": [7.0, 7.0, 7.0]},
    "hylt": {"widths": [4, 8, 8, 12, 16], "network_def#network#dropout": 0.0, "spacing": [7.0, 7.0, 7.0]},
    "dca_unet": {"widths": [4, 8, 12, 16, 16], "grid": 4, "spacing": [7.0, 7.0, 7.0]},
}
# In double precision one process and several agree to the last digits; in single precision the first differences,
# 1e-7 of the gradients, grow with each step.
EXACT = {
    "train#dataloader#shuffle": False,
    "deterministic_transforms": [],
    "random_transforms": [
        {"_target_": "ResizeWithPadOrCropd", "keys": ["image", "label"], "spatial_size": [32, 32, 32]}
    ],
    "augment_transforms": [],
    "intensity_transforms": [{"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float64"}],
    "lr_scheduler": {"_target_": "torch.optim.lr_scheduler.ConstantLR", "optimizer": "@optimizer", "factor": 1.0},
}


@pytest.fixture(scope="module")
def abdomen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_abdomen(tmp_path_factory.mktemp("data") / "abdomen", num_training=5, num_test=3)


class Job:
    """A bundle's configs with small settings, on one process or several."""

    def __init__(self, bundle: str, dataset_dir: Path, root: Path) -> None:
        self.bundle, self.root = bundle, root
        self.options = {
            "dataset_dir": dataset_dir,
            "roi_size": [32, 32, 32],
            "num_workers": 0,
            "device": "cpu",
            "ckpt_dir": root / "models",
            "output_dir": root / "out",
            **NETWORKS[bundle],
        }

    def files(self, *configs: str) -> list[str]:
        names = [*configs[:1], *(["volumes"] if self.bundle == "dca_unet" else []), *configs[1:]]
        return [f"{ROOT}/bundles/{self.bundle}/configs/{name}.json" for name in names]

    def command(self, *configs: str, torchrun: Sequence[str] = (), **options: object) -> list[str]:
        """The command line: of one process, or of several with options for ``torchrun``."""
        settings = {"config_file": self.files(*configs), **self.options, **options}
        if torchrun:
            del settings["device"]  # the overlay says it
        words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        launch = ["torch.distributed.run", *torchrun, "-m"] if torchrun else []
        return [sys.executable, "-m", *launch, "monai.bundle", "run", *words]

    def run(self, *configs: str, processes: int = 1, **options: object) -> str:
        """What several processes printed; one runs in this process, to save the time of importing everything again."""
        if processes == 1:
            paths = {key: str(value) for key, value in self.options.items() if isinstance(value, Path)}
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as the others have
            monai.bundle.run(config_file=self.files(*configs), **{**self.options, **paths, **options})
            torch.set_num_threads(threads)
            return ""
        command = self.command(*configs, torchrun=["--standalone", "--nproc_per_node", str(processes)], **options)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=environment())
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-16000:]}")
        return done.stdout + done.stderr


def environment() -> dict[str, str]:
    # The processes share two cores; CUDA, if there is any, is not what these tests are about.
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def weights(job: Job, name: str = "resume.pt") -> dict[str, torch.Tensor]:
    return torch.load(Path(job.options["ckpt_dir"]) / name, weights_only=True)["model"]


@pytest.mark.parametrize(("bundle", "processes"), [("glims", 2), ("mobileutr", 4), ("hylt", 2), ("dca_unet", 2)])
def test_steps_equal_those_of_one_process(
    bundle: str, processes: int, abdomen: Path, small_phantom: Path, tmp_path: Path
) -> None:
    data = small_phantom if bundle == "glims" else abdomen
    jobs = [Job(bundle, data, tmp_path / name) for name in ("one", "several")]
    options = {"epochs": 2, "val_interval": 2, **EXACT}
    jobs[0].run("train", batch_size=processes, network="$@network_def.double().to(@device)", **options)
    network = "$hybrid_nets.distribute(@network_def.double(), @device)"
    printed = jobs[1].run("train", "multi_gpu_train", processes=processes, batch_size=1, network=network, **options)
    one, several = (weights(job) for job in jobs)
    assert one.keys() == several.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(
            several[key], tensor, rtol=1e-7, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
        )
    # one of them writes: one log line for the validation, one event file each for the trainer,
    # the evaluator and the slices
    assert len(re.findall(r"Epoch\[2\] Metrics", printed)) == 1
    assert len(list((tmp_path / "several" / "out").glob("events*"))) == 3


@pytest.fixture(scope="module")
def trained(abdomen: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that two processes trained until one of them was killed, and then to the end of the next epoch."""
    job = Job("dca_unet", abdomen, tmp_path_factory.mktemp("trained"))
    ckpt_dir = Path(job.options["ckpt_dir"])
    two = ["--standalone", "--nproc_per_node", "2"]
    command = job.command("train", "multi_gpu_train", torchrun=two, batch_size=1, epochs=1000, val_interval=1000)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    ) as process:
        give_up = time.monotonic() + 300
        while not (ckpt_dir / "resume.pt").exists() and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and "Signal 9 (SIGKILL)" in output
    assert {file.name for file in ckpt_dir.iterdir()} == {"model.pt", "resume.pt"}
    done = torch.load(ckpt_dir / "resume.pt", weights_only=True)["epoch"]
    options = {"batch_size": 1, "epochs": done + 1, "val_interval": 1, "resume": True}
    resumed = job.run("train", "multi_gpu_train", processes=2, **options)
    assert f"after epoch {done}." in resumed
    assert torch.load(ckpt_dir / "resume.pt", weights_only=True)["epoch"] == done + 1
    return job


def test_inference_takes_each_case_once(trained: Job, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    trained.run("inference", output_dir=str(alone))
    printed = trained.run("inference", "multi_gpu_inference", processes=2, output_dir=shared)
    names = sorted(file.name for file in alone.iterdir())
    assert len(names) == 3 and sorted(file.name for file in shared.iterdir()) == names
    for name in names:
        assert (shared / name).read_bytes() == (alone / name).read_bytes()
    bar = re.findall(r"Segmenting.*\[(\d)/(\d)\]", printed)
    assert bar and {total for _, total in bar} == {"2"}  # the first process has two of the three


def test_evaluation_has_each_case_once(trained: Job, tmp_path: Path) -> None:
    tables = []
    for name, processes in (("alone", 1), ("two", 2), ("four", 4)):
        configs = ("train", "evaluate", *(["multi_gpu_evaluate"] if processes > 1 else []))
        output = tmp_path / name
        # two cases: for four processes there are too few
        trained.run(*configs, processes=processes, output_dir=str(output), num_folds=2)
        rows = list(csv.DictReader((output / "metrics.csv").read_text().splitlines()))
        tables.append((rows, json.loads((output / "summary.json").read_text())))
    assert len({row["case"] for row in tables[0][0]}) >= 2
    assert tables[1] == tables[0] and tables[2] == tables[0]


def test_outside_torchrun_the_overlay_says_how(abdomen: Path, tmp_path: Path) -> None:
    command = Job("dca_unet", abdomen, tmp_path).command("train", "multi_gpu_train")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 1 and "error: multi_gpu configs run under torchrun" in done.stderr


@pytest.fixture
def two_machines() -> Iterator[list[tuple[str, str]]]:
    """Two network namespaces joined by a cable: (name, address) of each."""
    names, address = [f"hn{os.getpid()}{end}" for end in "ab"], "10.77.0.{}"
    commands = [f"netns add {name}" for name in names]
    commands += [f"link add {names[0]} netns {names[0]} type veth peer name {names[1]} netns {names[1]}"]
    for number, name in enumerate(names, start=1):
        commands += [f"-n {name} addr add {address.format(number)}/24 dev {name}", f"-n {name} link set {name} up"]
        commands += [f"-n {name} link set lo up"]
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        yield [(name, address.format(number)) for number, name in enumerate(names, start=1)]
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_machines(two_machines: list, abdomen: Path, tmp_path: Path) -> None:
    """Each with a process and a folder of its own: the first one's has the checkpoints, and both reach its end."""
    running, endpoint = [], f"{two_machines[0][1]}:29400"
    for name, address in two_machines:
        job = Job("dca_unet", abdomen, tmp_path / name)
        rendezvous = ["--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", endpoint, "--local_addr", address]
        rendezvous += ["--rdzv_conf", f"is_host={int(address == two_machines[0][1])}"]
        command = job.command("train", "multi_gpu_train", torchrun=rendezvous, batch_size=1, epochs=1, val_interval=1)
        own = {**environment(), "GLOO_SOCKET_IFNAME": name}
        running.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command],
                **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": own},
            )
        )
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    written = [sorted(f.name for f in (tmp_path / name / "models").glob("*")) for name, _ in two_machines]
    assert sorted(written) == [[], ["model.pt", "resume.pt"]]
    assert sum("Key metric: val_mean_dice" in output for output in outputs) == 1
