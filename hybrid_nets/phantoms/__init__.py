"""Small synthetic data sets, for examples and tests: volumes in the layout of the Medical Segmentation Decathlon, and
pictures with masks.

A phantom is drawn by formulas from a seed, so nothing is downloaded and no real person's anatomy is in it. Each data
set has a ``<name>_dir`` function that writes it below :func:`cache_dir` on first use and returns its folder.
"""

from hybrid_nets.phantoms.abdomen import abdomen_case, abdomen_dir, make_abdomen
from hybrid_nets.phantoms.brain_tumor import brain_tumor_case, brain_tumor_dir, make_brain_tumor
from hybrid_nets.phantoms.cache import cache_dir
from hybrid_nets.phantoms.images import Picture
from hybrid_nets.phantoms.msd import Case
from hybrid_nets.phantoms.ultrasound import make_ultrasound, ultrasound_case, ultrasound_dir

__all__ = [
    "Case",
    "Picture",
    "abdomen_case",
    "abdomen_dir",
    "brain_tumor_case",
    "brain_tumor_dir",
    "cache_dir",
    "make_abdomen",
    "make_brain_tumor",
    "make_ultrasound",
    "ultrasound_case",
    "ultrasound_dir",
]
