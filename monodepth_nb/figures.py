"""The project's figures: one function per figure, each returning a matplotlib figure.

Every quantity has one colour map and one fixed range, so panels and figures can be compared: disparity spans 0 to a
tenth of the image width, the error 0 to a hundredth, and grey means "unknown". `label` names profile and data.
Images are (3, H, W) tensors or (H, W, 3) arrays in [0, 1]; maps are (H, W).
"""

from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from scipy.spatial.transform import Rotation  # comes with scikit-image
from torch import Tensor

from monodepth_nb.evaluation import to_points_m
from monodepth_nb.losses import warp_horizontal

DISPARITY_COLOURS, DISPARITY_MAX = "magma", 0.1  # of the image width: 124 px on KITTI, 74 px on the motorcycle
ERROR_COLOURS, ERROR_MAX = "viridis", 0.01  # of the image width: 12 px on KITTI, 7 px on the motorcycle
UNKNOWN = "0.82"  # light grey
LEFT, RIGHT, TRUTH = "#2166ac", "#d6604d", "#1b7837"


def _figure(width: float, height: float, layout: str = "constrained") -> Figure:
    fig = plt.figure(figsize=(width, height), layout=layout)  # pyplot makes notebooks show figures as images
    plt.close(fig)  # otherwise a notebook shows it twice: as the cell's value, and because it is open
    return fig


# ---- Images and maps side by side ----


class Panel(NamedTuple):
    """One panel of `grid`: an image, or a map with its colours and its largest value."""

    values: Tensor | np.ndarray
    title: str
    colours: str | None = None  # None: an image
    largest: float | None = None
    shape: tuple[int, int] | None = None  # (H, W) to stretch an image of another size to


def disparity_panel(values, title: str, largest: float | None = None) -> Panel:
    """A map in pixels of its own width, or with `largest` = DISPARITY_MAX in fractions of the image width."""
    return Panel(values, title, DISPARITY_COLOURS, largest or DISPARITY_MAX * np.shape(values)[1])


