from __future__ import annotations

import json
from pathlib import Path

import itk
import numpy as np
import pytest
from conftest import save_nifti

from hybrid_nets import InputError, find_cases
from hybrid_nets.conventions import canonical_name, channel_order, label_mapping

CHANNELS = ("FLAIR", "T1ce", "T1", "T2")
LABELS = {"0": "background", "1": "necrotic core", "2": "oedema", "3": "enhancing tumour"}
SHAPE = (4, 5, 6)


def make_brats(root: Path, names: tuple[str, ...], pattern: str, cases: int = 3, labelled: int = 3) -> Path:
    for i in range(cases):
        case = root / pattern.format(i)
        for name in names:
            save_nifti(case / f"{case.name}{name}.nii.gz", np.zeros(SHAPE, np.int16))
        if i < labelled:
            save_nifti(case / f"{case.name}{names[0][0]}seg.nii.gz", np.zeros(SHAPE, np.uint8))
    return root


def make_msd(root: Path, channels: int = 4, **content: object) -> Path:
    entries = []
    for i in range(4):
        save_nifti(root / f"imagesTr/c{i}.nii.gz", np.zeros((*SHAPE, channels), np.int16))
        save_nifti(root / f"labelsTr/c{i}.nii.gz", np.zeros(SHAPE, np.uint8))
        entries.append({"image": f"./imagesTr/c{i}.nii.gz", "label": f"./labelsTr/c{i}.nii.gz"})
    save_nifti(root / "imagesTs/t.nii.gz", np.zeros((*SHAPE, channels), np.int16))
    listed = {"training": entries, "test": ["./imagesTs/t.nii.gz"], **content}
    (root / "dataset.json").write_text(json.dumps(listed))
    return root


