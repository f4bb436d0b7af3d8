"""How bright each tissue is: near to what T1, T2, FLAIR and proton density show, or anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["HEAD", "Contrast", "draw_contrast"]

# Brightness from 0 to 1; the rest of a head after the three tissues. Rough values from textbook pictures.
HEAD = ("skin", "fat", "muscle", "air", "eye", "bone", "marrow", "dura", "vessel")
KNOWN = {
    "T1": ((0.2, 0.55, 0.85), (0.5, 1.0, 0.45, 0.02, 0.25, 0.1, 0.8, 0.5, 0.3)),
    "T2": ((0.95, 0.55, 0.38), (0.35, 0.75, 0.2, 0.02, 0.95, 0.06, 0.5, 0.25, 0.1)),
    "FLAIR": ((0.12, 0.68, 0.52), (0.4, 0.75, 0.35, 0.02, 0.12, 0.08, 0.5, 0.4, 0.2)),
    "PD": ((0.85, 0.85, 0.62), (0.5, 0.8, 0.5, 0.02, 0.85, 0.1, 0.5, 0.5, 0.3)),
}
DRAWN = ("T1", "T1", "T1", "T2", "T2", "FLAIR", "PD")
NEAREST = 0.1  # how close two of the three tissues may come
# How far a tissue may be from the values above: scanners differ that much. CSF, grey and white matter have 0.44, 0.72
# and 0.92 of the range in the MNI152 T1.
SHIFT = 0.22


@dataclass(frozen=True)
class Contrast:
    """Brightness of CSF, grey and white matter, of regions relative to these, and of the rest of a head."""

    tissues: np.ndarray
    regions: dict[str, float]
    head: dict[str, float]


def draw_contrast(rng: np.random.Generator) -> Contrast:
    """Three of four: a known contrast, its values shifted in the same order. Else any, a tenth or more apart."""
    if rng.random() < 0.75:
        known, head = (np.array(values) for values in KNOWN[DRAWN[rng.integers(len(DRAWN))]])
        tissues = shift(known, rng)
        head = head + rng.uniform(-0.15, 0.15, len(HEAD)) * (head > 0.03)
    else:
        tissues = rng.uniform(0, 1, 3)
        while np.abs(tissues - np.roll(tissues, 1)).min() < NEAREST:
            tissues = rng.uniform(0, 1, 3)
        head = rng.uniform(0, 1, len(HEAD))
        head[HEAD.index("air")] = rng.uniform(0, 0.08)
    # Deep nuclei hold more myelin and iron than the cortex, and so differ from it towards white matter or beyond.
    gap = tissues[2] - tissues[1]
    regions = {
        "deep grey": gap * rng.uniform(-0.05, 0.4),
        "cerebellum": rng.uniform(-0.05, 0.05),
        "brain stem": -gap * rng.uniform(-0.1, 0.15),
        "ventricles": rng.uniform(-0.06, 0.06),
    }
    head = np.clip(head, 0, 1.1)
    if rng.random() < 0.2:  # fat is often suppressed
        head[[HEAD.index("fat"), HEAD.index("marrow")]] *= rng.uniform(0.05, 0.5)
    return Contrast(np.clip(tissues, 0, 1.05).astype(np.float32), regions, dict(zip(HEAD, head.tolist())))


def shift(known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``known`` brightness of the tissues, moved; the order stays, and what differed by NEAREST or more still does."""
    apart = np.minimum(np.abs(known - np.roll(known, 1)), NEAREST)
    while True:
        tissues = known + rng.uniform(-SHIFT, SHIFT, 3)
        gaps, wanted = tissues - np.roll(tissues, 1), known - np.roll(known, 1)
        if (np.abs(gaps) >= apart / 2).all() and (gaps * wanted >= 0).all():
            return tissues
