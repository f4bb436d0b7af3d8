"""Small synthetic data sets in the layout of the Medical Segmentation Decathlon, for examples and tests.

A phantom is drawn by formulas from a seed, so nothing is downloaded and no real person's anatomy is in it. Each data
set has a ``<name>_dir`` function that writes it below :func:`cache_dir` on first use and returns its folder.
"""

from hybrid_nets.phantoms.brain_tumor import brain_tumor_case, brain_tumor_dir, make_brain_tumor
from hybrid_nets.phantoms.cache import cache_dir
from hybrid_nets.phantoms.msd import Case

__all__ = ["Case", "brain_tumor_case", "brain_tumor_dir", "cache_dir", "make_brain_tumor"]
