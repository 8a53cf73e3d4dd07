"""What `train` and `evaluate` write about a network: tables and figures."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from monodepth_nb import evaluation, figures
from monodepth_nb.course.results import PNG, save
from monodepth_nb.evaluation import cached, evaluate, left_disparity, network_predictor
from monodepth_nb.pixel_mean import PixelMeanBaseline
from monodepth_nb.streets.scene import CLASSES

BASELINE, PLAIN, POST = "pixel-mean baseline", "network", "network, post-processed"
NOTES = """AbsRel, SqRel [m], RMSE [m], RMSE log, shares of ratios below 1.25, 1.25^2 and 1.25^3, EPE [px], D1-all [%]:
means over images, with 95 % bootstrap intervals (low, high). The baseline is image-independent: the mean disparity of
each pixel position over other labelled scenes, those of the training if scenes were held out. The published networks
were trained on far more data than KITTI 2015 has: 29,000 pairs of KITTI raw (K). The tables by distance and by region
are of the first kind of truth.
Protocol "monodepth": as published (focal length by image width, 0.54 m, only the prediction clamped to 80 m).
Protocol "metres": the camera of the pictures, truth and prediction clamped to 80 m; not comparable with published rows.
"""


def write_run_figures(run_dir: str | Path, model, history: pd.DataFrame, train_data, truth_data=None) -> None:
    """After `fit`, which returns `history`: loss.png, figure.png and, with ground truth, metrics.csv."""
    run_dir = Path(run_dir)
    save(run_dir / "loss.png", figures.loss_curves(history, run_dir.name).savefig, **PNG)
    if truth_data:
        predict = network_predictor(model, tuple(truth_data[0]["left"].shape[-2:]))
        scores = evaluate(predict, truth_data)
        save(run_dir / "metrics.csv", scores.to_csv, index=False)
        figure = figures.prediction_figure(truth_data[0], predict(truth_data[0]), run_dir.name)
    else:
        sample = train_data[0]
        figure = figures.reconstruction_figure(sample, left_disparity(model, sample["left"][None])[0], run_dir.name)
    save(run_dir / "figure.png", figure.savefig, **PNG)


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
    folder.mkdir(parents=True, exist_ok=True)  # an error in it should come before the scoring
    truth, dataset = next(iter(datasets.items()))
    protocol = evaluation.fitting_protocol(dataset[0]["disparity_px"].shape)
    predictor = partial(network_predictor, network, size, baseline_m=training_baseline_m)
    networks = {PLAIN: cached(predictor(post=False)), POST: cached(predictor(post=True))}
    methods, scores = {}, {}
    for kind, data in datasets.items():
        mean = baseline or (PixelMeanBaseline(data, leave_out=True) if len(data) > 1 else None)
        methods[kind] = ({BASELINE: mean} if mean else {}) | networks
        scores |= {(kind, name): evaluate(predict, data, protocol) for name, predict in methods[kind].items()}
    per_image = pd.concat(scores, names=["truth", "method", "image"])
    tables = {f"summary, protocol {protocol}": summarise(per_image)}
    if not np.isnan(evaluation.camera_of(dataset[0])).any():
        tables["by distance, protocol metres"] = by_method(evaluation.error_by_distance, methods[truth], dataset)
    if "classes" in dataset[0]:
        by_region = partial(evaluation.error_by_region, classes=CLASSES)
        tables["by region, protocol metres"] = by_method(by_region, methods[truth], dataset)
    examples = figures.best_median_worst(networks[POST], dataset, scores[truth, POST], f"{label}; protocol {protocol}")
    save(folder / "best_median_worst.png", examples.savefig, **PNG)
    text = f"# {label}\n\n{NOTES}"
    for name, table in {"per image": per_image, **tables}.items():
        save(folder / f"{name.split(',')[0].replace(' ', '_')}.csv", table.to_csv)
    for name, table in {**tables, "published": evaluation.PUBLISHED}.items():
        text += f"\n## {name.capitalize()}\n\n{markdown(table)}"
    save(folder / "report.md", Path.write_text, data=text, encoding="utf-8")
    return text


def summarise(per_image: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric by truth and method; two with the interval, which shows how certain all of them are."""
    groups = per_image.groupby(["truth", "method", "protocol"], sort=False)
    table = groups.mean(numeric_only=True)
    table.insert(0, "images", groups.size())
    for metric in ("abs_rel", "d1_all"):
        intervals = groups[metric].apply(evaluation.bootstrap_interval)
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
