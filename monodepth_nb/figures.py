"""The project's pictures: one function per figure, each returning a matplotlib figure.

One colour map and one fixed range per quantity, so that panels and figures compare: disparity always spans 0 to a
tenth of the image width, error 0 to a hundredth, and grey means "unknown". `label` names profile and data.
Images are (3, H, W) tensors or (H, W, 3) arrays in [0, 1]; maps are (H, W).
"""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor

from monodepth_nb.evaluation import to_points_m
from monodepth_nb.losses import warp_horizontal

DISPARITY_COLOURS, DISPARITY_MAX = "magma", 0.1  # of the image width: 124 px on KITTI, 74 px on the motorcycle
ERROR_COLOURS, ERROR_MAX = "viridis", 0.01  # of the image width: 12 px on KITTI, 7 px on the motorcycle
UNKNOWN = "0.82"  # light grey
LEFT, RIGHT, TRUTH = "#2166ac", "#d6604d", "#1b7837"


def colour_disparity(disparity: np.ndarray) -> np.ndarray:
    """(H, W) disparity -> (H, W, 3) uint8 colours, black (0) to light yellow (`DISPARITY_MAX` and above)."""
    return matplotlib.colormaps[DISPARITY_COLOURS](np.asarray(disparity) / DISPARITY_MAX, bytes=True)[..., :3]


def prediction_figure(sample, prediction_px, label: str) -> Figure:
    """Image, ground truth, prediction and absolute error of one sample, with colour bars in pixels."""
    truth = np.asarray(sample["disparity_px"])
    fig, axes = _panels(2, 2, truth.shape, f"Prediction against ground truth\n{label}")
    axes = axes.ravel()
    _draw_comparison(axes, sample, np.asarray(prediction_px), sample["name"])
    _colour_bar(axes[1], axes[1], "disparity [px]")
    _colour_bar(axes[2], axes[2], "disparity [px]")
    _colour_bar(axes[3], axes[3], "absolute error [px]")
    return fig


def best_median_worst(samples, predictions_px, titles, label: str) -> Figure:
    """Columns: samples (best, median, worst), named by `titles`. Rows: image, truth, prediction, error."""
    shape = np.asarray(samples[0]["disparity_px"]).shape
    fig, axes = _panels(4, len(samples), shape, f"Best, median and worst image\n{label}")
    for column, sample, prediction, title in zip(axes.T, samples, predictions_px, titles, strict=True):
        _draw_comparison(column, sample, np.asarray(prediction), title)
    _colour_bar(axes[1, -1], axes[1:3], "disparity [px]")
    _colour_bar(axes[3, -1], axes[3], "error [px]")
    return fig


def reconstruction_figure(sample, disparity: Tensor, label: str) -> Figure:
    """Left view, right view warped onto it by the predicted disparity, and their difference.

    disparity: (h, w) of the left view, in fractions of the width
    """
    left, right = sample["left"], sample["right"]
    d_left = F.interpolate(disparity[None, None].float(), size=left.shape[-2:], mode="bilinear")
    rebuilt = warp_horizontal(right[None], -d_left)[0]
    difference = (rebuilt - left).abs().mean(0)
    fig, axes = _panels(1, 3, left.shape[-2:], f"The left view, rebuilt from the right one\n{label}")
    for ax, picture, title in zip(axes[0], (left, rebuilt), ("left view", "right view, warped"), strict=False):
        _show_picture(ax, picture, title)
    axes[0, 2].imshow(difference.numpy(), cmap="Greys", vmin=0, vmax=0.5)
    axes[0, 2].set_title(f"difference, mean {difference.mean():.3f}", fontsize=10)
    fig.colorbar(axes[0, 2].images[0], ax=axes[0, 2], label="mean difference [0-1]", extend="max", shrink=0.75)
    return fig


