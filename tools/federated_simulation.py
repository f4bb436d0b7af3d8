"""Simulate sites that train a bundle together without sharing data, each with MONAI's federated client, MonaiAlgo.

    python tools/federated_simulation.py --output_dir /tmp/federated

Splits a data set's training cases among SITES and lets each site train LOCAL_EPOCHS per round on the average of all
sites' weights; for comparison each site trains alone for as many epochs. Then measures all on the data set's validation
fold, which no site has seen, and writes ``results.json`` and ``results.md``.

--bundle, --overlay: which bundle, and an overlay as "images" ("" for none).
--sites, --rounds, --local_epochs: how many of each.
--seed: of the split. Other options set keys of the bundle's configs.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import fire
import torch
from monai.bundle import ConfigParser
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from hybrid_nets.atomic import replacing

ROOT = Path(__file__).resolve().parents[1]
METRIC = "val_mean_dice"


def federated_simulation(
    output_dir: str,
    bundle: str = "mobileutr",
    overlay: str = "images",
    sites: int = 3,
    rounds: int = 8,
    local_epochs: int = 5,
    **options: object,
) -> dict[str, float]:
    """Mean Dice on unseen cases of the average model and of each site's own, by name."""
    root = Path(output_dir).expanduser().resolve()
    configs = ["train.json", *([f"{overlay}.json"] if overlay else [])]
    parser = ConfigParser()
    parser.read_config([str(ROOT / "bundles" / bundle / "configs" / name) for name in configs])
    parser.update(options)
    cases = parser.get_parsed_content("cases")
    training, unseen = cases.training, cases.validation
    together = [Site(f"site {i + 1}", root, bundle, configs, training[i::sites], unseen, options) for i in range(sites)]
    weights = together[0].weights()
    for number in range(rounds):
        local = [site.train(weights, local_epochs) for site in together]
        weights = average(local, [len(site.cases) for site in together])
        print(f"round {number + 1}: {METRIC} on unseen cases {together[0].evaluate(weights):.4f}", flush=True)
    results = {"all sites together": together[0].evaluate(weights)}
    for site in together:
        alone = Site(f"{site.name} alone", root, bundle, configs, site.cases, unseen, options)
        results[alone.name] = alone.evaluate(alone.train(alone.weights(), rounds * local_epochs))
        print(f"{alone.name}: {results[alone.name]:.4f}", flush=True)
    write(root, results, [len(site.cases) for site in together], len(unseen))
    return results


class Site:
    """A client with its own copy of the bundle and its own cases."""

    def __init__(
        self, name: str, root: Path, bundle: str, configs: list[str], cases: list, unseen: list, options: dict
    ) -> None:
        self.name, self.cases = name, cases
        folder = root / name.replace(" ", "_") / bundle
        shutil.copytree(ROOT / "bundles" / bundle / "configs", folder / "configs", dirs_exist_ok=True)
        names = [f"configs/{name}" for name in configs]
        common = {"bundle_root": str(folder), "num_workers": 0, **options}
        self.algo = MonaiAlgo(
            bundle_root=str(folder),
            send_weight_diff=False,
            config_train_filename=names,
            # The client does not validate while it trains: a site's weights are those of its last step.
            train_kwargs={**common, "train#dataset#data": cases, "validate#dataset#data": [], "val_interval": 10**9},
            config_evaluate_filename=[names[0], "configs/evaluate.json", *names[1:]],
            eval_kwargs={**common, "validate#dataset#data": unseen},
        )
        self.algo.initialize({ExtraItems.CLIENT_NAME: name})

    def weights(self) -> dict[str, torch.Tensor]:
        return {key: tensor.clone() for key, tensor in self.algo.trainer.network.state_dict().items()}

    def train(self, weights: dict[str, torch.Tensor], epochs: int) -> dict[str, torch.Tensor]:
        """This site's weights after ``epochs`` from ``weights``."""
        self.algo.local_epochs = epochs
        self.algo.train(ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS), {})
        return self.algo.get_weights({}).weights

    def evaluate(self, weights: dict[str, torch.Tensor]) -> float:
        return self.algo.evaluate(ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS), {}).metrics[METRIC]


def average(weights: list[dict[str, torch.Tensor]], counts: list[int]) -> dict[str, torch.Tensor]:
    """The mean of ``weights``, each counting as its site has cases (federated averaging, arXiv 1602.05629)."""
    return {
        key: sum(own[key].double() * count for own, count in zip(weights, counts)).div(sum(counts)).to(tensor.dtype)
        for key, tensor in weights[0].items()
    }


def write(root: Path, results: dict[str, float], counts: list[int], unseen: int) -> None:
    lines = ["| weights | mean Dice |", "|---|---|", *(f"| {name} | {value:.4f} |" for name, value in results.items())]
    content = {"mean_dice": results, "cases_of_each_site": counts, "unseen_cases": unseen}
    for name, text in (("results.md", "\n".join(lines)), ("results.json", json.dumps(content, indent=2))):
        with replacing(root / name) as temporary:
            temporary.write_text(text + "\n")


if __name__ == "__main__":
    logging.getLogger("hybrid_nets").setLevel(logging.WARNING)
    fire.Fire(lambda *args, **kwargs: federated_simulation(*args, **kwargs) and None)
