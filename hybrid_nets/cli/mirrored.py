"""Test-time augmentation by mirroring, window by window."""

from __future__ import annotations

from itertools import chain, combinations

import torch
from torch import nn

__all__ = ["Mirrored"]


class Mirrored(nn.Module):
    """The mean of a network's logits over all mirrorings of its input, each mirrored back.

    MONAI's ``TestTimeAugmentation`` draws random transforms of whole images; mirrorings are few enough to take all.
    Windows need no more memory than before, and inferers see one network.

    Args:
        network: logits ``(n, k, *)`` of images ``(n, c, *)`` with the same spatial axes.

    Example::

        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> Mirrored(lambda x: x * torch.tensor([[1.0, 0.0], [0.0, 0.0]]))(x)  # a network that sees one corner
        tensor([[[[0.2500, 0.5000],
                  [0.7500, 1.0000]]]])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axes = range(2, x.ndim)
        flips = list(chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1)))
        total = self.network(x)
        for dims in flips[1:]:
            total = total + self.network(x.flip(dims)).flip(dims)
        return total / len(flips)
