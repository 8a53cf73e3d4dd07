"""Where stereo data sets keep their files: one table for all of them, and the names of the pairs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp")
VIEW_FOLDERS = (
    ("image_2/", "image_3/"),  # KITTI 2015, object, odometry
    ("image_02/data/", "image_03/data/"),  # KITTI raw
    ("colored_0/", "colored_1/"),  # KITTI 2012
    ("left/", "right/"),
    ("Left/", "Right/"),
    ("", ""),  # both views in one folder
)
# Names of the two views of a pair, where * is the name of the pair.
VIEW_NAMES = (
    ("*", "*"), ("*_L", "*_R"), ("*_l", "*_r"), ("*_left", "*_right"), ("left_*", "right_*"), ("left*", "right*"),
    ("im0", "im1"),  # Middlebury, where every scene is a folder
)  # fmt: skip
# How deep these lie: odometry has sequences/00/image_2, raw 2011_09_26/2011_09_26_drive_0001_sync/image_02/data.
DEPTHS = (".", "*", "*/*")
# Files beside the view folders; {scene} is the name of the pair without KITTI's frame.
TRUTH = {  # of KITTI 2015, of KITTI 2012, of Middlebury
    "noc": ("disp_noc_0/{name}.png", "disp_noc/{name}.png", "disp_noc_0/{name}.pfm"),
    "occ": ("disp_occ_0/{name}.png", "disp_occ/{name}.png", "disp_occ_0/{name}.pfm", "disp0.pfm"),
}
CALIBRATION = ("calib_cam_to_cam/{scene}.txt", "calib/{scene}.txt", "calib.txt", "../calib_cam_to_cam.txt")
KITTI_NAME = re.compile(r"(\d{6})_(\d\d)")  # scene, frame: 000017_10


class Pairs(NamedTuple):
    """Left and right views by the name of the pair, in the order of the numbers in it: frame9 before frame10.

    A pair in a nested folder is called by both: "sequences/00/000017".
    """

    folder: Path  # that the names of nested folders start from
    view_folder: str  # of the left views, one of VIEW_FOLDERS
    left: dict[str, Path]
    right: dict[str, Path]

    def beside(self, name: str, patterns: tuple[str, ...]) -> Path | None:
        """The first file of TRUTH or CALIBRATION patterns that exists for a pair."""
        place, name = self.left[name].parents[self.view_folder.count("/")], name.rsplit("/", 1)[-1]
        files = (place / pattern.format(name=name, scene=scene_and_frame(name)[0]) for pattern in patterns)
        return next((file for file in files if file.is_file()), None)


def scene_and_frame(name: str) -> tuple[str, str | None]:
    """("000017", "10") of "000017_10"; (name, None) if the name is not KITTI's."""
    match = KITTI_NAME.fullmatch(name)
    return match.groups() if match else (name, None)


def find_pairs(root: Path, subset: str) -> Pairs:
    """The pairs of the layout that fits most of them, in `root/subset` or, for "training", in `root` itself.

    Raises FileNotFoundError if there are none, ValueError if two files are the same view of one pair.
    """
    own = (root,) if subset == "training" else ()  # a user's own folder has no subsets
    for folder in (root / subset, *own):
        for depth in DEPTHS:
            if depth != "." and (folder / "testing").is_dir():
                break  # these pairs belong to another subset
            best = max(layouts(folder, depth), key=whole_pairs, default=None)
            if best and whole_pairs(best):
                folder, view_folder, left, right = best
                return Pairs(folder, view_folder, unique(left), unique(right))
    raise FileNotFoundError(
        f"{root} has no {subset} pairs. Expected: image_2 and image_3, or left and right, with the same file names "
        f"(all layouts: docs/using.md). Found: {listing(root / subset) or listing(root) or 'nothing'}. "
        "Rename them, pass the folder above them, or run `python -m monodepth_nb download kitti2015`"
    )


def layouts(folder: Path, depth: str) -> Iterator[tuple]:
    """Whatever could be the pairs, as `Pairs` with lists of (name, file)."""
    places = sorted(place for place in folder.glob(depth) if place.is_dir()) if depth != "." else [folder]
    for views in VIEW_FOLDERS:
        held = [place for place in places if all((place / view).is_dir() for view in views)]
        left, right = ([(place, file) for place in held for file in pictures(place / view)] for view in views)
        for names in VIEW_NAMES if left and right else ():
            if views[0] + names[0] != views[1] + names[1]:
                yield folder, views[0], named(left, names[0], folder), named(right, names[1], folder)


def pictures(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != "."]


def named(files: list[tuple[Path, Path]], pattern: str, folder: Path) -> list[tuple[str, Path]]:
    """(name of the pair, file) of the (place, file) whose name fits the pattern, sorted."""
    fits, found = re.compile(pattern.replace("*", "(.+)")), []
    for place, file in files:
        if match := fits.fullmatch(file.stem):
            parts = (*place.relative_to(folder).parts, *match.groups())
            found.append(("/".join(parts) or folder.resolve().name, file))
    return sorted(found, key=lambda pair: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", pair[0])])


def whole_pairs(layout: tuple) -> int:
    left, right = (dict(views).keys() for views in layout[2:])
    return len(left & right)


def unique(views: list[tuple[str, Path]]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for name, file in views:
        if files.setdefault(name, file) != file:
            raise ValueError(f"{files[name]} and {file} are the same view of pair {name}: remove one of them")
    return files


def listing(folder: Path) -> str:
    """What a folder holds, for messages: files, and folders with their first file."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    names = [entry.name for entry in entries]
    for i, entry in enumerate(entries[:6]):
        if entry.is_dir():
            names[i] += "/" + min((inner.name for inner in entry.iterdir()), default="")
    return first_few(names, at_most=6)


def first_few(names: list[str], at_most: int = 3, separator: str = ", ") -> str:
    """Some names or sentences for a message, and how many more there are."""
    more = [f"... and {len(names) - at_most} more"] * (len(names) > at_most)
    return separator.join([*names[:at_most], *more])
