"""Pairs are keyed on file names, truth belongs to its image, and no scene is on both sides of a split."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from monodepth_nb.data.kitti import (
    KNOWN_DRIVES,
    KittiStereo,
    paper_protocol,
    scene_blocks,
    scene_of,
    split_by_scene,
)

HEIGHT, WIDTH = 4, 8


def write(path: Path, pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)
    return path


def colour(value: int, height: int = HEIGHT, width: int = WIDTH):
    return np.full((height, width, 3), value, np.uint8)


def write_pair(folder: Path, name: str, value: int = 0, suffix: str = ".png", width: int = WIDTH):
    write(folder / "image_2" / (name + suffix), colour(value, width=width))
    write(folder / "image_3" / (name + suffix), colour(value + 1, width=width))


def write_truth(folder: Path, name: str, disparity_px: float, kind: str = "noc", width: int = WIDTH):
    stored = np.full((HEIGHT, width), disparity_px * 256, np.uint16)
    stored[0] = 0
    write(folder / f"disp_{kind}_0" / f"{name}.png", stored)


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    """As the zip of KITTI 2015: 400 pairs and 200 maps; image value and disparity tell the scene."""
    root = tmp_path_factory.mktemp("kitti")
    for scene in range(200):
        for frame in ("10", "11"):
            write_pair(root / "training", f"{scene:06}_{frame}", scene)
            write_pair(root / "testing", f"{scene:06}_{frame}", 255 - scene - 1)
        write_truth(root / "training", f"{scene:06}_10", 1 + scene / 2, "occ")
        write_truth(root / "training", f"{scene:06}_10", 1 + scene / 4, "noc")
    return root


def of_own_camera(root, **kwargs):
    return KittiStereo(root, focal_px=100.0, baseline_m=0.5, **kwargs)


# ---- Pairs and truth ----


def test_all_pairs_of_both_frames_are_read_without_labels(kitti):
    dataset = KittiStereo(kitti)
    assert len(dataset) == len(KittiStereo(kitti, "testing")) == 400
    assert len(KittiStereo(kitti, frames=("11",))) == 200
    assert set(dataset[0]) == {"left", "right", "name"}
    left, right = (dataset[301][view] for view in ("left", "right"))  # scene 150, frame 11
    assert left.shape == (3, HEIGHT, WIDTH) and left.dtype == torch.float32
    assert (left == 150 / 255).all() and (right == 151 / 255).all()


@pytest.mark.parametrize(("kind", "step"), [("occ", 1 / 2), ("noc", 1 / 4)])
def test_every_image_gets_the_map_of_its_own_name(kitti, kind, step):
    dataset = of_own_camera(kitti, truth=kind)
    assert len(dataset) == 200
    for scene, sample in enumerate(dataset):
        assert sample.name == f"{scene:06}_10"
        assert (sample.left == scene / 255).all()
        assert (sample.disparity_px[1:] == 1 + scene * step).all()


def test_zero_in_the_file_is_unknown_truth(kitti):
    disparity = of_own_camera(kitti, truth="noc")[0].disparity_px
    assert disparity.dtype == torch.float32 and disparity[0].isnan().all() and disparity[1:].isfinite().all()


def test_images_are_resized_and_truth_is_not(kitti):
    sample = of_own_camera(kitti, truth="noc", size=(2, 6))[7]
    assert sample.left.shape == sample.right.shape == (3, 2, 6)
    assert sample.disparity_px.shape == (HEIGHT, WIDTH)


def test_samples_batch_into_a_sample(kitti):
    batch = default_collate([of_own_camera(kitti, truth="noc")[i] for i in (3, 4)])
    assert batch.left.shape == (2, 3, HEIGHT, WIDTH) and batch.name == ["000003_10", "000004_10"]


def test_maps_of_rendered_streets_come_with_the_truth(tmp_path):
    write_pair(tmp_path / "training", "000000_10")
    write_truth(tmp_path / "training", "000000_10", 5, "occ")
    classes = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    write(tmp_path / "training" / "classes_2" / "000000_10.png", classes)
    write(tmp_path / "training" / "lane_paint_2" / "000000_10.png", np.uint8(255 * (classes > 8)))
    write(tmp_path / "training" / "shiny_2" / "000000_10.png", classes > 16)
    assert "classes" not in KittiStereo(tmp_path)[0]
    sample = of_own_camera(tmp_path, truth="occ")[0]
    assert sample.classes.dtype == torch.uint8 and (sample.classes.numpy() == classes).all()
    assert sample.lane_paint.dtype == torch.bool and (sample.lane_paint.numpy() == (classes > 8)).all()
    assert sample.shiny.dtype == torch.bool and (sample.shiny.numpy() == (classes > 16)).all()


# ---- Folders of one's own ----


@pytest.mark.parametrize("folders", [("image_2", "image_3"), ("left", "right")])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
def test_a_folder_of_ones_own_is_paired_by_name(tmp_path, folders, suffix):
    for name, value in (("b7", 40), ("a", 80)):
        for folder, extra in zip(folders, (0, 9), strict=True):
            write(tmp_path / folder / (name + suffix), colour(value + extra))
    (tmp_path / folders[0] / "._a.png").write_bytes(b"left by macOS")
    (tmp_path / folders[0] / "notes.txt").write_text("no image")
    dataset = KittiStereo(tmp_path)
    assert [s.name for s in dataset] == ["a", "b7"]
    assert [round(s.right.mean().item() * 255) for s in dataset] == [89, 49]


def test_left_and_right_may_differ_in_file_type_and_pairs_in_size(tmp_path):
    for name, width in (("a", 8), ("b", 10)):
        write(tmp_path / "left" / f"{name}.png", colour(1, width=width))
        write(tmp_path / "right" / f"{name}.jpg", colour(1, width=width))
    assert [s.left.shape[-1] for s in KittiStereo(tmp_path)] == [8, 10]
    assert [s.left.shape for s in KittiStereo(tmp_path, size=(4, 6))] == [(3, 4, 6)] * 2


ALMOST_HALF = {
    "grey": np.full((4, 8), 127, np.uint8),
    "grey, 16 bit": np.full((4, 8), 127 * 257, np.uint16),
    "with alpha": np.full((4, 8, 4), 127, np.uint8),
    "grey with alpha": np.full((4, 8, 2), 127, np.uint8),
}


@pytest.mark.parametrize("pixels", ALMOST_HALF.values(), ids=ALMOST_HALF)
def test_every_kind_of_image_becomes_three_channels_in_0_1(tmp_path, pixels):
    for folder in ("left", "right"):
        write(tmp_path / folder / "a.png", pixels)
    left = KittiStereo(tmp_path)[0].left
    torch.testing.assert_close(left, torch.full((3, 4, 8), 127 / 255))
    left[0] = 0  # the channels do not share memory
    assert left[1].min() > 0


# ---- Camera ----


def write_camera(root: Path, width: int):
    write_pair(root / "training", "000003_10", width=width)
    write_truth(root / "training", "000003_10", 5, width=width)


CALIBRATION = """calib_time: 09-Jan-2012 14:00:15
corner_dist: 9.950000e-02
P_rect_02: 7.215377e+02 0 6.095593e+02 4.485728e+01 0 7.215377e+02 172.854 0.2163791 0 0 1 2.745884e-03
P_rect_03: 7.215377e+02 0 6.095593e+02 -3.395242e+02 0 7.215377e+02 172.854 2.199936 0 0 1 2.729905e-03
"""


def test_focal_length_and_baseline_are_read_from_the_calibration_of_the_scene(tmp_path):
    write_camera(tmp_path, WIDTH)
    path = tmp_path / "training" / "calib_cam_to_cam" / "000003.txt"
    path.parent.mkdir()
    path.write_text(CALIBRATION)
    sample = KittiStereo(tmp_path, truth="noc")[0]
    assert sample.focal_px == 721.5377
    assert sample.baseline_m == pytest.approx((44.85728 + 339.5242) / 721.5377)  # 0.533 m
    assert of_own_camera(tmp_path, truth="noc")[0].focal_px == 100.0  # what the caller says goes
    path.write_text("P_rect_02: 1 2\n")
    with pytest.raises(ValueError, match=r"000003\.txt"):
        KittiStereo(tmp_path, truth="noc")[0]


@pytest.mark.parametrize(("width", "focal_px"), [(1242, 721.5377), (1226, 707.0912), (1224, 707.0493)])
def test_without_calibration_the_width_tells_the_camera(tmp_path, width, focal_px):
    write_camera(tmp_path, width)
    sample = KittiStereo(tmp_path, truth="noc")[0]
    assert (sample.focal_px, sample.baseline_m) == (focal_px, 0.54)


def test_an_unknown_camera_must_be_passed_but_only_where_truth_is_asked_for(tmp_path):
    write_camera(tmp_path, WIDTH)
    with pytest.raises(ValueError, match=r"000003_10\.png.*8 pixels.*pass focal_px and baseline_m"):
        KittiStereo(tmp_path, truth="noc")[0]
    with pytest.raises(ValueError, match="both or neither"):
        KittiStereo(tmp_path, focal_px=100.0)
    assert len(KittiStereo(tmp_path)[0]) == 3


# ---- Bad input ----


def test_a_missing_folder_says_what_to_pass_or_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"image_2.*download kitti2015"):
        KittiStereo(tmp_path / "nothing")


def test_a_folder_of_ones_own_has_no_testing_part(tmp_path):
    write_pair(tmp_path, "a")
    with pytest.raises(FileNotFoundError, match="testing"):
        KittiStereo(tmp_path, "testing")


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "left").mkdir()
    (tmp_path / "right").mkdir()
    with pytest.raises(FileNotFoundError, match="left holds no PNG or JPEG"):
        KittiStereo(tmp_path)


def test_a_missing_right_view_is_named(tmp_path):
    for name in ("000000_10", "000001_10"):
        write_pair(tmp_path / "training", name)
    (tmp_path / "training" / "image_3" / "000001_10.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image_3/000001_10 .*remove the left view"):
        KittiStereo(tmp_path)


def test_a_missing_map_is_named_and_a_missing_kind_of_truth_too(tmp_path):
    for name in ("000000_10", "000001_10"):
        write_pair(tmp_path / "training", name)
    write_truth(tmp_path / "training", "000000_10", 5)
    with pytest.raises(FileNotFoundError, match="disp_noc_0/000001_10"):
        KittiStereo(tmp_path, truth="noc")
    with pytest.raises(FileNotFoundError, match=r"disp_occ_0 does not exist \(there: disp_noc_0\)"):
        KittiStereo(tmp_path, truth="occ")
    with pytest.raises(ValueError, match="'all'"):
        KittiStereo(tmp_path, truth="all")


def test_a_truncated_png_is_named_wherever_it_ends(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    whole = write(tmp_path / "left" / "a.png", noise).read_bytes()
    write(tmp_path / "right" / "a.png", noise)
    for end in range(len(whole) - 24):  # what comes after is only the check sum and the end mark
        (tmp_path / "left" / "a.png").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"left/a\.png cannot be read"):
            KittiStereo(tmp_path)[0]


def test_a_picture_that_would_unpack_to_gigabytes_is_named(tmp_path, monkeypatch):
    write_pair(tmp_path, "a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        KittiStereo(tmp_path)[0]


def test_views_of_two_sizes_are_named(tmp_path):
    write(tmp_path / "left" / "a.png", colour(1))
    write(tmp_path / "right" / "a.png", colour(1, width=WIDTH + 1))
    with pytest.raises(ValueError, match=r"left/a\.png is 4 x 8, .*right/a\.png 4 x 9"):
        KittiStereo(tmp_path)[0]


def test_truth_of_another_size_or_of_8_bits_is_named(tmp_path):
    write_pair(tmp_path / "training", "000000_10")
    write_truth(tmp_path / "training", "000000_10", 5, width=WIDTH + 1)
    with pytest.raises(ValueError, match=r"disp_noc_0/000000_10\.png is 4 x 9"):
        of_own_camera(tmp_path, truth="noc")[0]
    write(tmp_path / "training" / "disp_noc_0" / "000000_10.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(ValueError, match="16-bit"):
        of_own_camera(tmp_path, truth="noc")[0]


# ---- Splits ----


def scenes(subset) -> set[str]:
    return {scene_of(subset.dataset.names[i]) for i in subset.indices}


@pytest.mark.parametrize("truth", [None, "noc"])
def test_the_usual_split_is_scenes_0_to_159_and_160_to_199(kitti, truth):
    train, validation = split_by_scene(KittiStereo(kitti, truth=truth))
    assert scenes(train) == {f"{i:06}" for i in range(160)}
    assert scenes(validation) == {f"{i:06}" for i in range(160, 200)}


@pytest.mark.parametrize("scene_count", [2, 5, 20, 40, 200])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_no_scene_and_no_drive_is_in_both_parts(kitti, scene_count, share):
    dataset = KittiStereo(kitti)
    dataset.names = dataset.names[: 2 * scene_count]
    train, validation = split_by_scene(dataset, share)
    assert sorted([*train.indices, *validation.indices]) == list(range(len(dataset)))
    assert train.indices and validation.indices
    assert not scenes(train) & scenes(validation)
    for first, last in KNOWN_DRIVES:
        drive = {f"{i:06}" for i in range(first, last + 1)}
        assert not (drive & scenes(train) and drive & scenes(validation))


def test_recordings_of_other_names_stay_together():
    names = ["city_000", "city_001", "city10_000", "park_000", "park_001"]
    assert scene_blocks(names) == [[0, 1], [2], [3, 4]]


def test_one_recording_is_cut_once_in_time(tmp_path):
    for i in range(10):
        write_pair(tmp_path, f"frame{i:03}")
    train, validation = split_by_scene(KittiStereo(tmp_path))
    assert (list(train.indices), list(validation.indices)) == ([*range(8)], [8, 9])


def test_frames_are_in_the_order_of_their_numbers_with_or_without_leading_zeros(tmp_path):
    for i in range(12):
        write_pair(tmp_path, f"frame{i}")
    data = KittiStereo(tmp_path)
    assert data.names == [f"frame{i}" for i in range(12)]
    train, validation = split_by_scene(data)
    assert max(train.indices) < min(validation.indices)


def test_one_pair_cannot_be_split(tmp_path):
    write_pair(tmp_path, "alone")
    with pytest.raises(ValueError, match="alone"):
        split_by_scene(KittiStereo(tmp_path))


def test_the_protocol_of_the_paper_scores_what_it_did_not_train_on(kitti):
    train, scored = paper_protocol(kitti, size=(2, 4))
    assert len(train) == 400 and len(scored) == 200
    assert not set(train.left.values()) & set(scored.left.values())
    assert train.folder == kitti / "testing" and "disparity_px" not in train[0]
    assert all(name.endswith("_10") for name in scored.names) and scored.truth == "noc"
