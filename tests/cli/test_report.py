"""``hybrid-nets report`` on results written by hand, whose numbers are known."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from command import OBLIQUE, run
from conftest import save_nifti
from monai.data import MetaTensor
from PIL import Image

from hybrid_nets.cli.cases import Case
from hybrid_nets.cli.records import Records
from hybrid_nets.cli.tables import measure, write_tables
from hybrid_nets.report.views import draw_views
from hybrid_nets.report.volumes import Grid

NAMES = {1: "liver", 2: "<b>spleen</b>"}
AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])
SHAPE = (30, 28, 20)


def cube(start: int, side: int, value: int = 1) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[start : start + side, 8 : 8 + side, 4:12] = value
    return labels


def write_results(root: Path, maps: dict[str, np.ndarray], affine: np.ndarray = AFFINE) -> Path:
    """What segment leaves of these label maps, and images of noise."""
    records = Records(root / "out", "run")
    draw = np.random.default_rng(0)
    for name, labels in maps.items():
        image = save_nifti(root / "in" / f"{name}.nii.gz", draw.normal(0, 1, SHAPE).astype(np.float32), affine)
        save_nifti(root / "out" / f"{name}_seg.nii.gz", labels, affine)
        case = Case(name, (str(image),))
        rows = measure(MetaTensor(labels[None], affine=affine), NAMES, pictures=False)
        more = {"source": case.source(), "images": case.images(), "outputs": [f"{name}_seg.nii.gz"], "volumes": rows}
        records.write(case, status="done", **more)
    records.write(Case("torn"), status="failed", reason="the file is <empty>")
    write_tables(records)
    return root / "out"


def article(page: str, name: str) -> str:
    return next(part for part in page.split("<article")[1:] if f"<h3>{name}" in part)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the liver one case is right, one shifted by 2 voxels of 2 mm and one missed; none has a spleen."""
    root = tmp_path_factory.mktemp("report")
    out = write_results(root, {"right": cube(8, 10), "site/shifted": cube(10, 10), "missed": np.zeros(SHAPE, np.uint8)})
    for name in ("right", "shifted", "missed"):
        save_nifti(root / "labels" / f"{name}_seg.nii.gz", cube(8, 10), AFFINE)
    assert run("report", out, "--labels", root / "labels") == 0
    return out


def test_the_page_needs_nothing_else_and_shows_every_case(cohort: Path) -> None:
    page = (cohort / "report.html").read_text()
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert all(source.startswith(("data:image/png;base64,", "#case-")) for source in sources)
    assert "<script" not in page and "@import" not in page and "url(" not in page
    assert "prefers-color-scheme: dark" in page and "radiological convention" in page.lower()
    files = sorted(str(file.relative_to(cohort)) for file in cohort.rglob("*_axial.png"))
    assert files == ["report/missed_axial.png", "report/right_axial.png", "report/site/shifted_axial.png"]
    assert page.count("<article") == 3 and page.count("slice of") == 9


def test_worst_cases_come_first_with_known_numbers(cohort: Path) -> None:
    page = (cohort / "report.html").read_text()
    assert re.findall(r"<h3>([\w/]+)", page) == ["missed", "site/shifted", "right"]
    cells = {name: re.findall(r"<td>([^<]*)</td>", article(page, name)) for name in ("missed", "site/shifted", "right")}
    assert cells["missed"][:4] == ["0.00", "0.00", "0.00", "–"]  # volume, Dice, surface Dice, HD95
    assert cells["site/shifted"][:2] == ["12.80", "0.80"] and cells["site/shifted"][3] == "4.00"
    assert cells["right"][:4] == ["12.80", "1.00", "1.00", "0.00"]
    cohort_row = re.search(r"liver</th>(.*)</tr>", page).group(1)
    # cases, median, smallest, largest, empty, missed, made up, Dice, surface Dice, HD95
    found = re.findall(r"<td>([^<]*)</td>", cohort_row)
    assert found[:8] == ["3", "12.8", "12.8", "12.8", "1", "1", "0", "0.60 (3)"] and found[9] == "2.00 (2)"


