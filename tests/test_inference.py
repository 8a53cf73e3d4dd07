"""Photos of all kinds in, depth out; and what happens to files that are not photos."""

import importlib.util
import io
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from monodepth_nb import inference
from monodepth_nb.__main__ import main
from monodepth_nb.checkpoints import RunFolder
from monodepth_nb.data.files import read_image
from monodepth_nb.figures import Figure
from monodepth_nb.inference import (
    Camera,
    Photo,
    ask_for_photo,
    find_photos,
    is_result,
    load_network,
    predict_disparity,
    predict_photo,
    predict_photos,
    read_photo,
    to_points_m,
    write_ply,
)
from monodepth_nb.networks import DispResNet
from monodepth_nb.onnx_export import OnnxNetwork, export_onnx

SIZE = (64, 128)


def brightness_network(images):
    """Disparity is a tenth of the brightness, so that what was read shows."""
    d = images.mean(1, keepdim=True) / 10
    return [torch.cat((d, d), dim=1)]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DispResNet(width=0.0625).eval()


@pytest.fixture
def blank_figures(monkeypatch):
    """Rendering takes most of the time; test_figures looks at the figures."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).touch())


@pytest.fixture
def photo(tmp_path):
    """A grey photo, which `brightness_network` gives a disparity of 100 / 2550."""
    Image.new("RGB", (40, 20), (100, 100, 100)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def gradient(h=30, w=50):
    """Dark at the left, red at the top."""
    x, y = np.meshgrid(np.linspace(0, 250, w), np.linspace(250, 0, h))
    return np.dstack((y, x, x)).round().astype(np.uint8)


# ---- reading ----


@pytest.mark.parametrize(("suffix", "tolerance"), [("png", 0), ("webp", 0.1), ("jpg", 0.1), ("bmp", 0), ("tif", 0)])
def test_every_usual_file_format_is_read(tmp_path, suffix, tolerance):
    Image.fromarray(gradient()).save(tmp_path / f"a.{suffix}", quality=95)
    photo = read_photo(tmp_path / f"a.{suffix}")
    assert photo.full_width == 50 and photo.picture.dtype == np.float32
    np.testing.assert_allclose(photo.picture, gradient() / 255, atol=tolerance + 1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_taken_with_the_camera_turned_is_put_upright(tmp_path, orientation):
    stored = Image.fromarray(gradient())
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # transpositions that EXIF says to undo
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_allclose(photo.picture, gradient() / 255, atol=1e-6)
    assert photo.full_width == 50


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_kind_of_pixel_is_read_with_its_brightness(tmp_path, mode):
    grey = np.full((8, 12), 255, np.uint8)
    grey[:, :6] = 0
    image = Image.fromarray(grey)
    image = image.convert(mode) if mode in ("LA", "1") else image.convert("RGB").convert(mode)
    image.save(tmp_path / "a", "TIFF" if mode == "CMYK" else "PNG")
    picture = read_photo(tmp_path / "a").picture
    np.testing.assert_allclose(picture, np.dstack([grey / 255] * 3), atol=0.02)


def test_16_bit_grey_keeps_its_shades_and_transparent_parts_are_white(tmp_path):
    levels = np.array([[0, 1000, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_photo(tmp_path / "a.png").picture[..., 0], levels / 65535, atol=0.002)
    Image.fromarray(np.array([[[255, 0, 0, 0], [255, 0, 0, 255]]], dtype=np.uint8)).save(tmp_path / "b.png")
    assert read_photo(tmp_path / "b.png").picture.tolist() == [[[1, 1, 1], [1, 0, 0]]]


def test_a_photo_of_12_bits_in_16_is_read_as_training_reads_it_with_a_warning(tmp_path):
    Image.fromarray(np.array([[0, 1000, 2048, 4095]], dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"a\.png.*12 bits"):
        photo = read_photo(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="12 bits"):
        trained_on = read_image(tmp_path / "a.png").permute(1, 2, 0).numpy()
    np.testing.assert_allclose(photo.picture, trained_on, atol=0.002)


def test_a_large_jpeg_is_decoded_at_half_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "MAX_SIDE", 100)
    Image.new("RGB", (328, 218), (0, 128, 255)).save(tmp_path / "a.jpg")
    decoded, exif_transpose = [], inference.ImageOps.exif_transpose
    monkeypatch.setattr(inference.ImageOps, "exif_transpose", lambda i: decoded.append(i.size) or exif_transpose(i))
    photo = read_photo(tmp_path / "a.jpg")
    assert decoded == [(164, 109)]
    assert photo.picture.shape == (66, 100, 3) and photo.full_width == 328


def test_a_file_that_decodes_to_too_many_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # Pillow refuses twice as many
    Image.new("1", (50, 25)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="bomb.png.*1250 pixels"):
        read_photo(tmp_path / "bomb.png")


def half_a_jpeg():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG")
    return file.getvalue()[: file.tell() // 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", ""), (b"hello", ""), (b"\x89PNG\r\n\x1a\n123", ""), (half_a_jpeg(), "truncated")],
    ids=["empty", "text", "damaged", "half"],
)
def test_a_file_that_is_not_a_whole_image_is_named(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.png.*{reason}"):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize("tag", [0x0112, 0x0102], ids=["orientation", "bits per sample"])
def test_a_photo_with_text_where_exif_has_numbers_is_named(tmp_path, tag):
    exif = Image.Exif()
    exif[0x0112], exif[tag] = 6, 8
    Image.new("RGB", (40, 20)).save(tmp_path / "odd.jpg", exif=exif)
    number, text = (struct.pack(">HH", tag, kind) for kind in (3, 2))
    (tmp_path / "odd.jpg").write_bytes((tmp_path / "odd.jpg").read_bytes().replace(number, text))
    with pytest.raises(ValueError, match="odd.jpg"):
        read_photo(tmp_path / "odd.jpg")


def test_photos_are_found_by_name_and_in_folders(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "._a.png", "c[1].jpg"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    a, b, c = (tmp_path / n for n in ("a.PNG", "b.jpg", "c[1].jpg"))
    assert find_photos([tmp_path]) == [a, b, c]
    assert find_photos([c, "missing.jpg", c]) == [c, Path("missing.jpg")]
    with pytest.raises(ValueError, match="empty"):
        find_photos([tmp_path / "empty"])


def test_results_in_a_folder_of_photos_are_no_photos(photo, tmp_path, blank_figures):
    for name in ("a_coloured.png", "shot_sheet.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert len(find_photos([tmp_path])) == 3  # nothing has been predicted
    for _ in range(3):
        photos = find_photos([tmp_path])
        predict_photos(brightness_network, photos, tmp_path, SIZE, Camera(700.0, 0.1))
    mine = [tmp_path / name for name in ("a.png", "shot_sheet.png")]
    assert photos == mine and not any(map(is_result, mine))


# ---- predicting ----


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (400, 5)])
def test_any_size_and_aspect_ratio_gives_a_map_of_that_size(network, shape, tmp_path):
    Image.new("RGB", shape[::-1]).save(tmp_path / "a.png")
    picture, disparity = predict_photo(network, tmp_path / "a.png", SIZE)
    assert picture.shape == (*shape, 3) and disparity.shape == shape
    assert (disparity > 0).all() and (disparity < 0.3).all()


def test_the_prediction_is_that_of_the_left_view_and_its_mirror_image(network):
    image = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        left, mirrored = network(image)[0][0, 0], network(image.flip(-1))[0][0, 0].flip(-1)
    disparity = predict_disparity(network, Photo(image[0].permute(1, 2, 0).numpy(), SIZE[1]), SIZE)
    np.testing.assert_allclose(disparity[:, 30:-30], ((left + mirrored) / 2)[:, 30:-30], rtol=1e-4)


def test_without_a_camera_no_file_is_in_metres(photo, tmp_path):
    predict_photos(brightness_network, [photo], tmp_path / "out", SIZE)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"a_coloured.png", "a_relative_disparity.npy", "a_relative_disparity.png", "a_sheet.png"}
    stored = np.asarray(Image.open(tmp_path / "out" / "a_relative_disparity.png"))
    assert stored.dtype == np.uint16
    np.testing.assert_allclose(stored * 0.3 / 65535, 100 / 2550, atol=1e-5)
    assert Image.open(tmp_path / "out" / "a_sheet.png").width == 1200


def test_points_lie_where_the_camera_saw_them():
    picture = np.zeros((3, 5, 3))
    picture[1, 4] = (1, 0.5, 0)
    disparity = np.full((3, 5), np.nan)
    disparity[1, 4], disparity[0, 0] = 4, 0  # 10 m away; no disparity: the sky
    xyz, colours = to_points_m(picture, disparity, 40.0, 1.0)
    np.testing.assert_allclose(xyz, [[2 * 10 / 40, 0, 10]])  # two pixels right of the centre
    assert colours.tolist() == [[255, 128, 0]]


def read_ply(path):
    """An independent reader, written from the format's description."""
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    properties = [line.split()[1:] for line in lines if line.startswith("property")]
    points = np.frombuffer(body, [(name, {"float": "<f4", "uchar": "u1"}[kind]) for kind, name in properties])
    assert f"element vertex {len(points)}" in lines
    return tuple(np.stack([points[n] for n in names], 1) for names in ("xyz", ("red", "green", "blue")))


