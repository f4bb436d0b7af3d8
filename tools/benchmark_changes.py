"""What each change of docs/performance.md wins: networks in turns with it and without it, in one process.

    OMP_NUM_THREADS=2 python tools/benchmark_changes.py --rounds 9

Prints a Markdown table of the forward pass. Each change is one function, which is replaced by what it stands for.
Whether freed memory is kept can't be switched so: what one pass gives back the next one would miss.
"""

from __future__ import annotations

import statistics
from unittest.mock import patch

import fire
from benchmark_measure import Job, seconds

# Change: what to replace, by what, and the networks it concerns.
CHANGES = {
    "channels innermost (layout.fast_layout)": (
        [
            f"hybrid_nets.{place}.fast_layout"
            for place in ("nets.mobileutr", "nets.hylt", "unets.u_shaped", "blocks.dca")
        ],
        lambda x, in_training=False: x,
        ["MobileUtr base", "HyLT", "U-Net", "U-Net with DCA"],
    ),
    "products by convolution (products.py)": (
        ["hybrid_nets.blocks.products.runs", "hybrid_nets.blocks.dca_cpu.runs"],
        lambda tokens: False,
        ["MobileUtr base", "U-Net with DCA"],
    ),
    "DCA's levels at once, its ending in place (dca_cpu.py)": (
        ["hybrid_nets.blocks.cross_attention.reads", "hybrid_nets.blocks.dca.covers_expand"],
        lambda *_: False,
        ["U-Net with DCA"],
    ),
    "ConvUtr slab by slab (convutr_cpu.conv_utr)": (
        ["hybrid_nets.nets.mobileutr.conv_utr"],
        lambda x, spatial, pointwise: (y := x + spatial(x)) + pointwise(y),
        ["MobileUtr base", "MobileUtr 3-D base"],
    ),
    "oneDNN for small 3-D maps (fast_conv.convolve)": (
        ["hybrid_nets.blocks.fast_conv.convolve"],
        lambda conv, x: conv(x),
        ["MobileUtr 3-D base"],
    ),
}


def compare(rounds: int = 9, only: str = "", network: str = "") -> None:
    """Print the table; ``only`` is part of the changes' names, ``network`` one of the networks."""
    print("| change | network | without it, ms | with it, ms | median of the rounds' ratios |\n|---|---|---|---|---|")
    for change, (places, other, names) in CHANGES.items():
        if only not in change:
            continue
        for name in names:
            if network not in ("", name):
                continue
            before, after = turns(Job(name), places, other, rounds)
            ratio = statistics.median(new / old for new, old in zip(after, before))
            cells = [f"{1000 * statistics.median(times):.0f}" for times in (before, after)]
            print(f"| {change} | {name} | {' | '.join(cells)} | {ratio:.2f} |", flush=True)


def turns(job: Job, places: list[str], other: object, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of a forward pass with ``places`` replaced, and as it is, in each round but the first."""
    before, after = [], []
    for _ in range(rounds + 1):
        patches = [patch(place, other) for place in places]
        for each in patches:
            each.start()
        before.append(seconds(job.forward, job.device))
        for each in patches:
            each.stop()
        after.append(seconds(job.forward, job.device))
    return before[1:], after[1:]


if __name__ == "__main__":
    fire.Fire(compare)
