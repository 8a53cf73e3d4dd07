"""Training labels from classical stereo matching of the training pairs themselves; no depth label is needed.

From few pairs a network memorises their appearance before the appearance loss has taught it what a car is. Where both
cameras see some texture, matching measures the disparity, which is a stronger teacher (Tosi et al., CVPR 2019; the
"depth hints" of Watson et al., ICCV 2019). The network still predicts from one image.
"""

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from monodepth_nb.data.caching import CachedRows
from monodepth_nb.data.loading import PairCache
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import resize

SEARCH_RANGE = 0.3  # largest disparity, a fraction of the width: the network's MAX_DISPARITY
FARTHEST = 1e-3  # fraction of the width; stands for the sky's 0. 314 m with KITTI's camera


def match_views(left: Tensor, right: Tensor) -> Tensor:
    """Disparity of both views by semi-global matching (Hirschmüller, PAMI 2008; OpenCV's StereoSGBM).

    left, right: (3, H, W) in [0, 1]
    returns: (2, H, W) float32, left view first, in fractions of the width; 0 without a match that holds in both
             directions: the point is occluded in one view, untextured or shiny
    """
    left, right = ((255 * v).round().byte().permute(1, 2, 0).numpy() for v in (left, right))
    mirrored = [np.ascontiguousarray(v[:, ::-1]) for v in (right, left)]  # mirrored, the right view is a left one
    found = [left_disparity_px(left, right), left_disparity_px(*mirrored)[:, ::-1]]
    return torch.from_numpy(np.stack(found)).clamp(min=0) / left.shape[1]


def left_disparity_px(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(H, W) float32 in pixels, negative where unknown, of two (H, W, 3) uint8 views."""
    h, w, _ = left.shape
    block, levels = 5, 16 * int(np.ceil(SEARCH_RANGE * w / 16))  # OpenCV wants a multiple of 16
    matcher = cv2.StereoSGBM.create(
        minDisparity=0, numDisparities=levels, blockSize=block, P1=24 * block**2, P2=96 * block**2, disp12MaxDiff=1,
        preFilterCap=63, uniquenessRatio=10, speckleWindowSize=h * w // 1000, speckleRange=2,
        mode=cv2.StereoSGBM_MODE_SGBM_3WAY,
    )  # fmt: skip
    # It skips the first `levels` columns, whose search could leave the image. A margin there makes them count.
    padded = [cv2.copyMakeBorder(v, 0, 0, levels, 0, cv2.BORDER_REPLICATE) for v in (left, right)]
    found = matcher.compute(*padded)[:, levels:].astype(np.float32) / 16
    found[np.arange(w) < found] = -1  # matched with the margin
    return found


def hidden_pixels(disparity_px: np.ndarray) -> np.ndarray:
    """(H, W) true left disparity in pixels, NaN = unknown -> (H, W) bool: the right camera does not see this point.

    Its place in the right view lies outside, or something nearer by more than a pixel takes it.
    """
    h, w = disparity_px.shape
    known = np.nan_to_num(disparity_px)
    rows, place = np.arange(h)[:, None], np.round(np.arange(w) - known).astype(int)
    nearest = np.zeros((h, w))  # in the right view: the largest disparity that lands on each pixel
    y, x = np.nonzero(place >= 0)
    np.maximum.at(nearest, (y, place[y, x]), known[y, x])
    return (place < 0) | (nearest[rows, place.clip(0)] > known + 1)


def filled(disparity: Tensor) -> Tensor:
    """Guess unknown disparity: the farther known neighbour in the row, because the background is what is occluded.

    disparity: (V, H, W), 0 = unknown
    returns: the same with negative guesses. Rows without a known pixel take those of the row below.
    """
    guesses = []
    for rows in disparity.numpy():
        known = pd.DataFrame(rows).where(rows > 0)
        guess = np.fmin(known.ffill(axis=1), known.bfill(axis=1))
        guesses.append(guess.bfill().fillna(FARTHEST).to_numpy(np.float32))
    return torch.where(disparity > 0, disparity, -torch.from_numpy(np.stack(guesses)))


class MatchedPairs(Dataset):
    """Pairs of one size with the disparity that `match_views` finds in them, for `DisparityLoss`.

    They are matched at twice that size where the images are large enough. On KITTI at 128 x 448 (17 pairs, pixels
    visible to both cameras) this labels 93 instead of 97 %, and 4.7 instead of 7.6 % of the labels are wrong by D1.

    pairs:  a `PairCache`, which gives access to the pairs at both sizes; TypeError for anything else
    yields Sample(left, right, name, disparity); the guesses of `filled` are negative and not to be learnt
    """

    def __init__(self, pairs: PairCache):
        if not isinstance(pairs, PairCache):
            raise TypeError(f"to match {type(pairs).__name__} pairs, wrap them first: PairCache(pairs, size)")
        self.pairs, self.size = pairs, pairs.size
        self.disparities = CachedRows((len(pairs), 2, *self.size), torch.float16)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.pairs[index], disparity=self.disparities.row(index, self.label).float())

    def label(self, index: int) -> Tensor:
        pair = self.pairs.dataset[index]  # at full size
        size = [min(2 * n, full) for n, full in zip(self.size, pair["left"].shape[-2:], strict=True)]
        found = match_views(*(resize(pair[view], size) for view in ("left", "right")))
        return filled(F.interpolate(found[None], self.size, mode="nearest-exact")[0])


class RenderedPairs(MatchedPairs):
    """Rendered street pairs, from a `KittiStereo(truth="occ")`, with their true disparity instead."""

    def label(self, index: int) -> Tensor:
        sample = self.pairs.dataset[index]
        truth = torch.stack((sample.disparity_px, sample.disparity_right_px)) / sample.disparity_px.shape[-1]
        truth = truth.nan_to_num(FARTHEST)  # the sky has none
        return F.interpolate(truth[None], self.size, mode="nearest-exact")[0]


def with_disparity(pairs: PairCache) -> MatchedPairs:
    """The pairs with the true disparity of both views, where the data set holds it, else with what matching finds."""
    if isinstance(pairs, PairCache) and "disparity_right_px" in pairs.dataset[0]:
        return RenderedPairs(pairs)
    return MatchedPairs(pairs)