def test_warnings_name_what_to_look_at(tmp_path: Path) -> None:
    maps = {f"usual_{i}": cube(8, 10) for i in range(5)} | {"small": cube(8, 4), "cut": cube(20, 10, 2)}
    out = write_results(tmp_path, maps)
    assert run("report", out) == 0
    page = (out / "report.html").read_text()
    assert "liver is far from the cohort&#x27;s median: 0.16 times it" in article(page, "small")
    assert "touches the image&#x27;s border: &lt;b&gt;spleen&lt;/b&gt;" in article(page, "cut")
    assert "empty: liver" in article(page, "cut") and "median" not in article(page, "usual_0")
    assert "Dice" not in page


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    out = write_results(tmp_path, {name: cube(8, 10)})
    assert run("report", out) == 0
    page = (out / "report.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<b>spleen" not in page and "the file is &lt;empty&gt;" in page


def test_left_and_right_are_where_the_letters_say(tmp_path: Path) -> None:
    """The patient's right half is bright; its letter stands on the bright side, in either convention."""
    bright = np.zeros(SHAPE, np.float32)
    bright[15:] = 100  # in RAS+ the first axis runs to the patient's right
    image, labels = Grid(bright, (2.0, 2.0, 4.0), AFFINE), Grid(np.zeros(SHAPE, np.uint8), (2.0, 2.0, 4.0), AFFINE)
    means = {}
    for convention in ("radiological", "neurological"):
        files = draw_views(tmp_path / convention, image, labels, None, {1: "liver"}, convention)
        pixels = np.asarray(Image.open(files["axial"]).convert("L"), float)
        quarter = pixels.shape[1] // 4
        means[convention] = pixels[:, quarter : 2 * quarter].mean(), pixels[:, 2 * quarter : 3 * quarter].mean()
    assert means["radiological"][0] > 200 > 50 > means["radiological"][1]
    assert means["neurological"][1] > 200 > 50 > means["neurological"][0]


def test_moved_images_are_found_by_input_and_said_to_be_gone_without(tmp_path: Path) -> None:
    out = write_results(tmp_path, {"a": cube(8, 10)}, OBLIQUE)
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    assert run("report", out) == 0
    assert "give the folder of the images with --input" in (out / "report.html").read_text()
    (tmp_path / "elsewhere").rename(tmp_path / "in")
    assert run("report", out, "-i", tmp_path / "in") == 0
    assert "--input" not in (out / "report.html").read_text()


def test_dicom_series_are_found_by_input_and_lie_on_their_label_map(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from dicom_files import write_series

    from hybrid_nets.dicom.series import find_series

    files = write_series(tmp_path / "dicom", np.random.default_rng(0).integers(0, 200, SHAPE), AFFINE)
    (series,), _ = find_series(files, "CT")
    out, case = write_results(tmp_path, {"a": cube(8, 10)}), Case("a", series=(series,))
    rows = measure(MetaTensor(cube(8, 10)[None], affine=AFFINE), NAMES, pictures=False)
    more = {"source": case.source(), "images": case.images(), "outputs": ["a_seg.nii.gz"], "volumes": rows}
    Records(out, "run").write(case, status="done", **more)
    assert run("report", out) == 0
    assert "its image is not known" in (out / "report.html").read_text()
    assert run("report", out, "-i", tmp_path / "dicom") == 0
    assert "its image" not in (out / "report.html").read_text()


def test_references_that_do_not_fit_are_named(tmp_path: Path) -> None:
    out = write_results(tmp_path, {"a": cube(8, 10), "b": cube(8, 10), "c": cube(8, 10)})
    save_nifti(tmp_path / "labels" / "a.nii.gz", cube(8, 10), AFFINE * 2)
    save_nifti(tmp_path / "labels" / "b.nii.gz", cube(8, 10, 7), AFFINE)
    assert run("report", out, "--labels", tmp_path / "labels") == 0
    page = (out / "report.html").read_text()
    assert "lies on another grid" in article(page, "a") and "label values [7]" in article(page, "b")
    assert "there is no reference of its name" in article(page, "c")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the folder of results"),
        (["nowhere"], "holds no results of hybrid-nets segment"),
        (["out", "--labels", "nowhere"], "there are no label maps"),
        (["out", "--convention", "upside"], "--convention is radiological or neurological"),
        (["out", "--tolerance", "wide"], "--tolerance is a distance in mm"),
        (["out", "--lables", "x"], "did you mean --labels?"),
    ],
)
def test_a_typing_error_says_what_to_give(
    words: list, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path, {"a": cube(8, 10)})
    monkeypatch.chdir(tmp_path)
    assert message in str(run("report", *words))


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert 'pip install "hybrid-nets[report]"' in str(run("report", tmp_path))
