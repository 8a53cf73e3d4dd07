"""Is this a rectified stereo pair? Swapped or unrectified views are the usual cause of blank disparity maps.

Small patches of the left view are looked up in the right one, up and down as well as sideways. In a rectified
pair they are found in their own row, and further left by the disparity, which is positive.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

WIDTH = 512  # wider views are reduced to it; the lengths below are pixels of the reduced views
PATCH = (11, 17)  # rows, columns
GRID = (5, 12)  # the best corner of each cell is looked up
REACH_ROWS, REACH_COLUMNS = 8, 128
SAME_ROW = 0.6  # 1.5 rows of KITTI. Medians of 257 KITTI pairs: -0.14 to 0.12; 2 rows off: from 0.69
SPREAD = 0.8  # rows about the median within which patches agree
AGREEING = 0.45  # share that has to; 257 KITTI pairs: 0.63 or more; unrelated pictures: 0.30 or less
FEWEST = 8  # patches with enough texture to say anything


def check_pair(left: Tensor, right: Tensor, name: str) -> list[str]:
    """What is wrong with a pair, one sentence each; an empty list if it looks like a rectified pair.

    left, right: (3, H, W) in [0, 1], at full size, where a shift by rows shows best
    name:        begins every sentence
    """
    if left.shape != right.shape:
        sizes = [" x ".join(str(n) for n in view.shape[-2:]) for view in (left, right)]
        return [f"{name}: the left view is {sizes[0]}, the right {sizes[1]}: rectify both to one size"]
    rows, columns = patch_shifts(left, right)
    if len(rows) < FEWEST:
        return [f"{name}: too small or too little texture to compare the views: leave the pair out"]
    agree = (rows - rows.median()).abs() < SPREAD
    if agree.float().mean() < AGREEING:
        return [f"{name}: the views do not match: another scene or moment, or not rectified"]
    problems = []
    shift = rows.median().item() * max(1, left.shape[-1] / WIDTH)
    if rows.median().abs() > SAME_ROW:
        where = "lower" if shift > 0 else "higher"
        problems.append(f"{name}: the right view lies {abs(shift):.1f} rows {where}: rectify the pair")
    columns = columns[agree]
    if (columns.abs() <= 0.5).float().mean() > 0.8:
        problems.append(f"{name}: nothing moves between the views: the same picture twice?")
    elif (columns < 0).sum() > (columns > 0).sum():
        problems.append(f"{name}: things lie further right in the right view: left and right are swapped")
    return problems


def check_pairs(dataset, at_most: int = 200) -> dict[str, list[str]]:
    """Check pairs of a `KittiStereo`, evenly picked if they are more than `at_most`; warn of bad ones.

    returns: problems by name, of the pairs that have any
    """
    step = max(1, -(-len(dataset) // at_most))
    found = {}
    for name in tqdm(dataset.names[::step], desc="check pairs"):
        try:
            problems = check_pair(*dataset.read_pair(name), name)
        except ValueError as unreadable:
            problems = [str(unreadable)]
        if problems:
            found[name] = problems
    if found:
        lines = [line for problems in found.values() for line in problems]
        more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
        warnings.warn("\n".join([f"{len(found)} pairs look wrong:", *lines[:10], *more]), stacklevel=2)
    return found


def patch_shifts(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Where patches of the left view are found in the right one.

    returns: (N,) rows further down and (N,) columns further *left*, in pixels of the reduced views
    """
    left, right = reduced_grey(left), reduced_grey(right)
    y, x = corners(left)
    if not len(y):
        return torch.empty(0), torch.empty(0)
    patches = left.unfold(0, PATCH[0], 1).unfold(1, PATCH[1], 1)[y, x]  # (N, 11, 17)
    around = F.pad(right, (REACH_COLUMNS, REACH_COLUMNS, REACH_ROWS, REACH_ROWS))
    window = PATCH[0] + 2 * REACH_ROWS, PATCH[1] + 2 * REACH_COLUMNS
    windows = around.unfold(0, window[0], 1).unfold(1, window[1], 1)[y, x]
    score = correlation(patches, windows)  # (N, 17, 257)
    best = score.flatten(1).argmax(1)
    row, column = best // score.shape[2], best % score.shape[2]
    return peak(score[torch.arange(len(best)), :, column], row) - REACH_ROWS, REACH_COLUMNS - column


def reduced_grey(image: Tensor) -> Tensor:
    """(3, H, W) to (h, w), not wider than WIDTH."""
    grey = image.mean(0)
    if grey.shape[1] <= WIDTH:
        return grey
    size = round(grey.shape[0] * WIDTH / grey.shape[1]), WIDTH
    return F.interpolate(grey[None, None], size, mode="bilinear", antialias=True)[0, 0]


def corners(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Top-left pixel of the patch in each cell of GRID whose weakest gradient direction is strongest.

    The smaller eigenvalue of the structure tensor (Shi and Tomasi, "Good Features to Track", CVPR 1994).
    """
    if grey.shape[0] < PATCH[0] + GRID[0] or grey.shape[1] < PATCH[1] + GRID[1]:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
    dy, dx = torch.gradient(grey)
    yy, xx, xy = F.avg_pool2d(torch.stack((dy * dy, dx * dx, dy * dx)), PATCH, stride=1)
    weakest = (yy + xx) / 2 - (((yy - xx) / 2) ** 2 + xy**2).sqrt()
    value, index = F.adaptive_max_pool2d(weakest[None], GRID, return_indices=True)
    index = index[value > 1e-5]  # sky and other blank surfaces left out
    return index // weakest.shape[1], index % weakest.shape[1]


def correlation(patches: Tensor, windows: Tensor) -> Tensor:
    """Normalised cross-correlation in [-1, 1] of each patch with every place of its own window."""
    patches = patches - patches.mean((1, 2), keepdim=True)
    patches = patches / patches.norm(dim=(1, 2), keepdim=True)
    covariance = F.conv2d(windows[None], patches[:, None], groups=len(patches))[0]
    mean, square = (F.avg_pool2d(w, PATCH, stride=1) for w in (windows, windows**2))
    energy = (square - mean**2) * PATCH[0] * PATCH[1]
    return covariance / energy.clamp_min(1e-4).sqrt()


def peak(profile: Tensor, top: Tensor) -> Tensor:
    """Top of the parabola through the best value of each (N, n) profile and its two neighbours."""
    inner = top.clamp(1, profile.shape[1] - 2)
    before, at, after = (profile.gather(1, (inner + step)[:, None])[:, 0] for step in (-1, 0, 1))
    bend = (2 * at - before - after).clamp_min(1e-6)
    return top + ((after - before) / (2 * bend)).clamp(-0.5, 0.5)
