"""KITTI 2015 stereo, and folders that look like it: pairs matched by file name, and splits by scene.

Not `torchvision.datasets.Kitti2015Stereo`: it pairs 400 images with 200 disparity maps by position (its issue 7128).
"""

import math
import warnings
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Subset

from monodepth_nb.data.files import (
    MAP_READERS,
    Calibration,
    compared,
    picture_header,
    read_calibration,
    read_disparity,
    read_image,
    read_views,
)
from monodepth_nb.data.layouts import CALIBRATION, TRUTH, find_pairs, first_few, listing, scene_and_frame
from monodepth_nb.data.sample import Sample, check_camera
from monodepth_nb.data.transforms import resize

# Focal length of the rectified cameras, which were calibrated and cropped anew on each recording day.
FOCAL_PX_BY_WIDTH = {1242: 721.5377, 1241: 718.856, 1238: 718.3351, 1226: 707.0912, 1224: 707.0493}
KITTI_HEIGHTS = range(370, 377)
KITTI_BASELINE_M = 0.5327  # as calibrated; by recording day 0.5323 to 0.5372
# Drives by training scene of KITTI 2015. They must not be split: neighbours are often a second apart.
_FIRST_AND_LAST = (2, 3), (4, 6), (7, 12), (13, 17), (18, 21), (22, 33), (34, 42), (151, 154), (157, 160)
KNOWN_DRIVES = {f"{s:06}": f"{first} to {last}" for first, last in _FIRST_AND_LAST for s in range(first, last + 1)}


