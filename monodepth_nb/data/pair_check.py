"""Find torn files, and pairs that are not rectified stereo pairs, the usual cause of blank disparity maps.

In a rectified pair a point has the same row in both views, and lies further left in the right view by its disparity.
"""

import warnings
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import Subset
from tqdm.auto import tqdm

from monodepth_nb.data.files import compared, picture_header, read_disparity
from monodepth_nb.data.layouts import first_few
from monodepth_nb.data.transforms import resize

WIDTH = 512  # wider views are reduced to it; the lengths below are pixels of the reduced views
SAME_ROW = 0.45  # 1.1 rows of KITTI. Medians of 257 KITTI pairs: -0.25 to 0.14; 2 rows off: from 0.56
SPREAD = 0.8  # rows about the median within which matches agree
AGREEING = 0.45  # least share of matches that agree; 257 KITTI pairs: from 0.62; unrelated views: up to 0.24
FEWEST = 8  # matches without which nothing can be concluded
# Matches that agree. Of 32 neighbouring scenes of KITTI 2015 drives, 29 have 17 or more and three have 7 to 10;
# 62 pairs of scenes of different drives have at most 11.
SAME_PLACE, SAME_PLACE_WIDTH = 15, 1242
UNDECIDED = "too small or too little texture to compare the views"
listed = partial(first_few, at_most=20, separator="\n")


def check_pair(left: Tensor, right: Tensor, name: str) -> list[str]:
    """The problems of a pair, one sentence each; an empty list if it looks like a rectified pair.

    left, right: (3, H, W) in [0, 1], best at full size, where a vertical offset is easiest to measure
    name:        begins every sentence
    """
    if left.shape != right.shape:
        sizes = compared("the left view", left.shape, "the right", right.shape)
        return [f"{name}: {sizes}: rectify both to one size"]
    rows, columns = match_offsets(left, right)
    if len(rows) < FEWEST:
        return [f"{name}: {UNDECIDED}: leave the pair out"]
    shift = np.median(rows)
    agree = abs(rows - shift) < SPREAD
    if agree.mean() < AGREEING:
        return [f"{name}: the views do not match: another scene or moment, or not rectified"]
    problems = []
    if abs(shift) > SAME_ROW:
        shift *= max(1, left.shape[-1] / WIDTH)
        where = "lower" if shift > 0 else "higher"
        problems.append(f"{name}: the right view lies {abs(shift):.1f} rows {where}: rectify the pair")
    columns = columns[agree]
    if (abs(columns) <= 0.5).mean() > 0.8:
        problems.append(f"{name}: nothing moves between the views: the same picture twice?")
    elif (columns > 0).sum() > (columns < 0).sum():
        cause = "left and right are swapped, or the cameras are turned towards each other"
        problems.append(f"{name}: things lie further right in the right view: {cause}")
    return problems


