"""Pairs are matched by file name, truth belongs to its image, and no scene is on both sides of a split."""

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from monodepth_nb import KittiStereo, motorcycle
from monodepth_nb.data.kitti import KNOWN_DRIVES, paper_protocol, scene_blocks, split_by_scene

HEIGHT, WIDTH, SCENES = 4, 8, 6
CAMERA = {"focal_px": 100.0, "baseline_m": 0.5}
CALIBRATION = """calib_time: 09-Jan-2012 14:00:15
corner_dist: 9.950000e-02
P_rect_02: 7.0e+02 0 6.095593e+02 4.485728e+01 0 7.0e+02 172.854 0.2163791 0 0 1 2.745884e-03
P_rect_03: 7.0e+02 0 6.095593e+02 -3.395242e+02 0 7.0e+02 172.854 2.199936 0 0 1 2.729905e-03
"""


def write(path: Path, pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)
    return path


def colour(value: int, width: int = WIDTH):
    return np.full((HEIGHT, width, 3), value, np.uint8)


def write_pair(folder: Path, name: str, value: int = 0, width: int = WIDTH, views=("image_2", "image_3")):
    for view, extra in zip(views, (0, 9), strict=True):
        write(folder / view / (name if "." in name else name + ".png"), colour(value + extra, width))


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
    assert KittiStereo(kitti, frames=("11",)).names == [f"{scene:06}_11" for scene in range(SCENES)]
    assert set(dataset[0]) == {"left", "right", "name"}
    left, right = (dataset[9][view] for view in ("left", "right"))  # scene 4, frame 11
    assert left.shape == (3, HEIGHT, WIDTH) and left.dtype == torch.float32
    assert (left == 40 / 255).all() and (right == 49 / 255).all()


@pytest.mark.parametrize(("kind", "step"), [("occ", 1 / 2), ("noc", 1 / 4)])
def test_every_image_gets_the_map_of_its_own_name_at_full_size(kitti, kind, step):
    dataset = KittiStereo(kitti, truth=kind, size=(2, 6), **CAMERA)
    assert len(dataset) == SCENES
    for scene, sample in enumerate(dataset):
        assert sample.name == f"{scene:06}_10"
        assert sample.left.shape == sample.right.shape == (3, 2, 6)
        torch.testing.assert_close(sample.left, torch.full((3, 2, 6), 10 * scene / 255))
        assert sample.disparity_px.shape == (HEIGHT, WIDTH) and sample.disparity_px.dtype == torch.float32
        assert sample.disparity_px[0].isnan().all()  # 0 in the file
        assert (sample.disparity_px[1:] == 1 + scene * step).all()


def test_samples_batch_into_a_sample(kitti):
    batch = default_collate([KittiStereo(kitti, truth="noc", **CAMERA)[i] for i in (3, 4)])
    assert batch.left.shape == (2, 3, HEIGHT, WIDTH) and batch.name == ["000003_10", "000004_10"]


def test_maps_of_rendered_streets_come_with_the_truth(tmp_path):
    write_pair(tmp_path / "training", "000000_10")
    write_truth(tmp_path / "training", "000000_10", 5, "occ")
    classes = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    write(tmp_path / "training" / "classes_2" / "000000_10.png", classes)
    write(tmp_path / "training" / "lane_paint_2" / "000000_10.png", np.uint8(255 * (classes > 8)))
    write(tmp_path / "training" / "shiny_2" / "000000_10.png", classes > 16)
    assert "classes" not in KittiStereo(tmp_path)[0]
    sample = KittiStereo(tmp_path, truth="occ", **CAMERA)[0]
    for name, expected in (("classes", classes), ("lane_paint", classes > 8), ("shiny", classes > 16)):
        assert torch.equal(sample[name], torch.from_numpy(expected))


def test_the_examples_in_the_docstrings_run(kitti, monkeypatch):
    monkeypatch.chdir(kitti.parent.parent)
    for thing in (KittiStereo, motorcycle):
        steps = [example.source for example in doctest.DocTestParser().get_examples(thing.__doc__)]
        assert 2 <= len(steps) <= 4 and steps[0].startswith("from monodepth_nb import")
        exec("".join(steps), {})


# ---- Folders of the user ----


@pytest.mark.parametrize("views", [("image_2", "image_3"), ("left", "right")])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
def test_any_folder_of_pairs_is_read_by_name(tmp_path, views, suffix):
    for name, value in (("b7", 40), ("a", 80)):
        write_pair(tmp_path, name + suffix, value, views=views)
    (tmp_path / views[0] / "._a.png").write_bytes(b"left by macOS")
    (tmp_path / views[0] / "notes.txt").write_text("no image")
    dataset = KittiStereo(tmp_path)
    assert [s.name for s in dataset] == ["a", "b7"]
    assert [round(s.right.mean().item() * 255) for s in dataset] == [89, 49]


def test_left_and_right_may_differ_in_file_type_and_pairs_in_size(tmp_path):
    for name, width in (("a", 8), ("b", 10)):
        write(tmp_path / "left" / f"{name}.png", colour(1, width))
        write(tmp_path / "right" / f"{name}.jpg", colour(1, width))
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


