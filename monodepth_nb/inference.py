"""Depth of any photo: read it, predict its disparity, write maps, depth and point clouds.

A network predicts relative disparity, a fraction of the image width. Metres need the camera's focal length (in pixels
of the stored photo, turned upright) and the baseline of the training pairs, and hold only for photos like those pairs.
"""

import os
import sys
import warnings
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from monodepth_nb import figures
from monodepth_nb.checkpoints import load_model, write_whole
from monodepth_nb.data.files import ORIENTATION, deep_pixels, opened, white_value
from monodepth_nb.data.sample import check_camera
from monodepth_nb.data.transforms import resize
from monodepth_nb.evaluation import MAX_DEPTH_M, left_disparity, mostly_clamped, to_depth_m, to_pixels, warn_of_clamp
from monodepth_nb.layers import MAX_DISPARITY
from monodepth_nb.onnx_export import OnnxNetwork

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
MAX_SIDE = 2048  # results are at most this long, which bounds memory and file sizes
RESULT = "relative_disparity.npy"  # the first file of each photo
PICTURES = ("relative_disparity.png", "depth_m.png", "coloured.png", "sheet.png")  # among the others


class Photo(NamedTuple):
    picture: np.ndarray  # (H, W, 3) float32 in [0, 1], upright, H and W at most MAX_SIDE
    full_width: int  # of the upright photo in its file


class Camera(NamedTuple):
    focal_px: float  # of the full-size photo
    baseline_m: float


# ---- Reading photos ----


def read_photo(path: str | Path) -> Photo:
    """Any image that Pillow reads: upright, RGB, transparent parts white, reduced to MAX_SIDE.

    Raises FileNotFoundError; ValueError if the file is damaged, not an image or too large to decode.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: check its name")
    with opened(path, remedy="save it again as PNG or JPEG, smaller if it is huge") as image:
        full_width, deep = image.size[image.getexif().get(ORIENTATION, 1) >= 5], deep_pixels(image)  # 5 to 8: turned
        if deep is not None:
            image = Image.fromarray((deep * (255 / white_value(path, deep))).round().astype(np.uint8))
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # JPEG decodes at 1/2, 1/4 or 1/8 in a fraction of the memory
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers of unknown range")
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        image = image.convert("RGB")
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
        return Photo(np.asarray(image, dtype=np.float32) / 255, full_width)


def find_photos(names: list[str | Path]) -> list[Path]:
    """Named files, and images in named folders, except results of former predictions. Missing files stay in the list.

    Raises ValueError for a folder without images.
    """
    photos = []
    for name in map(Path, names):
        entries = sorted(name.iterdir()) if name.is_dir() else ()
        inside = [p for p in entries if p.suffix.lower() in SUFFIXES and p.name[0] != "." and not is_result(p)]
        if name.is_dir() and not inside:
            raise ValueError(f"{name} holds no image ({', '.join(SUFFIXES)}): check the folder")
        photos += inside or [name]
    return list(dict.fromkeys(photos))


def is_result(path: Path) -> bool:
    """Whether `write_results` has made this picture."""
    starts = (path.name.removesuffix(f"_{kind}") for kind in PICTURES if path.name.endswith(f"_{kind}"))
    return any(path.with_name(f"{start}_{RESULT}").exists() for start in starts)


# ---- Predicting ----


def load_network(path: str | Path | None = None, device: torch.device | str = "cpu"):
    """The network of a checkpoint, of a run folder, or of an exported .onnx file; None: the one that is shipped.

    Raises as `load_model` and `OnnxNetwork` do.
    """
    shipped = Path(__file__).parent / "weights" / "streets.pt"
    if path is None and not shipped.is_file():
        raise FileNotFoundError(f"{shipped}, the network that ships with the package, is missing: pass --checkpoint")
    path = Path(path or shipped)
    return OnnxNetwork(path) if path.suffix.lower() == ".onnx" else load_model(path, device)


def training_baseline_m(network) -> float | None:
    """The distance of the cameras of the pairs that a loaded network was trained on; None if it does not know."""
    return getattr(network, "settings", {}).get("baseline_m")


def predict_photos(
    network, photos: list[Path], folder: str | Path, size: tuple[int, int], camera: Camera | None = None, ply=False
) -> dict[Path, str]:
    """Predict every photo, post-processed, and write the files of `write_results` into `folder`.

    size:    (height, width) of the images that the network gets; photos of any aspect ratio are resized to it
    ply:     write point clouds too, which need a camera
    returns: error messages by photo; all other photos are done
    Raises OSError if the folder cannot be made, ValueError if `ply` lacks a camera or a camera is impossible.
    """
    if ply and camera is None:
        raise ValueError("a point cloud is in metres: give the focal length in pixels and the baseline in metres")
    if camera:
        check_camera(*camera)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names, failures, reduced, clamped = unique_names(photos), {}, [], 0
    for path in tqdm(photos, desc="predicting", unit="photo"):
        try:
            photo = read_photo(path)
            depth_m = write_results(folder / names[path], photo, predict_disparity(network, photo, size), camera, ply)
        except (OSError, ValueError) as error:  # of one photo: it does not stop the others
            failures[path] = str(error)
            continue
        clamped += depth_m is not None and mostly_clamped(depth_m)
        if photo.full_width > photo.picture.shape[1]:
            reduced.append(f"{path} from {photo.full_width} to {photo.picture.shape[1]} pixels of width")
    if reduced:
        text = f"results have at most {MAX_SIDE} pixels a side; larger photos were reduced: {len(reduced)}"
        warnings.warn(f"{text}: {reduced[0]}{' ...' * (len(reduced) > 1)}", stacklevel=2)
    if clamped > len(photos) / 2:
        warn_of_clamp("these photos")
    return failures


def predict_disparity(network, photo: Photo, size: tuple[int, int]) -> np.ndarray:
    """(H, W) disparity of a photo at its size, as a fraction of its width."""
    image = resize(torch.from_numpy(photo.picture).permute(2, 0, 1), size)
    h, w, _ = photo.picture.shape
    return to_pixels(left_disparity(network, image[None], post=True)[0], (h, w)) / w


def predict_photo(network, photo: str | Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """For notebooks: (H, W, 3) photo in [0, 1] and its (H, W) disparity, a fraction of the width."""
    read = read_photo(photo)
    return read.picture, predict_disparity(network, read, size)


def ask_for_photo(path: str | Path | None = None) -> str | Path | None:
    """A photo's path: `path`, else MONODEPTH_PHOTO, else on Colab an uploaded file, else None."""
    path = path or os.environ.get("MONODEPTH_PHOTO") or None
    if not path and "google.colab" in sys.modules:
        from google.colab import files

        path = next(iter(files.upload()), None)
    return path


