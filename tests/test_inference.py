"""Photos of all kinds in, depth out; and what happens with those that are none."""

import importlib.util
import struct
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from monodepth_nb import checkpoints, inference
from monodepth_nb.__main__ import main
from monodepth_nb.inference import (
    MAX_SIDE,
    Camera,
    ask_for_photo,
    find_photos,
    load_network,
    predict_photo,
    predict_photos,
    read_photo,
    write_ply,
)
from monodepth_nb.networks import DispResNet
from monodepth_nb.onnx_export import OnnxNetwork, export_onnx

SIZE = (64, 128)
NEEDS_ONNX = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="needs `pip install onnx onnxscript onnxruntime`",
)


def brightness_network(images):
    """Disparity is a tenth of the brightness, so that what was read shows."""
    d = images.mean(1, keepdim=True) / 10
    return [torch.cat((d, d), dim=1)]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DispResNet(width=0.0625).eval()


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


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_kind_of_pixel_is_read_with_its_brightness(tmp_path, mode):
    grey = np.full((8, 12), 255, np.uint8)
    grey[:, :6] = 0
    image = Image.fromarray(grey).convert("RGB")
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = image.convert("L").convert(mode) if mode in ("LA", "1") else image.convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    image.save(tmp_path / f"a.{suffix}")
    picture = read_photo(tmp_path / f"a.{suffix}").picture
    assert picture.shape == (8, 12, 3)
    np.testing.assert_allclose(picture, np.dstack([grey / 255] * 3), atol=0.02)


