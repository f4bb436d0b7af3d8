"""The shapes of a head: which tissue fills how much of each point.

Lengths are in mm from a point in the middle of the brain, x to the right, y to the front, z up, for an average adult.
Tissues come as layers ``(name, alpha)``; each covers a share ``alpha`` (0 to 1) of what the earlier ones left.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hybrid_nets.phantoms.fields import chain, ellipsoid, mirror, noise_field, ramp, smooth_union

__all__ = ["brain_layers", "cavity_distance", "cerebrum_distance", "head_layers", "ventricle_distance"]

Layers = Iterator[tuple[str, np.ndarray]]

# About half a voxel of these data sets, so that borders look as averaged by a voxel.
SOFT = 1.6
CEREBRUM_CENTRE = (0, -2, 12)
BRAINSTEM = ((0, -12, -12, 15), (0, -24, -40, 14), (0, -34, -66, 8), (0, -40, -130, 7))
LATERAL_VENTRICLE = ((8, 33, 7, 4), (9, 14, 14, 6.5), (12, -14, 18, 7), (22, -36, 12, 8), (25, -62, 8, 3))
TEMPORAL_HORN = ((22, -36, 12, 6), (34, -26, -8, 3.5), (31, -6, -17, 3))
SAGITTAL_SINUS = ((0, 50, 64, 2.5), (0, 0, 77, 3.5), (0, -50, 66, 4), (0, -80, 34, 4.5), (0, -86, 2, 5))


def cerebrum_distance(points: np.ndarray) -> np.ndarray:
    """Distance to the two hemispheres as one body: narrow in front, flat below, with temporal lobes."""
    x, y, z = points
    low = z < CEREBRUM_CENTRE[2]
    shaped = np.stack([x * (1 + 0.0011 * y), y, np.where(low, CEREBRUM_CENTRE[2] + (z - CEREBRUM_CENTRE[2]) * 1.5, z)])
    body = ellipsoid(shaped, CEREBRUM_CENTRE, (67, 85, 62))
    return smooth_union(body, ellipsoid(mirror(points), (38, 8, -22), (25, 40, 22)), 8)


def cerebellum_distance(points: np.ndarray) -> np.ndarray:
    return ellipsoid(points, (0, -48, -40), (51, 33, 25))


def cavity_distance(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distance ``(n,)`` to the inside of the skull for points ``(3, n)``; between it and the brain is fluid."""
    brain = smooth_union(cerebrum_distance(points), cerebellum_distance(points), 14)
    return smooth_union(brain, chain(points, BRAINSTEM), 16) - 2.6 - 0.5 * noise_field(points, 60, rng)


def ventricle_distance(points: np.ndarray) -> np.ndarray:
    """Distance ``(n,)`` from points ``(3, n)`` to the lateral ventricles."""
    paired = mirror(points)
    return np.minimum(chain(paired, LATERAL_VENTRICLE), chain(paired, TEMPORAL_HORN))


def head_layers(points: np.ndarray, cavity: np.ndarray, rng: np.random.Generator) -> Layers:
    """The head without what is inside the skull. ``cavity`` is :func:`cavity_distance` of ``points`` (3, n)."""
    paired = mirror(points)
    scalp = cavity - 13.5 - 0.5 * noise_field(points, 70, rng)
    face = ellipsoid(points, (0, 36, -62), (60, 56, 60))
    neck = chain(points, ((0, -32, -50, 57), (0, -36, -140, 56)))
    depth = -smooth_union(smooth_union(scalp, face, 30), neck, 55)
    # Fat between the muscles, in strands that run down the neck.
    planes = noise_field(points * np.float32([[1], [1], [0.35]]), 18, rng)
    yield "skin", ramp(depth, SOFT)
    yield "fat", ramp(depth - 1.6, SOFT)
    yield "muscle", ramp(depth - 6 - planes, SOFT) * ramp(1.3 - planes, 1.2)
    yield "air", ramp(-ellipsoid(paired, (23, 62, -58), (12, 15, 16)), SOFT)
    yield "air", ramp(-ellipsoid(points, (0, 70, -48), (10, 22, 22)), SOFT) * ramp(planes, 0.6)
    yield "fat", ramp(-chain(paired, ((31, 62, -26, 15), (16, 30, -24, 6))), SOFT)
    yield "muscle", ramp(-chain(paired, ((31, 60, -26, 3), (14, 30, -24, 3))), SOFT)
    yield "eye", ramp(-ellipsoid(paired, (32, 61, -26), (12, 12, 12)), SOFT)
    yield "bone", ramp(7.2 - cavity, SOFT) * ramp(depth - 4, SOFT)
    yield "bone", ramp(-ellipsoid(paired, (58, -24, -44), (13, 16, 15)), SOFT)
    yield "marrow", ramp(1.5 - np.abs(cavity - 3.8), SOFT) * ramp(planes + 1.2, 1.5) * ramp(depth - 6, SOFT)


