"""Networks compute on plain tensors: MONAI's MetaTensor costs time on every operation, and has no fast paths."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from torch import nn

__all__ = ["PlainInput"]


class PlainInput(nn.Module):
    """A network that may be called with a MetaTensor: it computes without, and gives each result the same metadata."""

    def __call__(self, x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor | list[torch.Tensor]:
        if not isinstance(x, MetaTensor):
            return super().__call__(x, *args, **kwargs)
        out = super().__call__(x.as_subclass(torch.Tensor), *args, **kwargs)
        if isinstance(out, torch.Tensor):
            return convert_to_dst_type(out, x, dtype=out.dtype)[0]
        return [convert_to_dst_type(part, x, dtype=part.dtype)[0] for part in out]