def loss_curves(history, label: str) -> Figure:
    """Each loss term against the epoch, training and validation.

    history: DataFrame with `epoch` and columns `train_TERM`, `validation_TERM` (either may lack)
    """
    columns = [c for c in history.columns if c.startswith(("train_", "validation_"))]
    long = history.melt("epoch", columns, var_name="column", value_name="loss").dropna()
    long[["data", "term"]] = long["column"].str.split("_", n=1, expand=True)
    terms = list(long["term"].unique())
    fig, axes = plt.subplots(1, len(terms), figsize=(3 * len(terms), 3.2), layout="constrained", squeeze=False)
    plt.close(fig)
    for ax, term in zip(axes[0], terms, strict=True):
        rows, last = long[long["term"] == term], ax is axes[0, -1]
        colours = {"train": LEFT, "validation": RIGHT}
        sns.lineplot(rows, x="epoch", y="loss", hue="data", palette=colours, errorbar=None, legend=last, ax=ax)
        if 0 < 3 * rows["loss"].min() < rows["loss"].max():  # else a logarithmic axis would have no ticks
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5), numticks=20))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("")
        ax.set_title(f"{term}{' (log scale)' * (ax.get_yscale() == 'log')}", fontsize=10)
        ax.set_ylabel("loss" if ax is axes[0, 0] else "")
        ax.grid(alpha=0.3)
        sns.despine(ax=ax)
    axes[0, -1].legend(frameon=False, fontsize=9)
    fig.suptitle(f"Loss per epoch\n{label}", fontsize=12)
    return fig


def two_by_two(
    train_image, train_disparity, test_image, test_disparity, label: str, unseen: str = "unseen test image"
) -> Figure:
    """The course project's figure: a training and an unseen image with their maps (fractions of the width)."""
    fig, axes = _panels(2, 2, train_disparity.shape, f"Trained on, and never seen\n{label}")
    for row, image, disparity, name in zip(
        axes, (train_image, test_image), (train_disparity, test_disparity), ("training image", unseen), strict=True
    ):
        _show_picture(row[0], image, name)
        _show_disparity(row[1], np.asarray(disparity), "predicted disparity", DISPARITY_MAX)
    _colour_bar(axes[0, 1], axes[:, 1], "disparity [fraction of image width]")
    return fig


def labels_figure(samples: dict, label: str) -> Figure:
    """Left views with the disparity to learn from; a guess, which is not, is grey. samples: {name: labelled Sample}."""
    shape = next(iter(samples.values()))["left"].shape[1:]
    fig, axes = _panels(2, len(samples), shape, f"Disparity to learn from\n{label}")
    for (image, disparity), (name, sample) in zip(axes.T, samples.items(), strict=True):
        _show_picture(image, sample["left"], name)
        known = np.asarray(sample["disparity"][0])
        _show_disparity(disparity, np.where(known > 0, known, np.nan), "disparity", DISPARITY_MAX)
    _colour_bar(axes[1, -1], axes, "disparity [fraction of image width]")
    return fig


