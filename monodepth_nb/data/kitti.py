"""KITTI 2015 stereo, and folders that look like it: pairs matched by file name, and splits by scene.

Not `torchvision.datasets.Kitti2015Stereo`: it pairs 400 images with 200 disparity maps by position (its issue 7128).
"""

import re
import struct
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import resize

VIEW_FOLDERS = (("image_2", "image_3"), ("left", "right"))
KITTI_NAME = re.compile(r"(\d{6})_(\d\d)")  # scene, frame: 000017_10
# Focal length of the rectified cameras, which were calibrated and cropped anew on each recording day.
FOCAL_PX_BY_WIDTH = {1242: 721.5377, 1241: 718.856, 1238: 718.3351, 1226: 707.0912, 1224: 707.0493}
KITTI_BASELINE_M = 0.54
# What Pillow raises on damaged pixels, damaged metadata and absurd sizes.
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError)
# First and last scene of KITTI 2015 drives, which must not be split: neighbours are often a second apart.
KNOWN_DRIVES = ((2, 3), (7, 12), (13, 17), (18, 21), (22, 33), (34, 42))


class KittiStereo(Dataset):
    """Stereo pairs of a folder as `Sample`s, sorted by name.

    >>> from monodepth_nb import KittiStereo
    >>> data = KittiStereo("datasets/Kitti2015", truth="noc", size=(256, 512))
    >>> data[0].left.shape, data[0].disparity_px.shape  # (3, 256, 512) and full size

    root:    folder that holds `training/` and `testing/`, each with `image_2` (left) and `image_3` (right);
             or your own folder that holds `image_2` and `image_3`, or `left` and `right`. The two files of a pair
             have the same name, apart from .png, .jpg or .jpeg. Colour or grey; sizes may differ between pairs.
    subset:  "training" or "testing"
    truth:   None, "occ" (all measured pixels) or "noc" (those visible to both cameras). Of KITTI's two frames of a
             scene, 10 and 11, only frame 10 is labelled; without truth both are taken.
    size:    (height, width) of the two images, None for full size; the ground truth stays at full size
    focal_px, baseline_m: of the camera at full size, both or neither. Default: the calibration file of the scene,
             else KITTI's values by image width. Needed with `truth` only.

    Raises FileNotFoundError for a missing folder or file, ValueError for damaged files and sizes that do not fit.
    """

    def __init__(
        self, root: str | Path, subset: str = "training", truth: str | None = None,
        size: tuple[int, int] | None = None, focal_px: float | None = None, baseline_m: float | None = None,
    ):  # fmt: skip
        if truth not in (None, "occ", "noc"):
            raise ValueError(f"truth is {truth!r}: pass None, 'occ' or 'noc'")
        if (focal_px is None) != (baseline_m is None):
            raise ValueError(f"focal_px is {focal_px} and baseline_m is {baseline_m}: pass both or neither")
        self.truth, self.size, self.focal_px, self.baseline_m = truth, size, focal_px, baseline_m
        self.folder, left, right = find_views(Path(root), subset)
        self.left = files_by_name(left)
        frames = {None, "10"} if truth else {None, "10", "11"}  # None: of other names than KITTI's
        self.names = [name for name in self.left if scene_and_frame(name)[1] in frames]
        if not self.names:
            raise FileNotFoundError(f"{left} holds no PNG or JPEG (of KITTI's, frames 10 and 11): put the pairs there")
        self.right = partners(self.names, right)
        # Files by folder, then by name: the disparity, and the other maps of rendered streets.
        maps = [f"disp_{truth}_0", *(f for f in MAP_READERS if (self.folder / f).is_dir())] if truth else []
        self.maps = {folder: partners(self.names, self.folder / folder) for folder in maps}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        left, right = self.read_pair(name)
        known = self.read_truth(name, left.shape[-2:]) if self.truth else {}
        size = self.size or left.shape[-2:]
        return Sample(left=resize(left, size), right=resize(right, size), name=name, **known)

    def read_pair(self, name: str) -> tuple[Tensor, Tensor]:
        """Both views at full size, (3, H, W) in [0, 1]."""
        left, right = read_image(self.left[name]), read_image(self.right[name])
        if left.shape != right.shape:
            sizes = f"{self.left[name]} is {height_x_width(left)}, {self.right[name]} {height_x_width(right)}"
            raise ValueError(f"{sizes}: rectify both to one size, or remove them")
        return left, right

    def read_truth(self, name: str, size: tuple[int, int]) -> dict:
        """All that is known besides the views, whose full `size` is (height, width)."""
        known = {}
        for folder, files in self.maps.items():
            key, read = MAP_READERS.get(folder, ("disparity_px", read_disparity))
            known[key] = read(files[name])
            if known[key].shape != size:
                sizes = f"{files[name]} is {height_x_width(known[key])}, its image {size[0]} x {size[1]}"
                raise ValueError(f"{sizes}: copy both from one data set")
        known["focal_px"], known["baseline_m"] = self.camera(name, size[1])
        return known

    def camera(self, name: str, width: int) -> tuple[float, float]:
        """Focal length in pixels, for images `width` pixels wide, and baseline in metres."""
        if self.focal_px is not None:
            return self.focal_px, self.baseline_m
        path = self.folder / "calib_cam_to_cam" / f"{scene_and_frame(name)[0]}.txt"
        if path.is_file():
            return read_calibration(path)
        if width in FOCAL_PX_BY_WIDTH:
            return FOCAL_PX_BY_WIDTH[width], KITTI_BASELINE_M
        problem = f"{path} does not exist and no KITTI camera is {width} pixels wide"
        raise ValueError(f"{self.left[name]}: {problem}: pass focal_px and baseline_m")