def grid(panels: list[Panel], columns: int, title: str, bar: str = "", width: float = 12) -> Figure:
    """Panels row by row, all as tall as the first.

    bar: label of one colour bar for the last panel's map, beside all of them
    """
    rows = -(-len(panels) // columns)
    h, w = panels[0].shape or _array(panels[0].values).shape[:2]
    height = rows * ((width - 1) / columns * min(h / w, 2) + 0.3) + 0.7  # an inch of the width for the colour bar
    fig = _figure(width, height, "compressed")
    draw_panels(fig.subplots(rows, columns, squeeze=False), panels, bar)
    fig.suptitle(title, fontsize=12)
    return fig


def draw_panels(axes: np.ndarray, panels: list[Panel], bar: str = "") -> None:
    """Fill axes row by row and remove those left over. bar: see `grid`."""
    filled, spare = np.split(axes.ravel(), [len(panels)])
    for ax in spare:
        ax.remove()
    for ax, panel in zip(filled, panels, strict=True):
        _show(ax, panel)
        ax.axis("off")
    if bar:
        _colour_bar(filled[-1], filled, bar)


def _show(ax, panel: Panel) -> None:
    values, style = _array(panel.values), {}
    if panel.colours:
        cmap = matplotlib.colormaps[panel.colours].with_extremes(bad=UNKNOWN)
        style = {"cmap": cmap, "vmin": 0, "vmax": panel.largest, "interpolation": "nearest"}
    h, w = panel.shape or values.shape[:2]
    ax.imshow(values, extent=(0, w, h, 0), **style)
    ax.set_title(panel.title, fontsize=10)


def _array(values) -> np.ndarray:
    """(3, H, W) tensor -> (H, W, 3) array; arrays and maps stay as they are."""
    array = np.asarray(values)
    return array.transpose(1, 2, 0) if isinstance(values, Tensor) and array.ndim == 3 else array


def _colour_bar(panel, beside, label: str) -> None:
    panel.figure.colorbar(panel.images[0], ax=beside, label=label, extend="max", shrink=0.9, pad=0.015)


def _comparison(sample, prediction_px, title: str) -> list[Panel]:
    """Image, ground truth, prediction and absolute error."""
    truth, prediction = np.asarray(sample["disparity_px"]), np.asarray(prediction_px)
    error = np.abs(prediction - truth)
    return [
        Panel(sample["left"], title, shape=truth.shape),
        disparity_panel(truth, "ground truth"),
        disparity_panel(prediction, "prediction"),
        Panel(error, f"error, mean {np.nanmean(error):.1f} px", ERROR_COLOURS, ERROR_MAX * truth.shape[1]),
    ]


def prediction_figure(sample, prediction_px, label: str) -> Figure:
    """Image, ground truth, prediction and absolute error of one sample, with colour bars in pixels."""
    panels = _comparison(sample, prediction_px, sample["name"])
    fig = grid(panels, 2, f"Prediction against ground truth\n{label}")
    for ax, quantity in zip(fig.axes[1:], ("disparity", "disparity", "absolute error"), strict=True):
        _colour_bar(ax, ax, f"{quantity} [px]")
    return fig


def best_median_worst(samples, predictions_px, titles, label: str) -> Figure:
    """Columns: samples (best, median, worst), named by `titles`. Rows: image, truth, prediction, error."""
    columns = [_comparison(*column) for column in zip(samples, predictions_px, titles, strict=True)]
    panels = [panel for row in zip(*columns, strict=True) for panel in row]
    fig = grid(panels, len(columns), f"Best, median and worst image\n{label}")
    _, *maps, errors = np.reshape(fig.axes, (4, -1))
    _colour_bar(maps[0][-1], np.stack(maps), "disparity [px]")
    _colour_bar(errors[-1], errors, "error [px]")
    return fig


def map_panels(maps: dict, truth: np.ndarray) -> list[Panel]:
    """Maps in pixels, titled with their name and mean error (EPE). maps: {name: (H, W) disparity in px}."""
    epe = {name: np.nanmean(np.abs(np.asarray(disparity) - truth)) for name, disparity in maps.items()}
    return [disparity_panel(disparity, f"{name}\nEPE {epe[name]:.1f} px") for name, disparity in maps.items()]


def map_grid(image, maps: dict, truth_px, label: str, title: str) -> Figure:
    """`map_panels` between the image and its ground truth."""
    truth = np.asarray(truth_px)
    panels = [Panel(image, "left view", shape=truth.shape), *map_panels(maps, truth)]
    panels.append(disparity_panel(truth, "ground truth"))
    return grid(panels, min(4, len(panels)), f"{title}\n{label}", bar="disparity [px]")


def two_by_two(
    train_image, train_disparity, test_image, test_disparity, label: str, unseen: str = "unseen test image"
) -> Figure:
    """The course project's figure: a training image and an unseen one with their maps (fractions of the width)."""
    rows = {"training image": (train_image, train_disparity), unseen: (test_image, test_disparity)}
    panels = []
    for title, (image, disparity) in rows.items():
        panels.append(Panel(image, title, shape=disparity.shape))
        panels.append(disparity_panel(disparity, "predicted disparity", DISPARITY_MAX))
    fig = grid(panels, 2, f"Trained on, and never seen\n{label}")
    _colour_bar(fig.axes[1], fig.axes[1::2], "disparity [fraction of image width]")
    return fig


def reconstruction_figure(sample, disparity: Tensor, label: str) -> Figure:
    """Left view, right view warped onto it by the predicted disparity, and their difference.

    disparity: (h, w) of the left view, in fractions of the width
    """
    left, right = sample["left"], sample["right"]
    d_left = F.interpolate(disparity[None, None].float(), size=left.shape[-2:], mode="bilinear")
    rebuilt = warp_horizontal(right[None], -d_left)[0]
    difference = (rebuilt - left).abs().mean(0)
    panels = [Panel(left, "left view"), Panel(rebuilt, "right view, warped")]
    panels.append(Panel(difference, f"difference, mean {difference.mean():.3f}", "Greys", 0.5))
    fig = grid(panels, 3, f"The left view, rebuilt from the right one\n{label}")
    _colour_bar(fig.axes[2], fig.axes[2], "mean difference [0-1]")
    return fig


def pairs_strip(samples, label: str, title: str = "Stereo pairs") -> Figure:
    """Stereo pairs, one per row: left, right."""
    panels = []
    for sample in samples:
        panels += [Panel(sample["left"], f"{sample['name']}, left"), Panel(sample["right"], "right")]
    return grid(panels, 2, f"{title}\n{label}", width=9)


def photo_sheet(picture, disparity, depth_m, label: str) -> Figure:
    """A photo, its relative disparity (fraction of the width) and, unless `depth_m` is None, its depth up to 80 m."""
    title = "relative disparity" if depth_m is not None else "relative disparity, no metres"
    panels = [Panel(picture, "photo"), disparity_panel(disparity, title, DISPARITY_MAX)]
    if depth_m is not None:
        panels.append(Panel(depth_m, "depth", "viridis_r", 80))
    fig = grid(panels, len(panels), label)
    for ax, name in zip(fig.axes[1:], ("share of width", "depth [m]"), strict=False):
        _colour_bar(ax, ax, name)
    return fig


def colour_disparity(disparity: np.ndarray) -> np.ndarray:
    """(H, W) disparity -> (H, W, 3) uint8 colours, black (0) to light yellow (`DISPARITY_MAX` and above)."""
    return matplotlib.colormaps[DISPARITY_COLOURS](np.asarray(disparity) / DISPARITY_MAX, bytes=True)[..., :3]


# ---- Curves and points ----


def loss_curves(history, label: str) -> Figure:
    """Each loss term against the epoch, training and validation.

    history: DataFrame with `epoch` and columns `train_TERM` and `validation_TERM`, either of which may be missing
    """
    columns = [c for c in history.columns if c.startswith(("train_", "validation_"))]
    long = history.melt("epoch", columns, var_name="column", value_name="loss").dropna()
    long[["data", "term"]] = long["column"].str.split("_", n=1, expand=True)
    terms = long.groupby("term", sort=False)
    fig = _figure(3 * len(terms), 3.2)
    axes = fig.subplots(1, len(terms), squeeze=False)[0]
    style = {"palette": {"train": LEFT, "validation": RIGHT}, "errorbar": None}
    for ax, (term, rows) in zip(axes, terms, strict=True):
        sns.lineplot(rows, x="epoch", y="loss", hue="data", legend=ax is axes[-1], ax=ax, **style)
        if 0 < 3 * rows["loss"].min() < rows["loss"].max():  # otherwise a logarithmic axis would have no ticks
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5), numticks=20))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("")
        ax.set_title(f"{term}{' (log scale)' * (ax.get_yscale() == 'log')}", fontsize=10)
        ax.set_ylabel("loss" if ax is axes[0] else "")
        ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=9)
    sns.despine(fig)
    fig.suptitle(f"Loss per epoch\n{label}", fontsize=12)
    return fig


