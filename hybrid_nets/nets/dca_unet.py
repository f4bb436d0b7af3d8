"""The six U-Nets that Dual Cross-Attention was published with, under one name.

Paper: Ates, Mohan, Celik, "Dual Cross-Attention for Medical Image Segmentation", arXiv 2303.17696.
Authors' code: https://github.com/gorkemcanates/Dual-Cross-Attention (MIT). The networks' files say what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hybrid_nets import unets
from hybrid_nets.blocks.plain import PlainInput

__all__ = ["DCAUNet"]

BACKBONES = {
    "unet": unets.UNet,
    "vnet": unets.VNet,
    "r2unet": unets.R2UNet,
    "resunetpp": unets.ResUNetPlusPlus,
    "multiresunet": unets.MultiResUNet,
    "doubleunet": unets.DoubleUNet,
}
# The authors' checkpoints show by their first layer whose they are; DoubleU-Net has none, as its code never ran.
RELEASED_FIRST = {
    "unet": "conv1.conv1.conv.weight",
    "vnet": "conv1.conv.weight",
    "r2unet": "rconv1.conv.conv.weight",
    "resunetpp": "input_layer.0.conv.weight",
    "multiresunet": "mr1.skip.conv.weight",
}
RELEASED_HEADS = ("out.weight", "out.conv.weight", "output_layer.weight")


class DCAUNet(PlainInput):
    """One of six U-Nets with Dual Cross-Attention (DCA, arXiv 2303.17696) on its skips, which can be switched off.

    Each side of the input must be a multiple of 16, for ``"resunetpp"`` of 8, with the default number of levels: 224²
    in, 224² out. The network itself is the attribute ``network``.

    Args:
        backbone: ``"unet"``, ``"vnet"``, ``"r2unet"``, ``"resunetpp"``, ``"multiresunet"`` or ``"doubleunet"``, see
            :mod:`hybrid_nets.unets`.
        spatial_dims: 2 as in the paper, or 3.
        in_channels: channels of the input ``(b, in_channels, *)``.
        out_channels: channels of the logits ``(b, out_channels, *)``.
        dca: refine the skips; otherwise the plain network.
        grid: DCA's grid of tokens, one entry per axis; an int is repeated. Any grid fits any input; the default is the
            paper's in 2-D at 224² (56 for ``"resunetpp"``). In 3-D tokens grow with the cube: take 6 to 10.
        channels: channels per level, full resolution first, as the network takes them; the published ones if not given.
        dca_options: further arguments of :class:`hybrid_nets.DualCrossAttention`, by name: ``{"blocks": 2}``.

    Returns:
        Logits of the input's size.

    Raises:
        ValueError: a side of the input is not a multiple of the stride, the input's channels are not ``in_channels``,
            ``backbone`` is unknown, ``spatial_dims`` is not 2 or 3, or ``channels`` or DCA's arguments don't fit.

    Example::

        >>> net = DCAUNet("unet", spatial_dims=2, in_channels=3, out_channels=1, channels=(8, 16, 32, 64, 128)).eval()
        >>> net(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 1, 64, 96])
    """

    def __init__(
        self,
        backbone: str = "unet",
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        dca: bool = True,
        grid: int | Sequence[int] = 28,
        channels: Sequence[int] | None = None,
        dca_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(map(repr, BACKBONES))}, got {backbone!r}.")
        widths = {} if channels is None else {"channels": channels}
        self.network = BACKBONES[backbone](
            spatial_dims, in_channels, out_channels, dca, grid, dca_options=dca_options, **widths
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def released_options(weights: Mapping[str, torch.Tensor]) -> dict:
    """What the authors' checkpoints show of how their network was built. DCA's grid is not in them."""
    backbone = next((name for name, key in RELEASED_FIRST.items() if key in weights), "unet")
    first = weights[RELEASED_FIRST[backbone]]
    head = next((weights[key] for key in RELEASED_HEADS if key in weights), None)
    if head is None:
        raise KeyError(RELEASED_HEADS[0])
    return {
        "backbone": backbone,
        "dca": any(key.startswith("DCA.") for key in weights),
        "spatial_dims": head.ndim - 2,
        "in_channels": first.shape[1],
        "out_channels": head.shape[0],
    }