def test_metres_follow_from_the_full_width_of_the_photo(tmp_path, monkeypatch, blank_figures):
    monkeypatch.setattr(inference, "MAX_SIDE", 100)
    Image.new("RGB", (200, 40), (255, 255, 255)).save(tmp_path / "a.png")  # disparity: 0.1 * 200 px
    camera = Camera(focal_px=100.0, baseline_m=0.5)
    assert predict_photos(brightness_network, [tmp_path / "a.png"], tmp_path, SIZE, camera=camera, ply=True) == {}
    depth = np.load(tmp_path / "a_depth_m.npy")
    assert depth.shape == (20, 100)
    np.testing.assert_allclose(depth, 100 * 0.5 / 20, rtol=1e-4)
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "a_depth_m.png")) / 256, 2.5, atol=1 / 256)
    xyz, colours = read_ply(tmp_path / "a_points.ply")
    assert len(xyz) == 2000 and (colours == 255).all()
    np.testing.assert_allclose(xyz[:, 2], -2.5, rtol=1e-4)
    np.testing.assert_allclose(np.ptp(xyz[:, 0]), 99 / 50 * 2.5, rtol=1e-4)  # 99 px at focal length 50 px


def test_points_keep_place_and_colour_in_a_ply_file(tmp_path):
    write_ply(tmp_path / "a.ply", np.array([[1, 2, 3]], np.float32), np.array([[9, 8, 7]], np.uint8))
    xyz, colours = read_ply(tmp_path / "a.ply")
    assert xyz.tolist() == [[1, -2, -3]] and colours.tolist() == [[9, 8, 7]]  # y up, z towards the viewer


