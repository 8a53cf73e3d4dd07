"""Pictures come upright, from black to white; truth in pixels, cameras in pixels and metres; torn files are named."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from monodepth_nb import KittiStereo
from monodepth_nb.data.files import picture_header, read_calibration, read_disparity, read_image, read_views


def write(path: Path, pixels, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **options)
    return path


def turned(angle_tag: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = angle_tag
    return exif


# ---- Pictures ----


def test_every_kind_of_image_becomes_three_channels_in_0_1(tmp_path):
    shapes = {"grey": (4, 8), "grey and alpha": (4, 8, 2), "colour and alpha": (4, 8, 4)}
    almost_half = {name: np.full(shape, 127, np.uint8) for name, shape in shapes.items()}
    for name, pixels in (almost_half | {"16 bit": np.full((4, 8), 127 * 257, np.uint16)}).items():
        for folder in ("left", "right"):
            write(tmp_path / folder / f"{name}.png", pixels)
    for sample in KittiStereo(tmp_path):
        torch.testing.assert_close(sample.left, torch.full((3, 4, 8), 127 / 255))
        sample.left[0] = 0  # the channels do not share memory
        assert sample.left[1].min() > 0


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_with_an_orientation_tag_is_read_upright(tmp_path, suffix):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:, 16:] = 255
    stored = np.rot90(upright)  # tag 6: turn it clockwise to show it
    path = write(tmp_path / f"a{suffix}", np.ascontiguousarray(stored), exif=turned(6))
    assert (read_image(path) - torch.from_numpy(upright).permute(2, 0, 1) / 255).abs().max() < 0.1
    assert picture_header(path) == ((16, 32), 6)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("bits", [10, 12])
def test_10_and_12_bits_in_a_16_bit_png_reach_white_with_a_warning(tmp_path, bits, colour):
    values = np.linspace(0, 2**bits - 1, 32).reshape(4, 8).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([0 * values, 0 * values, values]) if colour else values)
    with pytest.warns(UserWarning, match=f"{bits} bits"):
        image = read_image(tmp_path / "a.png")
    torch.testing.assert_close(image[0], torch.linspace(0, 1, 32).reshape(4, 8), atol=1 / 1023, rtol=0)
    assert (image[2].max() == 0) == colour  # red first


def test_16_bits_are_read_in_silence_and_both_views_of_a_pair_on_one_scale(tmp_path):
    for name, largest in (("left", 65535), ("dim", 1000)):
        write(tmp_path / f"{name}.png", np.full((4, 8), largest, np.uint16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left, right = read_views(tmp_path / "left.png", tmp_path / "dim.png")
    assert left.max() == 1 and right.max() == pytest.approx(1000 / 65535)


# ---- Torn files ----


def test_a_truncated_png_is_named_wherever_it_ends_and_so_is_an_image_of_gigabytes(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (2, 3, 3), np.uint8)
    whole = write(tmp_path / "left" / "a.png", noise).read_bytes()
    write(tmp_path / "right" / "a.png", noise)
    for end in range(len(whole) - 24):  # what comes after is only the check sum and the end mark
        (tmp_path / "left" / "a.png").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"left/a\.png"):
            KittiStereo(tmp_path)[0]
    (tmp_path / "left" / "a.png").write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ValueError, match=r"left/a\.png"):
        KittiStereo(tmp_path)[0]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".ppm", ".bmp"])
def test_a_header_is_read_and_a_torn_file_named_without_its_other_half(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    path = write(tmp_path / f"a{suffix}", noise)
    assert picture_header(path) == ((64, 48), 1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"a{suffix}"):
        picture_header(path)


# ---- Truth and cameras ----


def test_pfm_truth_is_in_pixels_from_the_top_row_and_infinity_is_unknown(tmp_path):
    truth = np.float32([[1.5, np.inf], [2.25, 0]])
    (tmp_path / "disp0.pfm").write_bytes(b"Pf\n2 2\n-1.0\n" + truth[::-1].astype("<f4").tobytes())
    expected = torch.tensor([[1.5, torch.nan], [2.25, torch.nan]])
    torch.testing.assert_close(read_disparity(tmp_path / "disp0.pfm"), expected, equal_nan=True)


CALIBRATIONS = {
    "P_rect_02: 700 0 609 45 0 700 172 0 0 0 1 0\nP_rect_03: 700 0 609 -340 0 700 172 2 0 0 1 0": (700, 0.55, 0),
    "P0: 9 0 0 0\nP2: 700 0 609 45 0 700 172 0 0 0 1 0\nP3: 700 0 609 -340 0 700 172 2 0 0 1 0\n": (700, 0.55, 0),
    "cam0=[4000 0 1300; 0 4000 900; 0 0 1]\ncam1=[4000 0 1424]\ndoffs=124.5\nbaseline=193\n": (4000, 0.193, 124.5),
}


@pytest.mark.parametrize(("text", "camera"), CALIBRATIONS.items(), ids=["KITTI raw", "odometry", "Middlebury"])
def test_calibration_files_give_pixels_and_metres(tmp_path, text, camera):
    (tmp_path / "calib.txt").write_text(text)
    assert read_calibration(tmp_path / "calib.txt") == pytest.approx(camera)


@pytest.mark.parametrize("text", ["", "P2: 1 2", "cam0=[1]\nbaseline=-5", "P2: 0 0 0 0\nP3: 0 0 0 0", "P2: a\nP3: b"])
def test_a_calibration_file_without_a_possible_camera_is_named(tmp_path, text):
    (tmp_path / "calib.txt").write_text(text)
    with pytest.raises(ValueError, match=r"calib\.txt"):
        read_calibration(tmp_path / "calib.txt")
