"""DICOM series as input and DICOM segmentations as output; needs ``pip install "hybrid-nets[dicom]"``."""
