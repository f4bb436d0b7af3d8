"""The shapes of the upper abdominal organs, in the coordinates of :mod:`hybrid_nets.phantoms.trunk`.

A tissue ``"organ/part"`` is a part of the organ that looks different from the rest of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hybrid_nets.phantoms.fields import chain, column, ellipsoid, mirror, noise_field, ramp, smooth_union
from hybrid_nets.phantoms.trunk import AORTA, SOFT, Layers

__all__ = ["organ_layers"]

LIVER_VEINS = (
    ((24, 2, 98, 6), (62, -20, 66, 4), (84, -36, 34, 2.5)),
    ((24, 4, 98, 5), (52, 30, 62, 4), (66, 46, 30, 2.5)),
    ((20, 6, 98, 5), (-6, 28, 68, 3.5), (-28, 40, 56, 2.5)),
)
STOMACH = (
    (-56, -6, 75, 31),
    (-68, 18, 55, 31),
    (-66, 42, 22, 26),
    (-38, 53, -8, 22),
    (0, 54, -18, 18),
    (24, 46, -12, 12),
)
DUODENUM = ((34, 38, -8, 11), (54, 26, -10, 12), (56, 14, -44, 12), (24, 14, -62, 11), (-16, 14, -56, 11))
COLON_RIGHT = ((102, -6, -170, 22), (104, -8, -64, 22), (92, 18, -50, 21), (52, 60, -66, 19), (0, 64, -74, 18))
COLON_LEFT = ((0, 64, -74, 18), (-58, 60, -60, 18), (-100, 26, -4, 18), (-114, -8, -26, 16), (-112, -20, -170, 16))
CAVA = ((18, -4, -170, 12), (22, -4, 0, 12.5), (25, 0, 60, 13), (22, 6, 104, 13.5), (14, 14, 135, 15))
OESOPHAGUS = ((6, 0, 190, 10), (0, 2, 112, 10), (-12, 8, 84, 10), (-30, 8, 68, 10), (-40, 2, 66, 9))
SPLENIC_VEIN = ((-94, -20, 43, 6.5), (-60, -12, 36, 7), (-25, 8, 25, 7.2), (6, 14, 18, 7.5), (16, 16, 16, 8))
PORTAL_VEIN = ((16, 16, 16, 8), (26, 20, 34, 8), (40, 20, 54, 8))
PORTAL_BRANCHES = (
    ((40, 20, 54, 7.5), (66, 8, 60, 7), (88, -6, 56, 5)),
    ((40, 20, 54, 7), (18, 34, 66, 6), (-8, 42, 64, 5)),
)
MESENTERIC_VEIN = ((16, 16, 10, 6), (12, 26, -30, 5.5), (10, 34, -90, 4))
PANCREAS = (
    (34, 22, -26, 14),
    (28, 24, -8, 16.5),
    (8, 33, 7, 12),
    (-25, 27, 18, 12.5),
    (-60, 6, 27, 12.5),
    (-86, -10, 35, 10),
)
GALLBLADDER = ((48, 28, 8, 7), (56, 44, -12, 15.5), (62, 54, -25, 16))
# Seen from above: where the two limbs of each adrenal gland start and end (x, y), half a limb's width, and lowest
# and highest z.
RIGHT_ADRENAL = ((37, -21), ((38, -46), (55, -38)), 3.7, (31, 57))
LEFT_ADRENAL = ((-33, -17), ((-29, -42), (-51, -33)), 3.7, (29, 55))


def organ_layers(points: np.ndarray, room: np.ndarray, gallbladder: bool, rng: np.random.Generator) -> Layers:
    """The organs in the abdomen, for points ``(3, n)`` inside the wall.

    Args:
        points: positions in mm.
        room: depth ``(n,)`` in the space for organs, negative where muscle or chest is.
        gallbladder: without it, the scar is fat.
        rng: draws sizes, places and surfaces.
    """
    rough = 1.2 * noise_field(points, 38, rng)
    yield from bowel_layers(points, room, rng)
    yield from liver_layers(points, room - rough, rng)
    yield from spleen_layers(points, room, rough, rng)
    pancreas, vein = pancreas_depths(points, room, rough, rng)
    yield from stomach_layers(points, np.minimum(room, -np.maximum(pancreas, vein) - 3), rough, rng)
    yield from kidney_layers(points, room, "right", rough, rng)
    yield from kidney_layers(points, room, "left", -rough, rng)
    yield from vessel_layers(points, room, rng)
    yield from adrenal_layers(points, room, "right", RIGHT_ADRENAL, rng)
    yield from adrenal_layers(points, room, "left", LEFT_ADRENAL, rng)
    yield from pancreas_layers(points, room, pancreas, vein)
    if gallbladder:
        yield from gallbladder_layers(points, room, rng)


def moved(
    points: np.ndarray, rng: np.random.Generator, shift: float, size: float, centre: Sequence[float]
) -> np.ndarray:
    """Where in an average person the points lie, for an organ moved by some mm and larger or smaller by ``size``."""
    scale = np.exp(np.clip(rng.normal(0, size, (3, 1)), -2 * size, 2 * size) + rng.uniform(-size, size))
    offset = np.clip(rng.normal(0, shift, (3, 1)), -2 * shift, 2 * shift)
    return ((points - column(centre) - offset) / scale + column(centre)).astype(np.float32)


def tube(
    points: np.ndarray, nodes: Sequence[Sequence[float]], rng: np.random.Generator, shift: float, size: float
) -> np.ndarray:
    """Depth in a tube whose nodes are each moved by some mm, and whose radius is up to ``size`` larger or smaller."""
    nodes = np.array(nodes, float)
    nodes[:, :3] += np.clip(rng.normal(0, shift, nodes[:, :3].shape), -2 * shift, 2 * shift)
    nodes[:, 3] *= rng.uniform(1 - size, 1 + size)
    return -chain(points, nodes)


def bowel_layers(points: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> Layers:
    """Small bowel in loops through the mesenteric fat, with vessels; colon and duodenum."""
    x, y, z = points
    waves = [noise_field(points, 62, rng) for _ in range(2)]
    gas = noise_field(points, 55, rng) + 0.012 * y
    # Tubes run where both fields are zero.
    loops = np.minimum(11.5 - np.hypot(*waves) * (62 / (2 * np.pi)), room - 2)
    loops = np.minimum(loops, np.minimum(-30 - z + 0.25 * (y - 20), y + 30 + 0.2 * np.abs(x)))
    fine = noise_field(points, 17, rng)
    yield "vessel", ramp(fine - 2.1, 0.8) * ramp(-10 - z, 20) * ramp(room - 6, 6) * 0.8
    yield from hollow("bowel", loops, gas - 1.7)
    haustra = 2.2 * np.cos((x + z) * (2 * np.pi / 34))
    for nodes in (COLON_RIGHT, COLON_LEFT):
        depth = np.minimum(tube(points, nodes, rng, 5, 0.12) + haustra, room)
        yield "fat", ramp(depth + 5, SOFT)
        yield from hollow("colon", depth, gas + 0.25 * fine - 0.3)
    yield from hollow("bowel", np.minimum(tube(points, DUODENUM, rng, 2, 0.1), room), gas - 1.5)


def hollow(name: str, depth: np.ndarray, gas: np.ndarray, wall: float = 3.0) -> Layers:
    inner = ramp(depth - wall, SOFT)
    yield name, ramp(depth, SOFT)
    yield f"{name}/contents", inner
    yield f"{name}/gas", inner * ramp(gas, 0.5)


def liver_layers(points: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> Layers:
    place = moved(points, rng, 4, 0.065, (72, 0, 60))
    right = ellipsoid(place, (74, -2, 42), (66, 80, 74 + rng.uniform(-10, 10)))
    left = ellipsoid(place, (-4, 40, 58), (62 + rng.uniform(-14, 10), 36, 30))
    depth = np.minimum(-smooth_union(right, left, 20), room)
    yield "liver", ramp(depth, SOFT)
    for nodes in LIVER_VEINS:
        yield "liver/vein", ramp(np.minimum(tube(points, nodes, rng, 4, 0.15), depth - 2), SOFT)


def spleen_layers(points: np.ndarray, room: np.ndarray, rough: np.ndarray, rng: np.random.Generator) -> Layers:
    place = moved(points, rng, 4, 0.07, (-112, -34, 50))
    hilum = ellipsoid(place, (-70, -6, 46), (19, 26, 60))
    depth = np.minimum(np.minimum(-ellipsoid(place, (-101, -34, 42), (37, 50, 60)), hilum), room + rough)
    yield "fat", ramp(depth + 4, SOFT) * ramp(room, SOFT)
    yield "spleen", ramp(depth, SOFT)


def stomach_layers(points: np.ndarray, room: np.ndarray, rough: np.ndarray, rng: np.random.Generator) -> Layers:
    place = moved(points, rng, 3, 0.04, (-55, 10, 60))
    filling = rng.uniform(-0.12, 0.1)
    depth = np.minimum(tube(place, STOMACH, rng, 3, 0.0) + filling * 28 + rough, room - 1)
    # The patient lies on the back, so gas gathers in front, above a level.
    gas = points[1] - rng.uniform(22, 50)
    wall = rng.uniform(3.5, 6)
    yield "fat", ramp(np.minimum(depth + 4, room), SOFT)
    yield from hollow("stomach", depth, gas / 4, wall)


def kidney_layers(
    points: np.ndarray, room: np.ndarray, side: str, rough: np.ndarray, rng: np.random.Generator
) -> Layers:
    x, y, z = points
    centre = (62, -41, -22) if side == "right" else (-62, -41, -8)
    middle = z - centre[2]
    # The upper pole lies nearer to the spine and farther back.
    upright = np.stack([np.abs(x) + 0.2 * middle, y + 0.08 * middle, z])
    upright[0, (x > 0) != (side == "right")] = 400
    place = moved(upright, rng, 3, 0.07, (62, *centre[1:]))
    bean = -ellipsoid(place, (62, *centre[1:]), (28.5, 26, 55)) + 0.7 * rough
    sinus = ellipsoid(place, (42, centre[1] + 6, centre[2]), (17, 11, 21))
    whole = np.minimum(bean, room)
    depth = np.minimum(whole, sinus)
    pyramids = np.cos(place[2] * (2 * np.pi / 21)) + 0.5 * np.cos(place[1] * (2 * np.pi / 20))
    yield "fat", ramp(np.minimum(bean + 6, room), SOFT)
    yield f"{side} kidney", ramp(depth, SOFT)
    yield f"{side} kidney/medulla", ramp(np.minimum(depth - 1, bean - 7), SOFT) * ramp(pyramids + 0.2, 1)
    yield "fat", ramp(np.minimum(-sinus, whole + 4), SOFT)
    vein = 4 - np.hypot(place[1] - centre[1] - 6, place[2] - centre[2])
    between = np.minimum(place[0] - 24, 50 - place[0])
    yield "renal vein", ramp(vein, SOFT) * ramp(np.minimum(between, room), SOFT)


def vessel_layers(points: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> Layers:
    """Crura of the diaphragm, aorta, inferior vena cava, oesophagus, and the veins that lead to the liver."""
    behind = chain(points, ((0, -14, -170, 20), (0, -14, 120, 20)))
    yield "fat", ramp(-behind, SOFT) * ramp(room + 14, SOFT)
    yield "muscle", ramp(-chain(mirror(points), ((13, -24, -40, 3), (15, -20, 50, 5), (22, -8, 84, 3))), SOFT)
    cava = tube(points, CAVA, rng, 1.5, 0.1)
    yield "inferior vena cava", ramp(cava, SOFT)
    aorta = tube(points, AORTA, rng, 1, 0.1)
    yield "fat", ramp(aorta + 2, SOFT)
    yield "aorta", ramp(aorta, SOFT)
    oesophagus = tube(points, OESOPHAGUS, rng, 1.2, 0.1)
    yield "fat", ramp(oesophagus + 3, SOFT) * ramp(points[2] - 78, 10)
    yield "oesophagus", ramp(oesophagus, SOFT)
    yield "oesophagus/gas", ramp(oesophagus - 7, SOFT) * 0.25
    yield "vessel", ramp(tube(points, MESENTERIC_VEIN, rng, 2, 0.1), SOFT)


def adrenal_layers(points: np.ndarray, room: np.ndarray, side: str, shape: tuple, rng: np.random.Generator) -> Layers:
    """Two upright sheets that meet in front, like a tent seen from above, in a bed of fat."""
    (x, y), limbs, half_width, (low, high) = shape
    place = moved(points, rng, 2, 0.06, (x, y, (low + high) / 2))
    # Moving z towards the middle makes tubes into sheets; the sheets part more the lower they are.
    middle = (low + high) / 2
    lean = np.stack([place[0], place[1] + 0.12 * (place[2] - middle), place[2] - np.clip(place[2], low, high)])
    distance = np.minimum.reduce([chain(lean, ((x, y, 0, half_width), (*end, 0, half_width * 0.9))) for end in limbs])
    depth = np.minimum(-distance, room + 2)
    yield "fat", ramp(np.minimum(depth + 5.5, room + 2), SOFT)
    yield f"{side} adrenal gland", ramp(depth, SOFT)


def pancreas_depths(
    points: np.ndarray, room: np.ndarray, rough: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Depth in the pancreas, and in the splenic vein behind it and the portal vein: these keep together."""
    place = moved(points, rng, 2.5, 0.04, (0, 15, 15))
    lobules = noise_field(points, 16, rng)
    pancreas = np.minimum(tube(place, PANCREAS, rng, 1.5, 0.12) + rough + 0.8 * lobules, room)
    veins = [SPLENIC_VEIN, PORTAL_VEIN, *PORTAL_BRANCHES]
    size = rng.uniform(0.92, 1.12)
    sized = [[(*node[:3], node[3] * size) for node in nodes] for nodes in veins]
    return pancreas, -np.minimum.reduce([chain(place, nodes) for nodes in sized])


def pancreas_layers(points: np.ndarray, room: np.ndarray, pancreas: np.ndarray, vein: np.ndarray) -> Layers:
    yield "fat", ramp(np.minimum(pancreas + 4, room), SOFT)
    yield "pancreas", ramp(pancreas, SOFT)
    # In the liver, no fat is around the vein.
    yield "fat", ramp(np.minimum(vein + 2.5, room), SOFT) * ramp(46 - points[2], 4) * 0.8
    yield "portal and splenic veins", ramp(np.minimum(vein, room + 2), SOFT)


def gallbladder_layers(points: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> Layers:
    depth = np.minimum(tube(moved(points, rng, 3, 0.06, (56, 44, -12)), GALLBLADDER, rng, 1, 0.14), room)
    yield "gallbladder", ramp(depth, SOFT)
