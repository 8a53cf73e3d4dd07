"""Scores against ground truth (Eigen et al. 2014; KITTI stereo 2015), one value per image.

Two protocols turn disparity into depth. They differ in the camera and in what happens to far truth:

"metres"     the camera of the pictures (KITTI's calibration: 0.5327 m); truth and prediction lie within [0.001, 80] m
"monodepth"  what Godard et al. 2017 published (`evaluate_kitti.py`, split "kitti"): on pictures of KITTI's widths its
             table of focal lengths and 0.54 m, for truth and prediction alike; only the prediction is clamped. Rows
             beside published ones need this protocol. Pictures of other widths keep their own camera.
"""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from monodepth_nb.data.kitti import FOCAL_PX_BY_WIDTH, KITTI_HEIGHTS
from monodepth_nb.data.layouts import first_few
from monodepth_nb.data.sample import check_camera
from monodepth_nb.data.transforms import resize
from monodepth_nb.layers import check_option

MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0
PAPER_BASELINE_M = 0.54
PROTOCOLS = ("metres", "monodepth")
BATCH = 8  # images that a network predicts at once
SAME_RIG = 0.02  # KITTI's rounded baseline and its calibrations differ by 1.4 %

# Trained on KITTI raw (K), the first row on 29,000 pairs; scored on the 200 labelled pairs of KITTI 2015, unless
# `source` (arXiv number) says otherwise; NaN = not given there.
PUBLISHED = pd.DataFrame(
    [
        ("Godard, VGG", "K", 0.124, 1.388, 6.125, 0.217, 30.272, 0.841, 0.936, 0.975, "1609.03677, Table 1"),
        ("monodepth2, ImageNet", "K", 0.109, None, 4.960, None, None, 0.864, None, None, "Eigen split, 1806.01260"),
        ("monodepth2, scratch", "K", 0.130, None, 5.485, None, None, 0.831, None, None, "Eigen split, 1806.01260"),
    ],
    columns=["method", "trained on", "abs_rel", "sq_rel", "rmse", "rmse_log", "d1_all", "a1", "a2", "a3", "source"],
).set_index("method")


def disparity_metrics(prediction_px, truth_px, focal_px: float, baseline_m: float, protocol="metres") -> dict:
    """Compare a disparity map with ground truth over the pixels whose truth is finite and positive.

    prediction_px, truth_px: (H, W) arrays or tensors, disparity in pixels of the full-size image
    focal_px, baseline_m:    turn disparity into depth, see `to_depth_m`; NaN if unknown, then depth scores are NaN too
    protocol:                one of PROTOCOLS, see above
    returns: abs_rel, sq_rel (m), rmse (m), rmse_log, a1, a2, a3 (shares with ratio < 1.25, 1.25^2, 1.25^3);
             epe (px); d1_all (percent of pixels wrong by >= 3 px and >= 5 %)
    Raises ValueError if the sizes differ, the prediction is not finite, no pixel has ground truth, or the camera or the
    protocol is impossible.
    """
    check_option("protocol", protocol, PROTOCOLS)
    prediction, truth = (np.asarray(x, dtype=np.float64) for x in (prediction_px, truth_px))
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction is {prediction.shape}, ground truth {truth.shape}; resize the prediction first")
    valid = np.isfinite(truth) & (truth > 0)
    if not valid.any():
        raise ValueError("no pixel of this image has ground truth (all are NaN, infinite or not positive)")
    if protocol == "monodepth" and truth.ndim == 2 and truth.shape[1] in FOCAL_PX_BY_WIDTH:
        focal_px, baseline_m = FOCAL_PX_BY_WIDTH[truth.shape[1]], PAPER_BASELINE_M
    if not np.isnan(focal_px * baseline_m):
        check_camera(focal_px, baseline_m)
    prediction, truth = prediction[valid], truth[valid]
    if not np.isfinite(prediction).all():
        raise ValueError("the predicted disparity contains NaN or infinity; training has probably diverged")
    depth, true_depth = (to_depth_m(d, focal_px, baseline_m) for d in (prediction, truth))
    if protocol == "monodepth":
        true_depth = focal_px * baseline_m / truth
    error_px, ratio = np.abs(prediction - truth), np.maximum(depth / true_depth, true_depth / depth)
    scores = {
        "abs_rel": np.mean(np.abs(depth - true_depth) / true_depth),
        "sq_rel": np.mean((depth - true_depth) ** 2 / true_depth),
        "rmse": np.sqrt(np.mean((depth - true_depth) ** 2)),
        "rmse_log": np.sqrt(np.mean((np.log(depth) - np.log(true_depth)) ** 2)),
        **{f"a{k}": np.mean(np.where(np.isnan(ratio), np.nan, ratio < 1.25**k)) for k in (1, 2, 3)},
        "epe": error_px.mean(),
        "d1_all": 100 * np.mean((error_px >= 3) & (error_px >= 0.05 * truth)),
    }
    return {name: float(score) for name, score in scores.items()}


