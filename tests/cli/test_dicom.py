"""DICOM series in, DICOM segmentations out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from command import make_image, results, run
from conftest import save_nifti
from dicom_files import write_series
from monai.transforms import LoadImage
from pydicom.sr._concepts_dict import concepts

from hybrid_nets.dicom.codes import ANATOMY, LESIONS, MORPHOLOGY, ORGANS, SIDES
from hybrid_nets.dicom.reader import SeriesReader
from hybrid_nets.dicom.series import find_series

# Turned about two axes, no shear: what DICOM can say.
TURN = np.linalg.qr(np.array([[1.0, -0.15, 0.1], [0.2, 1.0, -0.05], [-0.1, 0.1, 1.0]]))[0]
TURN *= np.sign(np.diag(TURN))
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = TURN * [3.9, 4.0, 4.9], [-70, -65, 12]
# Along the axes, where rounding in files can't move the grid that MONAI resamples to.
AFFINE = np.array([[-4.0, 0, 0, 70], [0, 4, 0, -65], [0, 0, 5, 12], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return make_image(0)


@pytest.fixture(scope="module")
def from_nifti(organs: list, volume: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> nib.Nifti1Image:
    """The label map of the same volume as NIfTI."""
    root = tmp_path_factory.mktemp("nifti")
    save_nifti(root / "scan.nii.gz", volume, AFFINE)
    assert run(*organs, "-i", root / "scan.nii.gz", "-o", root / "out") == 0
    return nib.load(root / "out" / "scan_seg.nii.gz")


def on_grid_of(image: nib.Nifti1Image, other: nib.Nifti1Image) -> np.ndarray:
    """Voxels of ``image``, axes permuted and turned to those of ``other``, where they lie at the same places."""
    steps = np.linalg.inv(image.affine) @ other.affine
    np.testing.assert_allclose(steps, np.round(steps), atol=2e-3)
    places = np.stack(np.meshgrid(*map(np.arange, other.shape), indexing="ij"), -1) @ steps[:3, :3].T + steps[:3, 3]
    return np.asarray(image.dataobj)[tuple(np.moveaxis(np.round(places).astype(int), -1, 0))]


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_a_series_gives_what_the_nifti_file_gives(
    plane: str, organs: list, volume: np.ndarray, from_nifti: nib.Nifti1Image, tmp_path: Path
) -> None:
    """In whatever order the files are, and where a viewer will look for it."""
    files = write_series(tmp_path / "in" / "deep", volume, AFFINE, plane)
    (tmp_path / "in" / "notes").write_text("not DICOM")
    assert run(*organs, "-i", tmp_path / "in", "-o", tmp_path / "out") == 0
    (name,) = results(tmp_path / "out")
    found = nib.load(tmp_path / "out" / name)
    np.testing.assert_array_equal(on_grid_of(found, from_nifti), np.asarray(from_nifti.dataobj))
    check_segmentation(tmp_path / "out" / name.replace("_seg.nii.gz", "_seg.dcm"), files, found)
    for file in (file for file in (tmp_path / "out").rglob("*") if file.is_file() and file.suffix != ".dcm"):
        assert b"SECRET" not in file.read_bytes() and b"ID7" not in file.read_bytes()
        assert "SECRET" not in file.name


@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_an_oblique_series_lies_where_it_did(plane: str, organs: list, volume: np.ndarray, tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", volume, OBLIQUE, plane)
    (series,), _ = find_series(files, "CT")
    image = LoadImage(reader=SeriesReader([series]), ensure_channel_first=True)(files[0])
    read = nib.Nifti1Image(image[0].numpy(), image.affine.numpy())
    np.testing.assert_array_equal(on_grid_of(read, nib.Nifti1Image(volume, OBLIQUE)), volume)
    assert run(*organs, "-i", tmp_path / "in", "-o", tmp_path / "out") == 0
    (name,) = results(tmp_path / "out")
    found = nib.load(tmp_path / "out" / name)
    np.testing.assert_allclose(found.affine, read.affine, atol=1e-4)
    check_segmentation(tmp_path / "out" / name.replace("_seg.nii.gz", "_seg.dcm"), files, found)


def check_segmentation(path: Path, files: list[Path], labels: nib.Nifti1Image) -> None:
    """Voxels and geometry as highdicom's volume has them, which this package's own check doesn't use."""
    written = hd.seg.segread(path)
    volume = written.get_volume(combine_segments=True).to_patient_orientation("LPS")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    segmented = nib.Nifti1Image(volume.array.astype(np.uint8), affine)
    expected = on_grid_of(labels, segmented)
    np.testing.assert_array_equal(np.asarray(segmented.dataobj), expected)
    assert (expected > 0).sum() == (np.asarray(labels.dataobj) > 0).sum()  # nothing lies outside what was written
    source = pydicom.dcmread(files[0])
    for tag in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert written[tag].value == source[tag].value
    referenced = {uid for _, _, uid in written.get_source_image_uids()}
    assert referenced == {pydicom.dcmread(file).SOPInstanceUID for file in files}
    kidney = written.get_segment_description(2)
    (kind,) = kidney.SegmentedPropertyTypeCodeSequence
    assert kidney.segment_label == "right kidney" and kind.CodeValue == "64033007"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    assert [d.segment_label for d in written.SegmentSequence][9] == "portal and splenic veins"


