"""The shapes of a trunk around the organs of the upper abdomen, and of the scanner's table.

Lengths are in mm from a point in front of the first lumbar vertebra, x to the right, y to the front, z up, for an
average adult. Tissues come as layers ``(name, alpha)``; each covers a share ``alpha`` (0 to 1) of what the earlier
ones left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hybrid_nets.phantoms.fields import chain, ellipsoid, mirror, noise_field, ramp

__all__ = ["SOFT", "Trunk", "chest_layers", "draw_trunk", "room_depth", "trunk_layers"]

Layers = Iterator[tuple[str, np.ndarray]]

# About half a voxel of these data sets, so that borders look as averaged by a voxel.
SOFT = 3.0
SPINE = (0, -44)
DISC_PERIOD = 35
PSOAS = ((24, -36, 30, 5), (36, -40, -40, 16), (42, -38, -90, 22), (50, -32, -170, 25))
AORTA = ((-22, -24, 190, 11.5), (-14, -13, 80, 11), (-9, -9, 0, 10), (-6, -8, -160, 9))


@dataclass(frozen=True)
class Trunk:
    """Distances ``(n,)`` of points to the large surfaces, in mm, negative inside.

    Attributes:
        cavity: the inner side of the wall of chest and abdomen.
        dome: the diaphragm; inside of it is the abdomen.
        back: spine and the muscles along it, which bulge into the cavity.
        fat: thickness of the fat under the skin, and ``muscle`` that of the wall under it.
    """

    cavity: np.ndarray
    dome: np.ndarray
    back: np.ndarray
    fat: np.ndarray
    muscle: float

    def at(self, points: np.ndarray) -> Trunk:
        """The same for some of the points, given by their indices."""
        return Trunk(self.cavity[points], self.dome[points], self.back[points], self.fat[points], self.muscle)


def draw_trunk(points: np.ndarray, rng: np.random.Generator) -> Trunk:
    x, y, z = points
    # Two overlapping ellipses make a broad cross-section, with a groove along the spine but none in front.
    taper = 1 + 0.0009 * np.maximum(z - 40, 0)
    folded = np.stack([np.sqrt(x * x + 400 + 20 * np.maximum(y, 0)) * taper, y * taper, 0 * z])
    cavity = ellipsoid(folded, (40, 0, 0), (94, 86, 1))
    raised = np.stack([np.sqrt(x * x + 225), y, np.maximum(z - 7 * np.tanh(x / 40), 0)])
    dome = ellipsoid(raised, (58, 4, 0), (98, 100, 102))
    # More fat at the flanks and the back than over the ribs in front.
    thickness = rng.uniform(9, 26)
    fat = thickness * (1 + 0.12 * noise_field(points, 160, rng) - 0.0025 * y)
    return Trunk(cavity, dome, back_distance(points), fat, muscle=rng.uniform(10, 14))


def back_distance(points: np.ndarray) -> np.ndarray:
    paired = mirror(points)
    flat = np.stack([paired[0], points[1], 0 * points[2]])
    muscles = np.minimum(ellipsoid(flat, (32, -82, 0), (31, 19, 1)), chain(paired, PSOAS))
    return np.minimum(np.minimum(vertebra_distance(points), muscles), quadratus_distance(points))


def vertebra_distance(points: np.ndarray) -> np.ndarray:
    """Distance to the vertebral bodies, whose waist is narrower than their ends."""
    radius = 21 + 1.5 * np.cos(2 * np.pi * points[2] / DISC_PERIOD)
    return np.hypot(points[0] / 1.12, points[1] - SPINE[1]) - radius


def quadratus_distance(points: np.ndarray) -> np.ndarray:
    x, y, z = mirror(points)
    return ellipsoid(np.stack([x, y, np.maximum(z + 10, 0)]), (70, -68, 0), (19, 9, 40))


def room_depth(trunk: Trunk) -> np.ndarray:
    """Depth ``(n,)`` inside the space for the abdominal organs."""
    return -np.maximum(np.maximum(trunk.cavity, trunk.dome), 2 - trunk.back) - 3


def trunk_layers(points: np.ndarray, trunk: Trunk, rng: np.random.Generator) -> Layers:
    """Table and body, without what is inside its cavity but for fat."""
    x, y, _ = points
    skin = trunk.cavity - trunk.muscle - trunk.fat - 2.5
    rest = -86 - trunk.muscle - 1.4 * float(np.mean(trunk.fat)) - 14
    table = np.abs(y - rest - 0.0011 * x * x + 9) - 8
    side = np.abs(x) - 205
    yield "table", ramp(-np.maximum(table, side), SOFT)
    yield "table shell", ramp(1.2 - np.abs(np.maximum(table, side)), SOFT) * 0.6
    planes = noise_field(points, 26, rng)
    yield "skin", ramp(-skin, SOFT)
    yield "fat", ramp(-skin - 2.5, SOFT)
    wall = trunk.cavity - trunk.muscle
    yield "muscle", ramp(-wall - 0.8 * planes, SOFT)
    # The oblique muscles lie in sheets with fat between them; the ribs take their place higher up.
    yield "fat", ramp(1.0 - np.abs(trunk.cavity - 0.45 * trunk.muscle), SOFT) * ramp(planes - 0.3, 1) * 0.7
    yield "fat", ramp(-trunk.cavity, SOFT)
    yield from rib_layers(points, trunk)
    yield "muscle", ramp(-trunk.back, SOFT) * ramp(2.6 - planes, 1)
    yield from spine_layers(points)


def rib_layers(points: np.ndarray, trunk: Trunk) -> Layers:
    """Ribs that slope down to the front, down to the costal margin; cartilage near the midline."""
    x, y, z = points
    slope = z + 0.32 * y - 0.05 * np.abs(x)
    period = 27
    across = np.abs((slope / period) % 1 - 0.5) * period
    along = np.hypot(across / 1.5, trunk.cavity - 0.5 * trunk.muscle) - 4.0
    margin = z - (-48 + 0.75 * np.maximum(y + 60, 0) * (1 - 0.002 * np.abs(x)))
    inside = ramp(margin, 6) * ramp(np.abs(x) - 24, 6)
    yield "cartilage", ramp(-along, SOFT) * inside
    yield "bone", ramp(-along, SOFT) * inside * ramp(60 - y + 0.2 * np.abs(x), 8)
    yield "marrow", ramp(-along - 2.8, SOFT) * inside * ramp(60 - y, 8)


def spine_layers(points: np.ndarray) -> Layers:
    x, y, z = points
    body = vertebra_distance(points)
    disc = np.abs((z / DISC_PERIOD) % 1 - 0.5) * DISC_PERIOD - (DISC_PERIOD / 2 - 4)
    canal = np.hypot(x, y + 76) - 8.5
    level = np.abs(((z + 8) / DISC_PERIOD) % 1 - 0.5) * DISC_PERIOD
    flat = np.stack([np.abs(x), y, 0 * z])
    # Arches and transverse processes sit at the upper half of each vertebra, spinous processes lower.
    arch = np.maximum(np.minimum(np.abs(canal - 3) - 3, chain(flat, ((10, -72, 0, 4), (38, -78, 0, 3)))), level - 9)
    spinous = np.maximum(chain(flat, ((0, -88, 0, 4), (0, -108, 0, 4))), np.abs(level - 4) - 11)
    yield "bone", ramp(-np.minimum(arch, spinous), SOFT)
    yield "bone", ramp(-body, SOFT)
    yield "marrow", ramp(-body - 3.5, SOFT)
    yield "bone", ramp(-body, SOFT) * ramp(disc + 2.5, SOFT)
    yield "disc", ramp(-body, SOFT) * ramp(disc, SOFT)
    yield "canal", ramp(-canal, SOFT)


def chest_layers(points: np.ndarray, trunk: Trunk, rng: np.random.Generator) -> Layers:
    """Diaphragm, lungs and heart, for points inside the wall."""
    inside = np.minimum(-trunk.cavity - 1, trunk.back - 1)
    z = points[2]
    above = trunk.dome * ramp(z, 4) - 60 * ramp(-z, 4)
    yield "muscle", ramp(np.minimum(inside, 2.2 - np.abs(above)), SOFT)
    middle = chain(points, ((-6, -18, 60, 22), (-6, -18, 200, 24)))
    heart = ellipsoid(points, (-18, 28, 124 + rng.uniform(-6, 6)), (54, 44, 40))
    vessels = noise_field(points, 15, rng)
    lung = np.minimum(np.minimum(inside, above - 2), np.minimum(middle, heart - 4))
    yield "lung", ramp(lung, SOFT)
    yield "lung vessel", ramp(lung - 8, 6) * ramp(vessels - 1.7, 1) * 0.7
    yield "heart", ramp(np.minimum(np.minimum(inside, above - 3), -heart), SOFT)
