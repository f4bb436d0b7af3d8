"""Rebuild the weights and inputs that the golden files were computed with, and compare outputs.

Each file in ``tests/golden`` holds what the authors' released network computes (``*_paper_*``: with its documented
defects repaired) on weights and an input that follow from two rules, so no weight is stored. ``manifest`` lists the
released keys and shapes (null: an integer buffer that the architecture implies); ``config`` and ``input`` are JSON;
``out{i}_strided`` is output i at every ``out{i}_stride``-th voxel, ``out{i}_mean`` and ``_std`` are per channel.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "golden"


class Golden:
    def __init__(self, name: str) -> None:
        self.arrays = dict(np.load(FOLDER / f"{name}.npz"))
        self.config = json.loads(str(self.arrays["config"]))
        self.manifest = json.loads(str(self.arrays["manifest"]))
        self.n_params = int(self.arrays["n_params"])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The released checkpoint, rebuilt by the rule."""
        return {k: torch.from_numpy(draw_weight(k, tuple(s))) for k, s in self.manifest.items() if s is not None}

    def input(self) -> torch.Tensor:
        spec = json.loads(str(self.arrays["input"]))
        return torch.from_numpy(np.random.RandomState(spec["seed"]).standard_normal(spec["shape"]).astype("float32"))

    def error(self, index: int, output: torch.Tensor) -> float:
        """Largest difference of ``output`` from reference output ``index``, relative to the reference's largest value.

        The per-channel statistics cover the voxels that the file leaves out.
        """
        stride = (slice(None, None, int(self.arrays[f"out{index}_stride"])),) * (output.ndim - 2)
        reference = self.arrays[f"out{index}_strided"]
        assert list(output.shape) == list(self.arrays[f"out{index}_shape"])
        x = output.detach().double().numpy()
        axes = (0, *range(2, x.ndim))
        differences = (
            x[(slice(None), slice(None), *stride)] - reference,
            x.mean(axis=axes) - self.arrays[f"out{index}_mean"],
            x.std(axis=axes, ddof=1) - self.arrays[f"out{index}_std"],
        )
        return max(float(np.abs(d).max()) for d in differences) / float(np.abs(reference).max())


def draw_weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    n = np.asarray(np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape), dtype="float64")
    if key.endswith("running_var"):
        n = 1 + 0.1 * np.abs(n)
    elif shape == (1,):
        n = 0.25 + 0.05 * n if key.endswith("weight") else 0.1 * n
    elif len(shape) == 3 and shape[0] == 1:
        n = 0.1 * n
    elif len(shape) >= 2:
        n = n / np.sqrt(np.prod(shape[1:]))
    elif key.endswith("weight"):
        n = 1 + 0.1 * n
    else:
        n = 0.1 * n
    return n.astype("float32")