class KittiStereo(Dataset):
    """Stereo pairs of a folder as `Sample`s, sorted by name.

    >>> from monodepth_nb import KittiStereo
    >>> data = KittiStereo("datasets/Kitti2015", truth="noc", size=(256, 512))
    >>> data[0].left.shape, data[0].disparity_px.shape  # (3, 256, 512) and full size

    root:    folder that holds `training/` and `testing/`, each with `image_2` (left) and `image_3` (right); or your
             own folder with `image_2` and `image_3`, `left` and `right`, or another layout of data/layouts.py: KITTI
             raw, odometry, 2012, Middlebury, names that end with _L and _R. Colour or grey; sizes may differ.
    subset:  "training" or "testing"
    truth:   None, "occ" (all measured pixels) or "noc" (those visible to both cameras): only pairs that have a label,
             with a warning if others are left out. Of KITTI's frames 10 and 11, only frame 10 is labelled.
    size:    (height, width) of the two images, None for full size; the ground truth stays at full size
    focal_px, baseline_m: of the camera at full size, both or neither. Default: the calibration file, else KITTI's
             values if the size is that of a KITTI camera, else NaN. They come with `truth` only.

    Raises FileNotFoundError for a missing folder or file, ValueError for damaged files and sizes that do not fit.
    """

    def __init__(
        self, root: str | Path, subset: str = "training", truth: str | None = None,
        size: tuple[int, int] | None = None, focal_px: float | None = None, baseline_m: float | None = None,
    ):  # fmt: skip
        if truth not in (None, *TRUTH):
            raise ValueError(f"truth is {truth!r}: pass None, 'occ' or 'noc'")
        if (focal_px is None) != (baseline_m is None):
            raise ValueError(f"focal_px is {focal_px} and baseline_m is {baseline_m}: pass both or neither")
        if focal_px is not None:
            check_camera(focal_px, baseline_m)
        self.truth, self.size, self.focal_px, self.baseline_m = truth, size, focal_px, baseline_m
        self.pairs = find_pairs(Path(root), subset)
        self.folder, _, self.left, self.right = self.pairs
        if alone := [name for name in self.left if name not in self.right]:
            problem = f"left views without a right view of their name: {len(alone)}, such as {self.left[alone[0]]}"
            raise FileNotFoundError(f"{problem}: add the right views, or remove the left ones")
        # Files by folder, then by name: the disparity, and the other maps of rendered streets.
        self.maps = {"disparity": self.labels(truth)} if truth else {}
        self.names = list(self.maps["disparity"] if truth else self.left)
        for folder in (f for f in MAP_READERS if truth and (self.folder / f).is_dir()):
            self.maps[folder] = {name: self.folder / folder / f"{name}.png" for name in self.names}

    def labels(self, truth: str) -> dict[str, Path]:
        """The truth of the pairs that have one; warns if some have none."""
        files = {name: self.pairs.beside(name, TRUTH[truth]) for name in self.left}
        missing = [name for name, file in files.items() if not file]
        if len(missing) == len(files):
            expected = f"such as {TRUTH[truth][0].format(name=next(iter(files)))}; there: {listing(self.folder)}"
            raise FileNotFoundError(f"{self.folder} has no {truth!r} truth, {expected}: pass another truth, or None")
        if unexpected := [name for name in missing if scene_and_frame(name)[1] != "11"]:
            count = f"{len(files) - len(missing)} of {len(files)} pairs of {self.folder} have {truth!r} truth"
            warnings.warn(f"{count}; left out: {first_few(unexpected)}", stacklevel=3)
        return {name: file for name, file in files.items() if file}

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
        left, right = read_views(self.left[name], self.right[name])
        if left.shape != right.shape:
            sizes = compared(self.left[name], left.shape, self.right[name], right.shape)
            raise ValueError(f"{sizes}: rectify both to one size, or remove them")
        return left, right

    def read_truth(self, name: str, size: tuple[int, int]) -> dict:
        """All that is known besides the views, whose full `size` is (height, width)."""
        known = {}
        for folder, files in self.maps.items():
            key, read = MAP_READERS.get(folder, ("disparity_px", read_disparity))
            known[key] = read(files[name])
            if known[key].shape != size:
                sizes = compared(files[name], known[key].shape, "its image", size)
                raise ValueError(f"{sizes}: copy both from one data set")
        camera, _ = self.camera(name, size)
        return known | {key: value for key, value in camera._asdict().items() if key != "doffs_px" or value}

    def camera(self, name: str, size: tuple[int, int]) -> tuple[Calibration, str]:
        """The camera of a pair of the full `size` (height, width), NaN if unknown, and where it comes from."""
        if self.focal_px is not None:
            return Calibration(self.focal_px, self.baseline_m), "as given"
        if file := self.pairs.beside(name, CALIBRATION):
            return read_calibration(file), f"read from {file}"
        height, width = size
        if width in FOCAL_PX_BY_WIDTH and height in KITTI_HEIGHTS:
            assumed = f"assumed to be KITTI's, because the pictures are {height} x {width}"
            return Calibration(FOCAL_PX_BY_WIDTH[width], KITTI_BASELINE_M), assumed
        return Calibration(math.nan, math.nan), "unknown, so nothing is in metres: pass focal length and baseline"

    def first_camera(self) -> tuple[Calibration, str]:
        """`camera` of the first pair."""
        return self.camera(self.names[0], picture_header(self.left[self.names[0]])[0])

    def camera_note(self) -> str:
        """The camera of the first pair and where it comes from, in one line."""
        camera, source = self.first_camera()
        values = f"focal length {camera.focal_px:g} px, baseline {camera.baseline_m:g} m, "
        return f"camera of {self.names[0]}: {'' if math.isnan(camera.focal_px) else values}{source}"

    @property
    def drives(self) -> dict[str, str]:
        """Drive by KITTI scene, as far as it is known: of the development kit, else of KNOWN_DRIVES."""
        mapping = self.folder.parent / "devkit" / "mapping" / "train_mapping.txt"
        if self.folder.name == "testing":
            return {}
        if not mapping.is_file():
            return KNOWN_DRIVES
        lines = (line.split() for line in mapping.read_text().splitlines())  # "date drive frame" or empty
        return {f"{scene:06}": line[1] for scene, line in enumerate(lines) if len(line) == 3}


