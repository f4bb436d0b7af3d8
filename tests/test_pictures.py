from __future__ import annotations

from pathlib import Path

import itk
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Invertd, LoadImaged, Resized, SaveImaged

from hybrid_nets import AtomicPictureWriter, InputError, MaskToForegroundd, PictureChannelsd, case_name


def save_picture(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(array), is_vector=array.ndim == 3), str(path))
    return path


def load(*files: Path) -> torch.Tensor:
    names = [str(file) for file in files]
    reader = LoadImaged("image", reader="ITKReader", ensure_channel_first=True)
    return reader({"image": names if len(names) > 1 else names[0]})["image"]


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("channels", [None, 3, 4])
def test_any_picture_becomes_rgb_or_grey(tmp_path: Path, ending: str, channels: int | None) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (20, 30) if channels is None else (20, 30, channels), dtype=np.uint8)
    picture = load(save_picture(tmp_path / f"a{ending}", array))
    rgb = PictureChannelsd("image", channels=3)({"image": picture})["image"]
    expected = np.repeat(array[..., None], 3, axis=2) if channels is None else array[..., :3]
    np.testing.assert_array_equal(rgb.numpy(), expected.T)
    grey = PictureChannelsd("image", channels=1)({"image": picture})["image"]
    np.testing.assert_allclose(grey[0].numpy(), (expected @ [0.299, 0.587, 0.114]).T, rtol=1e-5)


def test_pictures_that_would_be_read_wrongly(tmp_path: Path) -> None:
    deep = load(save_picture(tmp_path / "deep.png", np.full((9, 9), 3000, np.uint16)))
    with pytest.raises(InputError, match=r"deep.png has values up to 3000; save it with 8 bits"):
        PictureChannelsd("image")({"image": deep})
    with pytest.raises(InputError, match="has 5 channels"):
        PictureChannelsd("image")({"image": torch.zeros(5, 9, 9)})
    with pytest.raises(InputError, match="1 or 3 channels, got in_channels 2"):
        PictureChannelsd("image", channels=2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0, 1, 1), (0, 1, 1)), ((0, 255, 255), (0, 1, 1)), ((0, 3, 17), (0, 1, 1)), ((6, 248, 120), (0, 1, 0))],
    ids=["0 and 1", "0 and 255", "numbers of glands", "noise of JPEG"],
)
def test_masks(values: tuple[int, ...], expected: tuple[int, ...]) -> None:
    mask = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 3)
    assert tuple(MaskToForegroundd("label")({"label": mask})["label"].flatten().int().tolist()) == expected


def test_several_masks_are_united(tmp_path: Path) -> None:
    parts = np.zeros((2, 12, 10), np.uint8)
    parts[0, 2:4], parts[1, 8:11] = 255, 255
    mask = load(*(save_picture(tmp_path / f"{i}.png", part) for i, part in enumerate(parts)))
    united = MaskToForegroundd("image")({"image": mask})["image"]
    np.testing.assert_array_equal(united[0].numpy(), parts.max(0).T / 255)


def test_results_have_the_picture_s_size_and_place(tmp_path: Path) -> None:
    array = np.zeros((40, 60), np.uint8)
    array[4:12, 30:50] = 200
    source = save_picture(tmp_path / "case.1.jpg.png", array)
    before = Compose(
        [
            LoadImaged("image", reader="ITKReader", ensure_channel_first=True),
            Resized("image", (32, 32), mode="bilinear"),
        ]
    )
    case = before({"image": str(source)})
    case["pred"] = case["image"].clone() / 200
    restored = Invertd("pred", before, orig_keys="image", nearest_interp=False)(case)
    restored["pred"] = (restored["pred"] > 0.5) * 255
    SaveImaged(
        "pred",
        output_dir=tmp_path / "out",
        output_postfix="seg",
        output_ext=".png",
        output_dtype="uint8",
        resample=False,
        separate_folder=False,
        print_log=False,
        writer=AtomicPictureWriter,
        output_name_formatter=case_name,
    )(restored)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["case.1.jpg_seg.png"]
    written = itk.array_from_image(itk.imread(str(tmp_path / "out" / "case.1.jpg_seg.png")))
    assert written.shape == array.shape and written.dtype == np.uint8 and set(np.unique(written)) == {0, 255}
    overlap = ((written > 0) & (array > 0)).sum()
    assert overlap / ((written > 0) | (array > 0)).sum() > 0.8
