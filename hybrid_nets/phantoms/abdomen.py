"""Contrast-enhanced CT of the upper abdomen, drawn by formulas, with the 13 organs of the BTCV challenge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybrid_nets.phantoms.cache import cached_data_set
from hybrid_nets.phantoms.fields import noise_field, paint
from hybrid_nets.phantoms.msd import About, Case, write_msd
from hybrid_nets.phantoms.organs import organ_layers
from hybrid_nets.phantoms.scan import Grid, Scan, draw_scan, voxel_points
from hybrid_nets.phantoms.trunk import Trunk, chest_layers, draw_trunk, room_depth, trunk_layers

__all__ = ["abdomen_case", "abdomen_dir", "make_abdomen"]

ABOUT = About(
    name="abdomen_phantom",
    description="Synthetic phantom of the upper abdomen in CT, drawn by formulas; not anatomy of a real person.",
    modality=("CT",),
    labels=(
        "background",
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "oesophagus",
        "liver",
        "stomach",
        "aorta",
        "inferior vena cava",
        "portal and splenic veins",
        "pancreas",
        "right adrenal gland",
        "left adrenal gland",
    ),
    licence="CC0 1.0",
    reference="hybrid_nets.phantoms.abdomen",
    release="1",
)
# Raise with every change of the voxels, so that nobody goes on with an older data set from the cache.
VERSION = 3

# CT number of each tissue in HU without contrast agent, and what the agent adds to it in an average portal venous scan.
HOUNSFIELD = {
    "air": (-1000, 0),
    "table": (-880, 0),
    "table shell": (-100, 0),
    "skin": (10, 10),
    "fat": (-102, 0),
    "muscle": (50, 8),
    "bone": (480, 0),
    "marrow": (170, 20),
    "cartilage": (110, 0),
    "disc": (85, 0),
    "canal": (25, 5),
    "lung": (-840, 20),
    "lung vessel": (-100, 60),
    "heart": (40, 105),
    "vessel": (20, 90),
    "renal vein": (40, 105),
    "bowel": (40, 35),
    "bowel/contents": (22, 0),
    "bowel/gas": (-850, 0),
    "colon": (40, 20),
    "colon/contents": (15, 0),
    "colon/gas": (-900, 0),
    "spleen": (48, 72),
    "right kidney": (35, 140),
    "right kidney/medulla": (32, 100),
    "left kidney": (35, 140),
    "left kidney/medulla": (32, 100),
    "gallbladder": (10, 0),
    "oesophagus": (35, 12),
    "oesophagus/gas": (-500, 0),
    "liver": (55, 50),
    "liver/vein": (42, 95),
    "stomach": (40, 25),
    "stomach/contents": (20, 0),
    "stomach/gas": (-900, 0),
    "aorta": (42, 128),
    "inferior vena cava": (42, 88),
    "portal and splenic veins": (42, 108),
    "pancreas": (40, 50),
    "right adrenal gland": (30, 45),
    "left adrenal gland": (30, 45),
}
# What lies in the body varies by up to this many HU from case to case, beside the contrast agent.
SPREAD = 7
# The label of each tissue, in the order above.
ORGANS = [name.split("/")[0] for name in HOUNSFIELD]
LABELS = np.array([ABOUT.labels.index(organ) if organ in ABOUT.labels else 0 for organ in ORGANS], np.uint8)

GRID = Grid(pixel=(3.2, 4.2), slice=(3, 5), slice_axis=2, sides=(40, 128))
WIDTH, LENGTH = 372, 300
# Lowest and highest that the scan's lower and upper end can be, in mm.
LOWER_END, UPPER_END = (-120, -60), (88, 138)
# Steps of the golden ratio spread any few consecutive cases over the whole range; those of another irrational number
# do so independently.
GOLDEN, SILVER = (5**0.5 - 1) / 2, 2**0.5 - 1


@dataclass(frozen=True)
class Plan:
    """What a case will show, before its voxels are drawn.

    Attributes:
        scan: its grid.
        middle: how far above the origin of the body the scan's middle lies, in mm.
        gallbladder: False after its removal.
    """

    scan: Scan
    middle: float
    gallbladder: bool


def abdomen_case(seed: int, data_set: int = 0) -> Case:
    """Case number ``seed`` of the data set that :func:`make_abdomen` makes with seed ``data_set``.

    The channel is CT in HU; labels 1 to 13 are spleen, right and left kidney, gallbladder, oesophagus, liver, stomach,
    aorta, inferior vena cava, portal and splenic veins, pancreas, right and left adrenal gland. The same arguments
    give the same voxels. A case takes about a second.

    Args:
        seed: 0 or more. It also decides the orientation; one case in 8 has no gallbladder.
        data_set: 0 or more.

    Returns:
        A case with voxels of 3 to 5 mm, from the bases of the lungs to the lower poles of the kidneys or nearly so.

    Raises:
        ValueError: a seed is negative.

    Example::

        >>> abdomen_case(3).image.shape[0]
        1
    """
    if seed < 0 or data_set < 0:
        raise ValueError(f"seeds must be 0 or more, got {seed} and {data_set}.")
    rng = np.random.default_rng([data_set, seed])
    plan = draw_plan(seed, rng)
    lying = voxel_points(plan.scan) + np.float32([[0], [0], [plan.middle]])
    points = warp(lying, rng)
    trunk = draw_trunk(points, rng)
    signal = draw_signal(rng)
    image = np.full((1, points.shape[1]), signal["air"][0], np.float32)
    paint(image, trunk_layers(points, trunk, rng), signal)
    label = draw_inside(image, points, trunk, plan, signal, rng)
    image = acquire(image, lying, rng).reshape(1, *plan.scan.shape)
    return Case(image, label.reshape(plan.scan.shape), plan.scan.affine, f"abdomen_{seed:03d}")


def draw_plan(index: int, rng: np.random.Generator) -> Plan:
    low, high = (
        least + (most - least) * ((step * index + rng.uniform(0, 0.1)) % 1)
        for step, (least, most) in ((GOLDEN, LOWER_END), (SILVER, UPPER_END))
    )
    scan = draw_scan(index, (WIDTH, LENGTH, high - low), rng, GRID)
    return Plan(scan, (low + high) / 2, gallbladder=index % 8 != 3)


def warp(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The points of the average body that lie at ``points`` (3, n) of this one: other size, slightly other shape."""
    size = rng.uniform((0.93, 0.93, 0.95), (1.06, 1.08, 1.05))[:, None].astype(np.float32)
    return points / size + 3.5 * np.stack([noise_field(points, 150, rng) for _ in range(3)])


