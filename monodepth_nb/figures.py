"""The project's figures: one function per figure, each returning a matplotlib figure.

Every quantity has one colour map and one fixed range, so panels and figures can be compared: disparity spans a
250th to a tenth of the image width on a logarithmic scale, the error 0 to a hundredth, and grey is "unknown".
`label` names profile and data. Images are (3, H, W) tensors or (H, W, 3) arrays in [0, 1]; maps are (H, W).
"""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch.nn.functional as F
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image
from torch import Tensor

from monodepth_nb.losses import warp_horizontal

# Fractions of the image width; with KITTI's camera 78 and 3 m. Each doubling of the distance is one step of colour.
DISPARITY_COLOURS, DISPARITY_MIN, DISPARITY_MAX = "magma", 0.004, 0.1
ERROR_COLOURS, ERROR_MAX = "viridis", 0.01  # of the image width: 12 px on KITTI, 7 px on the motorcycle
UNKNOWN = "0.82"  # light grey
LEFT, RIGHT = "#2166ac", "#d6604d"


def _figure(width: float, height: float, layout: str) -> Figure:
    fig = plt.figure(figsize=(width, height), layout=layout)  # pyplot makes notebooks show figures as images
    plt.close(fig)  # otherwise a notebook shows it twice: as the cell's value, and because it is open
    return fig


# ---- Images and maps side by side ----


class Panel(NamedTuple):
    """One panel of `grid`: an image, or a map with its colours and their range."""

    values: Tensor | np.ndarray
    title: str
    colours: str | None = None  # None: an image
    range: Normalize | None = None
    shape: tuple[int, int] | None = None  # (H, W) to stretch an image of another size to


def disparity_range(width: float = 1) -> Normalize:
    """The logarithmic range of disparity colours, in pixels of an image of this width; 1: in fractions of it."""
    return LogNorm(DISPARITY_MIN * width, DISPARITY_MAX * width, clip=True)  # 0 or less: infinitely far, not unknown


def disparity_panel(values, title: str, width: float | None = None) -> Panel:
    """A map in pixels of its own width, or of another; with `width` = 1 in fractions of the image width."""
    return Panel(values, title, DISPARITY_COLOURS, disparity_range(width or np.shape(values)[1]))


def error_panel(values, title: str) -> Panel:
    """Absolute errors in pixels of the map's own width."""
    return Panel(values, title, ERROR_COLOURS, Normalize(0, ERROR_MAX * np.shape(values)[1]))