def truth_kinds(data: KittiStereo) -> list[str]:
    """Kinds of ground truth in its folder, the paper's first."""
    return [kind for kind, patterns in TRUTH.items() if any(data.pairs.beside(name, patterns) for name in data.left)]


# ---- Splits ----


def scene_blocks(names: list[str], drives: dict[str, str] | None = None) -> list[list[int]]:
    """Indices of the names that must stay together, block by block.

    KITTI: the scene, or the drive if it is in `drives` (None: KNOWN_DRIVES). Other names: the recording ("odomA_" of
    "odomA_000017").
    """
    drives = KNOWN_DRIVES if drives is None else drives
    blocks: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        scene, frame = scene_and_frame(name)
        block = name.rstrip("0123456789") if frame is None else drives.get(scene, scene)
        blocks.setdefault(block, []).append(index)
    return list(blocks.values())


def split_by_scene(dataset: KittiStereo, validation: float = 0.2) -> tuple[Subset, Subset]:
    """Training and validation `Subset`. The validation split is the last part; no block of `scene_blocks` is in both.

    The cut is the boundary between two blocks that is nearest to the requested share and whose two neighbours do not
    show the same place (`same_place`), unless their drives are known: with all of KITTI 2015, 0.2 gives scenes 0-160
    and 161-199, or a cut nearby. A single recording is cut once, in time; up to a tenth of it is in neither part,
    namely the pairs before the cut that show the same place as the first one behind it.
    """
    blocks = scene_blocks(dataset.names, dataset.drives)
    recording = len(blocks) == 1
    if recording:
        blocks = [[index] for index in blocks[0]]
    if len(blocks) == 1:
        raise ValueError(f"the only pair, {dataset.names[0]!r}, cannot be split: add pairs")
    ends = np.cumsum([len(block) for block in blocks[:-1]])
    nearest = 1 + np.argsort(np.abs(ends - (1 - validation) * len(dataset)), kind="stable")
    apart = (cut for cut in nearest if recording or not show_same_place(dataset, blocks[cut - 1][-1], blocks[cut][0]))
    if (cut := next(apart, None)) is None:
        cut = nearest[0]
        beside = dataset.names[blocks[cut][0]]
        warnings.warn(f"{beside} is held out although a training pair shows the same place", stacklevel=2)
    train, held_out = ([i for block in part for i in block] for part in (blocks[:cut], blocks[cut:]))
    count = len(train)
    while recording and 1 < len(train) > count - len(dataset) / 10 and show_same_place(dataset, train[-1], held_out[0]):
        train.pop()
    if len(train) < count:
        between = f"the {count - len(train)} pairs before {dataset.names[held_out[0]]} show the same place"
        warnings.warn(f"{between}, so they are neither trained on nor held out", stacklevel=2)
    return Subset(dataset, train), Subset(dataset, held_out)


def show_same_place(dataset: KittiStereo, *indices: int) -> bool:
    names = [dataset.names[index] for index in indices]
    if all(scene_and_frame(name)[0] in dataset.drives for name in names):
        return False
    from monodepth_nb.data.pair_check import same_place  # here, because only this needs OpenCV

    return same_place(*(read_image(dataset.left[name]) for name in names))


def paper_protocol(root: str | Path, size: tuple[int, int] | None = None) -> tuple[KittiStereo, KittiStereo]:
    """Pairs to train on (testing scenes) and to score (training scenes): Table 1 of Godard et al., CVPR 2017.

    Scored on "noc", as the paper's code did; on "occ", which KITTI ranks on, where there is no "noc".
    """
    kind = next(iter(truth_kinds(KittiStereo(root))), "noc")  # without either, "noc" is reported as missing
    return KittiStereo(root, "testing", size=size), KittiStereo(root, truth=kind, size=size)
