"""Label maps land on the voxels that they belong to, whatever way a scan is stored."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cli.command import run
from conftest import ROOT
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from reliability_geometry import (
    SPACING,
    Variant,
    exact_variants,
    find_differences,
    resampled_variants,
    stub_command,
    write_variants,
)

from hybrid_nets import CheckImaged, InputError
from hybrid_nets.cli.cases import Case
from hybrid_nets.cli.model import BundleModel
from hybrid_nets.errors import find_input_error


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words after ``python -m hybrid_nets`` that segment by grey values."""
    return stub_command(tmp_path_factory.mktemp("stub"))[3:]


def segment(command: list[str], variants: list[Variant], folder: Path) -> dict:
    write_variants(folder / "scans", variants)
    assert run(*command, "-i", folder / "scans", "-o", folder / "out") == 0
    return find_differences(variants, folder / "scans", folder / "out")


def test_nothing_changes_in_any_orientation_on_the_network_s_grid(command: list[str], tmp_path: Path) -> None:
    variants = list(exact_variants())
    found = segment(command, variants, tmp_path)
    assert len(found) == 96
    assert {name: d for name, d in found.items() if d.header or d.voxels} == {}


def test_resampling_changes_labels_at_borders_only(command: list[str], tmp_path: Path) -> None:
    """Spacings of 0.4 to 6 mm, sheared and oblique; header fields are kept bit for bit."""
    found = segment(command, list(resampled_variants(every=13)), tmp_path)
    assert len(found) == 45
    assert {name: d for name, d in found.items() if not d.near} == {}


def test_the_network_sees_every_orientation_alike(command: list[str], tmp_path: Path) -> None:
    variants = [variant for variant in exact_variants() if variant.name.startswith("straight")]
    write_variants(tmp_path, variants)
    configs = ROOT / "bundles" / "mobileutr" / "configs"
    model = BundleModel(configs.parent, [configs / "inference.json"], {"spacing": list(SPACING)})
    images = [model.load(Case("a", (str(tmp_path / variant.name),)))["image"] for variant in variants]
    shown = np.unique([image.numpy().tobytes() for image in images])
    assert len(images) == 48 and len(shown) == 1 and images[0].std() > 0.1
    mirrored = images[0].flip(1).numpy().tobytes()
    assert mirrored != images[0].numpy().tobytes()  # the phantom would show it


@pytest.mark.parametrize("codes", [(0, 0), (0, 3), (3, 0)])
def test_unusual_codes_are_kept(codes: tuple[int, int], command: list[str], tmp_path: Path) -> None:
    """Without any code nibabel and others go by pixdim alone."""
    (variant,) = (v for v in exact_variants() if v.name.startswith("oblique_00"))
    write_variants(tmp_path, [variant])
    image = nib.load(tmp_path / variant.name)
    header = image.header.copy()
    header["sform_code"], header["qform_code"] = codes
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, header), tmp_path / "in.nii.gz")
    assert run(*command, "-i", tmp_path / "in.nii.gz", "-o", tmp_path / "out") == 0
    source, found = nib.load(tmp_path / "in.nii.gz"), nib.load(tmp_path / "out" / "in_seg.nii.gz")
    assert (int(found.header["sform_code"]), int(found.header["qform_code"])) == codes
    np.testing.assert_array_equal(found.affine, source.affine)
    values = np.asarray(source.dataobj)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.searchsorted(np.unique(values), values))


def test_a_header_that_contradicts_itself_is_refused_by_the_bundle_s_own_inference(tmp_path: Path) -> None:
    """MONAI's reader would take a qform that nobody set."""
    import monai.bundle

    header = nib.Nifti1Header()
    header.set_sform(np.diag([-2, 3, 4, 1.0]), 1)  # pixdim stays at 1 mm
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(9, 9, 9)), None, header), tmp_path / "in" / "a.nii")
    network = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 14, "kernel_size": 1}
    options = {"network": network, "device": "cpu", "output_dir": str(tmp_path / "out")}
    config = str(ROOT / "bundles" / "mobileutr" / "configs" / "inference.json")
    with pytest.raises(RuntimeError) as raised:
        monai.bundle.run(config_file=config, dataset_dir=str(tmp_path / "in"), **options)
    message = str(find_input_error(raised.value))
    assert "contradicts itself" in message and "1 x 1 x 1 by its pixdim, and 2 x 3 x 4 by its sform" in message


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 5, 1)])
def test_flat_files_have_a_place_that_is_checked_too(shape: tuple[int, ...], tmp_path: Path) -> None:
    load, check = Compose([LoadImaged("image"), EnsureChannelFirstd("image")]), CheckImaged("image", 1)
    image = nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), np.diag([2, 3, 4, 1.0]))
    nib.save(image, tmp_path / "a.nii")
    assert check(load({"image": str(tmp_path / "a.nii")}))["image"].shape[1:3] == (8, 9)
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[80:84] = np.float32(1.0).tobytes()  # the first of pixdim
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match="contradicts itself"):
        check(load({"image": str(tmp_path / "a.nii")}))