# ---- Names and folders ----


def truth_kinds(data: KittiStereo) -> list[str]:
    """Kinds of ground truth in its folder, the paper's first."""
    return [kind for kind in ("noc", "occ") if (data.folder / f"disp_{kind}_0").is_dir()]


def scene_and_frame(name: str) -> tuple[str, str | None]:
    """("000017", "10") of "000017_10"; (name, None) if the name is not KITTI's."""
    match = KITTI_NAME.fullmatch(name)
    return match.groups() if match else (name, None)


def find_views(root: Path, subset: str) -> tuple[Path, Path, Path]:
    """The folder that holds the views, and within it those of the left and of the right views."""
    own = (root,) if subset == "training" else ()  # a user's own folder has no subsets
    for folder in (root / subset, *own):
        for left, right in VIEW_FOLDERS:
            if (folder / left).is_dir() and (folder / right).is_dir():
                return folder, folder / left, folder / right
    remedy = "pass the folder above them, or run `python -m monodepth_nb download kitti2015`"
    raise FileNotFoundError(f"{root / subset} has no image_2 and image_3 (or left and right): {remedy}")


def files_by_name(folder: Path) -> dict[str, Path]:
    """Images of a folder by their name without suffix, in the order of the numbers in it: frame9 before frame10."""
    images = [p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg") and p.name[0] != "."]
    images.sort(key=lambda path: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", path.stem)])
    return {path.stem: path for path in images}  # macOS leaves ._000000_10.png


def partners(names: list[str], folder: Path) -> dict[str, Path]:
    """`files_by_name` of a folder that must hold all `names`."""
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in folder.parent.iterdir() if p.is_dir()))
        raise FileNotFoundError(f"{folder} does not exist (there: {there}): pass another truth, or None")
    files = files_by_name(folder)
    missing = [name for name in names if name not in files]
    if missing:
        problem = f"{folder / missing[0]} (PNG or JPEG) is missing, as are {len(missing) - 1} others"
        raise FileNotFoundError(f"{problem}: add the partner of the left view, or remove the left view")
    return files


# ---- Files ----


