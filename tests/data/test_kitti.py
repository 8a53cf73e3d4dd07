"""Pairs are matched by file name, truth belongs to its image, and no scene is on both sides of a split."""

import doctest
import itertools
import math
import shutil
import warnings
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from test_files import write
from torch.utils.data import default_collate

from monodepth_nb import KittiStereo, motorcycle
from monodepth_nb.data import kitti as kitti_module
from monodepth_nb.data.kitti import KNOWN_DRIVES, paper_protocol, scene_blocks, split_by_scene, truth_kinds

HEIGHT, WIDTH, SCENES = 4, 8, 6
CAMERA = {"focal_px": 100.0, "baseline_m": 0.5}
CALIBRATION = """calib_time: 09-Jan-2012 14:00:15
corner_dist: 9.950000e-02
P_rect_02: 7.0e+02 0 6.095593e+02 4.485728e+01 0 7.0e+02 172.854 0.2163791 0 0 1 2.745884e-03
P_rect_03: 7.0e+02 0 6.095593e+02 -3.395242e+02 0 7.0e+02 172.854 2.199936 0 0 1 2.729905e-03
"""


def colour(value: int, width: int = WIDTH):
    return np.full((HEIGHT, width, 3), value, np.uint8)


def write_pair(folder: Path, name: str, value: int = 0, width: int = WIDTH):
    for view, extra in (("image_2", 0), ("image_3", 9)):
        write(folder / view / f"{name}.png", colour(value + extra, width))


def write_truth(folder: Path, name: str, disparity_px: float, kind: str = "noc", width: int = WIDTH):
    stored = np.full((HEIGHT, width), disparity_px * 256, np.uint16)
    stored[0] = 0
    write(folder / f"disp_{kind}_0" / f"{name}.png", stored)


def write_calibration(training: Path, text: str = CALIBRATION) -> None:
    (training / "calib_cam_to_cam").mkdir()
    (training / "calib_cam_to_cam" / "000000.txt").write_text(text)


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    """As the zip of KITTI 2015, but of 6 scenes: image value and disparity tell the scene."""
    root = tmp_path_factory.mktemp("kitti") / "datasets" / "Kitti2015"
    for scene in range(SCENES):
        for frame in ("10", "11"):
            write_pair(root / "training", f"{scene:06}_{frame}", 10 * scene)
            write_pair(root / "testing", f"{scene:06}_{frame}", 100 + scene)
        write_truth(root / "training", f"{scene:06}_10", 1 + scene / 2, "occ")
        write_truth(root / "training", f"{scene:06}_10", 1 + scene / 4, "noc")
    write_calibration(root / "training")
    return root


# ---- Pairs and truth ----


def test_all_pairs_of_both_frames_are_read_without_labels(kitti):
    dataset = KittiStereo(kitti)
    assert len(dataset) == len(KittiStereo(kitti, "testing")) == 2 * SCENES
    assert set(dataset[0]) == {"left", "right", "name"}
    left, right = (dataset[9][view] for view in ("left", "right"))  # scene 4, frame 11
    assert left.shape == (3, HEIGHT, WIDTH) and left.dtype == torch.float32
    assert (left == 40 / 255).all() and (right == 49 / 255).all()


@pytest.mark.parametrize(("kind", "step"), [("occ", 1 / 2), ("noc", 1 / 4)])
def test_every_image_gets_the_map_of_its_own_name_at_full_size(kitti, kind, step):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that frame 11 has no label is no news
        dataset = KittiStereo(kitti, truth=kind, size=(2, 6), **CAMERA)
    assert dataset.names == [f"{scene:06}_10" for scene in range(SCENES)]  # frame 11 has no truth
    batch = default_collate(list(dataset))
    assert batch.name == dataset.names and batch.disparity_px.dtype == torch.float32
    assert batch.left.shape == batch.right.shape == (SCENES, 3, 2, 6)
    scenes = torch.arange(SCENES)[:, None, None]
    torch.testing.assert_close(batch.left, (10 * scenes[..., None] / 255).expand(-1, 3, 2, 6))
    assert batch.disparity_px[:, 0].isnan().all()  # 0 in the file
    assert torch.equal(batch.disparity_px[:, 1:], (1 + scenes * step).expand(-1, HEIGHT - 1, WIDTH))


