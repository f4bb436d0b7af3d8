"""NVFlare trains a bundle at two simulated sites, by the script and the command in docs/federated_nvflare.md.

NVFlare's MONAI integration wants Python 3.11 or older, and packages of its own. The environment is made once, in a
minute or two, in ``$HYBRID_NETS_NVFLARE_ENV`` or else in ``.cache/nvflare``. The job is what the script writes, with
two additions: weights to start from, and a recorder of what the server sends, gets and saves.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from monai.bundle import ConfigParser
from readme_commands import readme_commands
from torch import nn

from hybrid_nets.phantoms import make_ultrasound

pytestmark = pytest.mark.nvflare

DOCS = ROOT / "docs" / "federated_nvflare.md"
CONFIGS = ROOT / "bundles" / "mobileutr" / "configs"
ENVIRONMENT = Path(os.environ.get("HYBRID_NETS_NVFLARE_ENV", ROOT / ".cache" / "nvflare")).resolve()
PACKAGES = ("monai==1.6.1", "nvflare==2.7.3", "monai-nvflare==0.4.0")
SMALL = {"roi_size": [32, 32], "batch_size": 1, "device": "cpu", "learning_rate": 0.0003}
PICTURES = {"site-1": 5, "site-2": 8}
STEPS = {"site-1": 4, "site-2": 6}  # of an epoch: the pictures that are not in the validation fold
ROUNDS = 2
RECORDER = """
from pathlib import Path

import torch
from nvflare.apis.dxo import MetaKey, from_shareable
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType


class Recorder(FLComponent):
    def handle_event(self, event_type, fl_ctx):
        app, number = Path(fl_ctx.get_prop(FLContextKey.APP_ROOT)), fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        if event_type == AppEventType.ROUND_STARTED:
            weights = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)["weights"]
            torch.save(tensors(weights), app / f"sent_{number}.pt")
        elif event_type == AppEventType.BEFORE_CONTRIBUTION_ACCEPT:
            result = fl_ctx.get_prop(AppConstants.TRAINING_RESULT)
            site, dxo = result.get_peer_prop(ReservedKey.IDENTITY_NAME, None), from_shareable(result)
            meta = [dxo.get_meta_prop(key) for key in (MetaKey.NUM_STEPS_CURRENT_ROUND, MetaKey.INITIAL_METRICS)]
            torch.save([tensors(dxo.data), *map(float, meta)], app / f"{site}_{number}.pt")
        elif event_type == AppEventType.AFTER_LEARNABLE_PERSIST:
            (app / f"saved_{number}.pt").write_bytes((app / "FL_global_model.pt").read_bytes())


def tensors(weights):
    return {name: torch.as_tensor(value) for name, value in weights.items()}
"""


@pytest.fixture(scope="module")
def binaries() -> Path:
    """The folder of the environment's programs."""
    complete, made_of = ENVIRONMENT / "hybrid_nets_complete.txt", "\n".join([sys.version, str(ROOT), *PACKAGES])
    binaries = ENVIRONMENT / "bin"
    if not (complete.is_file() and complete.read_text() == made_of):
        if sys.version_info >= (3, 12):
            pytest.skip("monai-nvflare needs Python 3.11 or older, which would have to run this test")
        complete.unlink(missing_ok=True)
        venv.create(ENVIRONMENT, with_pip=True)
        install = [str(binaries / "python"), "-m", "pip", "install", "--quiet"]
        version = torch.__version__.partition("+")[0]
        subprocess.run([*install, f"torch=={version}"], check=True)  # first: the build that suits this machine
        subprocess.run([*install, "--editable", str(ROOT), *PACKAGES], check=True)
        complete.write_text(made_of)
    return binaries


class Run:
    """The folders of a federated training that has ended."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder, self.data, self.start = folder, folder / "data", folder / "start.pt"
        self.server = folder / "work" / "server" / "simulate_job"
        for seed, (site, number) in enumerate(PICTURES.items()):
            make_ultrasound(self.data / site, num_training=number, num_test=1, seed=seed)
        torch.save(start_weights(self.data / "site-2"), self.start)
        self.script = folder / "federated_job.py"
        self.script.write_text(self.small_script())
        make, simulate = [shlex.split(line) for line in readme_commands(str(DOCS), "nvflare").splitlines()]
        self.call(binaries, make)
        self.add_to_job(folder / "jobs" / "mobileutr" / "app")
        self.call(binaries, simulate)

    def small_script(self) -> str:
        text = readme_commands(str(DOCS), "nvflare_job")
        options = "".join(f', "{name}": {json.dumps(value)}' for name, value in SMALL.items())
        for old, new in {
            'Path("bundles/mobileutr")': f'Path("{CONFIGS.parent}")',
            "/data/{SITE_NAME}": f"{self.data}/{{SITE_NAME}}",
            "= 2, 20, 5": f"= {len(STEPS)}, {ROUNDS}, 1",
            '"num_workers": 0': f'"num_workers": 0{options}',
        }.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return text

    def add_to_job(self, app: Path) -> None:
        config = json.loads((app / "config" / "config_fed_server.json").read_text())
        persistor = next(part for part in config["components"] if part["id"] == "persistor")
        persistor["args"]["source_ckpt_filename"] = "models/start.pt"
        config["components"].append({"id": "recorder", "path": "recorder.Recorder", "args": {}})
        (app / "config" / "config_fed_server.json").write_text(json.dumps(config))
        (app / "config" / "bundle" / "models").mkdir()
        (app / "config" / "bundle" / "models" / "start.pt").write_bytes(self.start.read_bytes())
        (app / "custom").mkdir(exist_ok=True)
        (app / "custom" / "recorder.py").write_text(RECORDER)

    def call(self, binaries: Path, command: list[str]) -> None:
        """Run a documented command; what it starts ends with it, at the latest after five minutes."""
        nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
        here = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables |= {**nowhere, **here, "OMP_NUM_THREADS": "1", "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
        # Phantoms that nobody asked for would be made here, and found.
        variables["HYBRID_NETS_CACHE"] = str(self.folder / "phantoms")
        log = self.folder / "log.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(binaries / command[0]), *command[1:]],
                cwd=self.folder,
                env=variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                status = process.wait(300)
            finally:
                if process.poll() is None:  # the clients watch this process and end when it is gone
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        assert status == 0, log.read_text(errors="replace")[-6000:]

    def read(self, name: str) -> dict | list:
        return torch.load(self.server / "app_server" / f"{name}.pt", weights_only=True)

    def scores(self, site: str) -> dict[str, float]:
        """Model → its mean Dice on the site's validation fold, as the server collected them after training."""
        collected = json.loads((self.server / "cross_site_val" / "cross_val_results.json").read_text())
        return {model: metrics["val_mean_dice"] for model, metrics in collected[site].items()}


