"""Hybrid CNN-Transformer networks for medical image segmentation, and what their MONAI bundles need."""

from hybrid_nets.convert import convert_released
from hybrid_nets.nets.glims import GLIMS

__all__ = ["GLIMS", "convert_released"]
