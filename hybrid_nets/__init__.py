"""Hybrid CNN-Transformer networks for medical image segmentation, and what their MONAI bundles need."""

from hybrid_nets.attach import attach_dca
from hybrid_nets.blocks.dca import DualCrossAttention
from hybrid_nets.brats import BratsLabelsd, BratsRegionsd
from hybrid_nets.bundle import bundle_root, flag, phantom_dir
from hybrid_nets.checkpoints import StrictCheckpointLoader, load_network, needs_all_weights, replicate
from hybrid_nets.convert import convert_released
from hybrid_nets.data_check import check_data
from hybrid_nets.datalist import LazyCases, find_cases
from hybrid_nets.distributed import (
    SharedCacheDataset,
    distribute,
    is_first_process,
    join_processes,
    leave_processes,
    process_device,
    share,
)
from hybrid_nets.errors import InputError, show_short_errors
from hybrid_nets.evaluation import CaseMetrics, ClassDice
from hybrid_nets.history import HistoryHandler
from hybrid_nets.inferers import SlabInferer, SlabSliceInferer, labels_only
from hybrid_nets.losses import StructureLoss
from hybrid_nets.memory import keep_memory
from hybrid_nets.nets.dca_unet import DCAUNet
from hybrid_nets.nets.glims import GLIMS
from hybrid_nets.nets.hylt import HyLT
from hybrid_nets.nets.mobileutr import MobileUtr
from hybrid_nets.pictures import MaskToForegroundd, PictureChannelsd
from hybrid_nets.progress import ProgressHandler
from hybrid_nets.resample import Spacingd
from hybrid_nets.resume import CheckpointHandler
from hybrid_nets.slices import contour_slice
from hybrid_nets.stopping import StopHandler
from hybrid_nets.synthesis import DecodeAnatomyd, RandBrainScand, make_brain_tissue
from hybrid_nets.transforms import CheckImaged, StandardizeChannelsd, StandardizeLabelsd
from hybrid_nets.writers import AtomicNibabelWriter, AtomicPictureWriter, case_name

__version__ = "0.4.0"

__all__ = [
    "GLIMS",
    "AtomicNibabelWriter",
    "AtomicPictureWriter",
    "BratsLabelsd",
    "BratsRegionsd",
    "CaseMetrics",
    "CheckImaged",
    "CheckpointHandler",
    "ClassDice",
    "DCAUNet",
    "DecodeAnatomyd",
    "DualCrossAttention",
    "HistoryHandler",
    "HyLT",
    "InputError",
    "LazyCases",
    "MaskToForegroundd",
    "MobileUtr",
    "PictureChannelsd",
    "ProgressHandler",
    "RandBrainScand",
    "SharedCacheDataset",
    "SlabInferer",
    "SlabSliceInferer",
    "Spacingd",
    "StandardizeChannelsd",
    "StandardizeLabelsd",
    "StopHandler",
    "StrictCheckpointLoader",
    "StructureLoss",
    "attach_dca",
    "bundle_root",
    "case_name",
    "check_data",
    "contour_slice",
    "convert_released",
    "distribute",
    "find_cases",
    "flag",
    "is_first_process",
    "join_processes",
    "keep_memory",
    "labels_only",
    "leave_processes",
    "load_network",
    "make_brain_tissue",
    "needs_all_weights",
    "phantom_dir",
    "process_device",
    "replicate",
    "share",
    "show_short_errors",
]
