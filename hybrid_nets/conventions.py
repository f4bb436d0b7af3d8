"""What data sets call their channels and labels, and the one name we give each.

Sources: MSD Task01_BrainTumour's ``dataset.json``; file names and label values of the BraTS 2018-2021 releases (NCR 1,
ED 2, ET 4) and of BraTS 2023 and later (NCR 1, ED 2, ET 3).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from hybrid_nets.errors import InputError

__all__ = ["BRATS_VALUES", "canonical_name", "channel_order", "label_mapping"]

logger = logging.getLogger(__name__)

SYNONYMS = {
    "FLAIR": ("flair", "t2f", "t2flair"),
    "T1ce": ("t1ce", "t1c", "t1gd", "t1post", "t1contrast"),
    "T1": ("t1", "t1n", "t1w", "t1native"),
    "T2": ("t2", "t2w"),
    "background": ("background", "bg"),
    "necrotic core": ("necroticcore", "necrosis", "ncr", "ncrnet", "nonenhancingtumor", "nonenhancingtumorcore"),
    "oedema": ("oedema", "edema", "ed", "peritumoraledema", "peritumoraloedema"),
    "enhancing tumour": ("enhancingtumour", "enhancingtumor", "et", "gdenhancingtumor"),
    "spleen": ("spleen",),
    "right kidney": ("rightkidney", "kidneyright", "rkid", "rkidney"),
    "left kidney": ("leftkidney", "kidneyleft", "lkid", "lkidney"),
    "gallbladder": ("gallbladder", "gall"),
    "oesophagus": ("oesophagus", "esophagus", "eso"),
    "liver": ("liver",),
    "stomach": ("stomach", "sto"),
    "aorta": ("aorta",),
    "inferior vena cava": ("inferiorvenacava", "ivc", "postcava", "venacava"),
    "portal and splenic veins": ("portalandsplenicveins", "portalveinandsplenicvein", "portalsplenicvein", "veins"),
    "pancreas": ("pancreas",),
    "right adrenal gland": ("rightadrenalgland", "adrenalglandright", "rightadrenal", "rad", "rag"),
    "left adrenal gland": ("leftadrenalgland", "adrenalglandleft", "leftadrenal", "lad", "lag"),
    "segmentation": ("seg", "segmentation", "label"),
}
CANONICAL = {synonym: name for name, synonyms in SYNONYMS.items() for synonym in synonyms}

# Label value -> name, by the suffix style of the release's files: BraTS2021_00000_t1ce, BraTS-GLI-00000-000-t1c.
BRATS_VALUES = {
    "_": {0: "background", 1: "necrotic core", 2: "oedema", 4: "enhancing tumour"},
    "-": {0: "background", 1: "necrotic core", 2: "oedema", 3: "enhancing tumour"},
}


def canonical_name(name: str) -> str:
    """Our name for a channel or label; a name we don't know is returned as it is.

    Example::

        >>> canonical_name("T1-Gd"), canonical_name("edema"), canonical_name("liver")
        ('T1ce', 'oedema', 'liver')
    """
    return CANONICAL.get(re.sub(r"[^a-z0-9]", "", name.lower()), name)


def channel_order(found: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Positions in ``found`` of the ``wanted`` channels.

    Raises:
        InputError: a wanted channel is not there, or is there twice.

    Example::

        >>> channel_order(["FLAIR", "T1w", "t1gd", "T2w"], ["FLAIR", "T1ce", "T1", "T2"])
        [0, 2, 1, 3]
    """
    names = [canonical_name(name) for name in found]
    for name in wanted:
        if names.count(canonical_name(name)) != 1:
            problem = "no channel" if canonical_name(name) not in names else "more than one channel"
            raise InputError(f"{problem} named {name}: the data set lists {list(found)}, needed are {list(wanted)}.")
    return [names.index(canonical_name(name)) for name in wanted]


def label_mapping(found: Mapping[int, str], wanted: Mapping[int, str], others: int | None = None) -> dict[int, int]:
    """From a data set's label values to ours, by name; labels that are not among the wanted ones become ``others``.

    Raises:
        InputError: a wanted label is missing where others are allowed, or there are others and they are not.

    Example::

        >>> label_mapping({0: "background", 1: "edema", 2: "necrosis"}, {0: "background", 1: "necrosis", 2: "oedema"})
        {0: 0, 1: 2, 2: 1}
    """
    values = {canonical_name(name): int(value) for value, name in wanted.items()}
    names = {int(value): canonical_name(name) for value, name in found.items()}
    unknown = [found[value] for value in found if canonical_name(found[value]) not in values]
    missing = [name for name in wanted.values() if canonical_name(name) not in names.values()]
    if unknown and others is None:
        raise InputError(f"the data set's labels {unknown} are not known here; known are {list(wanted.values())}.")
    if unknown and missing:
        raise InputError(
            f"the data set has no label named {missing[0]}, only {list(found.values())}; rename it in dataset.json, or "
            f"take the data set's own labels with --out_channels {len(found)}."
        )
    if unknown:
        logger.info("Labels of the data set that are background here: %s.", ", ".join(unknown))
    return {value: values.get(name, others) for value, name in names.items()}
