"""U-shaped networks that Dual Cross-Attention can refine the skips of: one file per network."""

from hybrid_nets.unets.doubleunet import DoubleUNet
from hybrid_nets.unets.multiresunet import MultiResUNet
from hybrid_nets.unets.r2unet import R2UNet
from hybrid_nets.unets.resunetpp import ResUNetPlusPlus
from hybrid_nets.unets.unet import UNet
from hybrid_nets.unets.vnet import VNet

__all__ = ["DoubleUNet", "MultiResUNet", "R2UNet", "ResUNetPlusPlus", "UNet", "VNet"]