def test_photos_of_the_same_name_do_not_overwrite_each_other():
    paths = [Path(p) for p in ("x/a.jpg", "y/a.jpg", "x/a.png", "x/a_2.png", "x/A.jpg")]
    # macOS and Windows take a and A for one name.
    assert list(inference.unique_names(paths).values()) == ["a", "a_2", "a_3", "a_2_2", "A_4"]


def test_a_file_that_cannot_be_written_whole_is_not_left_in_part(photo, tmp_path, monkeypatch):
    def full_disk(values, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inference, "save_array", full_disk)
    failures = predict_photos(brightness_network, [photo], tmp_path / "out", SIZE)
    assert "a_relative_disparity.npy" in failures[photo] and not list((tmp_path / "out").iterdir())


def test_photos_that_are_larger_than_their_results_are_named(tmp_path, monkeypatch, blank_figures):
    monkeypatch.setattr(inference, "MAX_SIDE", 100)
    Image.new("RGB", (200, 40)).save(tmp_path / "large.png")
    with pytest.warns(UserWarning, match=r"large\.png from 200 to 100"):
        predict_photos(brightness_network, [tmp_path / "large.png"], tmp_path, SIZE)


def test_a_camera_in_millimetres_is_noticed_and_an_impossible_one_refused(photo, tmp_path, blank_figures):
    with pytest.warns(UserWarning, match="millimetres"):
        predict_photos(brightness_network, [photo], tmp_path, SIZE, Camera(700.0, 540.0))
    for camera in (Camera(700.0, -0.1), Camera(700.0, 0.0), Camera(float("nan"), 0.5)):
        with pytest.raises(ValueError, match="camera"):
            predict_photos(brightness_network, [photo], tmp_path, SIZE, camera)


def test_a_folder_that_cannot_be_made_is_refused_before_predicting(photo):
    with pytest.raises(NotADirectoryError, match="a.png"):
        predict_photos(None, [photo], photo / "out", SIZE)


# ---- on the command line ----


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("run")
    run = RunFolder(folder, network, {"image_size": SIZE, "baseline_m": 0.5, "validation": None}, {})
    history = [{"epoch": 1, "train_total": 1}]
    run.keep_best(history)
    run.write(history)
    return str(folder / "best.pt")


@pytest.fixture
def predict(checkpoint, tmp_path, blank_figures):
    def run(*arguments, checkpoint=checkpoint, out=tmp_path / "out"):
        options = ["--checkpoint", checkpoint, "--device", "cpu", "--out", out]
        return main(["predict", *map(str, [*options, *arguments])])

    return run