def check_pairs(dataset, at_most: int = 200) -> dict[str, list[str]]:
    """Check up to `at_most` evenly spaced pairs of a `KittiStereo`; warn about bad ones and return theirs by name.

    Raises ValueError if none of them is a rectified pair, because nothing can be learnt from such a folder.
    """
    found = {}
    names = dataset.names[:: max(1, -(-len(dataset) // at_most))]
    for name in tqdm(names, desc="check pairs"):
        try:
            problems = check_pair(*dataset.read_pair(name), name)
        except ValueError as unreadable:
            problems = [str(unreadable)]
        if problems:
            found[name] = problems
    lines = [line for problems in found.values() for line in problems]
    if len(found) == len(names) and not any(UNDECIDED in line for line in lines):
        remedy = "rectify or rename them, or, if they are right, skip this check (--no-pair-check)"
        raise ValueError(f"all {len(names)} pairs looked at are wrong, such as {lines[0]}. Remedy: {remedy}")
    if found:
        warnings.warn(f"pairs that look wrong: {len(found)}\n{listed(lines)}", stacklevel=2)
    return found


def check_files(dataset) -> None:
    """Check the sizes, orientations and file ends of all pairs of a `KittiStereo`, hardly decoding any.

    Raises ValueError that names all bad files: one would end the training when its turn comes.
    """
    names = tqdm(dataset.names, desc="check files", leave=False, delay=2)
    if problems := [problem for name in names for problem in file_problems(dataset.left[name], dataset.right[name])]:
        raise ValueError(f"files with problems: {len(problems)}\n{listed(problems)}")


def file_problems(*views: Path) -> list[str]:
    headers, problems = [], []
    for view in views:
        try:
            headers.append(picture_header(view))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return problems
    (size, turn), (other_size, other_turn) = headers
    if turn != other_turn:
        tags = f"the EXIF orientation of {views[0]} is {turn}, of {views[1]} {other_turn}"
        return [f"{tags}: store both upright, without a tag"]
    sizes = compared(views[0], size, views[1], other_size)
    return [] if size == other_size else [f"{sizes}: rectify both to one size"]


def check_truth(split: Subset) -> Subset:
    """The pairs of a `Subset` of a labelled `KittiStereo` whose map has a pixel of truth; warns of the others.

    Raises ValueError that names all maps that cannot be read.
    """
    usable, blank, torn = [], [], []
    for index in tqdm(split.indices, desc="check truth", leave=False, delay=2):
        file = split.dataset.maps["disparity"][split.dataset.names[index]]
        try:
            known = read_disparity(file).isfinite().any()
            usable.append(index) if known else blank.append(str(file))
        except ValueError as error:
            torn.append(str(error))
    if torn:
        raise ValueError(listed(torn))
    if blank:
        warnings.warn(f"{len(blank)} maps without a pixel of truth are left out:\n{listed(blank)}", stacklevel=2)
    return Subset(split.dataset, usable)


def match_offsets(left: Tensor, right: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows by which each matched point is lower in the right view, and columns by which it is further right.

    SIFT features that are nearest to each other in both directions, in pixels of the reduced views.
    """
    (points, features), (right_points, right_features) = (sift_features(view, 500, WIDTH) for view in (left, right))
    if features is None or right_features is None:
        return np.empty(0), np.empty(0)
    matches = cv2.BFMatcher(crossCheck=True).match(features, right_features)
    offsets = [np.subtract(right_points[m.trainIdx].pt, points[m.queryIdx].pt) for m in matches]
    columns, rows = np.reshape(offsets, (-1, 2)).T
    return rows, columns


def same_place(first: Tensor, second: Tensor) -> bool:
    """Whether two (3, H, W) pictures show the same place: enough SIFT matches agree with one motion of the camera."""
    found = (sift_features(picture, 2500, SAME_PLACE_WIDTH) for picture in (first, second))
    (points, features), (others, other_features) = found
    if len(points) < SAME_PLACE or len(others) < SAME_PLACE:
        return False
    candidates = cv2.BFMatcher().knnMatch(features, other_features, k=2)
    clear = [best for best, second_best in candidates if best.distance < 0.7 * second_best.distance]
    pairs = {match.trainIdx: match.queryIdx for match in clear}  # one match for each feature
    if len(pairs) < SAME_PLACE:
        return False
    here, there = np.float32([(points[i].pt, others[j].pt) for j, i in pairs.items()]).transpose(1, 0, 2)
    _, agree = cv2.findFundamentalMat(here, there, cv2.FM_RANSAC, 1.5, 0.99, 1000)
    return agree is not None and int(agree.sum()) >= SAME_PLACE


def sift_features(image: Tensor, count: int, at_most: int) -> tuple:
    """Points and descriptors (SIFT; Lowe, IJCV 2004) of a (3, H, W) picture in [0, 1], reduced to a width `at_most`."""
    height, width = image.shape[-2:]
    if width > at_most:
        image = resize(image, (round(height * at_most / width), at_most))
    return cv2.SIFT.create(count).detectAndCompute((255 * image.mean(0)).round().byte().numpy(), None)
