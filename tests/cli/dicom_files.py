"""DICOM series written from a volume, as a scanner would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

PATIENT = "SECRET^NAME"
# Slices across each axis of the volume, with the axes that run along columns and rows of the picture.
PLANES = {"axial": (2, 0, 1), "sagittal": (0, 1, 2), "coronal": (1, 0, 2)}


def write_series(
    folder: Path, volume: np.ndarray, affine: np.ndarray, plane: str = "axial", modality: str = "CT", **tags: object
) -> list[Path]:
    """Files of ``volume`` (in HU, RAS ``affine`` without shear), with names and numbers in no order.

    ``tags`` are set on every slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    across, along_columns, along_rows = PLANES[plane]
    series, frame, study = generate_uid(), generate_uid(), generate_uid()
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    order = np.random.default_rng(0).permutation(volume.shape[across])
    files = []
    for number, index in enumerate(order):
        pixels = np.take(volume, index, axis=across)
        pixels = pixels.T if along_columns < along_rows else pixels
        corner = np.zeros(3)
        corner[across] = index
        header = make_header(modality, series, study, frame)
        header.ImagePositionPatient = [f"{v:.6f}" for v in to_lps[:3, :3] @ corner + to_lps[:3, 3]]
        steps = [to_lps[:3, along_columns], to_lps[:3, along_rows]]
        header.ImageOrientationPatient = [f"{v:.8f}" for step in steps for v in step / np.linalg.norm(step)]
        header.PixelSpacing = [f"{np.linalg.norm(step):.6f}" for step in reversed(steps)]
        header.SliceThickness = f"{np.linalg.norm(to_lps[:3, across]):.6f}"
        header.Rows, header.Columns = pixels.shape
        header.InstanceNumber = number + 1
        header.PixelData = (pixels.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        for name, value in tags.items():
            setattr(header, name, value)
        files.append(folder / f"{number:04d}_{series[-4:]}")
        header.save_as(files[-1], enforce_file_format=True)
    return files


def make_header(modality: str, series: str, study: str, frame: str) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    header.SOPInstanceUID = generate_uid()
    header.SeriesInstanceUID, header.StudyInstanceUID, header.FrameOfReferenceUID = series, study, frame
    header.Modality, header.SeriesNumber, header.ImageType = modality, 4, ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.PatientName, header.PatientID, header.PatientBirthDate, header.PatientSex = PATIENT, "ID7", "19000101", "O"
    header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "20200101", "120000", "1", "A1"
    header.ReferringPhysicianName, header.Manufacturer, header.PositionReferenceIndicator = "", "", ""
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = "-1024", "1", "HU"
    return header