def test_a_bad_photo_changes_the_exit_status_and_does_not_stop_the_others(photo, tmp_path, capsys, predict):
    assert predict(tmp_path) == 0
    assert "relative" in capsys.readouterr().out
    (tmp_path / "bad.png").touch()
    assert predict(tmp_path / "bad.png", tmp_path / "missing.png", photo, out=tmp_path / "again") == 1
    printed = capsys.readouterr()
    assert "bad.png" in printed.err and "missing.png" in printed.err and "1 of 3" in printed.out
    assert (tmp_path / "again" / "a_sheet.png").exists()


def test_a_file_that_predict_did_not_make_is_never_overwritten(photo, tmp_path, capsys, predict):
    mine = tmp_path / f"{photo.stem}_sheet.png"
    Image.new("RGB", (8, 8)).save(mine)
    before = mine.read_bytes()
    assert predict(photo, out=tmp_path) == 2
    assert mine.name in capsys.readouterr().err and mine.read_bytes() == before
    mine.unlink()
    assert predict(photo, out=tmp_path) == predict(photo, out=tmp_path) == 0  # its own results are replaced


def test_depth_in_metres_needs_focal_length_and_baseline(photo, tmp_path, capsys, predict):
    for half in (["--ply"], ["--baseline-m", 0.5]):
        assert predict(photo, *half) == 2
        assert "metres" in capsys.readouterr().err
    assert predict(photo, "--focal-px", -700, "--baseline-m", 0.5) == 2
    assert "-700" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert predict(photo, "--ply", "--focal-px", 700, "--baseline-m", 0.5) == 0
    assert (tmp_path / "out" / "a_points.ply").exists() and "depth in metres" in capsys.readouterr().out


def test_a_wrong_checkpoint_and_a_wrong_folder_are_named(photo, tmp_path, capsys, predict):
    (tmp_path / "other.pt").write_bytes(b"another network")
    assert predict(photo, checkpoint=tmp_path / "other.pt") == 2
    assert "other.pt" in capsys.readouterr().err
    assert predict(photo, out=photo) == 2
    assert "a.png" in capsys.readouterr().err


def test_the_baseline_that_a_network_was_trained_with_is_stored_with_it(photo, tmp_path, predict):
    assert predict(photo, "--focal-px", 700) == 0
    assert predict(photo, "--focal-px", 700, "--baseline-m", 0.5, out=tmp_path / "given") == 0
    stored, given = (np.load(tmp_path / out / "a_depth_m.npy") for out in ("out", "given"))
    np.testing.assert_array_equal(stored, given)


def test_a_run_folder_stands_for_its_best_network(photo, tmp_path, predict, checkpoint):
    assert predict(photo, checkpoint=Path(checkpoint).parent) == 0
    assert predict(photo, checkpoint=tmp_path) == 2  # a folder without a run


