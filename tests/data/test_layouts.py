"""Pairs are found as data sets and people name them, and what is not found is explained."""

from pathlib import Path

import numpy as np
import pytest
from test_files import write

from monodepth_nb import KittiStereo
from monodepth_nb.data.files import read_calibration
from monodepth_nb.data.layouts import CALIBRATION, TRUTH, find_pairs

# Left and right view below the root, and the name of the pair.
LAYOUTS = {
    "KITTI 2015": ("training/image_2/000000_10.png", "training/image_3/000000_10.png", "000000_10"),
    "KITTI 2012": ("training/colored_0/000000_10.png", "training/colored_1/000000_10.png", "000000_10"),
    "KITTI object": ("training/image_2/000007.png", "training/image_3/000007.png", "000007"),
    "one drive of KITTI raw": ("image_02/data/0000000005.png", "image_03/data/0000000005.png", "0000000005"),
    "KITTI raw": (
        "2011_09_26/drive_0001_sync/image_02/data/0000000005.jpg",
        "2011_09_26/drive_0001_sync/image_03/data/0000000005.jpg",
        "2011_09_26/drive_0001_sync/0000000005",
    ),
    "KITTI odometry": ("sequences/00/image_2/000003.png", "sequences/00/image_3/000003.png", "sequences/00/000003"),
    "Middlebury": ("Adirondack/im0.png", "Adirondack/im1.png", "Adirondack"),
    "capitals": ("Left/a.png", "Right/a.png", "a"),
    "suffixes": ("left/a_L.png", "right/a_R.png", "a"),
    "words": ("left/a_left.bmp", "right/a_right.bmp", "a"),
    "prefixes": ("left/left_000.ppm", "right/right_000.ppm", "000"),
    "OpenCV's": ("left/left00.jpg", "right/right00.jpg", "00"),
    "one folder": ("a_L.png", "a_R.png", "a"),
}


def write_pair(left: Path, right: Path) -> None:
    for path in (left, right):
        write(path, np.zeros((4, 8, 3), np.uint8))


@pytest.mark.parametrize(("left", "right", "name"), LAYOUTS.values(), ids=LAYOUTS)
def test_pairs_are_found_in_the_usual_layouts(tmp_path, left, right, name):
    write_pair(tmp_path / left, tmp_path / right)
    pairs = find_pairs(tmp_path, "training")
    assert (pairs.left, pairs.right) == ({name: tmp_path / left}, {name: tmp_path / right})
    assert KittiStereo(tmp_path)[0].left.shape == (3, 4, 8)


def test_a_scene_of_middlebury_is_read_with_its_truth_and_camera(tmp_path):
    scene = tmp_path / "Adirondack"
    write_pair(scene / "im0.png", scene / "im1.png")
    (scene / "disp0.pfm").write_bytes(b"Pf\n8 4\n-1.0\n" + np.full((4, 8), 7, "<f4").tobytes())
    (scene / "calib.txt").write_text("cam0=[4000 0 9; 0 4000 9; 0 0 1]\ndoffs=124\nbaseline=193\n")
    for root in (tmp_path, scene):  # one scene is a data set, too
        (sample,) = KittiStereo(root, truth="occ")
        assert sample.name == "Adirondack" and (sample.disparity_px == 7).all()
        assert (sample.focal_px, sample.baseline_m, sample.doffs_px) == (4000, 0.193, 124)


@pytest.mark.parametrize(
    ("views", "beside"),
    [
        ("sequences/00/image_{}/000003.png", "sequences/00/calib.txt"),
        ("day/drive/image_0{}/data/0000000005.png", "day/calib_cam_to_cam.txt"),
        ("training/image_{}/000007.png", "training/calib/000007.txt"),
    ],
)
def test_the_calibration_file_is_found_in_each_layout_of_kitti(tmp_path, views, beside):
    write_pair(*(tmp_path / views.format(camera) for camera in (2, 3)))
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).write_text("P2: 700 0 609 45\nP3: 700 0 609 -340")
    pairs = find_pairs(tmp_path, "training")
    (name,) = pairs.left
    found = pairs.beside(name, CALIBRATION)
    assert found.samefile(tmp_path / beside) and read_calibration(found).baseline_m == pytest.approx(0.55)
    assert pairs.beside(name, TRUTH["noc"]) is None


def test_what_was_found_and_what_is_expected_is_said_where_no_layout_fits_and_other_subsets_are_none(tmp_path):
    for left, right in (("cameraA/1.png", "cameraB/2.png"), ("testing/image_2/a.png", "testing/image_3/a.png")):
        write_pair(tmp_path / left, tmp_path / right)
        (tmp_path / "depth").mkdir(exist_ok=True)  # an empty folder
        found = r"cameraA/1\.png, cameraB/2\.png, depth/"
        with pytest.raises(FileNotFoundError, match=rf"(?s)no training.*image_2.*left.*{found}"):
            find_pairs(tmp_path, "training")
