"""Scans of brains drawn from label maps, never twice alike: training data for a network that takes any contrast.

An *anatomy* is a label map that says for each voxel of 1 mm which part of the brain it is in and how much CSF, grey and
white matter it holds. :class:`RandBrainScand` bends an anatomy, gives each tissue a random brightness, puts it into a
random head or none, and spoils the picture as scanners do. To draw everything at random, so that no contrast can be
learnt by heart, is the idea of SynthSeg (Billot et al., Medical Image Analysis 2023); the code is independent.
"""

from hybrid_nets.synthesis.anatomy import DecodeAnatomyd, encode_anatomy
from hybrid_nets.synthesis.data_set import brain_tissue_dir, make_brain_tissue
from hybrid_nets.synthesis.folded import folded_anatomy
from hybrid_nets.synthesis.scan import RandBrainScand, draw_scan

__all__ = [
    "DecodeAnatomyd",
    "RandBrainScand",
    "brain_tissue_dir",
    "draw_scan",
    "encode_anatomy",
    "folded_anatomy",
    "make_brain_tissue",
]
