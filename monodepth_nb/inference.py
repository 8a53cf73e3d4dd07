"""Depth of any photo: read it, predict its disparity, write maps, depth and point clouds.

A network predicts disparity as a fraction of the image width. Metres need the camera's focal length (in pixels of
the stored photo, turned upright) and the baseline of the stereo pairs that the network was trained on, and they hold
only for photos like those. Without both, the result is called relative disparity and no metres are written.
"""

import glob
import os
import sys
import warnings
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from monodepth_nb import figures
from monodepth_nb.checkpoints import load_model, write_whole
from monodepth_nb.data.kitti import UNREADABLE
from monodepth_nb.data.transforms import resize
from monodepth_nb.evaluation import left_disparity, to_depth_m, to_pixels, to_points_m
from monodepth_nb.networks import MAX_DISPARITY
from monodepth_nb.onnx_export import OnnxNetwork

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
MAX_SIDE = 2048  # results are at most this long, which bounds memory and file sizes


class Photo(NamedTuple):
    picture: np.ndarray  # (H, W, 3) float32 in [0, 1], upright, H and W at most MAX_SIDE
    full_width: int  # of the upright photo in its file


class Camera(NamedTuple):
    focal_px: float  # of the full-size photo
    baseline_m: float


# ---- Reading photos ----


def read_photo(source: str | Path | Image.Image) -> Photo:
    """Any image that Pillow reads: upright, RGB, transparent parts white, reduced to MAX_SIDE.

    Raises FileNotFoundError; ValueError if the file is empty, damaged, not an image or too large to decode.
    """
    if isinstance(source, Image.Image):
        return prepared(source)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: check its name")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty (0 bytes): copy it again")
    try:
        with warnings.catch_warnings():
            # Small files can claim any size. Pillow warns above 89 megapixels; here that is an error.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return prepared(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is too large ({error}): reduce it to below 89 megapixels") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a readable image ({error}): convert it to PNG or JPEG") from error


def prepared(image: Image.Image) -> Photo:
    turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations that exchange width and height
    full_width = image.height if turned else image.width
    image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # JPEG decodes at 1/2, 1/4 or 1/8 in a fraction of the memory
    image = as_rgb(ImageOps.exif_transpose(image))
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    return Photo(np.asarray(image, dtype=np.float32) / 255, full_width)