def test_maps_of_rendered_streets_come_with_the_truth(tmp_path):
    classes = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    stored = {"classes": classes, "lane_paint": np.uint8(255 * (classes > 8)), "shiny": classes > 16}
    write_pair(tmp_path / "training", "000000_10")
    write_truth(tmp_path / "training", "000000_10", 5, "occ")
    write(tmp_path / "training" / "disp_occ_1r" / "000000_10.png", np.uint16(classes) * 256)
    for name, values in stored.items():
        write(tmp_path / "training" / f"{name}_2" / "000000_10.png", values)
    assert "classes" not in KittiStereo(tmp_path)[0]
    sample = KittiStereo(tmp_path, truth="occ", **CAMERA)[0]
    for name, values in stored.items():
        assert torch.equal(sample[name], torch.from_numpy(values if name == "classes" else values > 0))
    assert torch.equal(sample.disparity_right_px.nan_to_num(), torch.from_numpy(classes).float())


def test_the_examples_in_the_docstrings_run(kitti, monkeypatch):
    monkeypatch.chdir(kitti.parent.parent)
    for thing in (KittiStereo, motorcycle):
        steps = [example.source for example in doctest.DocTestParser().get_examples(thing.__doc__)]
        assert 2 <= len(steps) <= 4 and steps[0].startswith("from monodepth_nb import")
        exec("".join(steps), {})


# ---- Folders of the user ----


@pytest.mark.parametrize("views", [("image_2", "image_3"), ("left", "right")])
@pytest.mark.parametrize("suffixes", [(".png", ".png"), (".JPEG", ".png"), (".png", ".jpg")])
def test_any_folder_of_pairs_is_read_by_name_whatever_the_types_and_sizes(tmp_path, views, suffixes):
    for name, value, width in (("b7", 40, 8), ("a", 80, 10)):
        for view, suffix, extra in zip(views, suffixes, (0, 9), strict=True):
            write(tmp_path / view / f"{name}{suffix}", colour(value + extra, width))
    (tmp_path / views[0] / "._a.png").write_bytes(b"left by macOS")
    (tmp_path / views[0] / "notes.txt").write_text("no image")
    dataset = KittiStereo(tmp_path)
    assert [(s.name, s.left.shape[-1]) for s in dataset] == [("a", 10), ("b7", 8)]
    assert [round(s.right.mean().item() * 255) for s in dataset] == [89, 49]
    assert [s.left.shape for s in KittiStereo(tmp_path, size=(4, 6))] == [(3, 4, 6)] * 2


MULTIVIEW = [f"000007_{frame:02}" for frame in range(21)]