def test_msd_task01_names(tmp_path: Path) -> None:
    """MSD orders channels and numbers labels in its own way, and says so in dataset.json."""
    root = make_msd(
        tmp_path,
        modality={"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        labels={"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    )
    cases = find_cases(root, channels=CHANNELS, labels=LABELS, num_folds=2)
    assert (len(cases.training), len(cases.validation), len(cases.test)) == (2, 2, 1)
    for case in [*cases.training, *cases.validation]:
        assert case["channel_order"] == [0, 2, 1, 3]
        assert case["label_values"] == {0: 0, 1: 2, 2: 1, 3: 3}
        assert Path(case["image"]).is_file() and Path(case["label"]).is_file()
    assert cases.to_segment == cases.test


@pytest.mark.parametrize(
    ("pattern", "names", "values"),
    [
        ("BraTS2021_{:05d}", ("_t1", "_t1ce", "_t2", "_flair"), {0: 0, 1: 1, 2: 2, 4: 3}),
        ("BraTS-GLI-{:05d}-000", ("-t1n", "-t1c", "-t2w", "-t2f"), {0: 0, 1: 1, 2: 2, 3: 3}),
    ],
)
def test_brats_folders(tmp_path: Path, pattern: str, names: tuple[str, ...], values: dict) -> None:
    root = make_brats(tmp_path, names, pattern, cases=4, labelled=3)
    cases = find_cases(root, channels=CHANNELS, labels=LABELS)
    assert (len(cases.training), len(cases.validation), len(cases.test)) == (2, 1, 1)
    case = cases.training[0]
    endings = [Path(file).name.removesuffix(".nii.gz")[len(pattern.format(0)) :] for file in case["image"]]
    assert endings == [names[3], names[1], names[0], names[2]]
    assert case["label_values"] == values


def test_folds(tmp_path: Path) -> None:
    root = make_msd(tmp_path)
    drawn = [find_cases(root, channels=CHANNELS, fold=i, num_folds=4).validation[0]["image"] for i in range(4)]
    assert len(set(drawn)) == 4
    content = json.loads((root / "dataset.json").read_text())
    for i, case in enumerate(content["training"]):
        case["fold"] = i % 2
    (root / "folds.json").write_text(json.dumps(content))
    cases = find_cases(root, root / "folds.json", channels=CHANNELS, fold=1)
    assert [Path(c["image"]).name for c in cases.validation] == ["c1.nii.gz", "c3.nii.gz"]
    with pytest.raises(InputError, match=r"fold 7 is not in the data list; it has \[0, 1\]"):
        find_cases(root, root / "folds.json", channels=CHANNELS, fold=7)
    with pytest.raises(InputError, match="fold 9 is out of range; 4 cases make folds 0 to 3"):
        find_cases(root, channels=CHANNELS, fold=9)


def test_plain_files_are_cases(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii.gz", np.zeros((*SHAPE, 4), np.int16))
    save_nifti(tmp_path / "sub" / "b.nii", np.zeros((*SHAPE, 4), np.int16))
    assert len(find_cases(tmp_path, channels=CHANNELS).to_segment) == 2
    save_nifti(tmp_path / "ct" / "scan_t1.nii.gz", np.zeros(SHAPE, np.int16))
    assert len(find_cases(tmp_path / "ct").to_segment) == 1


def test_all_cases_labelled_means_all_are_segmented(tmp_path: Path) -> None:
    root = make_brats(tmp_path, ("_t1", "_t1ce", "_t2", "_flair"), "BraTS2021_{:05d}")
    cases = find_cases(root, channels=CHANNELS, labels=LABELS, split=False)
    assert len(cases.to_segment) == 3 and not any("label" in case for case in cases.to_segment)


def test_missing_modality(tmp_path: Path) -> None:
    root = make_brats(tmp_path, ("_t1", "_t2", "_flair"), "BraTS2021_{:05d}")
    with pytest.raises(
        InputError, match=r"BraTS2021_00000: no T1ce image, .* t1ce, t1c, t1gd.*found \['BraTS2021_00000_flair"
    ):
        find_cases(root, channels=CHANNELS, labels=LABELS)


def test_wrong_channel_count(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c\d.nii.gz has 3 channels, the network takes 4 \(FLAIR, T1ce, T1, T2"):
        find_cases(make_msd(tmp_path, channels=3), channels=CHANNELS)


def test_grids_that_differ(tmp_path: Path) -> None:
    root = make_msd(tmp_path)
    save_nifti(root / "labelsTr/c2.nii.gz", np.zeros((4, 5, 7), np.uint8))
    with pytest.raises(InputError, match=r"c2.nii.gz has shape \(4, 5, 7\), its image \(4, 5, 6\)"):
        find_cases(root, channels=CHANNELS)
    root = make_brats(tmp_path / "b", ("_t1", "_t1ce", "_t2", "_flair"), "x_{}")
    save_nifti(root / "x_1" / "x_1_t2.nii.gz", np.zeros((4, 5, 7), np.int16))
    with pytest.raises(InputError, match="images of one case differ in shape"):
        find_cases(root, channels=CHANNELS)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "no NIfTI files"),
        (lambda root: (root / "dataset.json").write_text("{"), "not valid JSON"),
        (lambda root: (root / "dataset.json").write_text("{}"), "no dataset.json that lists cases"),
        (lambda root: (root / "a.nii.gz").write_bytes(b"no"), "can't be read as NIfTI"),
        (
            lambda root: save_nifti(root / "flat.nii.gz", np.zeros((4, 5), np.int16)),
            "has 1 channel, the network takes 4",
        ),
        (lambda root: (root / "dataset.json").write_text('{"test": ["x.nii.gz"]}'), "x.nii.gz does not exist"),
    ],
)
def test_unusable_folders(tmp_path: Path, prepare, message: str) -> None:
    prepare(tmp_path)
    with pytest.raises(InputError, match=message):
        find_cases(tmp_path, channels=CHANNELS)


def test_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set; give its folder with --dataset_dir"):
        find_cases(None)
    with pytest.raises(InputError, match="dataset_dir .* is not a folder"):
        find_cases(tmp_path / "nowhere")
    with pytest.raises(InputError, match="datalist .* is not a file"):
        find_cases(tmp_path, tmp_path / "list.json")


def test_names() -> None:
    assert [canonical_name(n) for n in ("T1-Gd", "t2f", "Edema", "NCR/NET", "spleen")] == [
        "T1ce",
        "FLAIR",
        "oedema",
        "necrotic core",
        "spleen",
    ]
    with pytest.raises(InputError, match="no channel named T2"):
        channel_order(["FLAIR", "T1", "T1gd"], CHANNELS)
    with pytest.raises(InputError, match=r"labels \['cyst'\] are not known"):
        label_mapping({1: "cyst"}, {1: "oedema"})


def write_pictures(root: Path, *names: str, size: tuple[int, int] = (6, 5)) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        itk.imwrite(itk.image_from_array(np.zeros(size, np.uint8)), str(root / name))
    return root


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.png", "masks/a.png"),
        ("images/a.png", "masks/0/a.png"),  # BUSI as MobileUtr's code takes it
        ("Kvasir/images/a.jpg", "Kvasir/masks/a.jpg"),
        ("Original/7.tif", "Ground Truth/7.tif"),  # CVC-ClinicDB
        ("Train_Folder/img/a.png", "Train_Folder/labelcol/a_anno.png"),  # GlaS, MoNuSeg
        ("train_1.bmp", "train_1_anno.bmp"),  # GlaS as downloaded
        ("benign/benign (1).png", "benign/benign (1)_mask.png"),  # BUSI as downloaded
        ("imagesTr/a.PNG", "labelsTr/a.PNG"),
    ],
)
def test_pictures_with_masks(tmp_path: Path, image: str, label: str) -> None:
    root = write_pictures(tmp_path, image, label, "images/to segment.png", "normal/normal (3).jpeg")
    cases = find_cases(root, split=False)
    assert cases.training == [{"image": str(root / image), "label": str(root / label)}]
    assert [Path(case["image"]).stem for case in cases.to_segment] == ["to segment", "normal (3)"]