def test_codes_are_those_of_the_standard() -> None:
    """As pydicom has them from the context groups: the name that a meaning makes leads to the code."""
    for code in (ANATOMY, MORPHOLOGY, *SIDES.values(), *ORGANS.values(), *LESIONS.values()):
        name = "".join(word[0].upper() + word[1:] for word in code.meaning.split())
        assert code.value in concepts["SCT"][name], code


def spoil(files: list[Path], fault: str) -> None:
    headers = [pydicom.dcmread(file) for file in files]
    if fault == "missing":
        inner = sorted(zip(headers, files), key=lambda pair: float(pair[0].ImagePositionPatient[2]))[5][1]
        inner.unlink()
    elif fault == "double":
        headers[0].SOPInstanceUID = pydicom.uid.generate_uid()
        headers[0].file_meta.MediaStorageSOPInstanceUID = headers[0].SOPInstanceUID
        headers[0].save_as(files[0].with_name("again"))
    elif fault == "turned":
        headers[3].ImageOrientationPatient = [0, 1, 0, 0, 0, 1]
        headers[3].save_as(files[3])
    elif fault == "tilted":
        for header, file in zip(headers, files):
            x, y, z = header.ImagePositionPatient
            header.ImagePositionPatient = [x, float(y) + 0.3 * float(z), z]
            header.save_as(file)
    elif fault == "nowhere":
        del headers[2].ImagePositionPatient
        headers[2].save_as(files[2])
    elif fault == "frames":
        headers[1].NumberOfFrames = 5
        headers[1].save_as(files[1])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing", "1 slice(s) are missing"),
        ("double", "lie where another one does"),
        ("turned", "differ in orientation"),
        ("tilted", "tilted gantry"),
        ("nowhere", "does not say where it lies"),
        ("frames", "multi-frame"),
    ],
)
def test_series_that_are_no_grid_say_why(fault: str, reason: str, volume: np.ndarray, tmp_path: Path) -> None:
    files = write_series(tmp_path, volume, np.diag([4.0, 4.0, 5.0, 1.0]))
    spoil(files, fault)
    (series,), _ = find_series(sorted(tmp_path.iterdir()), "CT")
    assert reason in (series.problem or "")


def test_a_tree_of_series(organs: list, volume: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One good, one lacking a slice; a localiser, an MR series and a single image are left out with a note."""
    source = tmp_path / "in"
    write_series(source / "a", volume, AFFINE, SeriesNumber=2)
    spoil(write_series(source / "b", volume, np.diag([4.0, 4.0, 5.0, 1.0]), SeriesNumber=3), "missing")
    write_series(source / "c", volume[..., :3], AFFINE, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(source / "d", volume[..., :3], AFFINE, modality="MR")
    write_series(source / "e", volume[..., :1], AFFINE)
    shutil.copy(next((source / "a").iterdir()), source / "copy")  # the same image twice is one
    assert run(*organs, "-i", source, "-o", tmp_path / "out", "--names", "patient") == 1
    printed = capsys.readouterr().out
    for text in ("a localiser", "its modality is MR and the bundle takes CT", "a single image"):
        assert text in printed
    assert "1 segmented, 0 complete before, 1 failed" in printed and "slice(s) are missing" in printed
    (name,) = results(tmp_path / "out")
    assert name.startswith("ID7_series_2_") and (tmp_path / "out" / name.replace("nii.gz", "dcm")).is_file()
    assert run(*organs, "-i", source, "-o", tmp_path / "out", "--names", "patient") == 1
    assert "0 segmented, 1 complete before, 1 failed" in capsys.readouterr().out


def test_a_list_may_name_series_and_an_empty_label_map_is_written(
    organs: list, volume: np.ndarray, tmp_path: Path
) -> None:
    from hybrid_nets.dicom.segmentation import read_segmentation, write_segmentation

    write_series(tmp_path / "series", volume, AFFINE)
    (tmp_path / "list.json").write_text(json.dumps([{"image": "series", "case": "first"}]))
    assert run(*organs, "-i", tmp_path / "list.json", "-o", tmp_path / "out", "--nodicom_seg") == 0
    assert results(tmp_path / "out").keys() == {"first_seg.nii.gz"} and not list((tmp_path / "out").glob("*.dcm"))
    (series,), _ = find_series(sorted((tmp_path / "series").iterdir()), "CT")
    for name, place in (("empty", None), ("one", (3, 4, 5))):
        labels = np.zeros(series.shape, np.uint8)
        if place:
            labels[place] = 7
        write_segmentation(tmp_path / f"{name}.dcm", labels, series, {3: "liver", 7: "thing"}, "test", "0")
        found, _ = read_segmentation(tmp_path / f"{name}.dcm", [pydicom.dcmread(file) for file in series.files])
        assert found.sum() == (2 if place else 0) and (not place or found[place[::-1]] == 2)
