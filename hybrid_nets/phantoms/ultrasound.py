"""B-mode ultrasound images of a breast with a lesion, drawn by formulas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from hybrid_nets.phantoms.breast import TISSUES, breast_layers, texture
from hybrid_nets.phantoms.cache import cached_data_set
from hybrid_nets.phantoms.fields import paint
from hybrid_nets.phantoms.images import Picture, write_images
from hybrid_nets.phantoms.lesion import LesionPlan, lesion_depth, lesion_layers
from hybrid_nets.phantoms.msd import About

__all__ = ["make_ultrasound", "ultrasound_case", "ultrasound_dir"]

ABOUT = About(
    name="ultrasound_phantom",
    description="Synthetic phantom of lesions in breast ultrasound, drawn by formulas; not anatomy of a real person.",
    modality=("B-mode ultrasound",),
    labels=("background", "lesion"),
    licence="CC0 1.0",
    reference="hybrid_nets.phantoms.ultrasound",
    release="1",
)
# Raise with every change of the pixels, so that nobody goes on with an older data set from the cache.
VERSION = 2

# From white to black, in dB.
RANGE = (48, 58)

KINDS = ("benign", "malignant", "benign", "malignant", "benign", "none", "malignant", "benign")
GOLDEN = (5**0.5 - 1) / 2
SHARES = (0.035, 0.18)
SIDES = (184, 316)


@dataclass(frozen=True)
class Plan:
    """What a picture will show, before its pixels are drawn.

    Attributes:
        shape: rows, columns.
        pixel: side of a pixel in mm.
        lesion: None for a breast without one.
    """

    shape: tuple[int, int]
    pixel: float
    lesion: LesionPlan | None


def ultrasound_case(seed: int, data_set: int = 0) -> Picture:
    """Picture number ``seed`` of the data set that :func:`make_ultrasound` makes with seed ``data_set``.

    The skin is at the top, row 0. The label is 0 background, 1 lesion. The same arguments give the same pixels. A
    picture takes about a tenth of a second.

    Args:
        seed: 0 or more. It also decides the kind of lesion: of each 8 pictures, four show a benign and three a
            malignant one, and one shows none.
        data_set: 0 or more.

    Returns:
        A picture of 184 to 316 pixels per side, in shades of grey.

    Raises:
        ValueError: a seed is negative.

    Example::

        >>> ultrasound_case(3).image.shape[0]
        3
    """
    if seed < 0 or data_set < 0:
        raise ValueError(f"seeds must be 0 or more, got {seed} and {data_set}.")
    rng = np.random.default_rng([data_set, seed])
    plan = draw_plan(seed, rng)
    points = pixel_points(plan)
    label = np.zeros(plan.shape, np.uint8)
    tissue = np.zeros((2, points.shape[1]), np.float32)
    paint(tissue, breast_layers(points, plan.shape[0] * plan.pixel, rng), vary(TISSUES, 2, rng))
    if plan.lesion is not None:
        depth = lesion_depth(points, plan.lesion, plan.pixel, rng)
        paint(tissue, lesion_layers(points, depth, plan.lesion.kind, rng), vary(TISSUES, 6, rng))
        label[depth.reshape(plan.shape) > 0] = 1
    tissue[0] += texture(points, rng)
    echo, attenuation = tissue.reshape(2, *plan.shape)
    grey = acquire(echo, attenuation, plan.pixel, rng)
    return Picture(np.repeat(grey[None], 3, axis=0), label, f"ultrasound_{seed:03d}")


def draw_plan(index: int, rng: np.random.Generator) -> Plan:
    kind = KINDS[index % len(KINDS)]
    rows, columns = rng.integers(SIDES[0], SIDES[1] + 1, 2)
    while not 1.05 < max(rows, columns) / min(rows, columns) < 1.4:
        rows, columns = rng.integers(SIDES[0], SIDES[1] + 1, 2)
    pixel = rng.uniform(30, 42) / rows
    shape = (int(rows), int(columns))
    if kind == "none":
        return Plan(shape, pixel, None)
    # Steps of the golden ratio spread any few consecutive pictures over the whole range.
    share = SHARES[0] * (SHARES[1] / SHARES[0]) ** ((GOLDEN * index + rng.uniform(0, 0.1)) % 1)
    area = share * rows * columns * pixel**2
    aspect, angle = (rng.uniform(1.3, 1.9), 0.2) if kind == "benign" else (rng.uniform(0.65, 0.9), 0.35)
    # Room for the largest radius that an outline can have, below the skin and above the lower end.
    half_height, half_width = 1.25 * (area / np.pi / aspect) ** 0.5, 1.15 * (area / np.pi * aspect) ** 0.5
    height, width = rows * pixel, columns * pixel
    highest = max(0.28 * height, 3 + half_height)
    below = rng.uniform(highest, max(min(0.55 * height, height - half_height), highest + 1))
    across = rng.uniform(-1, 1) * max(width / 2 - half_width - 1, 0)
    return Plan(shape, pixel, LesionPlan(kind, (across, below), area, aspect, rng.uniform(-angle, angle)))


def pixel_points(plan: Plan) -> np.ndarray:
    """Where the pixels are: across from the middle and below the skin, in mm, float32 ``(3, n)`` in C order."""
    rows, columns = plan.shape
    below, across = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) - (columns - 1) / 2, indexing="ij")
    points = np.stack([across, below, np.zeros(plan.shape)]) * plan.pixel
    return points.reshape(3, -1).astype(np.float32)


def vary(tissues: dict, spread: float, rng: np.random.Generator) -> dict:
    """Other echoes and attenuation in each breast: give or take ``spread`` dB, and 30%."""
    return {
        name: (echo + rng.uniform(-spread, spread), loss * rng.uniform(0.7, 1.3))
        for name, (echo, loss) in tissues.items()
    }


def acquire(echo: np.ndarray, attenuation: np.ndarray, pixel: float, rng: np.random.Generator) -> np.ndarray:
    """The picture, uint8 ``(rows, columns)``, of echoes in dB and their loss in dB per mm, both of that shape."""
    rows = np.arange(len(echo))[:, None] * pixel
    # What lies above weakens the sound; the beam is about a millimetre wide.
    loss = ndimage.gaussian_filter1d(np.cumsum(attenuation, axis=0) * pixel, 0.5 / pixel, axis=1)
    # The scanner makes up for the loss with depth, but never quite; echoes are strongest around its focus.
    gain = np.clip(rng.uniform(-0.3, 0) * (rows - 12) - 0.006 * (rows - rng.uniform(8, 18)) ** 2, -10, 3)
    amplitude = 10 ** ((echo - np.clip(loss, -8, 30) + gain) / 20)
    power = np.mean([speckle(amplitude, pixel, rng) for _ in range(2)], axis=0)
    decibels = 10 * np.log10(power + 10**-4.6) - rng.uniform(5, 12)
    return np.rint(255 * np.clip(1 + decibels / rng.uniform(*RANGE), 0, 1)).astype(np.uint8)


def speckle(amplitude: np.ndarray, pixel: float, rng: np.random.Generator) -> np.ndarray:
    """Power of the echoes of many small scatterers: they interfere within a pulse, which is short along the beam and
    wider across it the farther it is from the focus.
    """
    along = rng.uniform(0.15, 0.19) / pixel
    narrow, wide = rng.uniform(0.24, 0.3) / pixel, rng.uniform(0.45, 0.55) / pixel
    scatterers = amplitude * rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    near, far = (
        ndimage.gaussian_filter(scatterers, (0, along, across)) * np.sqrt(4 * np.pi * along * across)
        for across in (narrow, wide)
    )
    blend = np.linspace(0, 1, len(amplitude), dtype=np.float32)[:, None]
    return ((near * (1 - blend) + far * blend) ** 2).sum(0) / 2


def make_ultrasound(output_dir: str | Path, num_training: int = 40, num_test: int = 8, seed: int = 0) -> Path:
    """Write breast ultrasound pictures as a data set of PNG files, unless ``output_dir`` already holds one.

    An existing data set (a folder with a ``dataset.json``) is returned as it is, even if it was made with other numbers
    or another seed. Writing is all or nothing, and safe to do from several processes at once. The default takes 5 to
    10 s on one core and 3 MB.

    Args:
        output_dir: the data set's folder; absent or empty.
        num_training: pictures with a mask, at least 1.
        num_test: pictures without.
        seed: decides all pixels.

    Returns:
        The absolute path of the folder, with ``images/NAME.png``, RGB, ``masks/NAME.png``, 0 and 255, and
        ``dataset.json``.

    Raises:
        ValueError: a number or the seed is out of range.
        FileExistsError: ``output_dir`` has other files in it; nothing is changed.

    Example::

        folder = make_ultrasound("/data/phantom", num_training=4, num_test=1)
    """
    return write_images(output_dir, ABOUT, lambda index: ultrasound_case(index, seed), num_training, num_test)


def ultrasound_dir(cache: str | Path | None = None) -> Path:
    """The folder of the default data set (40 training, 8 test pictures), which is written on first use.

    Args:
        cache: where generated data are kept; without it, :func:`~hybrid_nets.phantoms.cache_dir`.

    Returns:
        ``<cache>/phantoms/ultrasound-<version>``. When it had to be written, one line of log level INFO says so.

    Example::

        pictures = sorted((ultrasound_dir() / "images").glob("*.png"))
    """
    return cached_data_set(f"ultrasound-{VERSION}", make_ultrasound, cache)