@pytest.mark.parametrize(("width", "focal_px"), [(1242, 721.5377), (1226, 707.0912), (1224, 707.0493)])
def test_the_camera_is_the_callers_else_of_the_calibration_file_else_of_the_width(tmp_path, width, focal_px):
    write_pair(tmp_path / "training", "000000_10", width=width)
    write_truth(tmp_path / "training", "000000_10", 5, width=width)
    sample = KittiStereo(tmp_path, truth="noc")[0]
    assert (sample.focal_px, sample.baseline_m) == (focal_px, 0.54)
    write_calibration(tmp_path / "training")
    sample = KittiStereo(tmp_path, truth="noc")[0]
    assert sample.focal_px == 700
    assert sample.baseline_m == pytest.approx((44.85728 + 339.5242) / 700)
    sample = KittiStereo(tmp_path, truth="noc", **CAMERA)[0]
    assert (sample.focal_px, sample.baseline_m) == (100.0, 0.5)


# ---- Bad input ----

FIRST = "000000_10.png"
# What is done to a folder of two labelled pairs, how it is read, the error and what the error must name.
BROKEN = {
    "no such folder": (lambda f: None, {"root": "nothing"}, FileNotFoundError, ["image_2", "download kitti2015"]),
    "no testing part": (lambda f: None, {"subset": "testing"}, FileNotFoundError, ["testing"]),
    "no images": (lambda f: [p.unlink() for p in (f / "image_2").iterdir()], {}, FileNotFoundError, ["image_2"]),
    "no right view": (lambda f: (f / "image_3" / FIRST).unlink(), {}, FileNotFoundError, ["image_3/000000_10"]),
    "no map": (lambda f: (f / "disp_noc_0" / FIRST).unlink(), CAMERA, FileNotFoundError, ["disp_noc_0/000000_10"]),
    "other truth": (lambda f: None, {"truth": "occ"}, FileNotFoundError, ["disp_occ_0", "disp_noc_0"]),
    "no kind of truth": (lambda f: None, {"truth": "all"}, ValueError, ["'all'"]),
    "half a camera": (lambda f: None, {"focal_px": 100.0}, ValueError, ["100.0", "baseline_m"]),
    "unknown camera": (lambda f: None, {}, ValueError, [FIRST, "8 pixels", "focal_px", "baseline_m"]),
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


def test_a_truncated_png_is_named_wherever_it_ends(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (2, 3, 3), np.uint8)
    whole = write(tmp_path / "left" / "a.png", noise).read_bytes()
    write(tmp_path / "right" / "a.png", noise)
    for end in range(len(whole) - 24):  # what comes after is only the check sum and the end mark
        (tmp_path / "left" / "a.png").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"left/a\.png"):
            KittiStereo(tmp_path)[0]


def test_an_image_that_would_unpack_to_gigabytes_is_named(kitti, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ValueError, match=FIRST):
        KittiStereo(kitti)[0]


# ---- Splits ----


class Named(list):
    """A data set that consists of the names of its pairs."""

    @property
    def names(self):
        return self


def split(names, *share):
    """The names of the training and of the validation split."""
    return [[names[i] for i in subset.indices] for subset in split_by_scene(Named(names), *share)]


def frames(*scenes: int, frames=("10", "11")) -> list[str]:
    return [f"{scene:06}_{frame}" for scene in scenes for frame in frames]


RECORDING = [f"frame{i}" for i in range(12)]
SPLITS = {
    "KITTI 2015": (frames(*range(200)), 320),  # the usual scenes 0-159 and 160-199
    "KITTI 2015, labelled": (frames(*range(200), frames=("10",)), 160),
    "both frames of a scene": (frames(0, 1), 2),
    "one drive": (frames(13, 14, 15, 16, 17, 18), 10),
    "one recording, cut in time": (RECORDING, 10),
    "two pairs of one recording": (RECORDING[:2], 1),
}


@pytest.mark.parametrize(("names", "train_count"), SPLITS.values(), ids=SPLITS)
def test_the_validation_split_is_the_end_from_a_scene_drive_or_recording_on(names, train_count):
    assert split(names) == [names[:train_count], names[train_count:]]


def test_no_scene_and_no_drive_is_in_both_splits():
    for count in (2, 5, 20, 40, 200):
        for share in (0.05, 0.2, 0.5, 0.9):
            parts = split(frames(*range(count)), share)
            assert sorted(parts[0] + parts[1]) == frames(*range(count)) and all(parts)
            train, validation = ({int(name[:6]) for name in part} for part in parts)
            assert not train & validation
            for first, last in KNOWN_DRIVES:
                drive = set(range(first, last + 1))
                assert not (drive & train and drive & validation)


def test_recordings_stay_together():
    assert scene_blocks(["city_000", "city_001", "city10_000", "park_000", "park_001"]) == [[0, 1], [2], [3, 4]]


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for name in RECORDING:
        write_pair(tmp_path, name)
    assert KittiStereo(tmp_path).names == RECORDING


def test_one_pair_cannot_be_split():
    with pytest.raises(ValueError, match="alone"):
        split(["alone"])


def test_the_protocol_of_the_paper_scores_what_it_did_not_train_on(kitti):
    train, scored = paper_protocol(kitti, size=(2, 4))
    assert len(train) == 2 * SCENES and len(scored) == SCENES
    assert not set(train.left.values()) & set(scored.left.values())
    assert train.folder == kitti / "testing" and "disparity_px" not in train[0]
    assert all(name.endswith("_10") for name in scored.names) and scored.truth == "noc"
