"""Write the table of all networks into the README: parameters and multiply-accumulates, and the papers' figures.

    python tools/model_table.py            # write
    python tools/model_table.py --check    # only say whether it is up to date

Counted on tensors without data, so it takes seconds. Multiply-accumulates are those of convolutions, linear layers and
attention in one forward pass of one input in evaluation, attention's products included.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import fire
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hybrid_nets import GLIMS, DCAUNet, HyLT, MobileUtr

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- model table: python tools/model_table.py -->\n", "<!-- end of model table -->"


class Row(NamedTuple):
    """A network, its input ``(channels, *)``, and what its authors report (None: nothing at hand)."""

    name: str
    build: Callable[[], nn.Module]
    size: tuple[int, ...]
    parameters: float | None = None
    gflops: float | None = None
    score: str = ""


def unet_rows() -> list[Row]:
    """The six U-Nets without and with DCA: parameters in millions, Dice on Synapse (arXiv 2303.17696)."""
    reported = {
        "unet": ("U-Net", 8.64, 0.7855, 8.75, 0.7898),
        "resunetpp": ("ResUNet++", 13.09, 0.7591, 13.12, 0.7735),
        "multiresunet": ("MultiResUNet", 7.24, 0.7812, 7.35, 0.7950),
        "r2unet": ("R2U-Net", 9.78, 0.7586, 9.89, 0.7590),
        "vnet": ("V-Net", 35.97, 0.7927, 36.08, 0.7958),
        "doubleunet": ("DoubleU-Net", 29.68, 0.7976, 30.68, 0.8022),
    }
    rows = []
    for backbone, (name, plain, plain_dice, dca, dca_dice) in reported.items():
        for suffix, flag, count, dice in (("", False, plain, plain_dice), (" with DCA", True, dca, dca_dice)):
            build = lambda backbone=backbone, flag=flag: DCAUNet(backbone, dca=flag)  # noqa: E731
            rows.append(Row(name + suffix, build, (3, 224, 224), count, None, f"Synapse Dice {dice:.4f}"))
    return rows


ROWS = [
    Row("GLIMS", lambda: GLIMS(4, 3), (4, 96, 96, 96), 47.16, 72.30, "BraTS 2023 Dice WT 92.19, TC 87.75, ET 83.18"),
    Row("HyLT", lambda: HyLT(), (3, 224, 224)),
    Row("HyLT 3-D", lambda: HyLT(3, 1, 2), (1, 96, 96, 96)),
    Row("MobileUtr base", lambda: MobileUtr(), (3, 256, 256), 1.39, 2.51, "BUSI IoU 72.88, F1 81.18"),
    Row("MobileUtr large", lambda: MobileUtr(size="large"), (3, 256, 256)),
    Row("MobileUtr 3-D base", lambda: MobileUtr(3, 1, 14), (1, 96, 96, 96)),
    Row("MobileUtr 3-D large", lambda: MobileUtr(3, 1, 14, size="large"), (1, 96, 96, 96)),
    *unet_rows(),
]


def measure(row: Row) -> tuple[int, float]:
    """Number of parameters, and multiply-accumulates of one input."""
    with torch.device("meta"):
        network, x = row.build().eval().requires_grad_(False), torch.empty(1, *row.size)
    # The plain form of attention is made of products that the counter knows.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(x)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() / 2


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| network | input | parameters | GMACs | paper: parameters | paper: GFLOPs | paper: score |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        parameters, macs = measure(row)
        quoted = [
            "" if value is None else f"{value:.2f}{unit}" for value, unit in ((row.parameters, " M"), (row.gflops, ""))
        ]
        size = f"{row.size[0]} × {row.size[1]}{'²' if len(row.size) == 3 else '³'}"
        lines.append(
            f"| {row.name} | {size} | {parameters:,} | {macs / 1e9:.2f} | {' | '.join([*quoted, row.score])} |"
        )
    return "\n".join(lines) + "\n"


def main(check: bool = False) -> None:
    """Bring the README's table up to date, or with --check only say whether it is."""
    before, rest = README.read_text().split(START)
    after = rest[rest.index(END) :]
    text = before + START + table() + after
    if text == README.read_text():
        print("The table is up to date.")
    elif check:
        sys.exit("error: the README's table of networks is stale; run python tools/model_table.py.")
    else:
        README.write_text(text)
        print(f"Wrote the table into {README.name}.")


if __name__ == "__main__":
    fire.Fire(main)