def test_without_a_checkpoint_the_shipped_network_predicts(photo, tmp_path, monkeypatch, checkpoint, capsys):
    monkeypatch.setattr(inference, "__file__", str(tmp_path / "inference.py"))
    command = ["predict", str(photo), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "streets.pt" in capsys.readouterr().err
    (tmp_path / "weights").mkdir()
    half = torch.load(checkpoint, weights_only=True)  # it is stored in 16 bits
    half["model"] = {name: tensor.half() for name, tensor in half["model"].items()}
    torch.save(half, tmp_path / "weights" / "streets.pt")
    assert main(command) == 0 and (tmp_path / "out" / "a_sheet.png").exists()
    assert {p.dtype for p in load_network().parameters()} == {torch.float32}


@pytest.fixture
def evaluate(checkpoint, tmp_path, capsys, blank_figures):
    """Run the command on random pairs of these names; its exit status and what it printed."""

    def run(names, *arguments):
        rng = np.random.default_rng(0)
        for folder in (
            tmp_path / "data" / "training" / name for name in ("image_2", "image_3", "disp_noc_0", "disp_occ_0")
        ):
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                picture = rng.integers(0, 255, (20, 60, 3), dtype=np.uint8)
                truth = rng.integers(256, 5000, (20, 60), dtype=np.uint16)
                if "image" in folder.name or name.endswith("_10"):  # KITTI labels this frame only
                    Image.fromarray(picture if "image" in folder.name else truth).save(folder / f"{name}.png")
        options = ["--focal-px", "50", "--baseline-m", "0.54", "--device", "cpu", "--out", str(tmp_path / "out")]
        status = main(["evaluate", checkpoint, "--data", str(tmp_path / "data"), *options, *arguments])
        return status, "".join(capsys.readouterr())

    return run


def test_a_checkpoint_is_scored_on_the_scenes_left_out_of_training(tmp_path, evaluate):
    names = [f"{scene:06}_10" for scene in range(50, 55)]
    status, printed = evaluate(names)
    assert status == 0 and "| noc | pixel-mean baseline | metres | 1 |" in printed
    assert set(pd.read_csv(tmp_path / "out" / "per_image.csv")["name"]) == {"000054_10"}
    status, printed = evaluate(names, "--all")
    assert status == 0 and "| occ | network, post-processed | metres | 5 |" in printed


def test_scenes_of_one_drive_are_left_out_of_each_others_baseline(tmp_path, evaluate):
    names = [f"{scene:06}_10" for scene in range(50, 55)]
    mapping, scores = tmp_path / "data/devkit/mapping/train_mapping.txt", []
    for drives in ("abcde", "aaaab"):
        mapping.parent.mkdir(parents=True, exist_ok=True)
        mapping.write_text("\n" * 50 + "\n".join(f"date {drive} 10" for drive in drives))
        assert evaluate(names, "--all")[0] == 0
        scores.append(pd.read_csv(tmp_path / "out" / "per_image.csv").set_index("method")["epe"])
    one, other = (table["pixel-mean baseline"].to_numpy() for table in scores)
    assert (abs(one - other) > 0.01).tolist() == [True, True, True, True, False] * 2  # of "noc" and "occ"
    assert scores[0]["network"].equals(scores[1]["network"])


def test_where_some_scenes_are_labelled_these_are_scored_and_counted(tmp_path, evaluate):
    names = [f"{scene:06}_10" for scene in range(50, 55)]
    evaluate(names)
    for kind in ("noc", "occ"):
        (tmp_path / "data" / "training" / f"disp_{kind}_0" / "000052_10.png").unlink()
    kept = {path.name for path in (tmp_path / "data/training/disp_noc_0").iterdir()}
    assert len(kept) == 4
    rescored, printed = evaluate([], "--all")
    assert rescored == 0 and "5 scenes: 4 with noc truth" in printed


@pytest.mark.parametrize("names", [["000050_10"], ["000002_10", "000002_11", "000003_10", "000003_11"]])
def test_where_no_scene_is_left_out_all_can_be_scored(evaluate, names):
    status, printed = evaluate(names)
    assert status == 2 and "--all" in printed
    assert evaluate(names, "--all")[0] == 0


# ---- in notebooks ----


def test_a_photo_is_given_by_argument_environment_or_upload_on_colab(monkeypatch):
    monkeypatch.delenv("MONODEPTH_PHOTO", raising=False)
    assert ask_for_photo() is None and ask_for_photo("a.jpg") == "a.jpg"
    uploads = {"mine.jpg": b""}
    files = types.SimpleNamespace(upload=lambda: uploads)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(files=files))
    assert ask_for_photo() == "mine.jpg"
    uploads.clear()  # cancelled
    assert ask_for_photo() is None
    monkeypatch.setenv("MONODEPTH_PHOTO", "b.jpg")
    files.upload = None  # does not ask
    assert ask_for_photo() == "b.jpg" and ask_for_photo("a.jpg") == "a.jpg"


# ---- ONNX ----


@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_predicts_the_same(tmp_path, network):
    network.train()
    export_onnx(network, tmp_path / "new" / "network.ONNX", SIZE)
    assert network.training  # nothing of it has changed
    network.eval()
    exported = load_network(tmp_path / "new" / "network.ONNX")
    assert tuple(exported.size) == SIZE
    for count in (1, 3):
        images = torch.rand(count, 3, *SIZE)
        with torch.no_grad():
            torch.testing.assert_close(exported(images)[0], network(images)[0], atol=1e-4, rtol=0)
    photo = Photo(gradient(64, 128).astype(np.float32) / 255, 128)
    a, b = (predict_disparity(n, photo, SIZE) for n in (network, exported))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_file_that_is_not_an_exported_network_is_named(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no")
    with pytest.raises(ValueError, match="a.onnx"):
        OnnxNetwork(tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError, match="missing.onnx.*monodepth_nb export"):
        OnnxNetwork(tmp_path / "missing.onnx")


def test_missing_onnx_packages_are_named_with_the_install_command(tmp_path, monkeypatch, network):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (lambda: OnnxNetwork(tmp_path / "a.onnx"), lambda: export_onnx(network, tmp_path / "a.onnx", SIZE)):
        with pytest.raises(ValueError, match="pip install onnx"):
            use()