def grid(panels: list[Panel], columns: int, title: str, bars=(), width: float = 12) -> Figure:
    """Panels row by row, all as tall as the first; bars: see `draw_panels`."""
    rows = -(-len(panels) // columns)
    h, w = panels[0].shape or _array(panels[0].values).shape[:2]
    height = rows * ((width - 1) / columns * min(h / w, 2) + 0.3) + 0.7  # an inch of the width for the colour bar
    fig = _figure(width, height, "compressed")
    draw_panels(fig.subplots(rows, columns, squeeze=False), panels, bars)
    fig.suptitle(title, fontsize=12, parse_math=False)
    return fig


def draw_panels(axes: np.ndarray, panels: list[Panel], bars=()) -> None:
    """Fill axes row by row and remove those left over.

    bars: (label, panels) of each colour bar, which stands beside the panels of these indices and is of the last one
    """
    filled, spare = np.split(axes.ravel(), [len(panels)])
    for ax in spare:
        ax.remove()
    for ax, panel in zip(filled, panels, strict=True):
        _show(ax, panel)
    for label, indices in bars:
        beside = [filled[i] for i in indices]
        image, style = beside[-1].images[0], {"label": label, "shrink": 0.9, "pad": 0.015}
        is_log = isinstance(image.norm, LogNorm)
        bar = image.figure.colorbar(image, ax=beside, extend="both" if is_log else "max", **style)
        if is_log:
            _plain_ticks(bar.ax.yaxis)


def _plain_ticks(axis) -> None:
    """Ticks at 1, 2, 3, 5, 10, ... on a logarithmic axis, which may have none otherwise."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5), numticks=20))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _show(ax, panel: Panel) -> None:
    values, style = _array(panel.values), {}
    if panel.colours:
        cmap = matplotlib.colormaps[panel.colours].with_extremes(bad=UNKNOWN)
        style = {"cmap": cmap, "norm": panel.range, "interpolation": "nearest"}
    h, w = panel.shape or values.shape[:2]
    ax.imshow(values, extent=(0, w, h, 0), **style)
    ax.set_title(panel.title, fontsize=10, parse_math=False)  # a file name may hold "$"
    ax.axis("off")


def _array(values) -> np.ndarray:
    """(3, H, W) tensor -> (H, W, 3) array; arrays and maps stay as they are."""
    array = np.asarray(values)
    return array.transpose(1, 2, 0) if isinstance(values, Tensor) and array.ndim == 3 else array


def _comparison(sample, prediction_px, title: str) -> list[Panel]:
    """Image, ground truth, prediction and absolute error."""
    truth, prediction = np.asarray(sample["disparity_px"]), np.asarray(prediction_px)
    error = np.abs(prediction - truth)
    return [
        Panel(sample["left"], title, shape=truth.shape),
        disparity_panel(truth, "ground truth"),
        disparity_panel(prediction, "prediction"),
        error_panel(error, f"error, mean {np.nanmean(error):.1f} px"),
    ]


def prediction_figure(sample, prediction_px, label: str) -> Figure:
    """Image, ground truth, prediction and absolute error of one sample, with colour bars in pixels."""
    bars = [("disparity [px]", [1]), ("disparity [px]", [2]), ("absolute error [px]", [3])]
    panels = _comparison(sample, prediction_px, sample["name"])
    return grid(panels, 2, f"Prediction against ground truth\n{label}", bars)


def best_median_worst(predict, dataset, scores, label: str) -> Figure:
    """Columns: the images with the lowest, middle and highest AbsRel, or EPE where there are no metres.

    Rows: image, truth, prediction, error. scores: of `evaluation.evaluate`, its index = places in `dataset`
    """
    metric, name = ("epe", "EPE") if scores["abs_rel"].isna().any() else ("abs_rel", "AbsRel")
    order = scores[metric].to_numpy().argsort()
    columns = []
    for place, i in {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}.items():
        sample, row = dataset[int(scores.index[i])], scores.iloc[i]
        title = f"{place}: {row['name']}, {name} {row[metric]:.3f}"
        columns.append(_comparison(sample, predict(sample), title))
    panels = [panel for row in zip(*columns, strict=True) for panel in row]
    bars = [("disparity [px]", range(3, 9)), ("error [px]", range(9, 12))]
    return grid(panels, 3, f"Best, median and worst image\n{label}", bars)


def map_panels(maps: dict, truth: np.ndarray) -> list[Panel]:
    """Maps in pixels, titled with their name and mean error (EPE). maps: {name: (H, W) disparity in px}."""
    epe = {name: np.nanmean(np.abs(np.asarray(disparity) - truth)) for name, disparity in maps.items()}
    return [disparity_panel(disparity, f"{name}\nEPE {epe[name]:.1f} px") for name, disparity in maps.items()]


def map_grid(image, maps: dict, truth_px, label: str, title: str) -> Figure:
    """`map_panels` between the image and its ground truth."""
    truth = np.asarray(truth_px)
    true_panel = disparity_panel(truth, "ground truth")
    panels = [Panel(image, "left view", shape=truth.shape), *map_panels(maps, truth), true_panel]
    return grid(panels, min(4, len(panels)), f"{title}\n{label}", [("disparity [px]", range(len(panels)))])


def two_by_two(train_image, train_disparity, test_image, test_disparity, label, unseen="unseen test image") -> Figure:
    """The course project's figure: a training image and an unseen one with their maps (fractions of the width)."""
    rows = {"training image": (train_image, train_disparity), unseen: (test_image, test_disparity)}
    panels = []
    for title, (image, disparity) in rows.items():
        panels += [Panel(image, title, shape=disparity.shape), disparity_panel(disparity, "predicted disparity", 1)]
    return grid(panels, 2, f"Trained on, and never seen\n{label}", [("disparity [fraction of image width]", [1, 3])])


def reconstruction_figure(sample, disparity: Tensor, label: str) -> Figure:
    """Left view, right view warped onto it by the predicted disparity, and their difference.

    disparity: (h, w) of the left view, in fractions of the width
    """
    left, right = sample["left"], sample["right"]
    d_left = F.interpolate(disparity[None, None].float(), size=left.shape[-2:], mode="bilinear")
    rebuilt = warp_horizontal(right[None], -d_left)[0]
    difference = (rebuilt - left).abs().mean(0)
    error = Panel(difference, f"difference, mean {difference.mean():.3f}", "Greys", Normalize(0, 0.5))
    panels = [Panel(left, "left view"), Panel(rebuilt, "right view, warped"), error]
    return grid(panels, 3, f"The left view, rebuilt from the right one\n{label}", [("mean difference [0-1]", [2])])


def pairs_strip(samples, label: str) -> Figure:
    """Stereo pairs, one per row: left, right."""
    panels = [(Panel(s["left"], f"{s['name']}, left"), Panel(s["right"], "right")) for s in samples]
    return grid(sum(panels, ()), 2, f"Stereo pairs\n{label}")


def photo_sheet(picture, disparity, depth_m, label: str) -> Figure:
    """A photo, its relative disparity (fraction of the width) and, unless `depth_m` is None, its depth up to 80 m."""
    title = "relative disparity" + ", no metres" * (depth_m is None)
    panels, bars = [Panel(picture, "photo"), disparity_panel(disparity, title, 1)], [("share of width", [1])]
    if depth_m is not None:
        panels.append(Panel(depth_m, "depth", "viridis_r", Normalize(0, 80)))
        bars.append(("depth [m]", [2]))
    return grid(panels, len(panels), label, bars)


def colour_disparity(disparity: np.ndarray) -> np.ndarray:
    """(H, W) fractions of the width -> (H, W, 3) uint8 colours, black (far) to light yellow (near), grey: unknown."""
    cmap = matplotlib.colormaps[DISPARITY_COLOURS].with_extremes(bad=UNKNOWN)
    return cmap(disparity_range()(np.ma.masked_invalid(disparity)), bytes=True)[..., :3]


def write_animation(path: Path, frames: list[Figure]) -> None:
    """The figures as a GIF that repeats: 0.3 s each, the last one 3 s."""
    pictures = []
    for frame in frames:
        file = BytesIO()
        frame.savefig(file, format="png", dpi=100)
        pictures.append(Image.open(file).convert("RGB"))
    palette = pictures[-1].quantize(255)  # one for all, so that only what changes takes space
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [300] * (len(pictures) - 1) + [3000]
    pictures[0].save(path, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


# ---- Curves and runs ----


def loss_curves(history, label: str) -> Figure:
    """Each loss term against the epoch, training and validation.

    history: DataFrame with `epoch` and columns `train_TERM` and `validation_TERM`, either of which may be missing
    """
    columns = [c for c in history.columns if c.startswith(("train_", "validation_"))]
    long = history.melt("epoch", columns, var_name="column", value_name="loss").dropna()
    long[["data", "term"]] = long["column"].str.split("_", n=1, expand=True)
    terms = long.groupby("term", sort=False)
    fig = _figure(max(11, 3 * len(terms)), 3.2, "constrained")
    axes = fig.subplots(1, len(terms), squeeze=False)[0]
    style = {"palette": {"train": LEFT, "validation": RIGHT}, "errorbar": None}
    for ax, (term, rows) in zip(axes, terms, strict=True):
        sns.lineplot(rows, x="epoch", y="loss", hue="data", legend=ax is axes[-1], ax=ax, **style)
        if 0 < 3 * rows["loss"].min() < rows["loss"].max():  # otherwise a logarithmic axis would have no ticks
            ax.set_yscale("log")
            _plain_ticks(ax.yaxis)
        ax.set_title(f"{term}{' (log scale)' * (ax.get_yscale() == 'log')}", fontsize=10)
        ax.set_ylabel("loss" if ax is axes[0] else "")
        ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=9)
    sns.despine(fig)
    fig.suptitle(f"Loss per epoch\n{label}", fontsize=12, parse_math=False)
    return fig


def draw_runs(ax, runs, metric: str, axis: str, band: bool = False) -> None:
    """A row per arm of an experiment, a point per run, a colour per seed.

    runs: DataFrame with a row per run: `arm`, `seed` and the column `metric`, called `axis` in the figure
    band: also from the lowest to the highest run of each arm, with a tick at the mean
    """
    named = runs.assign(seed="seed " + runs["seed"].astype(str))
    sns.stripplot(named, x=metric, y="arm", hue="seed", ax=ax, palette="colorblind", jitter=False, size=7)
    if band:
        arms = runs.groupby("arm", sort=False)[metric]
        rows = range(len(arms))
        ax.hlines(rows, arms.min(), arms.max(), color="0.85", linewidth=10, zorder=0)
        ax.plot(arms.mean(), rows, "|", color="black", markersize=20, markeredgewidth=2, label="mean")
    ax.set(xlabel=axis, ylabel="")
    sns.despine(ax=ax)