# ---- Writing results ----


def unique_names(photos: list[Path]) -> dict[Path, str]:
    """How the names of a photo's results begin: its name without suffix, numbered where photos share one."""
    names, taken = {}, set()  # in lower case, because macOS and Windows take IMG and img for one name
    for path in photos:
        numbered = (f"{path.stem}_{number}" for number in count(2))
        names[path] = next(name for name in chain([path.stem], numbered) if name.casefold() not in taken)
        taken.add(names[path].casefold())
    return names


def write_results(start: Path, photo: Photo, disparity: np.ndarray, camera: Camera | None, ply: bool):
    """Write all files of one photo, named START_... and, with a camera, those on the right. Returns the depth or None.

    relative_disparity.npy  float32, fraction of the width      depth_m.npy  float32, metres
    relative_disparity.png  16 bit, fraction * 65535 / 0.3      depth_m.png  16 bit, metres * 256
    sheet.png               photo and maps with colour bars     points.ply   coloured points, metres
    coloured.png            colours, black far to yellow near
    """
    depth_m = to_depth_m(disparity * photo.full_width, *camera).astype(np.float32) if camera else None
    maps = {"relative_disparity": (disparity, 65535 / MAX_DISPARITY)} | ({"depth_m": (depth_m, 256)} if camera else {})
    results = {}  # how to write each file
    for kind, (values, scale) in maps.items():
        stored = Image.fromarray(np.clip(np.round(values * scale), 0, 65535).astype(np.uint16))
        results |= {f"{kind}.npy": partial(save_array, values), f"{kind}.png": partial(stored.save, format="PNG")}
    coloured = Image.fromarray(figures.colour_disparity(disparity))
    sheet = figures.photo_sheet(photo.picture, disparity, depth_m, start.name)
    results["coloured.png"] = partial(coloured.save, format="PNG")
    results["sheet.png"] = partial(sheet.savefig, dpi=100, format="png")
    if ply:
        width = photo.picture.shape[1]
        focal_px = camera.focal_px * width / photo.full_width
        points = to_points_m(photo.picture, disparity * width, focal_px, camera.baseline_m)
        results["points.ply"] = partial(write_ply, xyz=points[0], colours=points[1])
    for name, write in results.items():
        write_whole(start.with_name(f"{start.name}_{name}"), write)
    return depth_m


def save_array(values: np.ndarray, path: Path) -> None:
    with open(path, "wb") as file:  # to a path, NumPy would append .npy
        np.save(file, values)


def to_points_m(picture: np.ndarray, disparity_px: np.ndarray, focal_px: float, baseline_m: float):
    """Every pixel nearer than 80 m as a point in space; the principal point is the centre of the image.

    picture:      (H, W, 3) in [0, 1]
    disparity_px: (H, W) at the same size; NaN pixels give no point
    returns:      (N, 3) float32 x to the right, y down, z ahead in metres, and (N, 3) uint8 colours
    """
    h, w = disparity_px.shape
    z = to_depth_m(np.nan_to_num(disparity_px), focal_px, baseline_m)
    y, x = np.mgrid[:h, :w]
    xyz = np.stack(((x - (w - 1) / 2) * z / focal_px, (y - (h - 1) / 2) * z / focal_px, z), axis=-1)
    seen = z < MAX_DEPTH_M
    return xyz[seen].astype(np.float32), (255 * picture[seen]).round().astype(np.uint8)


def write_ply(path: Path, xyz: np.ndarray, colours: np.ndarray) -> None:
    """Binary PLY, for MeshLab, Open3D or CloudCompare: x right, y up, z towards the viewer, in metres."""
    fields = [(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")]
    points = np.rec.fromarrays([*(xyz * (1, -1, -1)).T, *colours.T], dtype=fields)
    types = "".join(f"property {'float' if kind == '<f4' else 'uchar'} {name}\n" for name, kind in fields)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{types}end_header\n"
    path.write_bytes(header.encode() + points.tobytes())