def draw_signal(rng: np.random.Generator) -> dict[str, tuple[float]]:
    """The HU of each tissue in one patient, some time after the agent was given."""
    agent = rng.uniform(0.8, 1.2)
    # Early scans show bright arteries and kidneys, late ones bright veins.
    early = rng.uniform(-0.15, 0.15)
    delay = {"aorta": 1 + early, "heart": 1 + early, "inferior vena cava": 1 - early, "liver": 1 - 0.5 * early}
    values = {}
    for name, (plain, added) in HOUNSFIELD.items():
        varied = 0 if plain < -400 else rng.uniform(-SPREAD, SPREAD)
        values[name] = (plain + added * agent * delay.get(name, 1) + varied,)
    return values


def draw_inside(
    image: np.ndarray, points: np.ndarray, trunk: Trunk, plan: Plan, signal: dict, rng: np.random.Generator
) -> np.ndarray:
    """Paint what lies inside the wall over HU ``(1, n)``, and return the labels ``(n,)``."""
    inside = np.flatnonzero(trunk.cavity < 0)
    points, trunk = points[:, inside], trunk.at(inside)
    content = image[:, inside]
    paint(content, chest_layers(points, trunk, rng), signal)
    tissue = paint(content, organ_layers(points, room_depth(trunk), plan.gallbladder, rng), signal)
    image[:, inside] = content
    label = np.zeros(image.shape[1], np.uint8)
    label[inside] = LABELS[tissue]
    return label


def acquire(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a scanner makes of HU ``(1, n)``: noise, more of it in the middle of the body, and faint streaks."""
    streaks = noise_field(points * np.float32([[0.12], [1], [1]]), 14, rng)
    noise = rng.standard_normal(image.shape, dtype=np.float32) + 0.5 * noise_field(points, 11, rng)
    middle = np.exp(-((points[0] / 190) ** 2 + (points[1] / 140) ** 2))
    strength = rng.uniform(9, 14) * (0.5 + 0.7 * middle)
    return np.rint(np.maximum(image + strength * (noise + 0.4 * streaks), -1024))


def make_abdomen(output_dir: str | Path, num_training: int = 16, num_test: int = 4, seed: int = 0) -> Path:
    """Write abdominal CT cases as a data set in MSD layout, unless ``output_dir`` already holds a ``dataset.json``.

    An existing data set is returned as it is, even if it was made with other numbers or another seed. Writing is
    all or nothing, and safe to do from several processes at once. The default takes 10 to 20 s on two cores and 13 MB.

    Args:
        output_dir: the data set's folder; absent or empty.
        num_training: cases with labels, at least 1.
        num_test: cases without labels, in ``imagesTs``.
        seed: decides all voxels.

    Returns:
        The absolute path of the folder with ``dataset.json``, ``imagesTr``, ``labelsTr`` and ``imagesTs``.

    Raises:
        ValueError: a number or the seed is out of range.
        FileExistsError: ``output_dir`` has other files in it; nothing is changed.

    Example::

        folder = make_abdomen("/data/phantom", num_training=4, num_test=1)
    """
    return write_msd(output_dir, ABOUT, lambda index: abdomen_case(index, seed), num_training, num_test)


def abdomen_dir(cache: str | Path | None = None) -> Path:
    """The folder of the default data set (16 training, 4 test cases), which is written on first use.

    Args:
        cache: where generated data are kept; without it, :func:`~hybrid_nets.phantoms.cache_dir`.

    Returns:
        ``<cache>/phantoms/abdomen-<version>``. When it had to be written, one line of log level INFO says so.

    Example::

        datalist = monai.data.load_decathlon_datalist(abdomen_dir() / "dataset.json")
    """
    return cached_data_set(f"abdomen-{VERSION}", make_abdomen, cache)