def test_several_masks_of_one_picture(tmp_path: Path) -> None:
    write_pictures(tmp_path, "benign (4).png", "benign (4)_mask.png", "benign (4)_mask_1.png", "benign (5).png")
    cases = find_cases(tmp_path, split=False)
    assert [Path(f).name for f in cases.training[0]["label"]] == ["benign (4)_mask.png", "benign (4)_mask_1.png"]
    assert len(cases.test) == 1


def test_pictures_that_can_not_be_read_or_differ_in_size(tmp_path: Path) -> None:
    write_pictures(write_pictures(tmp_path / "a", "images/1.png"), "masks/1.png", size=(6, 7))
    with pytest.raises(InputError, match=r"masks/1.png has shape \(7, 6\), its image \(5, 6\)"):
        find_cases(tmp_path / "a", split=False)
    (write_pictures(tmp_path / "b", "1.png", "2.png") / "2.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"2.png can't be read as a picture"):
        find_cases(tmp_path / "b", split=False)


def test_masks_that_fit_nothing_or_too_much(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", "images/1.png", "masks/1.png", "masks/2.png")
    with pytest.raises(InputError, match=r"masks/2.png is a segmentation without image"):
        find_cases(tmp_path / "a")
    write_pictures(tmp_path / "b", "images/1.png", "images/1.jpg", "masks/1.png")
    with pytest.raises(InputError, match=r"masks/1.png could belong to any of"):
        find_cases(tmp_path / "b")


@pytest.mark.parametrize(("image", "label"), [("img/img{}", "label/label{}"), ("imagesTr/c_{}", "labelsTr/c_{}")])
def test_volumes_with_labels_without_a_list(tmp_path: Path, image: str, label: str) -> None:
    """BTCV as downloaded, and MSD without its list."""
    for i in range(3):
        save_nifti(tmp_path / f"{image.format(f'000{i}')}.nii.gz", np.zeros(SHAPE, np.int16))
        save_nifti(tmp_path / f"{label.format(f'000{i}')}.nii.gz", np.zeros(SHAPE, np.uint8))
    cases = find_cases(tmp_path, num_folds=3)
    assert (len(cases.training), len(cases.validation), len(cases.test)) == (2, 1, 0)
    assert all(stem(case["image"])[-4:] == stem(case["label"])[-4:] for case in cases.training)


def stem(file: str) -> str:
    return Path(file).name.removesuffix(".nii.gz")


def test_nnu_net_data_set(tmp_path: Path) -> None:
    channels = {str(i): name for i, name in enumerate(("T2", "T1", "T1ce", "FLAIR"))}
    for case in ("a_0001", "b_0002"):
        for i in range(4):
            save_nifti(tmp_path / f"imagesTr/{case}_000{i}.nii.gz", np.zeros(SHAPE, np.int16))
        save_nifti(tmp_path / f"labelsTr/{case}.nii.gz", np.zeros(SHAPE, np.uint8))
    labels = {"background": 0, "enhancing tumour": 1, "edema": 2, "necrosis": 3}
    content = {"channel_names": channels, "labels": labels, "file_ending": ".nii.gz", "numTraining": 2}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    case, _ = find_cases(tmp_path, channels=CHANNELS, labels=LABELS, split=False).training
    assert [stem(file) for file in case["image"]] == [f"a_0001_000{i}" for i in range(4)]
    assert case["channel_order"] == [3, 2, 1, 0] and case["label_values"] == {0: 0, 1: 3, 2: 2, 3: 1}


def test_other_labels() -> None:
    organs = {0: "background", 1: "spleen", 2: "liver"}
    found = {0: "background", 1: "liver", 2: "sto", 3: "Spleen"}
    assert label_mapping(found, organs, others=0) == {0: 0, 1: 2, 2: 0, 3: 1}
    assert label_mapping({0: "background", 1: "spleen"}, organs, others=0) == {0: 0, 1: 1}
    with pytest.raises(InputError, match="no label named spleen, only .*rename it .* --out_channels 2"):
        label_mapping({0: "background", 1: "stomach"}, organs, others=0)
