from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ConvertToMultiChannelBasedOnBratsClasses

from hybrid_nets import (
    BratsLabelsd,
    BratsRegionsd,
    CheckImaged,
    InputError,
    Spacingd,
    StandardizeChannelsd,
    StandardizeLabelsd,
)

NAMES = {"0": "background", "1": "necrotic core", "2": "oedema", "3": "enhancing tumour"}


def meta(array: torch.Tensor, name: str = "scan.nii.gz") -> MetaTensor:
    return MetaTensor(array, meta={"filename_or_obj": name})


def test_channels_are_reordered() -> None:
    image = torch.arange(4.0).reshape(4, 1, 1, 1)
    out = StandardizeChannelsd("image")({"image": meta(image), "channel_order": [0, 2, 1, 3]})
    assert out["image"].flatten().tolist() == [0, 2, 1, 3] and "channel_order" not in out
    assert torch.equal(StandardizeChannelsd("image")({"image": image})["image"], image)


def test_labels_are_mapped_and_unknown_ones_refused() -> None:
    label = meta(torch.tensor([0, 1, 2, 4]).reshape(1, 4, 1, 1))
    standardize = StandardizeLabelsd("label", NAMES)
    out = standardize({"label": label, "label_values": {0: 0, 1: 2, 2: 1, 4: 3}})
    assert out["label"].flatten().tolist() == [0, 2, 1, 3] and "label_values" not in out
    with pytest.raises(
        InputError, match=r"scan.nii.gz has label values 4 that are not declared; known are .*3 \(enhancing"
    ):
        standardize({"label": label})


def test_images_that_cannot_be_used() -> None:
    check = CheckImaged("image", channels=("FLAIR", "T1ce", "T1", "T2"))
    check({"image": meta(torch.zeros(4, 2, 2, 2))})
    with pytest.raises(InputError, match=r"scan.nii.gz has 3 channel\(s\), the network takes 4 \(FLAIR, T1ce, T1, T2"):
        check({"image": meta(torch.zeros(3, 2, 2, 2))})
    bad = torch.zeros(4, 2, 2, 2)
    bad[0, 0, 0, 0], bad[1, 0, 0, 1] = torch.nan, torch.inf
    with pytest.raises(InputError, match="has 2 voxels that are NaN or infinite; replace them"):
        check({"image": meta(bad)})


def regions(shape: tuple[int, int, int] = (40, 40, 40)) -> np.ndarray:
    return np.full((3, *shape), 0.01, np.float32)


def to_labels(probabilities: np.ndarray) -> np.ndarray:
    return BratsLabelsd("pred")({"pred": torch.from_numpy(probabilities)})["pred"][0].numpy()


def test_regions_are_painted_from_large_to_small() -> None:
    p = regions()
    p[1, 5:25, 5:25, 5:25] = 0.95
    p[0, 8:20, 8:20, 8:20] = 0.95
    p[2, 10:16, 10:16, 10:16] = 0.95
    labels = to_labels(p)
    assert labels.dtype == np.uint8
    assert (labels[12, 12, 12], labels[18, 18, 18], labels[23, 23, 23], labels[30, 30, 30]) == (3, 1, 2, 0)


def test_thresholds_differ_by_region() -> None:
    for channel, value, kept in ((1, 0.5, 2), (1, 0.49, 0), (0, 0.6, 1), (0, 0.59, 0), (2, 0.6, 3), (2, 0.59, 0)):
        p = regions()
        p[channel] = value
        assert set(np.unique(to_labels(p))) == {kept}


@pytest.mark.parametrize(("channel", "value", "fallback", "size"), [(2, 3, 1, 75), (0, 1, 2, 75), (1, 2, 0, 500)])
def test_small_uncertain_components_fall_back(channel: int, value: int, fallback: int, size: int) -> None:
    for voxels, confidence, kept in ((size - 1, 0.85, False), (size, 0.85, True), (size - 1, 0.95, True)):
        p = regions()
        flat = p[channel].reshape(-1)
        flat[:voxels] = confidence  # a run of neighbours in memory is one component
        p[:channel] = 0.99 if channel == 2 else p[:channel]  # what surrounds enhancing tumour is tumour core
        p[1] = np.maximum(p[1], 0.99) if channel == 0 else p[1]
        labels = to_labels(p)
        assert (labels.reshape(-1)[:voxels] == (value if kept else fallback)).all(), (voxels, confidence)


def test_diagonal_neighbours_are_one_component() -> None:
    p = regions()
    for i in range(8):  # 8 cubes of 4³ voxels that touch at their corners only
        p[1, 4 * i : 4 * i + 4, 4 * i : 4 * i + 4, 4 * i : 4 * i + 4] = 0.6
    assert (to_labels(p) == 2).sum() == 512


def test_holes_in_enhancing_tumour_are_core() -> None:
    p = regions()
    p[:, 5:25, 5:25, 5:25] = 0.95
    p[:, 10:15, 10:15, 10:15] = 0.01
    labels = to_labels(p)
    assert labels[12, 12, 12] == 1 and labels[6, 6, 6] == 3


def test_meta_goes_on_to_the_writer() -> None:
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0]))
    pred = MetaTensor(torch.from_numpy(regions((4, 4, 4))), affine=affine, meta={"filename_or_obj": "a.nii.gz"})
    out = BratsLabelsd("pred")({"pred": pred})["pred"]
    assert torch.equal(out.affine, affine.double()) and out.meta["filename_or_obj"] == "a.nii.gz"


def test_spacing_leaves_other_entries_alone() -> None:
    case = {"image": meta(torch.rand(1, 4, 4, 4)), "image_path": "scan.nii.gz", "image_note": 3}
    spacing = Spacingd(["image", "label"], pixdim=(2, 2, 2), allow_missing_keys=True)
    out = spacing(case)
    assert out["image"].shape == (1, 2, 2, 2) and {k: out[k] for k in ("image_path", "image_note")} == {
        "image_path": "scan.nii.gz",
        "image_note": 3,
    }
    assert spacing.inverse(out)["image"].shape == (1, 4, 4, 4)
    with pytest.raises(KeyError, match="label"):
        Spacingd(["image", "label"], pixdim=(2, 2, 2))(case)


def test_brats_regions_are_monai_s() -> None:
    label = meta(torch.randint(0, 4, (1, 5, 6, 7)), "seg.nii.gz")
    monai_s = ConvertToMultiChannelBasedOnBratsClasses()
    expected = monai_s(torch.where(label == 3, 4, label).as_subclass(torch.Tensor))  # 1.5 knows enhancing tumour as 4
    out = BratsRegionsd(["pred", "label"], allow_missing_keys=True)({"label": label})["label"]
    assert torch.equal(out.as_tensor(), expected) and out.meta["filename_or_obj"] == "seg.nii.gz"
