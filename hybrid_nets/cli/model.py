"""A bundle's own inference, one case at a time: its preprocessing, network, inferer and postprocessing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, Invertd, SaveImaged

from hybrid_nets.bundle import flag
from hybrid_nets.cli.cases import Case
from hybrid_nets.cli.mirrored import Mirrored
from hybrid_nets.errors import InputError
from hybrid_nets.folders import PICTURES

__all__ = ["BundleModel"]

# What may differ between two runs that give the same results.
PLACES = ("bundle_root", "dataset_dir", "datalist", "output_dir", "ckpt_dir", "checkpoints", "device", "num_workers")


class BundleModel:
    """What ``python -m monai.bundle run --config_file inference.json`` does to a case, voxel for voxel.

    Loading may run in another thread than saving: what the bundle's transforms share between the way there and the way
    back is used by one of the two at a time.

    Args:
        bundle: its folder.
        configs: inference.json, and overlays.
        options: values of their keys, as ``monai.bundle run`` takes them.
        tta: average over mirrored windows.
        fast: in mixed precision also on CPUs that are made for it; on GPUs ``amp`` says.
    """

    def __init__(
        self, bundle: Path, configs: Sequence[Path], options: Mapping[str, Any], tta: bool = False, fast: bool = False
    ) -> None:
        self.bundle, self.tta, self.fast = bundle, tta, fast
        # MONAI 1.6 asks each reader it has, and one of them says that it lacks a package of NVIDIA's.
        logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        self.parser = ConfigParser()
        self.parser.read_config([str(file) for file in configs])
        self.parser.update({"bundle_root": str(bundle), **options})
        self.metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        self.shared = threading.Lock()

    def __getitem__(self, key: str) -> Any:
        """The evaluated value of a key of the configs."""
        return self.parser.get_parsed_content(key)

    @property
    def pictures(self) -> bool:
        return self["output_ext"] in PICTURES

    @property
    def modality(self) -> str:
        """As DICOM writes it. Metadata describe the bundle without overlays, whose channels may say it themselves."""
        if list(self["channels"]) == ["CT"]:
            return "CT"
        return self.metadata["network_data_format"]["inputs"]["image"]["modality"]

    @cached_property
    def checkpoints(self) -> list[Path]:
        found = self["checkpoints"]
        return [Path(path).expanduser() for path in ([found] if isinstance(found, (str, Path)) else found)]

    @cached_property
    def structures(self) -> dict[int, str]:
        """Value in the label map → name, without the background."""
        if self.pictures:
            return {255: self["class_names"][-1]}
        return {int(value): name for value, name in self["labels"].items() if int(value) != 0}

    @cached_property
    def savers(self) -> list[SaveImaged]:
        return [transform for transform in self["postprocessing"].transforms if isinstance(transform, SaveImaged)]

    def outputs(self, case: Case) -> list[str]:
        """Names of the files that a case gets, below the folder of results, the label map last."""
        return [f"{case.name}_{saver.saver.folder_layout.postfix}{saver.saver.output_ext}" for saver in self.savers]

    def settings(self) -> dict:
        """All that decides on the result, for comparison with that of another run."""
        config = {key: value for key, value in self.parser.config.items() if key not in PLACES}
        weights = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.checkpoints]
        return {**json.loads(json.dumps(config, default=str)), "tta": self.tta, "fast": self.fast, "weights": weights}

    def start(self) -> None:
        """Get ready for :meth:`predict`: weights and device.

        Raises:
            InputError: the weights don't fit.
        """
        self["initialize"]
        self.device, self.amp, self.inferer = torch.device(self["device"]), flag(self["amp"]), self["inferer"]
        self.network = self["network"].eval()
        self.run_network = Mirrored(self.network) if self.tta else self.network

    def load(self, case: Case) -> dict:
        """The case, read and prepared.

        Raises:
            InputError: it is not what the network takes.
        """
        load, *rest = self["preprocessing"].transforms
        if case.series:
            from hybrid_nets.dicom.reader import SeriesReader

            item = load(case.entry, reader=SeriesReader(case.series))
        else:
            item = load(case.entry)
        check_contrast(item["image"])
        with self.shared:
            return Compose(rest)(item)

    @torch.no_grad()
    def predict(self, item: dict) -> dict:
        """The case with the inferer's result under ``pred``, as MONAI's evaluator leaves it."""
        batch = list_data_collate([item])
        batch["image"] = batch["image"].to(self.device)
        with self.precision():
            batch["pred"] = self.inferer(batch["image"], self.run_network)
        return decollate_batch(batch)[0]

    def precision(self) -> contextlib.AbstractContextManager:
        if self.amp:
            return torch.autocast("cuda")
        bfloat16 = self.fast and self.device.type == "cpu" and computes_bfloat16()
        return torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext()

    def save(self, item: dict, stem: Path, before_labels: Callable[[MetaTensor], None]) -> MetaTensor:
        """Finish the case and write its files, whose names start with ``stem``; returns the label map ``(1, *)``.

        ``before_labels`` gets the label map before it is written, which is the last to be.
        """
        labels = self.savers[-1]
        for transform in self["postprocessing"].transforms:
            if isinstance(transform, SaveImaged):
                (key,) = transform.keys
                if transform is labels:
                    check_values(item[key], {0, *self.structures})
                    before_labels(item[key])
                transform.saver(item[key], filename=f"{stem}_{transform.saver.folder_layout.postfix}")
            elif isinstance(transform, Invertd):
                with self.shared:
                    item = transform(item)
            else:
                item = transform(item)
        return item[labels.keys[0]]


def computes_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 by itself; others are slower with it than in single precision."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # there is no public way to ask
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def check_contrast(image: MetaTensor) -> None:
    """Refuse images that show nothing: an empty label map of one would look like a finding."""
    plain = image.as_subclass(torch.Tensor)
    if plain.numel() and bool((plain == plain.flatten()[0]).all()):
        raise InputError(
            f"all its voxels have the value {float(plain.flatten()[0]):g}; give an image that shows something."
        )


def check_values(labels: MetaTensor, known: set[int]) -> None:
    unknown = set(torch.unique(labels.as_subclass(torch.Tensor)).tolist()) - known
    if unknown:
        raise InputError(f"the bundle gave label values {sorted(unknown)} that it doesn't declare; report this.")
