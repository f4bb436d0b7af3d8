"""Hybrid CNN-Transformer networks for medical image segmentation, and what their MONAI bundles need."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from hybrid_nets.mixture import IntensityMixtured
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
    from hybrid_nets.thick_parts import KeepThickPartsd
    from hybrid_nets.transforms import CheckImaged, StandardizeChannelsd, StandardizeLabelsd
    from hybrid_nets.writers import AtomicNibabelWriter, AtomicPictureWriter, case_name

__version__ = "0.5.0"

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
    "IntensityMixtured",
    "KeepThickPartsd",
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

# Where each name is. It is imported when somebody asks for it, as torch and MONAI take seconds (PEP 562).
MODULES = {
    "GLIMS": "nets.glims",
    "AtomicNibabelWriter": "writers",
    "AtomicPictureWriter": "writers",
    "BratsLabelsd": "brats",
    "BratsRegionsd": "brats",
    "CaseMetrics": "evaluation",
    "CheckImaged": "transforms",
    "CheckpointHandler": "resume",
    "ClassDice": "evaluation",
    "DCAUNet": "nets.dca_unet",
    "DecodeAnatomyd": "synthesis",
    "DualCrossAttention": "blocks.dca",
    "HistoryHandler": "history",
    "HyLT": "nets.hylt",
    "InputError": "errors",
    "IntensityMixtured": "mixture",
    "KeepThickPartsd": "thick_parts",
    "LazyCases": "datalist",
    "MaskToForegroundd": "pictures",
    "MobileUtr": "nets.mobileutr",
    "PictureChannelsd": "pictures",
    "ProgressHandler": "progress",
    "RandBrainScand": "synthesis",
    "SharedCacheDataset": "distributed",
    "SlabInferer": "inferers",
    "SlabSliceInferer": "inferers",
    "Spacingd": "resample",
    "StandardizeChannelsd": "transforms",
    "StandardizeLabelsd": "transforms",
    "StopHandler": "stopping",
    "StrictCheckpointLoader": "checkpoints",
    "StructureLoss": "losses",
    "attach_dca": "attach",
    "bundle_root": "bundle",
    "case_name": "writers",
    "check_data": "data_check",
    "contour_slice": "slices",
    "convert_released": "convert",
    "distribute": "distributed",
    "find_cases": "datalist",
    "flag": "bundle",
    "is_first_process": "distributed",
    "join_processes": "distributed",
    "keep_memory": "memory",
    "labels_only": "inferers",
    "leave_processes": "distributed",
    "load_network": "checkpoints",
    "make_brain_tissue": "synthesis",
    "needs_all_weights": "checkpoints",
    "phantom_dir": "bundle",
    "process_device": "distributed",
    "replicate": "checkpoints",
    "share": "distributed",
    "show_short_errors": "errors",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        value = getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
    elif find_spec(f"{__name__}.{name}"):
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})