def fitting_protocol(size: tuple[int, int]) -> str:
    """The protocol for pictures of a (height, width): the published one for KITTI's."""
    return "monodepth" if size[0] in KITTI_HEIGHTS and size[1] in FOCAL_PX_BY_WIDTH else "metres"


def to_depth_m(disparity_px: np.ndarray, focal_px: float, baseline_m: float) -> np.ndarray:
    """focal_px * baseline_m / disparity_px, clamped to [0.001, 80] m; disparities of 0 or less are 80 m."""
    with np.errstate(divide="ignore"):
        depth = np.where(disparity_px > 0, focal_px * baseline_m / disparity_px, MAX_DEPTH_M)
    return np.clip(depth, MIN_DEPTH_M, MAX_DEPTH_M)


def mostly_clamped(depth_m: np.ndarray) -> bool:
    """Whether 90 % of the depths that `to_depth_m` gave lie on a limit, as with a baseline in millimetres."""
    return bool(np.mean((depth_m <= MIN_DEPTH_M) | (depth_m >= MAX_DEPTH_M)) >= 0.9)


def warn_of_clamp(what: str) -> None:
    problem = f"almost all depths of {what} lie at a limit of depth, {MIN_DEPTH_M:g} or {MAX_DEPTH_M:g} m"
    question = "is the focal length in pixels and the baseline in metres, not millimetres?"
    warnings.warn(f"{problem}: {question}", stacklevel=3)


def to_pixels(disparity: Tensor, full_size: tuple[int, int]) -> np.ndarray:
    """(h, w) disparity as a fraction of width -> (H, W) pixels of the full-size image, resized bilinearly."""
    resized = torch.nn.functional.interpolate(disparity[None, None].float(), tuple(full_size), mode="bilinear")
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
    return at_left * d_mirrored + at_right * d_left + (1 - at_left - at_right) * (d_left + d_mirrored) / 2


class Predictor:
    """Predicts the disparity of a sample, or of `many` as one batch, in pixels at the size of its ground truth.

    maps: samples -> an (h, w) tensor for each, fractions of the width
    """

    def __init__(self, maps):
        self.maps = maps

    def __call__(self, sample) -> np.ndarray:
        return next(self.many([sample]))

    def many(self, samples: list):
        return map(to_pixels, self.maps(samples), (sample["disparity_px"].shape for sample in samples))


def network_predictor(network, size: tuple[int, int], post: bool = False, baseline_m: float | None = None) -> Predictor:
    """The predictions of a network, see `left_disparity`.

    size:       (height, width) of the images that the network gets
    baseline_m: of the pairs it was trained on. Where a sample's differs by more than SAME_RIG, its disparity is scaled
    """

    def scale(sample) -> float:
        ratio = sample.get("baseline_m", np.nan) / (baseline_m or np.nan)
        return ratio if abs(ratio - 1) > SAME_RIG else 1.0

    def maps(samples) -> list[Tensor]:
        images = torch.stack([resize(sample["left"], size) for sample in samples])
        disparities = left_disparity(network, images, post)
        return [scale(sample) * disparity for sample, disparity in zip(samples, disparities, strict=True)]

    return Predictor(maps)


def cached(predict):
    """`predict`, called once per sample name: for scoring one data set in several ways.

    Of a network, the maps are kept at its own size: at full size those of KITTI would take 0.4 GB.
    """
    known, of_network = {}, isinstance(predict, Predictor)
    maps = predict.maps if of_network else partial(map, predict)

    def recall(samples) -> list:
        if new := [sample for sample in samples if sample["name"] not in known]:
            known.update(zip((sample["name"] for sample in new), maps(new), strict=True))
        return [known[sample["name"]] for sample in samples]

    return Predictor(recall) if of_network else lambda sample: recall([sample])[0]


