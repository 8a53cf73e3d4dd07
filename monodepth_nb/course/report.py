"""What `train` and `evaluate` write about a network: tables and figures."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from monodepth_nb import figures
from monodepth_nb.checkpoints import write_whole
from monodepth_nb.evaluation import (
    PUBLISHED,
    bootstrap_interval,
    cached,
    camera_of,
    error_by_distance,
    error_by_region,
    evaluate,
    fitting_protocol,
    left_disparity,
    network_predictor,
)
from monodepth_nb.pixel_mean import PixelMeanBaseline
from monodepth_nb.streets.scene import CLASSES

BASELINE, PLAIN, POST = "pixel-mean baseline", "network", "network, post-processed"
NOTES = """AbsRel, SqRel [m], RMSE [m], RMSE log, shares of ratios below 1.25, 1.25^2 and 1.25^3, EPE [px], D1-all [%]:
means over images, with 95 % bootstrap intervals (low, high). The baseline is image-independent: the mean disparity of
each pixel position over labelled scenes other than the one scored. The published networks were trained on far more data
than KITTI 2015 has: 29,000 pairs of KITTI raw (K). The tables by distance and by region are of the first kind of truth.
Protocol "monodepth": as published (focal length by image width, 0.54 m, only the prediction clamped to 80 m).
Protocol "metres": the camera of the pictures, truth and prediction clamped to 80 m; not comparable with published rows.
"""


def write_run_figures(run_dir: str | Path, model, history: pd.DataFrame, train_data, truth_data=None) -> None:
    """Figures and scores of a finished run of `train`: loss.png, figure.png and, with ground truth, metrics.csv.

    history: as `training.fit` returns it
    """
    run_dir = Path(run_dir)
    save_figure(figures.loss_curves(history, run_dir.name), run_dir / "loss.png")
    if truth_data:
        predict = network_predictor(model, tuple(truth_data[0]["left"].shape[-2:]))
        scores = evaluate(predict, truth_data)
        write_whole(run_dir / "metrics.csv", lambda path: scores.to_csv(path, index=False))
        figure = figures.prediction_figure(truth_data[0], predict(truth_data[0]), run_dir.name)
    else:
        sample = train_data[0]
        figure = figures.reconstruction_figure(sample, left_disparity(model, sample["left"][None])[0], run_dir.name)
    save_figure(figure, run_dir / "figure.png")


def save_figure(figure, path: Path) -> None:
    write_whole(path, partial(figure.savefig, dpi=100, format="png"))


def write_report(
    network, datasets: dict, size: tuple[int, int], folder: str | Path, label: str, baseline=None,
    training_baseline_m: float | None = None,
) -> str:  # fmt: skip
    """Score a network for `evaluate`, write tables and a figure into `folder`, return the text of report.md.

    datasets: labelled data by kind of truth, {"occ": ..., "noc": ...}; either may be missing. The first kind is also
              scored by distance and by region, and drawn
    size:     (height, width) of the images that the network gets
    label:    what was trained and what is scored, for the titles
    baseline: `PixelMeanBaseline` of the network's training scenes. Default: that of the other scenes of each data set,
              none for a single image
    training_baseline_m: see `network_predictor`

    The protocol is the paper's for pictures of KITTI's size, else "metres"; the tables name it.
    Files: per_image.csv, summary.csv, by_distance.csv, by_region.csv (of rendered streets), best_median_worst.png and
    report.md.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    networks = {
        name: cached(network_predictor(network, size, post, training_baseline_m))
        for name, post in ((PLAIN, False), (POST, True))
    }
    methods = {}
    for kind, data in datasets.items():
        mean = baseline or (PixelMeanBaseline(data, leave_out=True) if len(data) > 1 else None)
        methods[kind] = ({BASELINE: mean} if mean else {}) | networks
    truth, dataset = next(iter(datasets.items()))
    protocol = fitting_protocol(dataset[0]["disparity_px"].shape)
    scores = {
        (kind, name): evaluate(predict, datasets[kind], protocol)
        for kind, predictors in methods.items()
        for name, predict in predictors.items()
    }
    per_image = pd.concat(scores, names=["truth", "method", "image"])
    tables = {f"summary, protocol {protocol}": summarise(per_image)}
    if not np.isnan(camera_of(dataset[0])).any():
        tables["by distance, protocol metres"] = by_method(error_by_distance, methods[truth], dataset)
    if "classes" in dataset[0]:
        regions = partial(error_by_region, classes=CLASSES)
        tables["by region, protocol metres"] = by_method(regions, methods[truth], dataset)
    label_of_figure = f"{label}; protocol {protocol}"
    figure = figures.best_median_worst(networks[POST], dataset, scores[truth, POST], label_of_figure)
    save_figure(figure, folder / "best_median_worst.png")
    text = f"# {label}\n\n{NOTES}"
    for name, table in {"per image": per_image, **tables}.items():
        write_whole(folder / f"{name.split(',')[0].replace(' ', '_')}.csv", table.to_csv)
    for name, table in {**tables, "published": PUBLISHED}.items():
        text += f"\n## {name.capitalize()}\n\n{markdown(table)}"
    write_whole(folder / "report.md", partial(Path.write_text, data=text, encoding="utf-8"))
    return text


def summarise(per_image: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric by truth and method; two with the interval, which shows how certain all of them are."""
    groups = per_image.groupby(["truth", "method", "protocol"], sort=False)
    table = groups.mean(numeric_only=True)
    table.insert(0, "images", groups.size())
    for metric in ("abs_rel", "d1_all"):
        intervals = groups[metric].apply(bootstrap_interval)
        table[f"{metric}_low"], table[f"{metric}_high"] = intervals.str[0], intervals.str[1]
    return table


def by_method(error, methods: dict, dataset) -> pd.DataFrame:
    """Tables of `error_by_distance` or `error_by_region`, one block of rows a method."""
    return pd.concat({name: error(predict, dataset) for name, predict in methods.items()}, names=["method", "where"])


def markdown(table: pd.DataFrame) -> str:
    """The table, with its index, in Markdown; NaN is blank."""
    text = table.reset_index().map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
    rows = [text.columns, ["---"] * text.shape[1], *text.replace("nan", "").to_numpy()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