def as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def find_photos(names: list[str | Path]) -> list[Path]:
    """Named files, images in named folders, and matches of glob patterns. Missing files stay in the list.

    Raises ValueError for a folder without images and a pattern without a match.
    """
    photos = []
    for name in map(str, names):
        if Path(name).is_dir():
            found = [p for p in sorted(Path(name).iterdir()) if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
        elif glob.has_magic(name) and not Path(name).exists():
            found = [Path(p) for p in sorted(glob.glob(name, recursive=True)) if Path(p).is_file()]
        else:
            found = [Path(name)]
        if not found:
            raise ValueError(f"{name} matches no image ({', '.join(SUFFIXES)}): check the folder or pattern")
        photos += found
    return list(dict.fromkeys(photos))


# ---- Predicting ----


def load_network(path: str | Path, device: torch.device | str = "cpu"):
    """The network of a checkpoint, or of an exported .onnx file. Raises as `load_model` and `OnnxNetwork` do."""
    return OnnxNetwork(path) if Path(path).suffix == ".onnx" else load_model(path, device)


def predict_photos(
    network,
    photos: list[Path],
    folder: str | Path,
    size: tuple[int, int],
    *,
    camera: Camera | None = None,
    ply: bool = False,
    batch_size: int = 4,
) -> dict[Path, str]:
    """Predict every photo, post-processed, and write the files of `write_results` into `folder`.

    size:    (height, width) of the images that the network gets; photos of any aspect ratio are resized to it
    ply:     write point clouds too, which need a camera
    returns: error messages by photo; all other photos are done
    Raises OSError if the folder cannot be made, ValueError if `ply` lacks a camera, and for a camera or batch size
    that is not positive.
    """
    if ply and camera is None:
        raise ValueError("a point cloud is in metres: give the focal length in pixels and the baseline in metres")
    if not min(batch_size, *(camera or (1,))) > 0:
        given = f"{camera}, batch_size {batch_size}" if camera else f"batch_size {batch_size}"
        raise ValueError(f"{given}: all must be larger than 0")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names, failures = unique_names(photos), {}
    starts = tqdm(range(0, len(photos), batch_size), desc="predicting", unit="batch")
    for paths in (photos[start : start + batch_size] for start in starts):
        batch = {}
        for path in paths:
            with noted(path, failures):
                batch[path] = read_photo(path)
        maps = predict_batch(network, list(batch.values()), size)
        for (path, photo), disparity in zip(batch.items(), maps, strict=True):
            with noted(path, failures):
                write_results(folder, names[path], photo, disparity, camera, ply)
    return failures


@contextmanager
def noted(path: Path, failures: dict[Path, str]):
    """An error of one photo is kept and does not stop the others."""
    try:
        yield
    except (OSError, ValueError) as error:
        failures[path] = str(error)


def predict_batch(network, photos, size: tuple[int, int]) -> list[np.ndarray]:
    """(H, W) disparity of each photo at its size, as a fraction of its width."""
    images = [resize(torch.from_numpy(p.picture).permute(2, 0, 1), size) for p in photos]
    if not images:
        return []
    maps = left_disparity(network, torch.stack(images), post=True)
    shapes = [p.picture.shape[:2] for p in photos]
    return [to_pixels(m, shape) / shape[1] for m, shape in zip(maps, shapes, strict=True)]


def predict_photo(network, photo: str | Path | Image.Image, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """For notebooks: (H, W, 3) photo in [0, 1] and its (H, W) disparity, a fraction of the width."""
    read = read_photo(photo)
    return read.picture, predict_batch(network, [read], size)[0]


def ask_for_photo(path: str | Path | None = None) -> str | Path | None:
    """A photo's path: `path`, else MONODEPTH_PHOTO, else on Colab an uploaded file, else None."""
    path = path or os.environ.get("MONODEPTH_PHOTO")
    if not path and "google.colab" in sys.modules:
        from google.colab import files

        path = next(iter(files.upload()), None)
    return path or None


# ---- Writing results ----


def unique_names(photos: list[Path]) -> dict[Path, str]:
    """How the names of a photo's results begin: its name without suffix, numbered where photos share one."""
    names, taken = {}, set()
    for path in photos:
        numbered = (f"{path.stem}_{number}" for number in count(2))
        names[path] = next(name for name in chain([path.stem], numbered) if name not in taken)
        taken.add(names[path])
    return names


def write_results(folder: Path, name: str, photo: Photo, disparity, camera: Camera | None, ply: bool) -> None:
    """Write all files of one photo to `folder`, named NAME_... and, with a camera, those on the right.

    relative_disparity.npy  float32, fraction of the width      depth_m.npy  float32, metres
    relative_disparity.png  16 bit, fraction * 65535 / 0.3      depth_m.png  16 bit, metres * 256
    coloured.png            colours, black far to yellow near   points.ply   coloured points, metres
    sheet.png               photo and maps with colour bars
    """
    np.save(folder / f"{name}_relative_disparity.npy", disparity.astype(np.float32))
    write_png16(folder / f"{name}_relative_disparity.png", disparity * (65535 / MAX_DISPARITY))
    Image.fromarray(figures.colour_disparity(disparity)).save(folder / f"{name}_coloured.png")
    depth_m = None
    if camera:
        full_px = disparity * photo.full_width
        depth_m = to_depth_m(full_px, *camera).astype(np.float32)
        np.save(folder / f"{name}_depth_m.npy", depth_m)
        write_png16(folder / f"{name}_depth_m.png", depth_m * 256)
        if ply:
            reduced = photo.picture.shape[1] / photo.full_width  # scales focal length and disparity alike
            points = to_points_m(photo.picture, full_px * reduced, camera.focal_px * reduced, camera.baseline_m)
            write_whole(folder / f"{name}_points.ply", lambda path: write_ply(path, *points))
    figures.photo_sheet(photo.picture, disparity, depth_m, name).savefig(folder / f"{name}_sheet.png", dpi=100)


def write_png16(path: Path, values: np.ndarray) -> None:
    Image.fromarray(np.clip(np.round(values), 0, 65535).astype(np.uint16)).save(path)


def write_ply(path: Path, xyz: np.ndarray, colours: np.ndarray) -> None:
    """Binary PLY, for MeshLab, Open3D or CloudCompare: x right, y up, z towards the viewer, in metres."""
    fields = [(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")]
    points = np.rec.fromarrays([*(xyz * (1, -1, -1)).T, *colours.T], dtype=fields)
    types = "".join(f"property {'float' if kind == '<f4' else 'uchar'} {name}\n" for name, kind in fields)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{types}end_header\n"
    path.write_bytes(header.encode() + points.tobytes())
