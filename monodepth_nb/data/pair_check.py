"""Detect pairs that are not rectified stereo pairs, the usual cause of blank disparity maps.

In a rectified pair a point has the same row in both views, and lies further left in the right view by its disparity.
"""

import warnings

import cv2
import numpy as np
from torch import Tensor
from tqdm import tqdm

from monodepth_nb.data.kitti import height_x_width
from monodepth_nb.data.transforms import resize

WIDTH = 512  # wider views are reduced to it; the lengths below are pixels of the reduced views
SAME_ROW = 0.45  # 1.1 rows of KITTI. Medians of 257 KITTI pairs: -0.25 to 0.14; 2 rows off: from 0.56
SPREAD = 0.8  # rows about the median within which matches agree
AGREEING = 0.45  # least share of matches that agree; 257 KITTI pairs: from 0.62; unrelated views: up to 0.24
FEWEST = 8  # matches without which nothing can be concluded


def check_pair(left: Tensor, right: Tensor, name: str) -> list[str]:
    """The problems of a pair, one sentence each; an empty list if it looks like a rectified pair.

    left, right: (3, H, W) in [0, 1], best at full size, where a vertical offset is easiest to measure
    name:        begins every sentence
    """
    if left.shape != right.shape:
        sizes = f"the left view is {height_x_width(left)}, the right {height_x_width(right)}"
        return [f"{name}: {sizes}: rectify both to one size"]
    rows, columns = match_offsets(left, right)
    if len(rows) < FEWEST:
        return [f"{name}: too small or too little texture to compare the views: leave the pair out"]
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
        problems.append(f"{name}: things lie further right in the right view: left and right are swapped")
    return problems


def check_pairs(dataset, at_most: int = 200) -> dict[str, list[str]]:
    """Check up to `at_most` evenly spaced pairs of a `KittiStereo`; warn about bad ones and return theirs by name."""
    found = {}
    for name in tqdm(dataset.names[:: max(1, -(-len(dataset) // at_most))], desc="check pairs"):
        try:
            problems = check_pair(*dataset.read_pair(name), name)
        except ValueError as unreadable:
            problems = [str(unreadable)]
        if problems:
            found[name] = problems
    if found:
        lines = [line for problems in found.values() for line in problems]
        more = [f"... and {len(lines) - 10} more"] * (len(lines) > 10)
        warnings.warn("\n".join([f"{len(found)} pairs look wrong:", *lines[:10], *more]), stacklevel=2)
    return found


def match_offsets(left: Tensor, right: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows by which each matched point is lower in the right view, and columns by which it is further right.

    SIFT features (Lowe, IJCV 2004) that are nearest to each other in both directions, in pixels of the reduced views.
    """
    sift, matcher = cv2.SIFT.create(nfeatures=500), cv2.BFMatcher(crossCheck=True)
    (points, features), (right_points, right_features) = (
        sift.detectAndCompute(reduced_grey(view), None) for view in (left, right)
    )
    if features is None or right_features is None:
        return np.empty(0), np.empty(0)
    matches = matcher.match(features, right_features)
    offsets = [np.subtract(right_points[m.trainIdx].pt, points[m.queryIdx].pt) for m in matches]
    columns, rows = np.reshape(offsets, (-1, 2)).T
    return rows, columns


def reduced_grey(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to (h, w) uint8, at most WIDTH wide."""
    height, width = image.shape[-2:]
    if width > WIDTH:
        image = resize(image, (round(height * WIDTH / width), WIDTH))
    return (255 * image.mean(0)).round().byte().numpy()
