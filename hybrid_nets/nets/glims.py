"""GLIMS: attention-guided lightweight multi-scale hybrid network for volumetric semantic segmentation.

Paper: Yazıcı, Öksüz, Ekenel, Image and Vision Computing 2024, arXiv 2404.17854; BraTS 2023 entry: arXiv 2403.09942.
Authors' code: https://github.com/yaziciz/GLIMS (MIT). This is an independent implementation, and differs from the
released code in this: any region of interest whose sides are multiples of 32; no parameter that cannot change the
output (unused activations, biases that the next normalisation removes); three defects repaired in ``variant="paper"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from hybrid_nets.blocks.conv import PointwiseConv, conv_norm_act, upsample_and_fuse
from hybrid_nets.blocks.csab import CSAB
from hybrid_nets.blocks.dacb import DACB
from hybrid_nets.blocks.plain import PlainInput
from hybrid_nets.blocks.sizes import as_grid, check_input, check_multiple
from hybrid_nets.blocks.slabs import covers
from hybrid_nets.blocks.swin import SwinStage

__all__ = ["GLIMS"]

# What `convert_released` does to the keys of the authors' checkpoints, in order: (pattern, replacement); None drops.
RELEASED_KEYS = (
    (r"relative_position_index$", None),  # follows from the window
    (r"\.l[12]\.prelu\.weight$", None),  # a PReLU that no path runs through
    (r"^out1\.conv\.conv", "heads.0"),
    (r"^out2\.conv\.conv", "heads.1"),
    (r"^out3\.conv\.conv", "heads.2"),
    (r"^out4\.conv\.conv", "heads.3"),
    (r"^dms([fu])_(\d)", r"dms\1\2"),
    (r"\.l1\.", ".local.0."),
    (r"\.l2\.", ".local.1."),
    (r"\.conv_3x3_dil2\.", ".branches.2."),
    (r"\.conv_3x3_dil\.", ".branches.1."),
    (r"(local\.\d)\.conv_3x3\.", r"\1.branches.0."),
    (r"(branches\.\d)\.norm\.", r"\1.adn.N."),
    (r"(branches\.\d)\.prelu\.", r"\1.adn.A."),
    (r"\.conv_1x1\.", ".widen."),
    (r"\.conv_1x1_2\.", ".narrow."),
    (r"\.prelu2\.", ".act."),
    (r"\.ds\.conv_3x3\.", ".down."),
    (r"\.up\.convT\.", ".up."),
    (r"\.conv1x1\.", ".fuse."),
    (r"^(t\w+)\.layer\.", r"\1."),
    (r"position_embeddings$", "position.weight"),
    (r"relative_position_bias_table$", "bias_table"),
    (r"^t4_pre\.downsample\.", "merge."),
    (r"\.upsample\.expand\.", ".expand."),
    (r"\.upsample\.norm_layer\.", ".norm."),
    (r"\.mlp\.linear1\.", ".mlp.0."),
    (r"\.mlp\.fn\.", ".mlp.1."),
    (r"\.mlp\.linear2\.", ".mlp.3."),
    (r"\.ChannelGate\.mlp\.1\.", ".mlp.0."),
    (r"\.ChannelGate\.mlp\.3\.", ".mlp.2."),
    (r"\.SpatialGate\.spatial\.prelu\.", ".act."),
    (r"\.SpatialGate\.spatial\.", "."),
)


class GLIMS(PlainInput):
    """GLIMS (arXiv 2404.17854): a convolutional U-shaped network with Swin stages at its three deepest grids.

    Each side of the input must be a multiple of 32, at construction and at call time, cubic or not: 96³ in, 96³ out,
    with Swin stages at 12³, 6³ and 3³. The position embeddings belong to ``img_size`` and are resampled to the input.

    On a CPU where no gradients are recorded, blocks write into the memory of the maps that they are given; a forward
    hook that keeps features must clone them.

    Args:
        in_channels: channels of the input ``(b, in_channels, d, h, w)``.
        out_channels: channels of the logits ``(b, out_channels, d, h, w)``.
        img_size: the input size to train at, in voxels.
        feature_size: channels at full resolution (``C`` in the paper); a multiple of 12 suits the default heads.
        depths: Swin blocks per level. As in the released code, entry 1 serves the stages at stride 8, entry 2 those at
            stride 16, entry 3 the one at stride 32, and entry 0 is unused.
        num_heads: attention heads per level, in the same order.
        window_size: side of the attention window, in voxels of the stage's grid.
        drop_rate: dropout in the Swin stages.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last Swin block before the decoder; rises linearly up to there.
        deep_supervision: in ``train()`` mode, return logits at full, half, quarter and eighth resolution, finest first.
        use_checkpoint: keep fewer activations in training and recompute them: less memory, more time, same result.
        variant: ``"paper"``, or ``"released"`` to reproduce the authors' released code, for their checkpoints. Three
            things differ, none in the parameters, so a checkpoint loads into either. As released, the spatial gate of
            CSAB is one constant; windows smaller than ``window_size`` use position biases of other offsets; and patch
            merging takes two of the eight octants twice and two never.

    Returns:
        Logits; in ``train()`` mode with ``deep_supervision``, a list of four.

    Raises:
        ValueError: a side of ``img_size`` or of the input is not a multiple of 32, the input's channels are not
            ``in_channels``, or ``variant`` is unknown.

    Example::

        >>> net = GLIMS(in_channels=4, out_channels=3, img_size=(64, 64, 32), feature_size=12)
        >>> net(torch.zeros(1, 4, 64, 64, 32)).shape
        torch.Size([1, 3, 64, 64, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: int | Sequence[int] = (96, 96, 96),
        feature_size: int = 24,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        deep_supervision: bool = False,
        use_checkpoint: bool = False,
        variant: str = "paper",
    ) -> None:
        super().__init__()
        if variant not in ("paper", "released"):
            raise ValueError(f'variant must be "paper" or "released", got {variant!r}.')
        if len(depths) != 4 or len(num_heads) != 4:
            raise ValueError(f"depths and num_heads need 4 entries, one per level, got {depths} and {num_heads}.")
        size = as_grid(img_size, 3, "img_size")
        self.stride = 32  # voxels of input per voxel of the deepest grid
        check_multiple(list(size), self.stride, "img_size")
        released = variant == "released"
        self.in_channels, self.deep_supervision = in_channels, deep_supervision
        widths = [feature_size * 2**level for level in range(6)]
        blocks = sum(depths[1:])
        rates = [drop_path_rate * i / max(blocks - 1, 1) for i in range(blocks)]

        def swin(level: int, stage: type[SwinStage] = SwinStage) -> SwinStage:
            """A Swin stage at stride 4 · 2^level."""
            first = sum(depths[1:level])
            return stage(
                widths[level + 2],
                depths[level],
                num_heads[level],
                [side // 2 ** (level + 2) for side in size],
                window_size,
                drop_rate,
                attn_drop_rate,
                rates[first : first + depths[level]],
                sliced_bias=released,
                use_checkpoint=use_checkpoint,
            )

        self.stem = conv_norm_act(3, in_channels, widths[0])
        self.dmsf1 = DMSF(widths[0], use_checkpoint)
        self.dmsf2 = DMSF(widths[1], use_checkpoint)
        self.dmsf3 = DMSF(widths[2], use_checkpoint)
        self.t3 = swin(1)
        self.dmsf4 = DMSF(widths[3], use_checkpoint)
        self.t4_pre = swin(2)
        self.merge = PatchMerging(widths[4], repeat_octants=released)
        self.t4 = swin(3)

        self.t4_post = swin(2, ExpandingSwinStage)
        self.dmsu4 = DMSU(widths[3], use_checkpoint)
        self.t3_up = swin(1)
        self.dmsu3 = DMSU(widths[2], use_checkpoint)
        self.dmsu2 = DMSU(widths[1], use_checkpoint)
        self.dmsu1 = DMSU(widths[0], use_checkpoint)

        self.csab1 = CSAB(3, widths[0], released, in_place=True)
        self.csab2 = CSAB(3, widths[1], released, in_place=True)
        self.csab3 = CSAB(3, widths[2], released, in_place=True)
        self.csab4 = CSAB(3, widths[3], released, in_place=True)
        self.csab5 = CSAB(3, widths[4], released, in_place=True)
        self.heads = nn.ModuleList(PointwiseConv(w, out_channels) for w in widths[: 4 if deep_supervision else 1])
        for head in self.heads:
            # Start from rare foreground (p = 0.05): from p = 0.5, Dice on small targets has next to no gradient for the
            # first hundreds of steps. Under softmax, equal biases change nothing.
            nn.init.constant_(head.bias, -3.0)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Features of the deepest grid, and the gated skips from full resolution down."""
        x, skip1 = self.dmsf1(self.stem(x))
        x, skip2 = self.dmsf2(x)
        x, skip3 = self.dmsf3(x)
        x, skip4 = self.dmsf4(norm_channels(self.t3(x)))
        x = self.t4_pre(x)
        skip5 = norm_channels(x)
        x = norm_channels(self.t4(norm_channels(self.merge(x))))
        return x, [self.csab1(skip1), self.csab2(skip2), self.csab3(skip3), self.csab4(skip4), self.csab5(skip5)]

    def decode(self, x: torch.Tensor, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        """Decoder features from full resolution down to an eighth of it."""
        x = self.t4_post(x, skips[4])
        x4 = self.dmsu4(x, skips[3])
        x3 = self.dmsu3(norm_channels(self.t3_up(x4)), skips[2])
        x2 = self.dmsu2(x3, skips[1])
        return [self.dmsu1(x2, skips[0]), x2, x3, x4]

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        check_input(x, 3, self.in_channels, self.stride)
        deep, skips = self.encode(x)
        features = self.decode(deep, skips)
        logits: list[torch.Tensor] = []
        for level, head in enumerate(self.heads):
            if level == 0 or self.training:
                logits.append(head(features[level]))
        if self.training and self.deep_supervision:
            return logits
        return logits[0]


class DMSF(nn.Module):
    """Encoder level: two DACB, then half the resolution and twice the channels; returns both results."""

    def __init__(self, channels: int, use_checkpoint: bool) -> None:
        super().__init__()
        self.local = nn.Sequential(*(DACB(3, channels, use_checkpoint, in_place=True) for _ in range(2)))
        self.down = conv_norm_act(3, channels, 2 * channels, kernel_size=2, stride=2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, c, d, h, w) to the next level's (b, 2c, d/2, h/2, w/2) and the skip (b, c, d, h, w)."""
        skip = self.local(x)
        return self.down(skip), skip


class DMSU(nn.Module):
    """Decoder level: twice the resolution and half the channels, joined with the skip, then two DACB."""

    def __init__(self, channels: int, use_checkpoint: bool) -> None:
        super().__init__()
        self.up = conv_norm_act(3, 2 * channels, channels, kernel_size=2, stride=2, transposed=True)
        self.fuse = conv_norm_act(3, 2 * channels, channels)
        self.local = nn.Sequential(*(DACB(3, channels, use_checkpoint, in_place=True) for _ in range(2)))

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(b, 2c, d/2, h/2, w/2) and the skip (b, c, d, h, w) to (b, c, d, h, w), which may take the skip's memory."""
        if torch.jit.is_scripting():
            return self.local(self.fuse(self.up(x), skip))
        else:
            return self.local(self.join(x, skip))

    def join(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Upsampling and fusion; what TorchScript can't compile."""
        if torch.is_grad_enabled() or not covers(x):
            return self.fuse(self.up(x), skip)
        return upsample_and_fuse(self.up, self.fuse, x, skip)


class PatchMerging(nn.Module):
    """Half the resolution and twice the channels: the eight octants of each 2³ patch, normalised and projected."""

    def __init__(self, channels: int, repeat_octants: bool) -> None:
        super().__init__()
        # As released, 101 and 010 stand in for 011 and 110, in an order of their own.
        order = "000 100 010 001 101 010 001 111" if repeat_octants else "000 001 010 011 100 101 110 111"
        self.octants = [[int(digit) for digit in octant] for octant in order.split()]
        self.norm = nn.LayerNorm(8 * channels)
        self.reduction = nn.Linear(8 * channels, 2 * channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, d, h, w) to (b, 2c, d/2, h/2, w/2)."""
        x = x.permute(0, 2, 3, 4, 1)
        x = torch.cat([x[:, o[0] :: 2, o[1] :: 2, o[2] :: 2] for o in self.octants], dim=-1)
        return self.reduction(self.norm(x)).permute(0, 4, 1, 2, 3)


class ExpandingSwinStage(SwinStage):
    """The decoder's deepest stage: expand patches, embed positions, join the skip, then the Swin blocks."""

    def __init__(self, channels: int, *args: object, **kwargs: object) -> None:
        super().__init__(channels, *args, **kwargs)
        self.expand = nn.Linear(2 * channels, 8 * channels, bias=False)
        self.norm = nn.LayerNorm(channels)
        self.fuse = conv_norm_act(3, 2 * channels, channels)

    def upsample(self, x: torch.Tensor) -> torch.Tensor:
        """(b, 2c, d, h, w) to (b, c, 2d, 2h, 2w); depth varies fastest among the eight voxels of ``expand``'s rows."""
        x = self.expand(x.permute(0, 2, 3, 4, 1))
        b, d, h, w, c = x.shape
        x = x.reshape(b, d, h, w, 2, 2, 2, c // 8).permute(0, 1, 6, 2, 4, 3, 5, 7)
        return self.norm(x.reshape(b, 2 * d, 2 * h, 2 * w, c // 8)).permute(0, 4, 1, 2, 3)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.transform(self.fuse(self.embed(self.upsample(x)), skip))


def norm_channels(x: torch.Tensor) -> torch.Tensor:
    """LayerNorm over the channels of (b, c, d, h, w), without learned scale or shift."""
    return F.layer_norm(x.permute(0, 2, 3, 4, 1), [x.shape[1]]).permute(0, 4, 1, 2, 3)


def released_options(weights: Mapping[str, torch.Tensor]) -> dict:
    """What the authors' checkpoints show of how their network was built."""
    stem, head = weights["stem.conv.weight"], weights["out1.conv.conv.weight"]
    return {
        "in_channels": stem.shape[1],
        "out_channels": head.shape[0],
        "feature_size": stem.shape[0],
        "variant": "released",
    }