@pytest.mark.parametrize(("names", "others"), [("abc", "a, c$"), (MULTIVIEW, "_00, .*_01, .*_02, ... and 16 more$")])
def test_all_frames_are_pairs_and_labels_of_some_are_read_and_the_others_counted(tmp_path, names, others):
    for name in names:
        write_pair(tmp_path, name)
    labelled = names[len(names) // 2]
    write_truth(tmp_path, labelled, 5)
    assert KittiStereo(tmp_path).names == [*names] and truth_kinds(KittiStereo(tmp_path)) == ["noc"]
    with pytest.warns(UserWarning, match=f"1 of {len(names)} .*left out: .*{others}"):
        assert KittiStereo(tmp_path, truth="noc").names == [labelled]


# ---- Camera ----


@pytest.mark.parametrize(("width", "focal_px"), [(1242, 721.5377), (1226, 707.0912), (1224, 707.0493)])
def test_the_camera_is_the_callers_else_of_the_calibration_file_else_of_the_width(tmp_path, width, focal_px):
    def camera(**options):
        camera, _ = KittiStereo(tmp_path, **options).camera("000000_10", (370, width))
        return camera.focal_px, camera.baseline_m

    write_pair(tmp_path / "training", "000000_10")
    assert camera() == (focal_px, 0.5327)
    write_calibration(tmp_path / "training")
    assert camera() == (700, pytest.approx((44.85728 + 339.5242) / 700))
    assert camera(**CAMERA) == (100.0, 0.5)


def test_a_camera_of_another_height_than_kittis_is_unknown_and_its_note_says_so(tmp_path):
    for view in ("left", "right"):
        for height in (370, 1024):
            write(tmp_path / str(height) / view / "a.png", np.zeros((height, 1224), np.uint8))
    assert "707.049 px" in (note := KittiStereo(tmp_path / "370").camera_note()) and "assumed" in note
    assert "unknown" in KittiStereo(tmp_path / "1024").camera_note()


def test_truth_without_a_camera_gives_disparity_but_no_metres(tmp_path):
    write_pair(tmp_path, "a")
    write_truth(tmp_path, "a", 5)
    sample = KittiStereo(tmp_path, truth="noc")[0]
    assert sample.disparity_px[1, 0] == 5 and math.isnan(sample.focal_px) and math.isnan(sample.baseline_m)


@pytest.mark.parametrize("camera", [(0.0, 0.5), (100.0, -0.1), (math.nan, 0.5), (100.0, math.inf)])
def test_an_impossible_camera_is_refused(tmp_path, camera):
    write_pair(tmp_path, "a")
    with pytest.raises(ValueError, match="camera"):
        KittiStereo(tmp_path, focal_px=camera[0], baseline_m=camera[1])


# ---- Bad input ----

FIRST = "000000_10.png"
# What is done to a folder of two labelled pairs, how it is read, the error and what the error must name.
BROKEN = {
    "no such folder": (lambda f: None, {"root": "nothing"}, FileNotFoundError, ["image_2", "download kitti2015"]),
    "no testing part": (lambda f: None, {"subset": "testing"}, FileNotFoundError, ["testing"]),
    "no images": (lambda f: [p.unlink() for p in (f / "image_2").iterdir()], {}, FileNotFoundError, ["image_2"]),
    "no right view": (lambda f: (f / "image_3" / FIRST).unlink(), {}, FileNotFoundError, ["image_2/000000_10"]),
    "two left views": (lambda f: write(f / "image_2/000000_10.jpg", colour(0)), {}, ValueError, [FIRST, "10.jpg"]),
    "other truth": (lambda f: None, {"truth": "occ"}, FileNotFoundError, ["disp_occ_0", "disp_noc_0"]),
    "no kind of truth": (lambda f: None, {"truth": "all"}, ValueError, ["'all'"]),
    "half a camera": (lambda f: None, {"focal_px": 100.0}, ValueError, ["100.0", "baseline_m"]),
    "bad calibration": (lambda f: write_calibration(f, "P_rect_02: 1 2\n"), {}, ValueError, ["000000.txt", "P_rect_"]),
    "views of two sizes": (
        lambda f: write(f / "image_3" / FIRST, colour(1, 9)), {}, ValueError,
        [f"image_2/{FIRST}", "4 x 8", f"image_3/{FIRST}", "4 x 9"],
    ),
    "truth of another size": (lambda f: write_truth(f, "000000_10", 5, width=9), CAMERA, ValueError, [FIRST, "4 x 9"]),
    "truth of 8 bits": (
        lambda f: write(f / "disp_noc_0" / FIRST, np.zeros((HEIGHT, WIDTH), np.uint8)), CAMERA, ValueError,
        [f"disp_noc_0/{FIRST}", "16-bit"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "options", "error", "named"), BROKEN.values(), ids=BROKEN)
def test_what_is_missing_damaged_or_does_not_fit_is_named(tmp_path, damage, options, error, named):
    for name in ("000000_10", "000001_10"):
        write_pair(tmp_path / "training", name)
        write_truth(tmp_path / "training", name, 5)
    damage(tmp_path / "training")
    with pytest.raises(error) as caught:
        KittiStereo(**({"root": tmp_path, "truth": "noc"} | options))[0]
    assert [name for name in named if name not in str(caught.value)] == []


# ---- Splits ----


class Named(list):
    """A data set that consists of the names of its pairs, which show different places."""

    names, drives = property(lambda self: self), KNOWN_DRIVES


def split(names, *share):
    """The names of the training and of the validation split."""
    with patch.object(kitti_module, "show_same_place", return_value=False):
        return [[names[i] for i in subset.indices] for subset in split_by_scene(Named(names), *share)]


def frames(*scenes: int, frames=("10", "11")) -> list[str]:
    return [f"{scene:06}_{frame}" for scene in scenes for frame in frames]


RECORDING = [f"frame{i}" for i in range(12)]
SPLITS = {
    "KITTI 2015": (frames(*range(200)), 322),  # nearly the usual scenes 0-159, but 157-160 are one drive
    "KITTI 2015, labelled": (frames(*range(200), frames=("10",)), 161),
    "one recording, cut in time": (RECORDING, 10),
    "two pairs of one recording": (RECORDING[:2], 1),
}


@pytest.mark.parametrize(("names", "train_count"), SPLITS.values(), ids=SPLITS)
def test_the_validation_split_is_the_end_from_a_scene_drive_or_recording_on(names, train_count):
    assert split(names) == [names[:train_count], names[train_count:]]


def test_no_scene_and_no_drive_is_in_both_splits():
    for count, share in itertools.product((2, 5, 20, 40, 200), (0.05, 0.2, 0.5, 0.9)):
        parts = split(frames(*range(count)), share)
        assert sorted(parts[0] + parts[1]) == frames(*range(count)) and all(parts)
        train, validation = ({int(name[:6]) for name in part} for part in parts)
        drives = [{int(s) for s, drive in KNOWN_DRIVES.items() if drive == name} for name in KNOWN_DRIVES.values()]
        assert not train & validation and not any(drive & train and drive & validation for drive in drives)


def test_the_drives_of_training_scenes_are_in_the_development_kit_too_and_do_not_group_testing_scenes(kitti):
    def block_sizes(data):
        return [len(block) for block in scene_blocks(data.names, data.drives)]

    assert block_sizes(KittiStereo(kitti)) == [2, 2, 4, 4]
    assert block_sizes(KittiStereo(kitti, "testing")) == [2] * SCENES
    mapping = kitti / "devkit" / "mapping" / "train_mapping.txt"
    mapping.parent.mkdir(parents=True)
    mapping.write_text("\ndate drive_0001 10\ndate drive_0001 10\n\ndate drive_0002 10")  # scenes 0 to 4
    assert block_sizes(KittiStereo(kitti)) == [2, 4, 2, 2, 2]
    shutil.rmtree(kitti / "devkit")


def road(seed: int, steps: int = 1) -> list[np.ndarray]:
    """Pictures of one textured scene, each seen from a little further to the right."""
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.integers(0, 255, (40, 120), np.uint8), (480, 160), interpolation=cv2.INTER_CUBIC)
    return [texture[:, 10 * step : 10 * step + 360] for step in range(steps)]


def test_a_cut_is_moved_away_from_scenes_that_show_one_place(tmp_path):
    for scene, picture in enumerate([*road(1), *road(2), *road(3, 3), *road(4), *road(5)]):
        for view in ("image_2", "image_3"):
            write(tmp_path / "testing" / view / f"{scene:06}_10.png", picture)
    train, held_out = split_by_scene(KittiStereo(tmp_path, "testing"), validation=0.45)
    assert (train.indices, held_out.indices) == ([0, 1, 2, 3, 4], [5, 6])


def test_a_cut_through_pairs_that_all_show_one_place_is_reported(tmp_path):
    for index, picture in enumerate(road(1, 6)):
        for view in ("image_2", "image_3"):
            write(tmp_path / "testing" / view / f"{index:06}_10.png", picture)
    with pytest.warns(UserWarning, match="_10 is held out"):
        split_by_scene(KittiStereo(tmp_path, "testing"), validation=0.3)


def test_pairs_of_a_recording_that_show_the_place_behind_the_cut_are_in_neither_part(tmp_path):
    for index, picture in enumerate([*(road(seed)[0] for seed in range(16)), *road(99, 3), *road(77)]):
        for view in ("left", "right"):
            write(tmp_path / view / f"frame{index}.png", picture)
    with pytest.warns(UserWarning, match="2 pairs before frame18"):
        train, held_out = split_by_scene(KittiStereo(tmp_path), validation=0.1)
    assert (train.indices, held_out.indices) == ([*range(16)], [18, 19])


def test_recordings_stay_together_in_the_order_of_their_numbers_and_one_pair_cannot_be_split(tmp_path):
    assert scene_blocks(["city_000", "city_001", "city10_000", "park_000", "park_001"]) == [[0, 1], [2], [3, 4]]
    for name in RECORDING:
        write_pair(tmp_path, name)
    assert KittiStereo(tmp_path).names == RECORDING
    with pytest.raises(ValueError, match="alone"):
        split(["alone"])


def test_the_protocol_of_the_paper_scores_what_it_did_not_train_on(kitti):
    train, scored = paper_protocol(kitti, size=(2, 4))
    assert len(train) == 2 * SCENES and len(scored) == SCENES
    assert train.folder == kitti / "testing" and "disparity_px" not in train[0]
    assert scored.folder == kitti / "training" and scored.truth == "noc"
