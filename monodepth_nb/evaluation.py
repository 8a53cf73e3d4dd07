"""Scores against ground truth (Eigen et al. 2014; KITTI stereo 2015), one value per image."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from monodepth_nb.data.kitti import scene_blocks
from monodepth_nb.data.transforms import resize

MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0

# Trained on 29,000 pairs of KITTI raw (K); on the 200 labelled pairs of KITTI 2015 unless `source` (arXiv number) says
# otherwise; NaN = not given there. Two runs of one method differ by 2 % of AbsRel and 0.7 points of D1.
PUBLISHED = pd.DataFrame(
    [
        ("Godard, VGG", "K", 0.124, 1.388, 6.125, 0.217, 30.272, 0.841, 0.936, 0.975, "1609.03677, Table 1"),
        ("monodepth2, ImageNet", "K", 0.109, None, 4.960, None, None, 0.864, None, None, "Eigen split, 1806.01260"),
        ("monodepth2, scratch", "K", 0.130, None, 5.485, None, None, 0.831, None, None, "Eigen split, 1806.01260"),
    ],
    columns=["method", "trained on", "abs_rel", "sq_rel", "rmse", "rmse_log", "d1_all", "a1", "a2", "a3", "source"],
).set_index("method")


def disparity_metrics(prediction_px, truth_px, focal_px: float, baseline_m: float) -> dict[str, float]:
    """Compare a disparity map with ground truth over the pixels whose truth is finite and positive.

    prediction_px, truth_px: (H, W) arrays or tensors, disparity in pixels of the full-size image
    focal_px, baseline_m:    turn disparity into depth, see `to_depth_m`
    returns: abs_rel, sq_rel (m), rmse (m), rmse_log, a1, a2, a3 (shares with ratio < 1.25, 1.25^2, 1.25^3);
             epe (px); d1_all (percent of pixels wrong by >= 3 px and >= 5 %)
    Raises ValueError if the sizes differ, the prediction is not finite, or no pixel has ground truth.
    """
    prediction, truth = (np.asarray(x, dtype=np.float64) for x in (prediction_px, truth_px))
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction is {prediction.shape}, ground truth {truth.shape}; resize the prediction first")
    valid = np.isfinite(truth) & (truth > 0)
    if not valid.any():
        raise ValueError("no pixel of this image has ground truth (all are NaN, infinite or not positive)")
    prediction, truth = prediction[valid], truth[valid]
    if not np.isfinite(prediction).all():
        raise ValueError("the predicted disparity contains NaN or infinity; training has probably diverged")
    depth, true_depth = (to_depth_m(d, focal_px, baseline_m) for d in (prediction, truth))
    ratio = np.maximum(depth / true_depth, true_depth / depth)
    error_px = np.abs(prediction - truth)
    scores = {
        "abs_rel": np.mean(np.abs(depth - true_depth) / true_depth),
        "sq_rel": np.mean((depth - true_depth) ** 2 / true_depth),
        "rmse": np.sqrt(np.mean((depth - true_depth) ** 2)),
        "rmse_log": np.sqrt(np.mean((np.log(depth) - np.log(true_depth)) ** 2)),
        **{f"a{power}": np.mean(ratio < 1.25**power) for power in (1, 2, 3)},
        "epe": error_px.mean(),
        "d1_all": 100 * np.mean((error_px >= 3) & (error_px >= 0.05 * truth)),
    }
    return {name: float(score) for name, score in scores.items()}


def to_depth_m(disparity_px: np.ndarray, focal_px: float, baseline_m: float) -> np.ndarray:
    """focal_px * baseline_m / disparity_px, clamped to [0.001, 80] m; disparities of 0 or less are 80 m."""
    with np.errstate(divide="ignore"):
        depth = np.where(disparity_px > 0, focal_px * baseline_m / disparity_px, MAX_DEPTH_M)
    return np.clip(depth, MIN_DEPTH_M, MAX_DEPTH_M)


def to_pixels(disparity: Tensor, full_size: tuple[int, int]) -> np.ndarray:
    """(h, w) disparity as a fraction of width -> (H, W) pixels of the full-size image, resized bilinearly."""
    resized = torch.nn.functional.interpolate(
        disparity[None, None].float(), size=tuple(full_size), mode="bilinear", align_corners=False
    )
    return resized[0, 0].cpu().numpy() * full_size[1]


# ---- From a network to pixels ----


@torch.no_grad()
def left_disparity(network, images: Tensor, post: bool = False) -> Tensor:
    """(B, 3, h, w) images -> (B, h, w) left disparity on the CPU, fractions of the width.

    network: a module, which is put in eval mode, or a function of images; returns maps, finest first
    post:    also predict the mirrored images and combine both, see `post_process`
    """
    if isinstance(network, torch.nn.Module):
        network.eval()
        images = images.to(next(network.parameters()).device)
    left = network(images)[0][:, 0].float().cpu()
    return post_process(left, network(images.flip(-1))[0][:, 0].float().cpu().flip(-1)) if post else left


def post_process(d_left: Tensor, d_mirrored: Tensor) -> Tensor:
    """Combine a prediction with that of the mirrored image, mirrored back (Godard et al. 2017, section 3.3).

    Occlusions spoil d_left at the left of objects and of the image, d_mirrored at the right. So the leftmost 5 % come
    from d_mirrored, the rightmost 5 % from d_left, and the middle is their mean, with linear ramps from 5 to 10 %.
    Both are (..., h, w).
    """
    x = torch.linspace(0, 1, d_left.shape[-1], dtype=d_left.dtype, device=d_left.device)
    at_left = 1 - (20 * (x - 0.05)).clamp(0, 1)
    at_right = at_left.flip(-1)
    middle = (d_left + d_mirrored) / 2
    return at_left * d_mirrored + at_right * d_left + (1 - at_left - at_right) * middle


def network_predictor(network, size: tuple[int, int], post: bool = False):
    """A function of a sample that predicts its disparity in pixels, at the ground truth's size.

    size: (height, width) of the images that the network gets
    """

    def predict(sample) -> np.ndarray:
        disparity = left_disparity(network, resize(sample["left"], size)[None], post)[0]
        return to_pixels(disparity, sample["disparity_px"].shape)

    return predict


def cached(predict):
    """`predict`, called once per sample name: for scoring one data set in several ways."""
    predictions = {}

    def recall(sample) -> np.ndarray:
        if sample["name"] not in predictions:
            predictions[sample["name"]] = predict(sample)
        return predictions[sample["name"]]

    return recall


# ---- Image-independent baselines ----

GRID = (96, 320)  # rows, columns: the baselines' size


class PixelMeanBaseline:
    """Image-independent baseline: the mean disparity of each pixel position over the ground truth of `dataset`.

    Called with a sample, it predicts pixels at the size of the sample's ground truth. `disparity` is the mean on
    GRID, as a fraction of the width; cells without any ground truth (the sky) take the nearest cell's value.

    leave_out: for a sample of `dataset`, average only over scenes of other drives. This is for labelled data that is
               scored as a whole and not trained on, as in the paper's Table 1: there is no training ground truth, and
               the mean must not contain the scene that it is scored on.
    Raises ValueError if there is no ground truth at all.
    """

    def __init__(self, dataset, leave_out: bool = False):
        names, grids = [], []
        for sample in dataset:
            names.append(sample["name"])
            grids.append(truth_on_grid(sample))
        total = sum(grids, np.zeros((2, *GRID)))
        self.disparity, self.without = mean_of_cells(total), {}
        blocks = scene_blocks(names) if leave_out else []
        if len(blocks) == 1:  # a single drive: leave out only the image itself
            blocks = [[i] for i in blocks[0]]
        for block in blocks:
            others = mean_of_cells(total - sum(grids[i] for i in block))
            self.without |= {names[i]: others for i in block}

    def __call__(self, sample) -> np.ndarray:
        disparity = self.without.get(sample["name"], self.disparity)
        return to_pixels(torch.from_numpy(disparity), sample["disparity_px"].shape)


def truth_on_grid(sample) -> np.ndarray:
    """(2, *GRID): mean of the known disparities in each cell, as a fraction of the width, and 1; both 0 if none is."""
    truth = np.asarray(sample["disparity_px"], dtype=np.float64)
    y, x = np.nonzero(np.isfinite(truth) & (truth > 0))
    (h, w), (rows, columns) = truth.shape, GRID
    cells = (y * rows // h) * columns + x * columns // w
    total, count = (np.bincount(cells, v, rows * columns).reshape(GRID) for v in (truth[y, x] / w, np.ones(len(x))))
    return np.stack((total / count.clip(1), count > 0))  # so every image has the same weight, whatever its size


def mean_of_cells(sums_and_counts: np.ndarray) -> np.ndarray:
    """(2, h, w) sum and count -> (h, w) float32 mean; empty cells take the value of the nearest other cell."""
    from scipy.ndimage import distance_transform_edt  # comes with scikit-image

    total, count = sums_and_counts
    if not (count > 0.5).any():
        raise ValueError("no pixel has ground truth, so there is no mean: pass a labelled data set of several scenes")
    nearest = distance_transform_edt(count < 0.5, return_distances=False, return_indices=True)
    return (total[tuple(nearest)] / count[tuple(nearest)]).astype(np.float32)


# ---- Tables ----


def score_sample(predict, sample) -> dict[str, float]:
    """`disparity_metrics` of one sample; errors name it."""
    if "disparity_px" not in sample:
        raise ValueError(f"{sample['name']} has no ground truth: read the data set with truth='occ' or 'noc'")
    prediction, truth, camera = predict(sample), sample["disparity_px"], (sample["focal_px"], sample["baseline_m"])
    try:
        scores = disparity_metrics(prediction, truth, *camera)
        if offset := sample.get("doffs_px"):  # depth = focal * baseline / (disparity + offset), see `motorcycle`
            depth = disparity_metrics(prediction + offset, truth + offset, *camera)
            scores = depth | {name: scores[name] for name in ("epe", "d1_all")}
        return scores
    except ValueError as error:
        raise ValueError(f"{sample['name']}: {error}") from error


def evaluate(predict, dataset) -> pd.DataFrame:
    """`disparity_metrics` of every sample, one row each, after its `name`.

    predict: sample -> (H, W) disparity in pixels at the ground truth's size, e.g. `network_predictor(...)` or a
             `PixelMeanBaseline`
    """
    rows = tqdm(dataset, desc="scoring", unit="image", leave=False, delay=2)
    return pd.DataFrame([{"name": sample["name"]} | score_sample(predict, sample) for sample in rows])


def bootstrap_interval(values, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the mean, from resampling the images with replacement."""
    values = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def error_by_mask(predict, dataset, masks) -> pd.DataFrame:
    """Errors over all pixels of the data set in each mask; masks: sample -> {name: (H, W) bool}.

    returns: index = mask name; pixels, abs_rel, epe (px), d1_all (percent); NaN where a mask has no pixels
    """
    errors, sums = ["abs_rel", "epe", "d1_all"], {}
    for sample in dataset:
        truth, prediction = np.asarray(sample["disparity_px"], dtype=np.float64), predict(sample)
        for name, mask in masks(sample).items():
            seen = np.asarray(mask) & np.isfinite(truth) & (truth > 0)
            sums.setdefault(name, np.zeros(4))
            if seen.any():
                scores = disparity_metrics(prediction[seen], truth[seen], sample["focal_px"], sample["baseline_m"])
                sums[name] += seen.sum() * np.array([1, *(scores[error] for error in errors)])
    table = pd.DataFrame.from_dict(sums, orient="index", columns=["pixels", *errors])
    table[errors] = table[errors].div(table["pixels"], axis="index")
    return table.astype({"pixels": int})


def error_by_distance(predict, dataset) -> pd.DataFrame:
    """`error_by_mask` for bands of true depth; the last one includes everything farther away."""

    def bands(sample):
        depth = to_depth_m(np.asarray(sample["disparity_px"]), sample["focal_px"], sample["baseline_m"])
        band = np.digitize(depth, (10, 20, 40))
        return {name: band == i for i, name in enumerate(("0-10 m", "10-20 m", "20-40 m", "40-80 m"))}

    return error_by_mask(predict, dataset, bands)


def error_by_region(predict, dataset, classes) -> pd.DataFrame:
    """`error_by_mask` for each class and, beside plain road, for lane paint and shiny surfaces of rendered streets.

    classes: names of the ids in a sample's `classes`; "road" and "car" must be among them
    """

    def regions(sample):
        ids, paint, shiny = (np.asarray(sample[key]) for key in ("classes", "lane_paint", "shiny"))
        masks = {name: ids == i for i, name in enumerate(classes)}
        surfaces = {"lane paint": paint, "shiny": shiny, "shiny, no car": shiny & ~masks["car"]}
        return masks | surfaces | {"plain road": masks["road"] & ~paint & ~shiny}

    return error_by_mask(predict, dataset, regions)
