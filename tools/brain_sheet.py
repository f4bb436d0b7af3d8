"""A contact sheet of what the brain bundle trains on: drawn scans, each above its labels.

python tools/brain_sheet.py docs/images/brain_synthesis.png
"""

from __future__ import annotations

import fire
import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from hybrid_nets.atomic import replacing
from hybrid_nets.synthesis import draw_scan, folded_anatomy
from hybrid_nets.synthesis.atlas import atlas_anatomy
from hybrid_nets.synthesis.data_set import decode_padded

COLUMNS = 8


def brain_sheet(out: str, count: int = 24, side: int = 128, seed: int = 0) -> None:
    """Draw COUNT scans of SIDE³ voxels, every second from the average's anatomy, and show a slice of each."""
    torch.set_num_threads(1)
    sources = [decode_padded(*anatomy) for anatomy in (atlas_anatomy(), folded_anatomy(0))]
    rows = -(-count // COLUMNS)
    fig, axes = plt.subplots(2 * rows, COLUMNS, figsize=(1.5 * COLUMNS, 3 * rows), facecolor="black")
    for axis in axes.flat:
        axis.axis("off")
    for index in range(count):
        source, rng = sources[index % 2], np.random.default_rng([seed, index])
        image, label = draw_scan(source.as_tensor(), np.asarray(source.affine), (side,) * 3, rng)
        row, column = divmod(index, COLUMNS)
        for offset, (volume, options) in enumerate(((image, {"cmap": "gray"}), (label, {"vmin": 0, "vmax": 3}))):
            axes[2 * row + offset, column].imshow(volume[:, :, side // 2].T, origin="lower", **options)
    fig.subplots_adjust(0.002, 0.002, 0.998, 0.998, 0.02, 0.02)
    with replacing(out) as temporary:
        fig.savefig(temporary, dpi=70, facecolor="black")


if __name__ == "__main__":
    fire.Fire(brain_sheet)