def map_grid(image, maps: dict, truth_px, label: str, title: str) -> Figure:
    """Named maps with their mean error, between image and ground truth. maps: {name: (H, W) disparity in px}."""
    truth = np.asarray(truth_px)
    columns = min(4, len(maps) + 2)
    fig, axes = _panels(-(-(len(maps) + 2) // columns), columns, truth.shape, f"{title}\n{label}")
    spare = iter(axes.ravel())
    _show_picture(next(spare), image, "left view", truth.shape)
    for name, disparity in maps.items():
        _show_disparity(next(spare), np.asarray(disparity), f"{name}\n{_epe(disparity, truth)}")
    last = next(spare)
    _show_disparity(last, truth, "ground truth")
    for ax in spare:
        ax.remove()
    _colour_bar(last, fig.axes, "disparity [px]")
    return fig


def arms_figure(maps: dict, truth_px, scores, label: str) -> Figure:
    """One map of each arm of an experiment, then EPE and D1 of all its runs.

    maps:   {arm: (H, W) disparity in px}
    scores: DataFrame with a row per run: `arm`, `seed`, `epe` (px), `d1_all` (percent)
    """
    truth = np.asarray(truth_px)
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    height = rows * (11 / columns * truth.shape[0] / truth.shape[1] + 0.4)
    fig = plt.figure(figsize=(12, height + 0.4 * len(maps) + 1.8), layout="constrained")
    plt.close(fig)
    above, below = fig.subfigures(2, 1, height_ratios=(height, 0.4 * len(maps) + 1))
    axes = above.subplots(rows, columns, squeeze=False)
    for ax in axes.ravel():
        ax.axis("off")
    for ax, (arm, disparity) in zip(axes.ravel(), maps.items(), strict=False):
        _show_disparity(ax, np.asarray(disparity), f"{arm}\n{_epe(disparity, truth)}")
    _colour_bar(axes[0, 0], axes, "disparity [px]")
    named = scores.assign(seed="seed " + scores["seed"].astype(str))
    for ax, metric in zip(below.subplots(1, 2, sharey=True), ("epe", "d1_all"), strict=True):
        colours = {"hue": "seed", "palette": "colorblind", "legend": metric == "d1_all"}
        sns.stripplot(named, x=metric, y="arm", order=list(maps), jitter=False, size=7, ax=ax, **colours)
        name = {"epe": "EPE [px]", "d1_all": "D1 [% of pixels]"}[metric]
        ax.set(xlabel=f"{name}, a point per run", ylabel="", xlim=(0, None))
        ax.grid(alpha=0.3)
        sns.despine(ax=ax)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    fig.suptitle(f"What each change does\n{label}", fontsize=12)
    return fig


def spread_figure(runs, metric: str, axis: str, baseline: float, label: str) -> Figure:
    """A row per arm of an experiment: a point per run, a band from the lowest to the highest, a tick at the mean.

    runs:     DataFrame with a row per run: `arm`, `seed` and the column `metric`, called `axis` in the figure
    baseline: what is reached without learning
    """
    arms = runs.groupby("arm", sort=False)[metric].agg(["mean", "min", "max"])
    fig, ax = plt.subplots(figsize=(10, 0.4 * len(arms) + 1.5), layout="constrained")
    plt.close(fig)
    named = runs.assign(seed="seed " + runs["seed"].astype(str))
    sns.stripplot(named, x=metric, y="arm", hue="seed", palette="colorblind", jitter=False, size=7, ax=ax)
    rows = range(len(arms))
    ax.hlines(rows, arms["min"], arms["max"], color="0.85", linewidth=10, zorder=0)
    ax.plot(arms["mean"], rows, "|", color="black", markersize=20, markeredgewidth=2, label="mean")
    ax.axvline(baseline, color="0.4", linestyle="--", label="pixel-mean baseline")
    ax.set(xlabel=axis, ylabel="", ylim=(len(arms) - 0.4, -0.6))
    ax.set_title(f"Same budget, same seeds\n{label}", fontsize=12)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, markerscale=0.7)
    ax.grid(axis="x", alpha=0.3)
    sns.despine(ax=ax)
    return fig


def pairs_strip(samples, label: str, title: str = "Stereo pairs") -> Figure:
    """Stereo pairs, one row each: left, right."""
    fig, axes = _panels(len(samples), 2, samples[0]["left"].shape[-2:], f"{title}\n{label}", width=9)
    for row, sample in zip(axes, samples, strict=True):
        _show_picture(row[0], sample["left"], f"{sample['name']}, left")
        _show_picture(row[1], sample["right"], "right")
    return fig


def anaglyph(left, right) -> np.ndarray:
    """(H, W, 3) picture for red-cyan glasses: red from the left view, green and blue from the right."""
    return np.dstack((_picture(left)[..., 0], _picture(right)[..., 1:]))


def matching_cost(left, right, row: int, column: int, half_width: int, max_shift_px: int) -> np.ndarray:
    """(max_shift_px + 1,) mean absolute difference between a piece of one left scanline and the right scanline.

    The piece is columns `column` +- `half_width`; entry s compares it with the right one s pixels further left.
    Shifts that leave the image are NaN.
    """
    left_row, right_row = _picture(left)[row], _picture(right)[row]
    start, stop = column - half_width, column + half_width + 1
    if start < 0 or stop > len(left_row):
        raise ValueError(f"column {column} +- {half_width} leaves an image {len(left_row)} px wide")
    cost = np.full(max_shift_px + 1, np.nan)
    for shift in range(min(max_shift_px, start) + 1):
        cost[shift] = np.abs(left_row[start:stop] - right_row[start - shift : stop - shift]).mean()
    return cost


def scanline_figure(sample, row: int, column: int, label: str, half_width: int = 20, max_shift_px: int = 80) -> Figure:
    """Slide a piece of one left scanline over the right view and mark the shift where the two agree best.

    sample: pair at full size, with `disparity_px` if the true shift is to be drawn as well
    """
    left, right = _picture(sample["left"]), _picture(sample["right"])
    cost = matching_cost(left, right, row, column, half_width, max_shift_px)
    best = int(np.nanargmin(cost))
    piece = np.arange(column - half_width, column + half_width + 1)
    fig = plt.figure(figsize=(12, 6), layout="constrained")
    plt.close(fig)
    axes = fig.subplot_mosaic([["left", "right"], ["levels", "cost"]], height_ratios=(1.5, 1))
    for side, picture, shift, colour in (("left", left, 0, LEFT), ("right", right, best, RIGHT)):
        _show_picture(axes[side], picture, f"{side} view, row {row}")
        axes[side].axhline(row, color="white", linewidth=0.8)
        axes[side].plot(piece[[0, -1]] - shift, [row, row], color=colour, linewidth=5, solid_capstyle="butt")
    grey_left, grey_right = left[row].mean(-1), right[row].mean(-1)
    axes["levels"].plot(piece, grey_left[piece], color=LEFT, label="left")
    axes["levels"].plot(piece, grey_right[piece], color=RIGHT, alpha=0.35, label="right, same columns")
    axes["levels"].plot(piece, grey_right[piece - best], "--", color=RIGHT, label=f"right, {best} px to the left")
    axes["levels"].set(xlabel="column in the left view [px]", ylabel="grey level [0-1]")
    axes["cost"].plot(cost, color="0.25")
    axes["cost"].plot(best, cost[best], "o", color=RIGHT, label=f"smallest difference: {best} px")
    truth = np.asarray(sample["disparity_px"])[row, column] if "disparity_px" in sample else np.nan
    if np.isfinite(truth):
        axes["cost"].axvline(truth, color=TRUTH, linestyle="--", label=f"ground truth: {truth:.1f} px")
    axes["cost"].set(xlabel="shift = disparity [px]", ylabel="mean difference [0-1]", ylim=(0, None))
    axes["left"].set(xlabel="column [px]", ylabel="row [px]")
    axes["right"].set(xlabel="column [px]")
    for name in ("levels", "cost"):
        axes[name].legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
        sns.despine(ax=axes[name])
    fig.suptitle(f"Finding one disparity by hand\n{label}", fontsize=12)
    return fig


def disparity_histogram(maps: dict, label: str) -> Figure:
    """How often each disparity occurs. maps: {name: (H, W) disparity in px; NaN = unknown}."""
    fig, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
    plt.close(fig)
    known = {name: values[np.isfinite(values)] for name, values in ((n, np.asarray(m)) for n, m in maps.items())}
    bins = np.linspace(0, max(np.percentile(v, 99.9) for v in known.values()), 80)
    style = {"element": "step", "alpha": 0.25, "palette": sns.color_palette("colorblind", len(known))}
    sns.histplot(known, bins=bins, stat="percent", common_norm=False, ax=ax, **style)
    ax.set(xlabel="disparity [px]", ylabel="share of pixels [%]", xlim=(0, bins[-1]))
    ax.set_title(f"How often each disparity occurs\n{label}", fontsize=12)
    sns.despine(ax=ax)
    return fig


def cost_figure(table, exponent: float, label: str) -> Figure:
    """Time of a training step against the pixels it sees, both logarithmic, and the power law fitted to all.

    table: DataFrame of `benchmark.cost`: `varied` ("batch size" or "image size"), `megapixels`, `step_s`
    """
    fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    plt.close(fig)
    x, y = table["megapixels"], table["step_s"]
    constant = np.exp((np.log(y) - exponent * np.log(x)).mean())
    ends = np.array([x.min(), x.max()])
    ax.plot(ends, constant * ends**exponent, color="0.6", label=f"pixels to the power {exponent:.2f}")
    for colour, (varied, rows) in zip((LEFT, RIGHT), table.groupby("varied"), strict=False):
        ax.plot(rows["megapixels"], rows["step_s"], "o", color=colour, label=f"{varied} varied")
    ax.set(xscale="log", yscale="log", xlabel="pixels of a batch [millions]", ylabel="training step [s]")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    ax.set_title(f"Cost against work\n{label}", fontsize=12)
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    sns.despine(ax=ax)
    return fig


def photo_sheet(picture, disparity, depth_m, label: str) -> Figure:
    """A photo, its relative disparity (fraction of the width) and, unless `depth_m` is None, its depth up to 80 m."""
    count = 2 if depth_m is None else 3
    fig, axes = _panels(1, count, picture.shape[:2], label)
    _show_picture(axes[0, 0], picture, "photo")
    title = "relative disparity, no metres" if depth_m is None else "relative disparity"
    _show_disparity(axes[0, 1], disparity, title, DISPARITY_MAX)
    _colour_bar(axes[0, 1], axes[0, 1], "share of width")
    if depth_m is not None:
        _show_map(axes[0, 2], depth_m, "viridis_r", 80, "depth")
        _colour_bar(axes[0, 2], axes[0, 2], "depth [m]")
    return fig


def point_cloud_figure(image, disparity_px, focal_px: float, baseline_m: float, label: str) -> Figure:
    """The scene as coloured points: seen from beside and above the camera, and straight from above in metres.

    image: same size as disparity_px; 120,000 points at most are drawn, every n-th row and column; no sky (80 m).
    """
    step = int(np.ceil(np.sqrt(np.size(disparity_px) / 120_000)))
    picture, disparity = _picture(image)[::step, ::step], np.asarray(disparity_px)[::step, ::step] / step
    xyz, colours = to_points_m(picture, disparity, focal_px / step, baseline_m)
    if not len(xyz):
        raise ValueError("no pixel is nearer than 80 m: look at the disparity, or at focal length and baseline")
    near = xyz[:, 2] <= np.percentile(xyz[:, 2], 98)  # the few farthest points would shrink all others
    xyz, colours = xyz[near], colours[near] / 255
    fig, (oblique, above) = plt.subplots(1, 2, figsize=(12, 4), layout="compressed", width_ratios=(1.6, 1))
    plt.close(fig)
    # A pixel covers more of the scene the farther it is; drawn that wide, points leave no gaps.
    breadth_m = 1.5 * xyz[:, 2] * step / focal_px
    u, v, distance = _seen_from(xyz, yaw=np.radians(18), pitch=np.radians(18))
    order = np.argsort(-distance)  # far points first, so that near ones cover them
    area = (500 / np.ptp(u) * breadth_m / distance).clip(0.5, 12)[order] ** 2  # the panel is 500 points wide
    oblique.scatter(u[order], v[order], s=area, c=colours[order], marker="s", linewidths=0, rasterized=True)
    oblique.set(aspect="equal", xticks=[], yticks=[], facecolor="0.1")
    oblique.set_title("from the left and above", fontsize=10)
    order = np.argsort(-xyz[:, 1])  # y points down: the highest points are drawn last
    area = (250 / max(np.ptp(xyz[:, 2]), 1e-3) * breadth_m).clip(0.5, 12)[order] ** 2
    above.scatter(xyz[order, 0], xyz[order, 2], s=area, c=colours[order], marker="s", linewidths=0, rasterized=True)
    above.set(aspect="equal", facecolor="0.1", xlabel="to the right [m]", ylabel="depth [m]")
    above.set_title("from straight above", fontsize=10)
    fig.suptitle(f"The scene in three dimensions\n{label}", fontsize=12)
    return fig


def _seen_from(xyz: np.ndarray, yaw: float, pitch: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Perspective picture coordinates (right, up) and distance, from a camera turned about the middle of the scene."""
    pivot = np.array([0, 0, np.median(xyz[:, 2])])
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    x, y, z = ((xyz - pivot) @ turn.T @ tilt.T + 1.2 * pivot).T
    z = z.clip(0.1)
    return x / z, -y / z, z


def _panels(rows: int, columns: int, shape, title: str, width: float = 12):
    """Figure and (rows, columns) axes for pictures of `shape`."""
    aspect = min(shape[0] / shape[1], 2)
    height = rows * ((width - 1) / columns * aspect + 0.3) + 0.7  # an inch of the width for the colour bar
    fig, axes = plt.subplots(rows, columns, figsize=(width, height), layout="compressed", squeeze=False)
    plt.close(fig)  # else a notebook shows it twice: once as the cell's value, once because it is open
    for ax in axes.ravel():
        ax.axis("off")
    fig.suptitle(title, fontsize=12)
    return fig, axes


def _picture(image) -> np.ndarray:
    """(3, H, W) tensor or (H, W, 3) array -> (H, W, 3) array."""
    return image.detach().cpu().permute(1, 2, 0).numpy() if isinstance(image, Tensor) else np.asarray(image)


def _show_picture(ax, image, title: str, shape=None) -> None:
    picture = _picture(image)
    h, w = shape or picture.shape[:2]
    ax.imshow(picture, extent=(0, w, h, 0))  # an image at network size is shown at full size
    ax.set_title(title, fontsize=10)


def _show_map(ax, values: np.ndarray, colours: str, largest: float, title: str) -> None:
    cmap = matplotlib.colormaps[colours].with_extremes(bad=UNKNOWN)
    h, w = values.shape
    ax.imshow(values, cmap=cmap, vmin=0, vmax=largest, interpolation="nearest", extent=(0, w, h, 0))
    ax.set_title(title, fontsize=10)


def _show_disparity(ax, values: np.ndarray, title: str, largest: float | None = None) -> None:
    _show_map(ax, values, DISPARITY_COLOURS, largest or DISPARITY_MAX * values.shape[1], title)


def _draw_comparison(axes, sample, prediction: np.ndarray, name: str) -> None:
    truth = np.asarray(sample["disparity_px"])
    error = np.abs(prediction - truth)
    _show_picture(axes[0], sample["left"], name, truth.shape)
    _show_disparity(axes[1], truth, "ground truth")
    _show_disparity(axes[2], prediction, "prediction")
    _show_map(axes[3], error, ERROR_COLOURS, ERROR_MAX * truth.shape[1], f"error, mean {np.nanmean(error):.1f} px")


def _epe(disparity, truth: np.ndarray) -> str:
    return f"EPE {np.nanmean(np.abs(np.asarray(disparity) - truth)):.1f} px"


def _colour_bar(panel, beside, label: str) -> None:
    panel.figure.colorbar(panel.images[0], ax=beside, label=label, extend="max", shrink=0.9, pad=0.015)