def test_16_bit_grey_keeps_its_shades(tmp_path):
    Image.fromarray(np.array([[0, 1000, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_allclose(
        read_photo(tmp_path / "a.png").picture[0, :, 0], np.array([0, 1000, 32768, 65535]) / 65535, atol=0.002
    )


def test_what_is_transparent_becomes_white(tmp_path):
    Image.fromarray(np.array([[[255, 0, 0, 0], [255, 0, 0, 255]]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").picture.tolist() == [[[1, 1, 1], [1, 0, 0]]]


def test_a_30_megapixel_photo_is_unpacked_small(tmp_path, monkeypatch):
    Image.new("RGB", (6720, 4480), (0, 128, 255)).save(tmp_path / "a.jpg")
    unpacked = []
    exif_transpose = inference.ImageOps.exif_transpose
    monkeypatch.setattr(inference.ImageOps, "exif_transpose", lambda i: unpacked.append(i.size) or exif_transpose(i))
    photo = read_photo(tmp_path / "a.jpg")
    assert unpacked == [(3360, 2240)]  # the JPEG itself was unpacked at half its size
    assert photo.picture.shape == (1365, MAX_SIDE, 3) and photo.full_width == 6720


def test_a_file_that_would_unpack_to_gigabytes_is_refused(tmp_path):
    Image.new("1", (20000, 5000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb.png is too large .*100000000 pixels.*reduce it"):
        read_photo(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "0 bytes"), (b"hello", "no picture"), (b"\x89PNG\r\n\x1a\n123", "no picture")]
)
def test_what_is_no_picture_is_named(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.png.*{message}"):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize("tag", [0x0112, 0x0102], ids=["orientation", "bits per sample"])
def test_a_photo_with_text_where_exif_has_numbers_does_not_stop_the_others(tmp_path, tag):
    exif = Image.Exif()
    exif[0x0112], exif[tag] = 6, 8
    Image.new("RGB", (40, 20)).save(tmp_path / "odd.jpg", exif=exif)
    Image.new("RGB", (40, 20)).save(tmp_path / "good.png")
    photos = [tmp_path / "odd.jpg", tmp_path / "good.png"]
    number, text = (struct.pack(">HH", tag, kind) for kind in (3, 2))
    photos[0].write_bytes(photos[0].read_bytes().replace(number, text))
    failures = predict_photos(brightness_network, photos, tmp_path / "out", SIZE)
    assert "odd.jpg is no picture that can be read" in failures[photos[0]]
    assert (tmp_path / "out" / "good_sheet.png").exists()


def test_half_a_file_is_no_picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_photo(tmp_path / "a.jpg")


def test_photos_are_found_by_name_folder_and_pattern(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "._a.png", "c[1].jpg"):
        (tmp_path / name).touch()
    a, b, c = (tmp_path / n for n in ("a.PNG", "b.jpg", "c[1].jpg"))
    assert find_photos([tmp_path]) == [a, b, c]
    assert find_photos([tmp_path / "*.jpg", b]) == [b, c]
    assert find_photos([c, "missing.jpg"]) == [c, inference.Path("missing.jpg")]
    for nothing in (tmp_path / "*.webp", (tmp_path / "empty")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="holds no picture"):
            find_photos([nothing])


# ---- predicting ----


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (400, 5), (100, 77)])
def test_any_size_and_aspect_gives_a_map_of_that_size(network, shape):
    picture, disparity = predict_photo(network, Image.new("RGB", shape[::-1]), SIZE)
    assert picture.shape == (*shape, 3) and disparity.shape == shape
    assert (disparity > 0).all() and (disparity < 0.3).all()


def test_the_prediction_is_that_of_the_left_view_and_its_mirror_image(network):
    image = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        left, mirrored = network(image)[0][0, 0], network(image.flip(-1))[0][0, 0].flip(-1)
    picture = image[0].permute(1, 2, 0)
    photo = inference.Photo(picture.numpy(), SIZE[1])
    disparity = inference.predict_batch(network, [photo], SIZE)[0]
    np.testing.assert_allclose(disparity[:, 30:-30], ((left + mirrored) / 2)[:, 30:-30], rtol=1e-4)


def test_photos_of_a_batch_do_not_mix(tmp_path):
    for i, level in enumerate((50, 100, 200)):
        Image.new("RGB", (20 + i, 10), (level,) * 3).save(tmp_path / f"{i}.png")
    photos = find_photos([tmp_path])
    assert predict_photos(brightness_network, photos, tmp_path / "out", SIZE, batch_size=2) == {}
    for i, level in enumerate((50, 100, 200)):
        disparity = np.load(tmp_path / "out" / f"{i}_relative_disparity.npy")
        assert disparity.shape == (10, 20 + i) and disparity.dtype == np.float32
        np.testing.assert_allclose(disparity, level / 2550, rtol=1e-4)


def test_without_a_camera_no_file_speaks_of_metres(tmp_path):
    Image.new("RGB", (40, 20), (100, 100, 100)).save(tmp_path / "a.png")
    predict_photos(brightness_network, [tmp_path / "a.png"], tmp_path / "out", SIZE)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"a_coloured.png", "a_relative_disparity.npy", "a_relative_disparity.png", "a_sheet.png"}
    stored = np.asarray(Image.open(tmp_path / "out" / "a_relative_disparity.png"))
    assert stored.dtype == np.uint16
    np.testing.assert_allclose(stored * 0.3 / 65535, 100 / 2550, atol=1e-5)
    with pytest.raises(ValueError, match="focal length in pixels and the baseline in metres"):
        predict_photos(brightness_network, [tmp_path / "a.png"], tmp_path / "out", SIZE, ply=True)


def test_metres_follow_from_the_full_width_of_the_photo(tmp_path, monkeypatch):
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


def read_ply(path):
    """A reader of its own, by the format's description."""
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    properties = [line.split()[1:] for line in lines if line.startswith("property")]
    points = np.frombuffer(body, [(name, {"float": "<f4", "uchar": "u1"}[kind]) for kind, name in properties])
    assert f"element vertex {len(points)}" in lines
    return tuple(np.stack([points[n] for n in names], 1) for names in ("xyz", ("red", "green", "blue")))


def test_points_keep_place_and_colour_in_a_ply_file(tmp_path):
    write_ply(tmp_path / "a.ply", np.array([[1, 2, 3]], np.float32), np.array([[9, 8, 7]], np.uint8))
    xyz, colours = read_ply(tmp_path / "a.ply")
    assert xyz.tolist() == [[1, -2, -3]] and colours.tolist() == [[9, 8, 7]]  # y up, z towards the viewer


def test_photos_of_the_same_name_do_not_overwrite_each_other():
    paths = [inference.Path(p) for p in ("x/a.jpg", "y/a.jpg", "x/a.png", "x/a_2.png")]
    assert list(inference.unique_names(paths).values()) == ["a", "a_2", "a_3", "a_2_2"]


def test_a_bad_photo_does_not_stop_the_others(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    Image.new("RGB", (40, 20)).save(tmp_path / "good.png")
    photos = [tmp_path / "bad.png", tmp_path / "missing.png", tmp_path / "good.png"]
    failures = predict_photos(brightness_network, photos, tmp_path / "out", SIZE)
    assert list(failures) == photos[:2]
    assert "0 bytes" in failures[photos[0]] and "does not exist" in failures[photos[1]]
    assert (tmp_path / "out" / "good_sheet.png").exists()


def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file"):
        predict_photos(None, [tmp_path / "a.png"], tmp_path / "file" / "out", SIZE)


# ---- on the command line ----


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("run")
    checkpoints.save(folder, network, {"checkpoint_every": 1, "image_size": SIZE}, [{"epoch": 1, "train_total": 1}], {})
    return str(folder / "best.pt")


def predict_command(checkpoint, *arguments):
    return main(["predict", "--checkpoint", checkpoint, "--device", "cpu", *map(str, arguments)])


def test_the_exit_status_tells_whether_all_photos_were_done(tmp_path, capsys, checkpoint):
    Image.new("RGB", (40, 20)).save(tmp_path / "good.png")
    assert predict_command(checkpoint, tmp_path / "*.png", "--out", tmp_path / "out") == 0
    assert "relative disparity (no metres" in capsys.readouterr().out
    (tmp_path / "bad.png").touch()
    assert predict_command(checkpoint, tmp_path, "--out", tmp_path / "again") == 1
    printed = capsys.readouterr()
    assert "bad.png is empty" in printed.err and "1 of 2 photos" in printed.out
    assert (tmp_path / "again" / "good_sheet.png").exists()


def test_metres_are_refused_without_a_whole_camera(tmp_path, capsys, checkpoint):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    for half in (["--ply"], ["--focal-px", "700"], ["--baseline-m", "0.5"]):
        assert predict_command(checkpoint, tmp_path / "a.png", *half, "--out", tmp_path / "out") == 2
        assert "metres" in capsys.readouterr().err
    whole = ["--ply", "--focal-px", "700", "--baseline-m", "0.5"]
    assert predict_command(checkpoint, tmp_path / "a.png", *whole, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "a_points.ply").exists() and "depth in metres" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", ["--batch-size 0", "--focal-px -700 --baseline-m 0.5", "--focal-px 700 --baseline-m 0"]
)
def test_cameras_and_batches_of_nothing_are_refused(tmp_path, capsys, checkpoint, wrong):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    assert predict_command(checkpoint, tmp_path / "a.png", *wrong.split(), "--out", tmp_path / "out") == 2
    assert "must be larger than 0" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_wrong_use_is_told_apart(tmp_path, capsys, checkpoint):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    (tmp_path / "other.pt").write_bytes(b"another network")
    assert predict_command(str(tmp_path / "other.pt"), tmp_path / "a.png") == 2
    assert "other.pt is damaged or no checkpoint" in capsys.readouterr().err
    assert predict_command(checkpoint, tmp_path / "a.png", "--out", tmp_path / "a.png") == 2
    assert "a.png (File exists): choose another" in capsys.readouterr().err


def write_labelled(root, names):
    rng = np.random.default_rng(0)
    for folder in (root / "training" / name for name in ("image_2", "image_3", "disp_noc_0", "disp_occ_0")):
        folder.mkdir(parents=True)
        for name in names:
            picture = rng.integers(0, 255, (20, 60, 3), dtype=np.uint8)
            truth = rng.integers(256, 5000, (20, 60), dtype=np.uint16)
            Image.fromarray(picture if "image" in folder.name else truth).save(folder / f"{name}.png")
    for path in root.glob("training/disp_*/*_11.png"):  # KITTI labels the other frame only
        path.unlink()


def evaluate_command(checkpoint, root):
    camera = ["--focal-px", "50", "--baseline-m", "0.54"]
    return ["evaluate", checkpoint, "--data", str(root), "--device", "cpu", *camera]


def test_a_checkpoint_is_scored_on_the_scenes_left_out_of_training(tmp_path, capsys, checkpoint):
    write_labelled(tmp_path / "data", [f"{scene:06}_10" for scene in range(50, 55)])
    data = evaluate_command(checkpoint, tmp_path / "data")
    assert main([*data, "--out", str(tmp_path / "out")]) == 0
    assert "| noc | pixel-mean baseline | 1 |" in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "out" / "disp_0").iterdir()] == ["000054_10.png"]
    assert main([*data, "--all", "--out", str(tmp_path / "all")]) == 0
    assert "| occ | network, post-processed | 5 |" in capsys.readouterr().out


@pytest.mark.parametrize("names", [["000050_10"], ["000002_10", "000002_11", "000003_10", "000003_11"]])
def test_where_nothing_is_left_to_score_the_way_to_score_all_is_told(tmp_path, capsys, checkpoint, names):
    write_labelled(tmp_path / "data", names)
    data = evaluate_command(checkpoint, tmp_path / "data")
    assert main([*data, "--out", str(tmp_path / "out")]) == 2
    assert "pass --all" in capsys.readouterr().err
    assert main([*data, "--all", "--out", str(tmp_path / "all")]) == 0


# ---- in notebooks ----


def test_no_photo_is_asked_for_where_none_is_given(monkeypatch):
    monkeypatch.delenv("MONODEPTH_PHOTO", raising=False)
    assert ask_for_photo() is None and ask_for_photo("a.jpg") == "a.jpg"
    monkeypatch.setenv("MONODEPTH_PHOTO", "b.jpg")
    assert ask_for_photo() == "b.jpg" and ask_for_photo("a.jpg") == "a.jpg"


def test_colab_asks_for_an_upload(monkeypatch):
    monkeypatch.delenv("MONODEPTH_PHOTO", raising=False)
    uploads = {"mine.jpg": b""}
    files = types.SimpleNamespace(upload=lambda: uploads)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(files=files))
    assert ask_for_photo() == "mine.jpg"
    uploads.clear()  # cancelled
    assert ask_for_photo() is None
    monkeypatch.setenv("MONODEPTH_PHOTO", "given.jpg")  # nobody needs to be there
    files.upload = None
    assert ask_for_photo() == "given.jpg"


# ---- ONNX ----


@NEEDS_ONNX
@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_predicts_the_same(tmp_path, network):
    export_onnx(network, tmp_path / "network.onnx", SIZE)
    exported = load_network(tmp_path / "network.onnx")
    assert tuple(exported.size) == SIZE
    for count in (1, 3):
        images = torch.rand(count, 3, *SIZE)
        with torch.no_grad():
            torch.testing.assert_close(exported(images)[0], network(images)[0], atol=1e-4, rtol=0)
    photo = Image.fromarray(gradient(64, 128))
    a, b = (predict_photo(n, photo, SIZE)[1] for n in (network, exported))
    np.testing.assert_allclose(a, b, atol=1e-4)


@NEEDS_ONNX
def test_a_file_that_is_no_exported_network_is_named(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no")
    with pytest.raises(ValueError, match="a.onnx is no exported network"):
        OnnxNetwork(tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError, match="monodepth_nb export"):
        OnnxNetwork(tmp_path / "missing.onnx")


def test_without_the_packages_the_way_to_get_them_is_told(tmp_path, monkeypatch, network):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (lambda: OnnxNetwork(tmp_path / "a.onnx"), lambda: export_onnx(network, tmp_path / "a.onnx", SIZE)):
        with pytest.raises(ValueError, match="not installed: pip install onnx"):
            use()
