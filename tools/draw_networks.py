"""Draw the four networks: boxes are their modules, with what these hold and give out, and arrows what they read.

    python tools/draw_networks.py                # all, into docs/images
    python tools/draw_networks.py glims --out /tmp

Only where a box stands is written here. Which modules it holds, the shapes, the parameters and the arrows are read from
a forward pass of the real network, on tensors without data: an arrow means that the result of one module is part of the
input of the other, by PyTorch's own record of what each tensor was computed from.
"""

from __future__ import annotations

from pathlib import Path

import fire
from network_canvas import draw
from network_graph import INPUT, Drawing, Place

from hybrid_nets import GLIMS, DCAUNet, HyLT, InputError, MobileUtr

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def draw_networks(*names: str, out: str | Path = IMAGES) -> None:
    """Write OUT/network_NAME.png for each of NAMES: glims, mobileutr, hylt, hylt_level, dca_unet, dca; or for all."""
    for name in names or DRAWINGS:
        if name not in DRAWINGS:
            raise InputError(f"no drawing {name!r}; there are {', '.join(DRAWINGS)}.")
        file = Path(out) / f"network_{name}.png"
        draw(DRAWINGS[name], file)
        print(f"wrote {file}")


def column(x: float, first: float, *names: str) -> dict[str, Place]:
    """Boxes one below the other; an empty name leaves a row free."""
    return {name: (x, first + i) for i, name in enumerate(names) if name}


def levels(name: str, count: int) -> list[str]:
    return [f"{name}.{i}" for i in range(count)]


LADDER = "encoder.1"
DRAWINGS = {
    "glims": Drawing(
        lambda: GLIMS(4, 3),
        (4, 96, 96, 96),
        "GLIMS (bundle glims)",
        {
            **column(0, 0, INPUT, "stem", "dmsf1", "dmsf2", "dmsf3", "t3", "dmsf4", "t4_pre", "merge"),
            **column(1, 2, "csab1", "csab2", "csab3", "", "csab4", "csab5", "t4"),
            **column(2, 1, "heads.0", "dmsu1", "dmsu2", "dmsu3", "t3_up", "dmsu4", "t4_post"),
        },
    ),
    "mobileutr": Drawing(
        lambda: MobileUtr(3, 1, 14),
        (1, 96, 96, 96),
        "MobileUtr, base, 3-D (bundle mobileutr)",
        {
            **column(0, 0, INPUT, "stem", "stage1", "", "stage2", "", "stage3", "local_global", "expand"),
            "transformer": (1, 8),
            **column(2, 0, "head", "up1", "fuse1", "up2", "fuse2", "up3", "fuse3", "", "reduce"),
        },
    ),
    "hylt": Drawing(
        lambda: HyLT(),
        (3, 224, 224),
        "HyLT, 2-D",
        {
            **column(0, 0, INPUT, *levels("encoder", 5)),
            **column(1.4, 0, "head", *levels("decoder", 4)[::-1]),
        },
    ),
    "hylt_level": Drawing(
        lambda: HyLT(),
        (3, 224, 224),
        "One level of HyLT's ladder",
        {
            **column(0, 0, "encoder.0", f"{LADDER}.convs"),
            **column(1, 1, f"{LADDER}.squeeze", f"{LADDER}.local", f"{LADDER}.read_tokens", f"{LADDER}.expand"),
            **column(2, 1, f"{LADDER}.read_map", "", f"{LADDER}.transformer"),
            LADDER: (0, 4, 5),
        },
    ),
    "dca_unet": Drawing(
        lambda: DCAUNet(),
        (3, 224, 224),
        "U-Net with Dual Cross-Attention (bundle dca_unet)",
        {
            **column(0, 0, INPUT, *levels("network.encoder", 4), "network.bottom"),
            "network.refine": (1, 1, 4),
            **column(2, 0, "network.head", *levels("network.decoder", 4)[::-1]),
        },
    ),
    "dca": Drawing(
        lambda: DCAUNet(),
        (3, 224, 224),
        "Dual Cross-Attention on the skips of a U-Net",
        {
            **column(0, 0, *levels("network.encoder", 4)),
            **column(1, 0, *levels("network.refine.embed", 4)),
            "network.refine.blocks.0.channel": (2, 0, 3),
            "network.refine.blocks.0.spatial": (3, 0, 3),
            **column(4, 0, *levels("network.refine.expand", 4)),
        },
    ),
}


if __name__ == "__main__":
    try:
        fire.Fire(draw_networks)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
