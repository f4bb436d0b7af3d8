"""``hybrid-nets segment`` against ``monai.bundle run``, and what it writes."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from command import OBLIQUE, SHAPE, make_image, make_scans, make_weights, results, run, tiny_options, words
from conftest import ROOT, save_nifti

from hybrid_nets.cli.model import BundleModel
from hybrid_nets.writers import AtomicNibabelWriter


def read_csv(path: Path) -> list[dict]:
    return list(csv.DictReader(path.read_text().splitlines()))


def option(command: list, name: str) -> list:
    return command[command.index(f"--{name}") + 1]


def run_monai(bundle: str, options: dict, source: Path, output: Path, overlays: tuple = ()) -> None:
    files = [str(ROOT / "bundles" / bundle / "configs" / f"{name}.json") for name in ("inference", *overlays)]
    monai.bundle.run(config_file=files, dataset_dir=str(source), output_dir=str(output), **options)


@pytest.fixture(scope="module")
def undisturbed(organs: list, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five scans and their results."""
    root = tmp_path_factory.mktemp("cohort")
    make_scans(root / "scans", 5)
    assert run(*organs, "-i", root / "scans", "-o", root / "out", "--save_probabilities") == 0
    return root / "scans", root / "out"


def test_results_are_those_of_monai_bundle_run(organs: list, undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    scans, out = undisturbed
    weights = Path(option(organs, "checkpoints")[0])
    run_monai("mobileutr", {**tiny_options("mobileutr", weights), "save_probabilities": True}, scans, tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert len(names) == 10
    for name in names:
        ours, theirs = nib.load(out / name), nib.load(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
        np.testing.assert_array_equal(ours.affine, theirs.affine)
        assert ours.header.get_data_dtype() == theirs.header.get_data_dtype()
    label = nib.load(out / "scan_0_seg.nii.gz")
    np.testing.assert_allclose(label.affine, OBLIQUE, atol=1e-5)
    assert len(np.unique(np.asarray(label.dataobj))) > 2  # random weights, but not one label for all


def test_volumes_are_counted(undisturbed: tuple[Path, Path]) -> None:
    _, out = undisturbed
    rows = read_csv(out / "volumes.csv")
    assert len(rows) == 5 * 13 and not (out / "failures.csv").exists()
    liver = next(row for row in rows if (row["case"], row["structure"]) == ("scan_1", "liver"))
    labels = np.asarray(nib.load(out / "scan_1_seg.nii.gz").dataobj)
    assert int(liver["voxels"]) == (labels == 6).sum()
    voxel = abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000
    assert float(liver["volume_ml"]) == pytest.approx((labels == 6).sum() * voxel, abs=1e-3)


def write_broken(scans: Path) -> None:
    """Four files that can't be segmented, each for another reason."""
    whole = (scans / "scan_0.nii.gz").read_bytes()
    (scans / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (scans / "empty.nii.gz").write_bytes(b"")
    (scans / "text.nii.gz").write_bytes(b"no image")
    bad = make_image(7).astype(np.float32)
    bad[3, 3, 3] = np.nan
    save_nifti(scans / "=nan.nii.gz", bad, OBLIQUE)


def test_broken_cases_are_named_and_cost_nothing_else(
    organs: list, undisturbed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scans = shutil.copytree(undisturbed[0], tmp_path / "scans")
    write_broken(scans)
    assert run(*organs, "-i", scans, "-o", tmp_path / "out", "--save_probabilities") == 1
    assert results(tmp_path / "out") == results(undisturbed[1])
    reasons = {row["case"]: row["reason"] for row in read_csv(tmp_path / "out" / "failures.csv")}
    assert reasons.keys() == {
        "truncated",
        "empty",
        "text",
        "'=nan",
    }  # the apostrophe keeps spreadsheets from computing it
    assert "truncated or damaged" in reasons["truncated"]
    assert "empty (0 bytes)" in reasons["empty"]
    assert "not compressed by gzip" in reasons["text"]
    assert "1 voxels that are NaN or infinite" in reasons["'=nan"]
    assert "5 segmented, 0 complete before, 4 failed" in capsys.readouterr().out
    # Mended, the same command takes up the one, and leaves the others.
    save_nifti(scans / "empty.nii.gz", make_image(8), OBLIQUE)
    assert run(*organs, "-i", scans, "-o", tmp_path / "out", "--save_probabilities") == 1
    assert "1 segmented, 5 complete before, 3 failed" in capsys.readouterr().out
    assert "scan" in {row["case"].split("_")[0] for row in read_csv(tmp_path / "out" / "volumes.csv")}


def faulty(folder: Path) -> dict[str, str]:
    """Writes one image with each fault; what its reason must say."""
    good = make_image(0)
    singular, other = OBLIQUE.copy(), np.zeros(good.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    singular[:, 1] = singular[:, 0]
    header = nib.Nifti1Header()
    header.set_sform(singular, 1)
    nib.save(nib.Nifti1Image(good, None, header), folder / "singular.nii")
    save_nifti(folder / "flat.nii", good[..., 0])
    save_nifti(folder / "five.nii", good[..., None, None])
    save_nifti(folder / "complex.nii", good.astype(np.complex64))
    save_nifti(folder / "colours.nii", other)
    save_nifti(folder / "constant.nii", np.full_like(good, 7))
    save_nifti(folder / "channels.nii", np.stack([good, good], -1))
    save_nifti(folder / "short.nii", good)
    (folder / "short.nii").write_bytes((folder / "short.nii").read_bytes()[:9000])
    (folder / "magic.nii.gz").write_bytes(gzip.compress(b"x" * 1000))
    (folder / "plain.nii.gz").write_bytes(b"x" * 1000)
    (folder / "folder.nii.gz").mkdir()
    (folder / "gone.nii.gz").symlink_to(folder / "nowhere")
    return {
        "singular": "singular affine",
        "flat": "a volume has three axes",
        "five": "a volume has three axes",
        "complex": "complex64 voxels",
        "colours": "voxels; export it with plain numbers",
        "constant": "all its voxels have the value 7",
        "channels": "has 2 channel(s), the network takes 1 (CT",
        "short": "is truncated: 9000 of",
        "magic": "not a readable NIfTI",
        "plain": "not compressed by gzip",
        "folder": "is a folder",
        "gone": "does not exist",
    }


def test_each_fault_has_its_reason(organs: list, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    expected = faulty(tmp_path / "in")
    save_nifti(tmp_path / "in" / ("ü" + "x" * 240 + ".nii"), make_image(1), OBLIQUE)  # nothing is wrong with this one
    save_nifti(tmp_path / "in" / "thin.nii", make_image(1)[..., 10:11], OBLIQUE)  # nor with one slice
    assert run(*organs, "-i", tmp_path / "in", "-o", tmp_path / "out") == 1
    reasons = {row["case"]: row["reason"] for row in read_csv(tmp_path / "out" / "failures.csv")}
    assert reasons.keys() == expected.keys()
    for case, words_ in expected.items():
        assert words_ in reasons[case], (case, reasons[case])
    assert len(results(tmp_path / "out")) == 2
    assert not [file for file in (tmp_path / "out").rglob("*") if "tmp" in file.name or file.suffix == ".lock"]


def test_killed_among_broken_cases_and_run_again_equals_undisturbed(
    organs: list, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    scans, out, output = shutil.copytree(undisturbed[0], tmp_path / "scans"), undisturbed[1], tmp_path / "out"
    write_broken(scans)
    command = [*organs, "-i", scans, "-o", output, "--save_probabilities"]
    with subprocess.Popen([sys.executable, "-m", "hybrid_nets", *map(str, command)], cwd=ROOT) as process:
        give_up = time.monotonic() + 300
        while len(results(output)) < 2 and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert 2 <= len(results(output)) < 5
    done = [json.loads(file.read_text()) for file in (output / ".hybrid_nets" / "cases").glob("scan*.json")]
    before = {name: (output / name).stat().st_mtime_ns for record in done for name in record["outputs"]}
    assert before and run(*command) == 1
    assert results(output) == results(out)
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before  # not made twice
    assert (output / "volumes.csv").read_text() == (out / "volumes.csv").read_text()
    assert {row["case"] for row in read_csv(output / "failures.csv")} == {"truncated", "empty", "text", "'=nan"}
    left = {file.name for file in output.iterdir()} - {"failures.csv"}
    assert left == {file.name for file in out.iterdir()}  # no leftovers


def test_two_processes_take_each_case_once(organs: list, undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    scans, out = undisturbed
    words_ = [word for name, word in zip(["", *organs], organs) if name != "--device" and word != "--device"]
    command = [*words_, "-i", scans, "-o", tmp_path, "--save_probabilities"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    done = subprocess.run(
        [*launch, "hybrid_nets", *map(str, command)],
        **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 300},
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "5 segmented, 0 complete before, 0 failed" in done.stdout
    assert results(tmp_path) == results(out)
    assert (tmp_path / "volumes.csv").read_text() == (out / "volumes.csv").read_text()


def test_results_of_other_settings_or_images_are_not_mixed(
    organs: list, undisturbed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scans, out = tmp_path / "scans", shutil.copytree(undisturbed[1], tmp_path / "out")
    make_scans(scans, 1)
    assert "other settings (overlap, save_probabilities)" in str(
        run(*organs, "-i", scans, "-o", out, "--overlap", 0.25)
    )
    assert run(*organs, "-i", scans, "-o", out, "--save_probabilities") == 1  # a scan_0 of another folder
    assert "scan_0_seg.nii.gz belongs to another image" in capsys.readouterr().out
    assert results(out) == results(undisturbed[1])
    assert run(*organs, "-i", scans, "-o", out, "--overlap", 0.25, "--overwrite") == 0
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "scan_0_seg.nii.gz").write_bytes(b"drawn by hand")
    assert run(*organs, "-i", scans, "-o", tmp_path / "own") == 1
    assert "not of this command" in capsys.readouterr().out
    assert (tmp_path / "own" / "scan_0_seg.nii.gz").read_bytes() == b"drawn by hand"


def test_files_of_one_name_in_several_folders(organs: list, tmp_path: Path) -> None:
    """Results may lie among the images, and are not segmented themselves."""
    for i, folder in enumerate("ab"):
        save_nifti(tmp_path / folder / "scan.nii.gz", make_image(i), OBLIQUE)
    for _ in range(2):
        assert run(*organs, "-i", tmp_path, "-o", tmp_path, "--save_probabilities") == 0
        assert results(tmp_path).keys() == {"a/scan_seg.nii.gz", "b/scan_seg.nii.gz"}
    assert len(set(results(tmp_path).values())) == 2
    assert {row["case"] for row in read_csv(tmp_path / "volumes.csv")} == {"a/scan", "b/scan"}


def test_several_channels_from_one_file_a_folder_or_a_list(tmp_path: Path) -> None:
    weights = make_weights("glims", tmp_path)
    command = ["segment", "--bundle", ROOT / "bundles" / "glims", *words(tiny_options("glims", weights))]
    image = make_image(3, (*SHAPE, 4)) * np.arange(1, 5, dtype=np.int16)
    whole = save_nifti(tmp_path / "4d" / "head.nii.gz", image, OBLIQUE)
    names = ["FLAIR", "T1ce", "T1", "T2"]
    endings = ["t2f", "t1c", "t1n", "t2w"]
    for i, ending in enumerate(endings):
        save_nifti(tmp_path / "folders" / "head" / f"head-{ending}.nii.gz", image[..., i], OBLIQUE)
    rows = [",".join(["case", *names]), ",".join(["head", *(f"folders/head/head-{e}.nii.gz" for e in endings)])]
    (tmp_path / "list.csv").write_text("\n".join([*rows, "lacking,folders/head/head-t2f.nii.gz,,,"]) + "\n")
    probabilities = {**tiny_options("glims", weights), "save_probabilities": True}
    run_monai("glims", probabilities, tmp_path / "4d", tmp_path / "monai")
    expected = np.asarray(nib.load(tmp_path / "monai" / "head_prob.nii.gz").dataobj)
    assert expected.std() > 0.01  # random weights may give no label anywhere
    for source, status, name in ((whole, 0, "head"), ("folders", 0, "head/head"), ("list.csv", 1, "head")):
        output = tmp_path / f"out_{Path(source).name}"
        assert run(*command, "-i", tmp_path / source, "-o", output, "--save_probabilities") == status
        assert (output / f"{name}_seg.nii.gz").is_file()
        found = nib.load(output / f"{name}_prob.nii.gz")
        np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    assert "an image is missing in the list" in read_csv(tmp_path / "out_list.csv" / "failures.csv")[0]["reason"]


def test_pictures(tmp_path: Path) -> None:
    import itk

    overlay = {"config_file": "images", "roi_size": [64, 64]}
    parser_options = {"widths": [4, 8, 8, 12, 16], "device": "cpu", "roi_size": [64, 64]}
    source = tmp_path / "in" / "grey.png"
    source.parent.mkdir()
    itk.imwrite(itk.image_from_array(np.random.default_rng(0).integers(0, 255, (70, 90), dtype=np.uint8)), str(source))
    parser = monai.bundle.ConfigParser()
    parser.read_config([str(ROOT / "bundles/hylt/configs" / f"{name}.json") for name in ("inference", "images")])
    parser.update(parser_options)
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    options = {**parser_options, "checkpoints": [str(tmp_path / "model.pt")]}
    run_monai("hylt", options, source.parent, tmp_path / "monai", ("images",))
    command = ["segment", "--bundle", "hylt", *words({**options, **overlay}), "-i", source.parent]
    assert run(*command, "-o", tmp_path / "out") == 0
    assert (tmp_path / "out" / "grey_seg.png").read_bytes() == (tmp_path / "monai" / "grey_seg.png").read_bytes()
    (row,) = read_csv(tmp_path / "out" / "volumes.csv")
    mask = itk.array_from_image(itk.imread(str(tmp_path / "out" / "grey_seg.png")))
    assert row["structure"] == "foreground" and int(row["voxels"]) == (mask == 255).sum() and row["volume_ml"] == ""


def test_fast_is_a_quarter_s_overlap_and_bfloat16_where_the_cpu_has_it(
    organs: list, undisturbed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*organs, "-i", undisturbed[0] / "scan_0.nii.gz", "--save_probabilities"]
    assert run(*command, "-o", tmp_path / "quarter", "--overlap", 0.25) == 0
    for name, native in (("single", False), ("half", True)):
        monkeypatch.setattr("hybrid_nets.cli.model.computes_bfloat16", lambda native=native: native)
        assert run(*command, "-o", tmp_path / name, "--fast") == 0
    assert results(tmp_path / "single") == results(tmp_path / "quarter")
    half, single = (np.asarray(nib.load(tmp_path / n / "scan_0_prob.nii.gz").dataobj) for n in ("half", "single"))
    assert 0 < np.abs(half - single).mean() < 0.01
    assert "--fast sets the overlap" in str(run(*command, "-o", tmp_path, "--fast", "--overlap", 0.1))


def test_mirrored_windows_change_the_result(organs: list, undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    command = [*organs, "-i", undisturbed[0] / "scan_0.nii.gz", "--save_probabilities"]
    assert run(*command, "-o", tmp_path, "--tta") == 0
    ours, plain = (nib.load(folder / "scan_0_prob.nii.gz") for folder in (tmp_path, undisturbed[1]))
    assert np.abs(np.asarray(ours.dataobj) - np.asarray(plain.dataobj)).max() > 1e-3


def test_a_full_gpu_is_tried_once_more_when_the_case_before_is_written(
    organs: list, undisturbed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, predict = [], BundleModel.predict

    def full_at_first(self: BundleModel, item: dict) -> dict:
        tried.append(item["image"].meta["filename_or_obj"])
        if len(tried) - len(set(tried)) == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(self, item)

    monkeypatch.setattr(BundleModel, "predict", full_at_first)
    assert run(*organs, "-i", undisturbed[0] / "scan_2.nii.gz", "-o", tmp_path) == 0 and len(tried) == 2
    assert results(tmp_path)["scan_2_seg.nii.gz"] == results(undisturbed[1])["scan_2_seg.nii.gz"]


def test_a_full_disk_ends_the_run_with_its_reason(
    organs: list, undisturbed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stops instead of inferring on for nothing, and goes on when there is room."""
    write = AtomicNibabelWriter.write

    def full(self: AtomicNibabelWriter, filename: str, **options: object) -> None:
        if "scan_3" in filename:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), filename)
        write(self, filename, **options)

    with monkeypatch.context() as patch:
        patch.setattr(AtomicNibabelWriter, "write", full)
        ended = run(*organs, "-i", undisturbed[0], "-o", tmp_path, "--save_probabilities")
    assert "No space left on device" in str(ended)
    assert results(tmp_path).keys() == {f"scan_{i}_seg.nii.gz" for i in range(3)}
    assert run(*organs, "-i", undisturbed[0], "-o", tmp_path, "--save_probabilities") == 0
    assert results(tmp_path) == results(undisturbed[1])
