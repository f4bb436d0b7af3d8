"""Multi-modal MR images of a head with a brain tumour, drawn by formulas, with BraTS 2023 labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybrid_nets.phantoms.cache import cached_data_set
from hybrid_nets.phantoms.fields import noise_field, paint, rician
from hybrid_nets.phantoms.head import brain_layers, cavity_distance, cerebrum_distance, head_layers, ventricle_distance
from hybrid_nets.phantoms.msd import About, Case, write_msd
from hybrid_nets.phantoms.scan import Scan, draw_scan, voxel_points
from hybrid_nets.phantoms.tumor import TumorPlan, grow, push

__all__ = ["brain_tumor_case", "brain_tumor_dir", "make_brain_tumor"]

ABOUT = About(
    name="brain_tumor_phantom",
    description="Synthetic phantom of brain tumours in MR, drawn by formulas; not anatomy of a real person.",
    modality=("FLAIR", "T1ce", "T1", "T2"),
    labels=("background", "necrotic core", "oedema", "enhancing tumour"),
    licence="CC0 1.0",
    reference="hybrid_nets.phantoms.brain_tumor",
    release="1",
)
# Raise with every change of the voxels, so that nobody goes on with an older data set from the cache.
VERSION = 1

# Brightness of each tissue in FLAIR, T1ce, T1, T2.
SIGNAL = {
    "outside": (0, 0, 0, 0),
    "air": (10, 10, 10, 10),
    "skin": (330, 420, 380, 300),
    "fat": (620, 900, 880, 680),
    "muscle": (260, 330, 290, 170),
    "bone": (45, 45, 40, 30),
    "marrow": (260, 430, 410, 270),
    "eye": (90, 160, 150, 960),
    "fluid": (80, 150, 140, 950),
    "sulcus": (80, 150, 140, 950),
    "grey": (520, 430, 400, 570),
    "white": (390, 630, 610, 360),
    "deep grey": (460, 510, 480, 460),
    "stem": (410, 570, 550, 410),
    "vessel": (150, 960, 250, 120),
    "oedema": (860, 430, 410, 820),
    "enhancing": (640, 1000, 430, 600),
    "necrosis": (330, 220, 230, 860),
    "solid": (720, 330, 320, 900),
}
TISSUES = tuple(SIGNAL)
# Where oedema spreads; a tumour's core also fills the sulci, which it presses shut.
HOSTS = [TISSUES.index(name) for name in ("grey", "white", "deep grey")]

# Period 8; that of the orientations is 7, so the two combine in many ways.
KINDS = ("full", "full", "no enhancement", "full", "no necrosis", "full", "no tumour", "full")
GOLDEN = (5**0.5 - 1) / 2
FIELD_OF_VIEW = (170, 208, 180)
# What the field of view is centred on lies this far above the middle of the brain, in mm.
VIEW_HEIGHT = 4


@dataclass(frozen=True)
class Plan:
    """What a case will show, before its voxels are drawn. ``tumor`` is None for a head without one."""

    kind: str
    scan: Scan
    tumor: TumorPlan | None


def brain_tumor_case(seed: int, data_set: int = 0) -> Case:
    """Case number ``seed`` of the data set that :func:`make_brain_tumor` makes with seed ``data_set``.

    Channels are FLAIR, T1ce, T1, T2; labels 0 background, 1 necrotic core, 2 oedema, 3 enhancing tumour. The same
    arguments give the same voxels. A case takes about a second.

    Args:
        seed: 0 or more. It also decides the kind of tumour and the orientation: of each 8 cases, one has no tumour,
            one no enhancing part and one no necrosis.
        data_set: 0 or more.

    Returns:
        A case of 80 to 112 voxels of 1.65 to 2.2 mm per axis; outside the head, the image is exactly 0.

    Raises:
        ValueError: a seed is negative.

    Example::

        >>> brain_tumor_case(3).image.shape[0]
        4
    """
    if seed < 0 or data_set < 0:
        raise ValueError(f"seeds must be 0 or more, got {seed} and {data_set}.")
    rng = np.random.default_rng([data_set, seed])
    plan = draw_plan(seed, rng)
    points = voxel_points(plan.scan) + np.float32([[0], [0], [VIEW_HEIGHT]])
    return draw_case(plan, points, rng, f"brain_tumor_{seed:03d}")


def draw_case(plan: Plan, points: np.ndarray, rng: np.random.Generator, name: str, skull: bool = True) -> Case:
    """What ``plan`` says, at ``points`` (3, n) of the average head; without ``skull``, of the brain's cavity alone."""
    points = warp(points, rng)
    cavity = cavity_distance(points, rng)
    signal = np.zeros((4, len(cavity)), np.float32)
    shown = paint(signal, head_layers(points, cavity, rng), SIGNAL) != 0 if skull else cavity < 0
    inside, label = np.flatnonzero(cavity < 0), np.zeros(len(cavity), np.uint8)
    signal[:, inside], label[inside] = draw_brain(points[:, inside], cavity[inside], plan, rng)
    image = acquire(signal, points, shown, rng).reshape(4, *plan.scan.shape)
    return Case(image, label.reshape(plan.scan.shape), plan.scan.affine, name)


