"""A tumour in brain tissue: necrotic core, enhancing rim, and oedema around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hybrid_nets.phantoms.fields import noise_field, ramp

__all__ = ["ENHANCING", "NECROSIS", "OEDEMA", "TumorPlan", "grow", "push"]

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
    points: np.ndarray,
    plan: TumorPlan,
    host: np.ndarray,
    grey: np.ndarray,
    sulcus: np.ndarray,
    voxel_volume: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Labels ``(n,)`` uint8 and layers ``(tissue, alpha (n,))`` of a tumour in the points ``(3, n)``.

    Args:
        points: positions in mm.
        plan: what to grow. The volume is met to a voxel, the distances are not exact.
        host: bool ``(n,)``, brain tissue, where a tumour can be.
        grey: bool ``(n,)``, the part of the host into which oedema hardly spreads.
        sulcus: bool ``(n,)``, fluid that the tumour's core displaces, but oedema does not.
        voxel_volume: mm³ that each point stands for.
        rng: draws its shape.
    """
    spread, lumps = draw_distances(points, plan, rng)
    solid = host | sulcus
    core = level(lumps, solid, plan.core_share * plan.volume, voxel_volume) - lumps
    in_core = solid & (core > 0)
    # Oedema follows the white matter in fingers, so grey matter counts as farther away.
    reach = np.where(in_core, -100, spread + 3.5 * noise_field(points, 22, rng) + 7 * grey)
    whole = level(reach, host | in_core, plan.volume, voxel_volume) - reach
    inner = core - plan.rim * (1 + 0.3 * noise_field(points, 18, rng))
    if plan.kind == "no enhancement":
        inner = core
    if plan.kind == "no necrosis":
        inner = np.full_like(core, -100)
    labels = np.select([solid & (inner > 0), in_core, host & (whole > 0)], [NECROSIS, ENHANCING, OEDEMA], 0)
    layers = [("oedema", ramp(whole, SOFT) * host), ("enhancing", ramp(core, SOFT) * solid)]
    if plan.kind == "no enhancement":
        layers[-1] = ("solid", layers[-1][1])
    else:
        layers.append(("necrosis", ramp(inner, SOFT) * solid))
    return labels.astype(np.uint8), layers


def draw_distances(points: np.ndarray, plan: TumorPlan, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Distances ``(n,)`` in mm to the tumour's centre, bent so that their levels have the shapes of oedema and core."""
    stretch = rng.uniform(0.8, 1.25, (3, 1)).astype(np.float32)
    offset = (points - np.float32(plan.centre)[:, None]) * stretch
    spread = np.linalg.norm(offset, axis=0) + 2.2 * noise_field(points, 34, rng)
    return spread, spread + 0.9 * noise_field(points, 14, rng)


def level(field: np.ndarray, host: np.ndarray, volume: float, voxel_volume: float) -> np.floating:
    """The value below which ``field`` fills ``volume`` mL of the host."""
    values = field[host]
    count = min(max(round(volume * 1000 / voxel_volume), 1), len(values) - 1)
    return np.partition(values, count)[count]
