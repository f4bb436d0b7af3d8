"""Names and DICOM tags are somebody else's text: they lead nowhere, run nowhere, and are not passed on unasked."""

from __future__ import annotations

import csv
import os
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cli.command import make_image, make_weights, run, tiny_options, words
from cli.dicom_files import write_series
from conftest import save_nifti
from ignite.engine import Engine
from monai.data import MetaTensor

from hybrid_nets import CaseMetrics
from hybrid_nets.atomic import replacing

AFFINE = np.diag([-4.0, 4.0, 5.0, 1.0])
SHAPE = (24, 22, 16)
# A person, as tags and paths name one.
SECRETS = ("MALORY", "19010203", "Elm Street", "ID-77", "Dr^Who")
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    weights = make_weights("mobileutr", tmp_path_factory.mktemp("weights"))
    return ["segment", "--bundle", "mobileutr", *words(tiny_options("mobileutr", weights))]


def write_patient(folder: Path, **tags: object) -> None:
    known = {"PatientName": f"MALORY^{SCRIPT}", "PatientBirthDate": "19010203", "PatientAddress": "Elm Street"}
    known |= {"PatientID": "ID-77", "ReferringPhysicianName": "Dr^Who", "SeriesDescription": "../../../evil"}
    known |= {"StudyDescription": SCRIPT, "StudyID": "/etc", "AccessionNumber": "=1+1"}
    write_series(folder, make_image(0, SHAPE), AFFINE, **{**known, **tags})


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_nothing_of_the_patient_s_is_passed_on_but_in_the_dicom_segmentation(
    command: list, tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    """A good series and three that fail; the folders' names are the patient's as well."""
    source, out = tmp_path / "in" / "MALORY 19010203", tmp_path / "results"
    write_patient(source / "a")
    bad = {"PatientBirthDate": "MALORY 19010203", "StudyTime": "Elm Street", "StudyInstanceUID": "MALORY"}
    write_patient(source / "d", SeriesNumber=11, **bad)
    write_patient(source / "b", SeriesNumber=9)
    missing = int(np.flatnonzero(np.random.default_rng(0).permutation(SHAPE[2]) == 8)[0])  # write_series's order
    sorted((source / "b").iterdir())[missing].unlink()
    write_patient(source / "c", SeriesNumber=10, PatientID="ID-77" * 20)  # longer than allowed: pydicom warns
    damaged = sorted((source / "c").iterdir())[3]
    damaged.write_bytes(damaged.read_bytes()[:-300])
    caplog.clear(), capfd.readouterr()  # of writing these
    assert run(*command, "-i", tmp_path / "in", "-o", out) == 1
    assert run("report", out, "--input", tmp_path / "in") == 0
    printed = "".join(capfd.readouterr()) + caplog.text
    failures = list(csv.DictReader((out / "failures.csv").read_text().splitlines()))
    assert len(failures) == 3 and "such as dates, are not as the standard" in failures[1]["reason"]
    for secret in SECRETS:
        assert secret not in printed
        for path in files_below(out):
            assert secret not in str(path.relative_to(out))
            assert path.suffix == ".dcm" or secret.encode() not in path.read_bytes(), path
    (segmentation,) = out.glob("*.dcm")
    assert b"MALORY" in segmentation.read_bytes()  # viewers show it with its study only


def test_tags_do_not_lead_out_of_the_folder_of_results(command: list, tmp_path: Path) -> None:
    """Names are made of the PatientID only where that is asked for."""
    write_patient(tmp_path / "in" / "a", PatientID="../../../evil")
    write_patient(tmp_path / "in" / "b", PatientID="/etc/evil", SeriesNumber="5")
    assert run(*command, "-i", tmp_path / "in", "-o", tmp_path / "deep" / "out", "--names", "patient") == 0
    outside = [path for path in files_below(tmp_path) if (tmp_path / "in") not in path.parents]
    assert outside and all((tmp_path / "deep" / "out") in path.parents for path in outside)
    assert sum("evil" in path.name and path.suffix == ".dcm" for path in outside) == 2
    assert not Path("/etc/evil").exists()


def test_case_names_of_a_list_do_not_lead_out(command: list, tmp_path: Path) -> None:
    scan = save_nifti(tmp_path / "scan.nii.gz", make_image(1, SHAPE), AFFINE)
    (tmp_path / "list.csv").write_text(f"case,image\n../../evil,{scan}\n=HYPERLINK(1),{scan}\n")
    assert run(*command, "-i", tmp_path / "list.csv", "-o", tmp_path / "deep" / "out") == 0
    found = {str(path.relative_to(tmp_path / "deep" / "out")) for path in tmp_path.rglob("*_seg.nii.gz")}
    assert found == {"evil_seg.nii.gz", "=HYPERLINK(1)_seg.nii.gz"}
    cells = {row[0] for row in csv.reader((tmp_path / "deep" / "out" / "volumes.csv").read_text().splitlines())}
    assert cells == {"case", "evil", "'=HYPERLINK(1)"}


def test_metrics_hold_no_formulas(tmp_path: Path) -> None:
    pixels = MetaTensor(np.ones((1, 4, 4, 4)), meta={"filename_or_obj": "/data/=cmd|' calc'!A0.nii.gz"})
    engine = Engine(lambda engine, batch: [{"pred": pixels, "label": pixels}])
    CaseMetrics(tmp_path, ["-organ"]).attach(engine)
    engine.run([0])
    (row,) = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    assert row["case"] == "'=cmd|' calc'!A0.nii.gz" and row["class"] == "'-organ"


def test_an_unfinished_file_is_private_and_goes_away(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        with pytest.raises(RuntimeError), replacing(tmp_path / "b.txt"):
            raise RuntimeError
    finally:
        os.umask(old)
    (left,) = tmp_path.iterdir()
    assert left.name == "a.txt" and left.read_text() == "x"


def test_an_unfinished_file_does_not_follow_a_link_in_its_place(tmp_path: Path) -> None:
    target = tmp_path / "somebody's"
    target.write_text("kept")
    (tmp_path / f".{os.getpid()}-a.txt").symlink_to(target)
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert target.read_text() == "kept" and (tmp_path / "a.txt").read_text() == "x"


def test_links_to_folders_are_named(command: list, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_nifti(tmp_path / "in" / "scan.nii.gz", make_image(1, SHAPE), AFFINE)
    (tmp_path / "in" / "loop").symlink_to(tmp_path)
    assert run(*command, "-i", tmp_path / "in", "-o", tmp_path / "out") == 0
    assert "1 link(s) to folders are not followed" in capsys.readouterr().out
    assert nib.load(tmp_path / "out" / "scan_seg.nii.gz").shape == SHAPE