def read_array(path: Path, mode: str | None = None) -> np.ndarray:
    """Pixels as stored, or converted to a Pillow `mode` unless they are 16-bit grey."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode) if mode and not image.mode.startswith("I") else image)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read ({error}): copy or download it again") from error


def read_image(path: Path) -> Tensor:
    """(3, H, W) float32, RGB in [0, 1]; grey gives three equal channels."""
    pixels = read_array(path, "RGB")
    image = torch.from_numpy(pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 65535))
    return image.permute(2, 0, 1).contiguous() if image.dim() == 3 else image.repeat(3, 1, 1)


def read_disparity(path: Path) -> Tensor:
    """(H, W) float32 in pixels, NaN = unknown. Stored as in KITTI: 16-bit, pixels * 256, 0 = unknown."""
    stored = read_array(path)
    if stored.ndim != 2 or stored.dtype.itemsize == 1:
        raise ValueError(f"{path} is not a 16-bit grey PNG: store disparity in pixels * 256, 0 where unknown")
    disparity = torch.from_numpy(stored.astype(np.float32) / 256)
    return disparity.where(disparity > 0, torch.nan)


def read_map(path: Path, dtype: type) -> Tensor:
    return torch.from_numpy(read_array(path).astype(dtype))  # (H, W)


MAP_READERS = {  # maps of rendered streets besides the left disparity: folder to (key, reader)
    "disp_occ_1r": ("disparity_right_px", read_disparity),
    "classes_2": ("classes", partial(read_map, dtype=np.uint8)),
    "lane_paint_2": ("lane_paint", partial(read_map, dtype=bool)),
    "shiny_2": ("shiny", partial(read_map, dtype=bool)),
}


def read_calibration(path: Path) -> tuple[float, float]:
    """Focal length in pixels and baseline in metres, from a `calib_cam_to_cam` file.

    P_rect_0i, 3 x 4, projects into rectified camera i; its first row ends with -focal * (x of the camera).
    """
    rows = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    try:
        left, right = ([float(v) for v in rows[f"P_rect_0{camera}"].split()] for camera in (2, 3))
        return left[0], (left[3] - right[3]) / left[0]
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{path} lacks P_rect_02 or P_rect_03, 12 numbers each: copy it again") from error


def height_x_width(image: Tensor) -> str:
    return " x ".join(str(n) for n in image.shape[-2:])


# ---- Splits ----


def scene_blocks(names: list[str]) -> list[list[int]]:
    """Indices of the names that must stay together, block by block."""
    blocks: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        blocks.setdefault(block_of(name), []).append(index)
    return list(blocks.values())


def block_of(name: str) -> str:
    """KITTI 2015: the scene, or the drive if it is known. Other names: the recording ("odomA_" of "odomA_000017")."""
    scene, frame = scene_and_frame(name)
    if frame is None:
        return name.rstrip("0123456789")
    return next((f"{first} to {last}" for first, last in KNOWN_DRIVES if first <= int(scene) <= last), scene)


def split_by_scene(dataset: KittiStereo, validation: float = 0.2) -> tuple[Subset, Subset]:
    """Training and validation `Subset`. The validation split is the last part; no block of `scene_blocks` is in both.

    The cut is the boundary between two blocks that is nearest to the requested share: with all of KITTI 2015, 0.2 gives
    the usual scenes 0-159 and 160-199. A single recording is cut once, in time.
    """
    blocks = scene_blocks(dataset.names)
    if len(blocks) == 1:
        blocks = [[index] for index in blocks[0]]
    if len(blocks) == 1:
        raise ValueError(f"the one pair {dataset.names[0]} cannot be split: add pairs")
    ends = np.cumsum([len(block) for block in blocks[:-1]])
    cut = 1 + int(np.abs(ends - (1 - validation) * len(dataset)).argmin())
    train, held_out = ([i for block in part for i in block] for part in (blocks[:cut], blocks[cut:]))
    return Subset(dataset, train), Subset(dataset, held_out)


def paper_protocol(root: str | Path, size: tuple[int, int] | None = None) -> tuple[KittiStereo, KittiStereo]:
    """Pairs to train on (testing scenes) and to score (training scenes): Table 1 of Godard et al., CVPR 2017.

    Scored on "noc", as the paper's code did; on "occ", which KITTI ranks on, where there is no "noc".
    """
    kind = next(iter(truth_kinds(KittiStereo(root))), "noc")  # without either, "noc" is reported as missing
    return KittiStereo(root, "testing", size=size), KittiStereo(root, truth=kind, size=size)