def predictions(predict, dataset):
    """Each sample of a labelled data set with its prediction, in order; few are in memory at a time."""
    many = getattr(predict, "many", partial(map, predict))
    for start in range(0, len(dataset), BATCH):
        samples = [dataset[i] for i in range(start, min(start + BATCH, len(dataset)))]
        if missing := [sample["name"] for sample in samples if "disparity_px" not in sample]:
            raise ValueError(f"{missing[0]} has no ground truth: read the data set with truth='occ' or 'noc'")
        yield from zip(samples, many(samples), strict=True)


# ---- Tables ----


class NoTruth(ValueError):
    """No pixel of a whole data set has ground truth."""


def score_sample(prediction, sample, protocol: str = "metres", pixels=...) -> dict[str, float]:
    """`disparity_metrics` of one sample, or of its `pixels`, a mask; errors name it."""
    prediction, truth = (np.asarray(x)[pixels] for x in (prediction, sample["disparity_px"]))
    try:
        scores = disparity_metrics(prediction, truth, *camera_of(sample), protocol)
        if offset := sample.get("doffs_px"):  # depth = focal * baseline / (disparity + offset), see `motorcycle`
            depth = disparity_metrics(prediction + offset, truth + offset, *camera_of(sample), protocol)
            scores = depth | {name: scores[name] for name in ("epe", "d1_all")}
        return scores
    except ValueError as error:
        raise ValueError(f"{sample['name']}: {error}") from error


def camera_of(sample) -> tuple[float, float]:
    """Focal length in pixels and baseline in metres; NaN where unknown."""
    return sample.get("focal_px", np.nan), sample.get("baseline_m", np.nan)


def true_depth_m(sample) -> np.ndarray:
    return to_depth_m(np.asarray(sample["disparity_px"]) + sample.get("doffs_px", 0), *camera_of(sample))


def has_truth(sample) -> np.ndarray:
    """(H, W): the pixels whose disparity is known."""
    truth = np.asarray(sample["disparity_px"])
    return np.isfinite(truth) & (truth > 0)


def evaluate(predict, dataset, protocol: str = "metres") -> pd.DataFrame:
    """`disparity_metrics` of every sample, one row each, after its `name` and the `protocol`.

    predict: sample -> (H, W) disparity in pixels at the truth's size: a `network_predictor`, a `PixelMeanBaseline` ...
    The index is the sample's place in `dataset`: a sample without a pixel of ground truth is named and has no row.
    Raises NoTruth if none has.
    """
    rows, blank, clamped = {}, [], 0
    bar = tqdm(predictions(predict, dataset), desc="scoring", unit="image", total=len(dataset), leave=False, delay=2)
    for i, (sample, prediction) in enumerate(bar):
        known = has_truth(sample)
        if not known.any():
            blank.append(sample["name"])
            continue
        rows[i] = {"name": sample["name"], "protocol": protocol} | score_sample(prediction, sample, protocol)
        clamped += mostly_clamped(true_depth_m(sample)[known])
    if blank:
        text = f"no pixel has ground truth in {len(blank)} of {len(dataset)} images ({first_few(blank)})"
        if not rows:
            raise NoTruth(f"{text}: nothing can be scored")
        warnings.warn(f"{text}: these are not scored", stacklevel=2)
    if clamped > len(rows) / 2:
        warn_of_clamp("the ground truth")
    return pd.DataFrame.from_dict(rows, orient="index")


def bootstrap_interval(values, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the mean, from resampling the images with replacement."""
    values = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def error_by_mask(predict, dataset, masks) -> pd.DataFrame:
    """Errors over all pixels of the data set in each mask, protocol "metres"; masks: sample -> {name: (H, W) bool}.

    returns: index = mask name; pixels, abs_rel, epe (px), d1_all (percent); NaN where a mask has no pixels
    """
    errors, sums = ["abs_rel", "epe", "d1_all"], {}
    for sample, prediction in predictions(predict, dataset):
        for name, mask in masks(sample).items():
            seen = np.asarray(mask) & has_truth(sample)
            sums.setdefault(name, np.zeros(4))
            if seen.any():
                scores = score_sample(prediction, sample, pixels=seen)
                sums[name] += seen.sum() * np.array([1, *(scores[error] for error in errors)])
    table = pd.DataFrame.from_dict(sums, orient="index", columns=["pixels", *errors])
    table[errors] = table[errors].div(table["pixels"], axis="index")
    return table.astype({"pixels": int})


def error_by_distance(predict, dataset) -> pd.DataFrame:
    """`error_by_mask` for bands of true depth; the last one includes everything farther away."""

    def bands(sample):
        depth = true_depth_m(sample)
        band = np.where(np.isnan(depth), -1, np.digitize(depth, (10, 20, 40)))  # in none, where the camera is unknown
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