def read_config(dataset_dir: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("train.json", "images.json")])
    parser.update({**SMALL, "dataset_dir": str(dataset_dir)})
    return parser


def start_weights(dataset_dir: Path) -> dict[str, torch.Tensor]:
    """Random ones that call about half of a picture foreground: Dice then tells weights apart, which 0 would not."""
    torch.manual_seed(0)
    parser = read_config(dataset_dir)
    parser.update({"validate#dataset#data": "$@cases.training"})  # without random flips
    network = parser.get_parsed_content("network_def").train()
    pictures = torch.stack([torch.as_tensor(case["image"]) for case in parser.get_parsed_content("validate#dataset")])
    head = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    with torch.no_grad():
        for _ in range(30):  # or else training would change the batch norms' statistics most of all
            network(pictures)
        logits = network.eval()(pictures)
        head.weight.mul_(5 / logits.std())
        head.bias.sub_(logits.mean()).mul_(5 / logits.std())
    return network.state_dict()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, binaries: Path) -> Run:
    return Run(tmp_path_factory.mktemp("nvflare"), binaries)


def test_server_averages_what_the_sites_send(run: Run) -> None:
    sent = torch.load(run.start, weights_only=True)
    for number in range(ROUNDS):
        before = run.read(f"sent_{number}")
        assert before.keys() == sent.keys()
        assert all(torch.equal(before[name], weight) for name, weight in sent.items())
        own = {site: run.read(f"{site}_{number}") for site in STEPS}
        assert {site: steps for site, (_, steps, _) in own.items()} == STEPS
        sent = run.read(f"saved_{number}")["model"]
        for name, weight in sent.items():
            parts = [own[site][0][name].double() * STEPS[site] for site in STEPS]
            torch.testing.assert_close(weight.double(), sum(parts) / sum(STEPS.values()), rtol=1e-5, atol=1e-6)
        for other in (before, *(weights for weights, *_ in own.values())):
            assert distance(sent, other) > 1e-4  # it has learnt, and from both


def distance(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """How far the learnt ones are apart, relative to their length."""
    names = [name for name in weights if name.endswith("weight")]
    one, other = (torch.cat([tensors[name].flatten().double() for name in names]) for tensors in (weights, others))
    return float((one - other).norm() / one.norm())


def test_sites_evaluate_what_they_are_sent(run: Run) -> None:
    for site in STEPS:
        scores = [run.read(f"{site}_{number}")[2] for number in range(ROUNDS)]  # before each round's training
        later = run.scores(site)
        assert later.keys() == {"SRV_start.pt", "SRV_FL_global_model.pt", *STEPS}
        assert later["SRV_start.pt"] == scores[0]
        scores.append(later["SRV_FL_global_model.pt"])
        assert all(0 < score < 1 for score in scores) and len(set(scores)) == len(scores), scores


@pytest.mark.parametrize("site", list(STEPS))
def test_bundle_uses_the_average(run: Run, run_bundle, site: str) -> None:
    model = run.server / "app_server" / "FL_global_model.pt"
    network = read_config(run.data / site).get_parsed_content("network_def")
    network.load_state_dict(torch.load(model, weights_only=True)["model"])
    output = run.folder / f"evaluation_{site}"
    files = [str(CONFIGS / name) for name in ("train.json", "evaluate.json", "images.json")]
    options = {"dataset_dir": run.data / site, "checkpoints": [str(model)], "output_dir": output, **SMALL}
    run_bundle("run", config_file=files, **options)
    expected = json.loads((output / "summary.json").read_text())["foreground"]["dice"]["mean"]
    assert run.scores(site)["SRV_FL_global_model.pt"] == pytest.approx(expected, abs=6e-5)  # written to 4 digits


def test_writes_where_it_should(run: Run) -> None:
    assert not (run.folder / "phantoms").exists()
    for site in STEPS:
        bundle = run.folder / "work" / site / "simulate_job" / f"app_{site}" / "config" / "bundle"
        assert {file.name for file in (bundle / "models").iterdir()} == {"start.pt", "model.pt", "resume.pt"}
