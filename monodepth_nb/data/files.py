"""Reading single files: pictures, disparity and other maps, calibration. Every error names the file."""

import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from monodepth_nb.data.sample import check_camera

# What Pillow raises on damaged pixels, damaged metadata and absurd sizes.
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError)
ORIENTATION = 0x0112  # EXIF tag: 1 upright; from 5 on, width and height are exchanged
END_MARKS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}


class Calibration(NamedTuple):
    focal_px: float
    baseline_m: float
    doffs_px: float = 0.0  # distance of the two cameras' principal points


@contextmanager
def opened(path: Path, remedy: str = "copy or download it again") -> Iterator[Image.Image]:
    """A picture or map. What fails within this context becomes a ValueError that names the file and the remedy."""
    try:
        with Image.open(path) as image:
            yield image
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from error


# ---- Pictures ----


def read_image(path: Path) -> Tensor:
    """(3, H, W) float32, RGB in [0, 1], upright; grey gives three equal channels."""
    return read_views(path)[0]


def read_views(*paths: Path) -> list[Tensor]:
    """`read_image` of the views of one pair, which get one scale even if their brightest pixels differ."""
    pictures = [read_picture(path) for path in paths]
    white = white_value(paths[0].parent, *pictures)
    scaled = (p.astype(np.float32) / (255 if p.dtype == np.uint8 else white) for p in pictures)
    return [torch.from_numpy(p).permute(2, 0, 1).contiguous() for p in scaled]


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, or uint16 as stored; upright."""
    with opened(path) as image:
        deep = deep_pixels(image)
        if deep is None:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
        return deep if deep.ndim == 3 else np.dstack([deep] * 3)


def deep_pixels(image: Image.Image) -> np.ndarray | None:
    """(H, W[, 3]) uint16 of an opened 16-bit picture, as stored but upright; None of any other."""
    if image.mode.startswith("I"):
        return np.array(ImageOps.exif_transpose(image)).clip(0, 65535).astype(np.uint16)
    if image.format == "PNG" and "RGB;16B" in str(image.tile):  # Pillow would drop the lower 8 bits
        import cv2  # here, because only such pictures need it

        stored = np.frombuffer(Path(image.filename).read_bytes(), np.uint8)
        pixels = cv2.imdecode(stored, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if pixels is None:
            raise ValueError("its 16-bit pixels are damaged")
        return pixels[..., ::-1]
    return None


def white_value(folder: str | Path, *pictures: np.ndarray) -> int:
    """The value of white: 255, or for 16-bit pictures 65535, or 4095 or 1023 if they leave the higher bits unused.

    Cameras of 10 or 12 bits are often stored so. A nearly black picture of 16 bits cannot be told from them, so the
    guess is a warning, once for a `folder`.
    """
    deep = [picture for picture in pictures if picture.dtype != np.uint8]
    largest = max((int(picture.max()) for picture in deep), default=0)
    if not deep or largest >= 4096:
        return 65535 if deep else 255
    bits = 10 if largest < 1024 else 12
    found = f"{folder}: 16-bit pictures with values below {2**bits} are read as {bits} bits"
    warnings.warn(f"{found}: if they are merely dark, scale them to 16 bits", stacklevel=2)
    return 2**bits - 1


def picture_header(path: Path) -> tuple[tuple[int, int], int]:
    """((height, width) of the upright picture, EXIF orientation), after a check that the file has an end.

    Only files without their format's end mark are decoded. Raises ValueError for a torn or damaged file.
    """
    with opened(path) as image:
        turn = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
        size = image.size if turn >= 5 else image.size[::-1]
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 1024))
            mark, tail = END_MARKS.get(image.format), file.read()
        if mark is None or mark not in tail:
            image.load()
        return size, turn


def compared(first, first_size: tuple, second, second_size: tuple) -> str:
    """For messages: two things and their sizes, which end with (height, width)."""
    sizes = (f"{thing} is {size[-2]} x {size[-1]}" for thing, size in ((first, first_size), (second, second_size)))
    return ", ".join(sizes)


# ---- Maps ----


def read_map(path: Path, dtype: type | None = None) -> Tensor:
    """(H, W), pixels as stored, or as another type."""
    with opened(path) as image:
        return torch.from_numpy(np.array(image, dtype))


def read_disparity(path: Path) -> Tensor:
    """(H, W) float32 in pixels, NaN = unknown. KITTI stores 16 bits, pixels * 256, 0 = unknown; PFM stores pixels."""
    stored = read_map(path)
    if stored.ndim != 2 or stored.dtype.itemsize == 1:
        raise ValueError(f"{path} is no PFM and no 16-bit grey PNG: store disparity in pixels * 256, 0 where unknown")
    disparity = stored.float() / (1 if stored.dtype == torch.float32 else 256)
    return disparity.where(disparity.isfinite() & (disparity > 0), torch.nan)


MAP_READERS = {  # maps of rendered streets besides the left disparity: folder to (key, reader)
    "disp_occ_1r": ("disparity_right_px", read_disparity),
    "classes_2": ("classes", partial(read_map, dtype=np.uint8)),
    "lane_paint_2": ("lane_paint", partial(read_map, dtype=bool)),
    "shiny_2": ("shiny", partial(read_map, dtype=bool)),
}


# ---- Calibration ----

CAMERA_ROWS = re.compile(r"^\s*(P_rect_0[23]|P[23]|cam0|baseline|doffs)\s*[:=]\s*(.*)$", re.MULTILINE)


def read_calibration(path: Path) -> Calibration:
    """Of a file of KITTI (2015 and raw: P_rect_02, P_rect_03; 2012, object, odometry: P2, P3) or Middlebury.

    P2, 3 x 4, projects into rectified camera 2; its first row ends with -focal * (x of the camera).
    Middlebury's cam0 is a 3 x 3 matrix, its baseline in millimetres.
    """
    try:
        rows = dict(CAMERA_ROWS.findall(path.read_text()))
        numbers = {key: [float(v) for v in re.split(r"[\s;\[\]]+", row) if v] for key, row in rows.items()}
        if "cam0" in numbers:
            camera = Calibration(numbers["cam0"][0], numbers["baseline"][0] / 1000, numbers.get("doffs", [0.0])[0])
        else:
            left, right = (numbers.get(f"P_rect_0{i}") or numbers[f"P{i}"] for i in (2, 3))
            camera = Calibration(left[0], (left[3] - right[3]) / left[0])
        check_camera(*camera[:2])
        return camera
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        expected = "P_rect_02 and P_rect_03, P2 and P3, or cam0 and baseline"
        raise ValueError(f"{path} does not hold {expected} of a camera ({error}): copy it again") from error
