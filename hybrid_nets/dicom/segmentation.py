"""Write a label map as a DICOM segmentation that a viewer lays over the series it came from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from hybrid_nets.atomic import replacing
from hybrid_nets.dicom.codes import Code, structure_codes
from hybrid_nets.dicom.series import Series
from hybrid_nets.errors import InputError

__all__ = ["read_segmentation", "write_segmentation"]

# Series numbers of what is derived, where the source's numbers are not.
SERIES_NUMBER = 900


def write_segmentation(
    path: str | Path, labels: np.ndarray, series: Series, names: Mapping[int, str], algorithm: str, version: str
) -> None:
    """Write ``labels`` as a binary DICOM segmentation of ``series``, read it back, and compare.

    Like every object derived from a series it carries the patient and study of the series, which viewers need.

    Args:
        path: the file, which is replaced as a whole or not at all.
        labels: label map (columns, rows, slices), in the order of the series' files.
        series: where the image came from.
        names: label value → name, the background left out; each becomes a segment, also if it is empty.
        algorithm: its name, for the viewer.
        version: of the algorithm.

    Raises:
        InputError: the labels don't fit the series, tags of which the segmentation takes over are broken, or what was
            written reads back as something else.
    """
    if labels.shape != series.shape:
        raise InputError(f"the label map has shape {labels.shape}, the series {series.shape}.")
    frames = np.ascontiguousarray(labels.transpose(2, 1, 0))
    segments = np.zeros(frames.shape, dtype=np.uint8)
    for number, value in enumerate(names, start=1):
        segments[frames == value] = number
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in series.files]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values in the source that are not as the standard has them
        try:
            written = build(segments, sources, list(names.values()), algorithm, version)
        except Exception as error:  # its text may repeat the patient's tags
            raise InputError(
                "no DICOM segmentation can be made of it: some of its tags, such as dates, are not as the standard has "
                "them; correct them, or leave the segmentation out with --nodicom_seg."
            ) from error
        with replacing(path) as temporary:
            written.save_as(temporary)
            found, affine = read_segmentation(temporary, sources)
            if not np.array_equal(found, segments) or not np.allclose(affine, series.affine, atol=1e-2):
                raise InputError("the DICOM segmentation reads back as something else than was written; report this.")


def build(
    segments: np.ndarray, sources: list[pydicom.Dataset], names: list[str], algorithm: str, version: str
) -> hd.seg.Segmentation:
    identification = hd.AlgorithmIdentificationSequence(algorithm, codes.DCM.ArtificialIntelligence, version)
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=segments,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[describe(i, name, identification) for i, name in enumerate(names, start=1)],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="hybrid-nets",
        manufacturer_model_name=algorithm,
        software_versions=version,
        device_serial_number="none",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_description="Research only, not for diagnosis",
        series_description=f"{algorithm} segmentation (research only)"[:64],
    )


def describe(number: int, name: str, identification: hd.AlgorithmIdentificationSequence) -> hd.seg.SegmentDescription:
    coded = structure_codes(name)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=concept(coded.category),
        segmented_property_type=concept(coded.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identification,
    )
    if coded.side:
        (kind,) = description.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(coded.side)]
    return description


def concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme, code.meaning)


def read_segmentation(path: str | Path, sources: list[pydicom.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """Segment numbers (slices, rows, columns) of a segmentation of ``sources``, and their affine.

    The affine is that of voxels (column, row, slice) to millimetres (RAS), as the segmentation itself states it.
    """
    found = hd.seg.segread(path)
    uids = [source.SOPInstanceUID for source in sources]
    options = {"combine_segments": True, "assert_missing_frames_are_empty": True, "dtype": np.uint8}
    labels = found.get_pixels_by_source_instance(uids, **options)
    return labels, found_affine(found, sources)


def found_affine(found: hd.seg.Segmentation, sources: list[pydicom.Dataset]) -> np.ndarray:
    """From where the frames say they lie; frames of empty slices are left out of the file."""
    shared = found.SharedFunctionalGroupsSequence[0]
    spacing = [float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing]
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    places = {source.SOPInstanceUID: index for index, source in enumerate(sources)}
    points = {}
    for frame in found.PerFrameFunctionalGroupsSequence:
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        points[places[uid]] = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
    ends = min(points), max(points)
    if ends[0] == ends[1]:  # one slice has structures: how far the next one lies is the source's to say
        first, last = (np.array(sources[i].ImagePositionPatient, dtype=float) for i in (0, -1))
        step = (last - first) / (len(sources) - 1)
    else:
        step = (points[ends[1]] - points[ends[0]]) / (ends[1] - ends[0])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = directions[:3] * spacing[1], directions[3:] * spacing[0]
    affine[:3, 2], affine[:3, 3] = step, points[ends[0]] - ends[0] * step
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