def brain_layers(points: np.ndarray, cavity: np.ndarray, rng: np.random.Generator) -> Layers:
    """What is inside the skull, for points ``(3, n)`` there.

    ``cavity`` is their distance to the skull where it is now: ``points`` may have been moved by a growing tumour,
    which the skull does not follow.
    """
    paired = mirror(points)
    room = -cavity - 1.2
    yield "fluid", np.ones(points.shape[1], np.float32)
    stem = np.minimum(-chain(points, BRAINSTEM), room)
    yield "stem", ramp(stem, SOFT)
    yield from cerebellum_layers(points, room, rng)
    yield from cortex_layers(points, room, rng)
    yield "deep grey", ramp(-ellipsoid(paired, (12, -14, 4), (9, 15, 9)), SOFT)
    yield "deep grey", ramp(-ellipsoid(paired, (26, 4, 0), (6, 18, 10)), SOFT)
    yield "deep grey", ramp(-chain(paired, ((12, 24, 7, 6), (17, 4, 17, 3.5), (20, -16, 19, 2))), SOFT)
    size = rng.uniform(-1.5, 2)
    lateral = ventricle_distance(points)
    # The septum between the two ventricles, and the third and fourth ventricle in the midline.
    yield "fluid", ramp(np.minimum(size - lateral, paired[0] - 1), SOFT)
    yield "fluid", ramp(-ellipsoid(points, (0, -8, -2), (2 + 0.5 * size, 15, 9)), SOFT)
    yield "fluid", ramp(-ellipsoid(points, (0, -34, -38), (7, 5, 8)), SOFT)
    yield "vessel", ramp(-ellipsoid(paired, (22, -36, 9), (2.5, 5, 3)), SOFT)
    yield "vessel", ramp(-chain(points, SAGITTAL_SINUS), SOFT)


def cortex_layers(points: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> Layers:
    """The hemispheres: white matter under a ribbon of grey matter that follows the folds."""
    depth = np.minimum(-cerebrum_distance(points), room)
    # Where cerebellum and hemispheres meet, a sheet of fluid and dura (the tentorium) lies between them.
    depth = np.minimum(depth, cerebellum_distance(points) - 1.5)
    pial = np.minimum(depth, sulcus_distance(points, depth, rng))
    pial = np.minimum(np.minimum(pial, midline_distance(points)), sylvian_distance(points))
    width, ribbon = rng.uniform(0.5, 1.1), rng.uniform(2.9, 3.4)
    inside = ramp(depth, SOFT)
    yield "sulcus", inside
    yield "grey", inside * ramp(pial - width, SOFT)
    yield "white", inside * ramp(pial - width - ribbon, SOFT)


def sulcus_distance(points: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distance to the sulci: sheets that reach inwards from the surface, found where a random field is zero."""
    wave = 23
    relative = points - np.asarray(CEREBRUM_CENTRE, np.float32)[:, None]
    radius = np.linalg.norm(relative / np.float32([[67], [85], [62]]), axis=0) + 1e-3
    # Slow the field along the radius, so that its zeros stand upright on the surface as sulci do.
    bends = 2.5 * np.stack([noise_field(points, 32, rng) for _ in range(3)])
    field = noise_field(relative / radius * (0.6 + 0.4 * radius) + bends, wave, rng)
    reach = 17 + 4 * noise_field(points, 40, rng)
    sheet = np.abs(field) * (wave / (2 * np.pi))
    return np.hypot(sheet, np.maximum(depth - reach, 0))


def midline_distance(points: np.ndarray) -> np.ndarray:
    """Distance to the gap between the hemispheres, which ends above the corpus callosum."""
    x, y, z = points
    callosum = ellipsoid(np.stack([0 * x, y, z]), (0, -6, 6), (1, 42, 23))
    return np.hypot(x, np.maximum(2 - callosum, 0))


def sylvian_distance(points: np.ndarray) -> np.ndarray:
    """Distance to the fissure above each temporal lobe, which leads inwards to the insula."""
    x, y, z = mirror(points)
    plane = np.abs(z + 3 - 0.003 * (x - 50) ** 2 + 0.25 * y)
    outside = np.maximum(np.maximum(35 - x, 0), np.maximum(np.abs(y - 4) - 32, 0))
    return np.hypot(plane, outside)


def cerebellum_layers(points: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> Layers:
    """The cerebellum: thin parallel folds around a core of white matter."""
    depth = np.minimum(-cerebellum_distance(points), room)
    inside = ramp(depth, SOFT)
    shell = np.linalg.norm((points - np.float32([[0], [-24], [-36]])) * np.float32([[0.25], [1], [1]]), axis=0)
    folds = np.cos(2 * np.pi * shell / 6.5 + 1.2 * noise_field(points, 30, rng))
    yield "grey", inside
    yield "white", inside * ramp(depth - 9 + 3.5 * folds, 4)
    yield "fluid", inside * ramp(-folds - 0.6, 1) * ramp(8 - depth, 4) * 0.6