def draw_runs(ax, runs, metric: str, axis: str, band: bool = False, legend: bool = True) -> None:
    """A row per arm of an experiment, a point per run, a colour per seed.

    runs: DataFrame with a row per run: `arm`, `seed` and the column `metric`, called `axis` in the figure
    band: also from the lowest to the highest run of each arm, with a tick at the mean
    """
    style = {"palette": "colorblind", "jitter": False, "size": 7, "legend": legend}
    named = runs.assign(seed="seed " + runs["seed"].astype(str))
    sns.stripplot(named, x=metric, y="arm", hue="seed", ax=ax, **style)
    if band:
        arms = runs.groupby("arm", sort=False)[metric]
        rows = range(len(arms))
        ax.hlines(rows, arms.min(), arms.max(), color="0.85", linewidth=10, zorder=0)
        ax.plot(arms.mean(), rows, "|", color="black", markersize=20, markeredgewidth=2, label="mean")
    ax.set(xlabel=axis, ylabel="")
    sns.despine(ax=ax)


def scanline_figure(sample, row: int, piece: np.ndarray, cost, label: str) -> Figure:
    """A piece of one left scanline, and the place on the right scanline where it fits best.

    sample: labelled pair at full size
    piece:  columns of the piece
    cost:   cost[s] is the difference between the piece and the right scanline s px further left
    """
    left, right = _array(sample["left"]), _array(sample["right"])
    best, truth = int(np.argmin(cost)), sample["disparity_px"][row, piece[len(piece) // 2]]
    fig = _figure(12, 6)
    axes = fig.subplot_mosaic([["left", "right"], ["levels", "cost"]], height_ratios=(1.5, 1))
    for side, picture, shift, colour in (("left", left, 0, LEFT), ("right", right, best, RIGHT)):
        _show(axes[side], Panel(picture, f"{side} view, row {row}"))
        axes[side].axhline(row, color="white", linewidth=0.8)
        axes[side].plot(piece[[0, -1]] - shift, [row, row], color=colour, linewidth=5, solid_capstyle="butt")
        axes[side].set(xlabel="column [px]", ylabel="row [px]" if side == "left" else "")
    grey_left, grey_right = left[row].mean(-1), right[row].mean(-1)
    axes["levels"].plot(piece, grey_left[piece], color=LEFT, label="left")
    axes["levels"].plot(piece, grey_right[piece], color=RIGHT, alpha=0.35, label="right, same columns")
    axes["levels"].plot(piece, grey_right[piece - best], "--", color=RIGHT, label=f"right, {best} px to the left")
    axes["levels"].set(xlabel="column in the left view [px]", ylabel="grey level [0-1]")
    axes["cost"].plot(cost, color="0.25")
    axes["cost"].plot(best, cost[best], "o", color=RIGHT, label=f"smallest difference: {best} px")
    axes["cost"].axvline(truth, color=TRUTH, linestyle="--", label=f"ground truth: {truth:.1f} px")
    axes["cost"].set(xlabel="shift = disparity [px]", ylabel="mean difference [0-1]", ylim=(0, None))
    for name in ("levels", "cost"):
        axes[name].legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
        sns.despine(ax=axes[name])
    fig.suptitle(f"Finding one disparity by hand\n{label}", fontsize=12)
    return fig


def point_cloud_figure(image, disparity_px, focal_px: float, baseline_m: float, label: str) -> Figure:
    """The scene as coloured points: seen from beside and above the camera, and straight from above in metres.

    image: same size as disparity_px; every n-th row and column is drawn, at most 120,000 points; none beyond 80 m.
    Raises ValueError if no pixel is nearer than 80 m.
    """
    step = int(np.ceil(np.sqrt(np.size(disparity_px) / 120_000)))
    picture, disparity = _array(image)[::step, ::step], np.asarray(disparity_px)[::step, ::step] / step
    xyz, colours = to_points_m(picture, disparity, focal_px / step, baseline_m)
    if not len(xyz):
        raise ValueError("no pixel is nearer than 80 m: check the disparity, the focal length and the baseline")
    near = xyz[:, 2] <= np.percentile(xyz[:, 2], 98)  # the few farthest points would shrink all others
    xyz, colours = xyz[near], colours[near] / 255
    fig = _figure(12, 4, "compressed")
    oblique, above = fig.subplots(1, 2, width_ratios=(1.6, 1))
    # A pixel covers more of the scene the farther away it is; points drawn that wide leave no gaps.
    breadth_m = 1.5 * xyz[:, 2] * step / focal_px
    u, v, distance = _seen_obliquely(xyz)
    points = 500 / np.ptp(u) * breadth_m / distance  # the panel is 500 points wide
    _scatter(oblique, u, v, points, colours, np.argsort(-distance), "from the left and above")
    oblique.set(xticks=[], yticks=[])
    points = 250 / max(np.ptp(xyz[:, 2]), 1e-3) * breadth_m
    order = np.argsort(-xyz[:, 1])  # y points down: the highest points are drawn last
    _scatter(above, xyz[:, 0], xyz[:, 2], points, colours, order, "from straight above")
    above.set(xlabel="to the right [m]", ylabel="depth [m]")
    fig.suptitle(f"The scene in three dimensions\n{label}", fontsize=12)
    return fig


def _seen_obliquely(xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Perspective image coordinates (right, up) and distance, from a camera turned about the middle of the scene."""
    pivot = np.array([0, 0, np.median(xyz[:, 2])])
    turn = Rotation.from_euler("yx", (-18, -18), degrees=True)
    x, y, z = (turn.apply(xyz - pivot) + 1.2 * pivot).T
    z = z.clip(0.1)
    return x / z, -y / z, z


def _scatter(ax, x, y, points, colours, order, title: str) -> None:
    """Squares `points` wide in typographic points; later ones in `order` cover earlier ones."""
    area = points.clip(0.5, 12)[order] ** 2
    ax.scatter(x[order], y[order], s=area, c=colours[order], marker="s", linewidths=0, rasterized=True)
    ax.set(aspect="equal", facecolor="0.1")
    ax.set_title(title, fontsize=10)