def draw_plan(index: int, rng: np.random.Generator) -> Plan:
    kind = KINDS[index % len(KINDS)]
    scan = draw_scan(index, FIELD_OF_VIEW, rng)
    if kind == "no tumour":
        return Plan(kind, scan, None)
    # Steps of the golden ratio spread any few consecutive cases over the whole range, 12 to 90 mL.
    share = (GOLDEN * index + rng.uniform(0, 0.1)) % 1
    volume = 12 * (90 / 12) ** share
    tumor = TumorPlan(kind, draw_centre(rng), volume, core_share=rng.uniform(0.3, 0.55), rim=rng.uniform(3.0, 5.5))
    return Plan(kind, scan, tumor)


def draw_centre(rng: np.random.Generator) -> tuple[float, float, float]:
    """A place well inside a hemisphere and outside its ventricle, in mm."""
    while True:
        centre = rng.uniform((-50, -60, -12), (50, 56, 56))
        place = centre[:, None].astype(np.float32)
        if abs(centre[0]) > 18 and cerebrum_distance(place) < -16 and ventricle_distance(place) > 7:
            return tuple(map(float, centre))


def warp(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The points of the average head that lie at ``points`` (3, n) of this one: other size, slightly other shape."""
    size = rng.uniform(0.96, 1.03, (3, 1)).astype(np.float32)
    return points / size + 1.3 * np.stack([noise_field(points, 80, rng) for _ in range(3)])


def draw_brain(
    points: np.ndarray, cavity: np.ndarray, plan: Plan, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Brightness ``(4, n)`` and labels ``(n,)`` of the points ``(3, n)`` inside the skull."""
    before = points if plan.tumor is None else push(points, plan.tumor)
    signal = np.zeros((4, len(cavity)), np.float32)
    tissue = paint(signal, brain_layers(before, cavity, rng), SIGNAL)
    if plan.tumor is None:
        return signal, np.zeros(len(cavity), np.uint8)
    host, grey, sulcus = (np.isin(tissue, kind) for kind in (HOSTS, TISSUES.index("grey"), TISSUES.index("sulcus")))
    voxel_volume = abs(np.linalg.det(plan.scan.affine))
    labels, layers = grow(points, plan.tumor, host, grey, sulcus, voxel_volume, rng)
    for name, alpha in layers:
        signal += alpha * (np.float32(SIGNAL[name])[:, None] - signal)
    return signal, labels


def acquire(signal: np.ndarray, points: np.ndarray, head: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a scanner makes of ``signal`` (4, n): other brightness, uneven coils, noise; 0 outside of ``head`` (n,)."""
    texture = noise_field(points, 9, rng)
    image = np.empty_like(signal)
    for channel, values in enumerate(signal):
        bias = np.exp(0.06 * noise_field(points, 190, rng) + 0.025 * texture)
        noisy = rician(values * bias, rng.uniform(10, 20), rng)
        image[channel] = np.rint(noisy * rng.uniform(0.7, 1.6)) * head
    return image


def make_brain_tumor(output_dir: str | Path, num_training: int = 16, num_test: int = 4, seed: int = 0) -> Path:
    """Write brain tumour cases as a data set in MSD layout, unless ``output_dir`` already holds a ``dataset.json``.

    An existing data set is returned as it is, even if it was made with other numbers or another seed. Writing is
    all or nothing, and safe to do from several processes at once. The default takes 15 to 25 s on two cores and 62 MB.

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

        folder = make_brain_tumor("/data/phantom", num_training=4, num_test=1)
    """
    return write_msd(output_dir, ABOUT, lambda index: brain_tumor_case(index, seed), num_training, num_test)


def brain_tumor_dir(cache: str | Path | None = None) -> Path:
    """The folder of the default data set (16 training, 4 test cases), which is written on first use.

    Args:
        cache: where generated data are kept; without it, :func:`~hybrid_nets.phantoms.cache_dir`.

    Returns:
        ``<cache>/phantoms/brain_tumor-<version>``. When it had to be written, one line of log level INFO says so.

    Example::

        datalist = monai.data.load_decathlon_datalist(brain_tumor_dir() / "dataset.json")
    """
    return cached_data_set(f"brain_tumor-{VERSION}", make_brain_tumor, cache)
