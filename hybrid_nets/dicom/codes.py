"""Codes for the structures that our bundles segment, as DICOM segmentations carry them."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["PRIVATE_SCHEME", "Code", "StructureCodes", "structure_codes"]

# Structures without a code that we are sure of get one of our own: the label's name in capitals.
PRIVATE_SCHEME = "99HYBRIDNETS"


class Code(NamedTuple):
    value: str
    scheme: str
    meaning: str


class StructureCodes(NamedTuple):
    category: Code
    type: Code
    side: Code | None = None


ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
MORPHOLOGY = Code("49755003", "SCT", "Morphologically Abnormal Structure")
SIDES = {"right": Code("24028007", "SCT", "Right"), "left": Code("7771000", "SCT", "Left")}
# SNOMED CT, as the context groups of DICOM (PS3.16) list them; a test compares them with pydicom's copy.
ORGANS = {
    "spleen": Code("78961009", "SCT", "Spleen"),
    "kidney": Code("64033007", "SCT", "Kidney"),
    "gallbladder": Code("28231008", "SCT", "Gallbladder"),
    "oesophagus": Code("32849002", "SCT", "Esophagus"),
    "liver": Code("10200004", "SCT", "Liver"),
    "stomach": Code("69695003", "SCT", "Stomach"),
    "aorta": Code("15825003", "SCT", "Aorta"),
    "inferior vena cava": Code("64131007", "SCT", "Inferior vena cava"),
    "pancreas": Code("15776009", "SCT", "Pancreas"),
    "adrenal gland": Code("23451007", "SCT", "Adrenal gland"),
}
LESIONS = {"oedema": Code("79654002", "SCT", "Edema")}
# Ours by meaning, not by code: parts of a tumour.
ABNORMAL = ("necrotic core", "enhancing tumour", "oedema")


def structure_codes(name: str) -> StructureCodes:
    """Category, type and side of the structure that a label is called after.

    Example::

        >>> structure_codes("left kidney").type.meaning, structure_codes("left kidney").side.meaning
        ('Kidney', 'Left')
        >>> structure_codes("portal and splenic veins").type
        Code(value='PORTAL_AND_SPLE', scheme='99HYBRIDNETS', meaning='portal and splenic veins')
    """
    category = MORPHOLOGY if name in ABNORMAL else ANATOMY
    side, _, rest = name.partition(" ")
    if side in SIDES and rest in ORGANS:
        return StructureCodes(category, ORGANS[rest], SIDES[side])
    known = {**ORGANS, **LESIONS}
    own = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")[:15] or "UNNAMED"  # a code has 16 letters at most
    return StructureCodes(category, known.get(name) or Code(own, PRIVATE_SCHEME, name[:64]))
