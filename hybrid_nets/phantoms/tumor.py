"""A tumour in brain tissue: necrotic core, enhancing rim, and oedema around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hybrid_nets.phantoms.fields import noise_field, ramp

__all__ = ["OEDEMA", "ENHANCING", "NECROSIS", "TumorPlan", "grow", "push"]

NECROSIS, OEDEMA, ENHANCING = 1, 2, 3
SOFT = 2.0


@dataclass(frozen=True)
class TumorPlan:
    """What to grow: ``kind`` is "full", "no enhancement" or "no necrosis"; ``centre`` in mm, ``volume`` in mL."""

    kind: str
    centre: tuple[float, float, float]
    volume: float
    core_share: float
    rim: float


def push(points: np.ndarray, plan: TumorPlan) -> np.ndarray:
    """Where the tissue at ``points`` (3, n) was before the tumour displaced it."""
    offset = points - np.float32(plan.centre)[:, None]
    radius = 10 * (plan.volume * 3 / (4 * np.pi)) ** (1 / 3)
    return points - offset * (0.35 * np.exp(-(offset**2).sum(0) / (2 * radius**2)))


def grow(
    points: np.ndarray, plan: TumorPlan, host: np.ndarray, grey: np.ndarray, voxel_volume: float, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Labels ``(n,)`` uint8 and layers ``(tissue, alpha (n,))`` of a tumour in the points ``(3, n)``.

    Args:
        points: positions in mm.
        plan: what to grow.
        host: bool ``(n,)``, where a tumour can be.
        grey: bool ``(n,)``, grey matter, into which oedema hardly spreads.
        voxel_volume: mm³ that each point stands for; the whole tumour is exactly ``plan.volume`` up to one voxel.
        rng: draws its shape.
    """
    stretch = rng.uniform(0.8, 1.25, (3, 1)).astype(np.float32)
    offset = (points - np.float32(plan.centre)[:, None]) * stretch
    spread = np.linalg.norm(offset, axis=0) + 2.2 * noise_field(points, 34, rng)
    lumps = spread + 0.9 * noise_field(points, 14, rng)
    core = level(lumps, host, plan.core_share * plan.volume, voxel_volume) - lumps
    # Oedema follows the white matter in fingers, so grey matter counts as farther away.
    reach = np.where(core > 0, -100, spread + 2.5 * noise_field(points, 26, rng) + 7 * grey)
    whole = level(reach, host, plan.volume, voxel_volume) - reach
    inner = core - plan.rim * (1 + 0.3 * noise_field(points, 18, rng))
    if plan.kind == "no enhancement":
        inner = core
    if plan.kind == "no necrosis":
        inner = np.full_like(core, -100)
    labels = np.select([inner > 0, core > 0, whole > 0], [NECROSIS, ENHANCING, OEDEMA], 0).astype(np.uint8)
    layers = [("oedema", whole), ("enhancing", core), ("necrosis", inner)]
    if plan.kind == "no enhancement":
        layers = [("oedema", whole), ("solid", core)]
    return labels * host, [(name, ramp(depth, SOFT) * host) for name, depth in layers]


def level(field: np.ndarray, host: np.ndarray, volume: float, voxel_volume: float) -> np.floating:
    """The value below which ``field`` fills ``volume`` mL of the host."""
    values = field[host]
    count = min(max(round(volume * 1000 / voxel_volume), 1), len(values) - 1)
    return np.partition(values, count)[count]
