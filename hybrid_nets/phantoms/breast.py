"""The tissues of a breast as ultrasound shows them, from the skin down to the ribs.

Lengths are in mm, x across, y below the skin. Tissues come as layers ``(name, alpha)``; each covers a share ``alpha``
(0 to 1) of what the earlier ones left.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hybrid_nets.phantoms.fields import noise_field, ramp

__all__ = ["TISSUES", "breast_layers", "texture"]

Layers = Iterator[tuple[str, np.ndarray]]

# How bright each tissue's echo is, in dB, and by how many dB a mm of it weakens the sound more than the depth gain of
# the scanner makes up for.
TISSUES = {
    "fat": (-19, -0.02),
    "gel": (-45, -0.05),
    "skin": (-1, 0.05),
    "septum": (-4, 0.05),
    "gland": (-9, 0.03),
    "duct": (-20, 0.0),
    "muscle": (-21, 0.05),
    "fascia": (0, 0.05),
    "rib": (-22, 4.0),
    "rib surface": (5, 1.0),
    "pleura": (4, 0.3),
    "lung": (-26, 0.3),
    "benign": (-28, -0.55),
    "capsule": (-9, 0.0),
    "malignant": (-26, 0.7),
    "halo": (-5, 0.2),
}


def breast_layers(points: np.ndarray, height: float, rng: np.random.Generator) -> Layers:
    """Layers ``(tissue, alpha (n,))`` from the skin to the ribs, for a picture that reaches ``height`` mm deep."""
    x, y, _ = points
    wavy = [noise_field(points * np.float32([[1], [0.4], [1]]), wavelength, rng) for wavelength in (24, 18, 30)]
    gland = height * rng.uniform(0.14, 0.28) + 1.3 * wavy[0]
    rear = height * rng.uniform(0.56, 0.68) + 1.2 * wavy[1]
    muscle = rear + rng.uniform(1.5, 4) + 0.5 * wavy[2]
    chest = muscle + rng.uniform(6, 9) + 0.05 * x
    flat = points * np.float32([[0.5], [1], [1]])
    lobules, grain = noise_field(flat, 7, rng), noise_field(points, 2.2, rng)
    yield "fat", np.ones_like(x)
    yield "septum", ramp(0.22 - np.abs(lobules) * (7 / 6.3), 0.5) * 0.8
    yield "gland", ramp(np.minimum(y - gland, rear - y) + 0.5 * grain, 1.5)
    inside = ramp(np.minimum(y - gland, rear - y), 2)
    yield "fat", inside * ramp(noise_field(flat, rng.uniform(7, 11), rng) - rng.uniform(0.7, 1.3), 0.5)
    strands = np.abs(noise_field(points * np.float32([[0.4], [1], [1]]), 6, rng))
    yield "septum", inside * ramp(0.25 - strands, 0.4) * 0.5
    yield "duct", inside * ramp(noise_field(flat, 3.5, rng) - 1.9, 0.5) * 0.7
    yield "muscle", ramp(y - muscle, 0.6)
    fibres = np.cos(2 * np.pi * (y - muscle + 0.06 * x) / 1.7 + 0.8 * wavy[0] + 0.5 * lobules)
    yield "fascia", ramp(y - muscle, 0.6) * ramp(fibres - 0.75, 0.4) * ramp(grain + 0.8, 1) * 0.45
    yield "fascia", ramp(0.3 - np.abs(y - muscle), 0.4) * 0.8
    yield from chest_layers(x, y, chest, rng)
    yield from skin_layers(y - 0.2 * wavy[2], rng)


def chest_layers(x: np.ndarray, y: np.ndarray, chest: np.ndarray, rng: np.random.Generator) -> Layers:
    """Ribs in cross-section at the depth ``chest``, and lung between and below them."""
    yield "pleura", ramp(0.45 - np.abs(y - chest - 6), 0.5)
    yield "lung", ramp(y - chest - 6.6, 0.5)
    period = rng.uniform(21, 26)
    across = (x / period + rng.uniform(0, 1)) % 1 * period - period / 2
    rib = 1 - np.hypot(across / 6.5, (y - chest - 4) / 4)
    yield "rib", ramp(rib * 4, 0.5)
    yield "rib surface", ramp(rib * 4, 0.5) * ramp(0.9 - rib * 4, 0.4) * ramp(chest + 3 - y, 1)


def skin_layers(y: np.ndarray, rng: np.random.Generator) -> Layers:
    gel, skin = rng.uniform(0.2, 0.8), rng.uniform(1.3, 2.2)
    yield "gland", ramp(gel + skin - y, 0.4)
    for line in (gel, gel + skin):
        yield "skin", ramp(0.22 - np.abs(y - line), 0.35)
    yield "gel", ramp(gel - 0.2 - y, 0.3)


def texture(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unevenness ``(n,)`` of the echoes in dB, fine and coarse, stretched along the skin."""
    flat = points * np.float32([[0.5], [1], [1]])
    return 1.7 * noise_field(flat, 2.6, rng) + 1.4 * noise_field(flat, 6, rng) + 1.6 * noise_field(points, 20, rng)
