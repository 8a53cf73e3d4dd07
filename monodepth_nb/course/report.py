"""What `train` and `evaluate` write about a network: tables, figures and predictions in KITTI's file format."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from monodepth_nb import figures
from monodepth_nb.checkpoints import write_whole
from monodepth_nb.evaluation import (
    PUBLISHED,
    OtherScenesMean,
    bootstrap_interval,
    cached,
    error_by_distance,
    error_by_region,
    evaluate,
    left_disparity,
    network_predictor,
)
from monodepth_nb.streets.scene import CLASSES

BASELINE, PLAIN, POST = "pixel-mean baseline", "network", "network, post-processed"
METRICS = ["abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "epe", "d1_all"]
UNITS = (
    "AbsRel, SqRel [m], RMSE [m], RMSE log, shares of ratios below 1.25, 1.25^2, 1.25^3 (a1-a3), EPE [px], D1-all [%]; "
    "the mean over images, with the 95 % bootstrap interval over images. The baseline is image-independent: the mean "
    "disparity of each pixel position over labelled scenes other than the one scored."
)


# ---- After `train` ----


def write_run_figures(run_dir: str | Path, model, history: pd.DataFrame, train_data, truth_data=None) -> None:
    """Figures and scores of a finished run: loss.png, figure.png and, with ground truth, metrics.csv.

    history: as `training.fit` returns it
    """
    run_dir = Path(run_dir)
    figures.loss_curves(history, run_dir.name).savefig(run_dir / "loss.png")
    if truth_data:
        predict = network_predictor(model, tuple(truth_data[0]["left"].shape[-2:]))
        scores = evaluate(predict, truth_data)
        write_whole(run_dir / "metrics.csv", lambda path: scores.to_csv(path, index=False))
        if len(truth_data) > 2:
            figure = best_median_worst_sheet(predict, truth_data, scores, run_dir.name)
        else:
            figure = figures.prediction_figure(truth_data[0], predict(truth_data[0]), run_dir.name)
    else:
        sample = train_data[0]
        figure = figures.reconstruction_figure(sample, left_disparity(model, sample["left"][None])[0], run_dir.name)
    figure.savefig(run_dir / "figure.png")


# ---- Of `evaluate` ----


def write_report(network, datasets: dict, size: tuple[int, int], folder: str | Path, label: str, baseline=None) -> str:
    """Score a network, write tables and figures into `folder`, return the text of report.md.

    datasets: labelled data by kind of truth, {"occ": ..., "noc": ...}; either may be missing. The first kind is also
              scored by distance, by class and image by image
    size:     (height, width) of the images that the network gets
    label:    what was trained and what is scored, for the titles
    baseline: `PixelMeanBaseline` of the network's training scenes. Default: `OtherScenesMean` of each data set,
              none for a single image

    Files: per_image.csv, summary.csv, by_distance.csv, by_region.csv (of rendered streets), best_median_worst.png,
    report.md and disp_0/NAME.png, the post-processed predictions for KITTI's devkit.
    """
    folder = Path(folder)
    (folder / "disp_0").mkdir(parents=True, exist_ok=True)
    truth, dataset = next(iter(datasets.items()))
    post = cached(network_predictor(network, size, post=True))
    networks = {PLAIN: cached(network_predictor(network, size)), POST: post}
    methods = {kind: baselines(data, baseline) | networks for kind, data in datasets.items()}
    per_image = pd.concat(
        evaluate(predict, datasets[kind]).assign(truth=kind, method=name)
        for kind, predictors in methods.items()
        for name, predict in predictors.items()
    )
    tables = {"summary": summarise(per_image), "by_distance": by_method(error_by_distance, methods[truth], dataset)}
    if "classes" in dataset[0]:
        error = partial(error_by_region, classes=CLASSES)
        tables["by_region"] = by_method(error, methods[truth], dataset)
    per_image.to_csv(folder / "per_image.csv", index=False)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv")
    scores = per_image[(per_image["truth"] == truth) & (per_image["method"] == POST)]
    best_median_worst_sheet(post, dataset, scores, label).savefig(folder / "best_median_worst.png", dpi=100)
    for sample in (dataset[i] for i in range(len(dataset))):
        write_kitti_png(folder / "disp_0" / f"{sample['name']}.png", post(sample))
    text = as_markdown(label, truth, **tables)
    (folder / "report.md").write_text(text, encoding="utf-8")
    return text


def baselines(dataset, baseline) -> dict:
    if baseline is None and len(dataset) > 1:
        baseline = OtherScenesMean(dataset)
    return {BASELINE: baseline} if baseline else {}


def summarise(per_image: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric by truth and method, and in columns METRIC_low, METRIC_high its 95 % interval."""
    groups = per_image.groupby(["truth", "method"], sort=False)
    table = groups[METRICS].apply(lambda group: group.mean())
    table.insert(0, "images", groups.size())
    for metric in METRICS:
        intervals = groups[metric].apply(bootstrap_interval)
        table[f"{metric}_low"], table[f"{metric}_high"] = intervals.str[0], intervals.str[1]
    return table


def by_method(error, methods: dict, dataset) -> pd.DataFrame:
    """Tables of `error_by_distance` or `error_by_region`, one block of rows a method."""
    return pd.concat({name: error(predict, dataset) for name, predict in methods.items()}, names=["method", "where"])


def best_median_worst_sheet(predict, dataset, scores: pd.DataFrame, label: str):
    """The figure of the images with the lowest, middle and highest AbsRel; scores: of `evaluate`, row i = sample i."""
    order = scores["abs_rel"].to_numpy().argsort()
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    samples = [dataset[int(i)] for i in chosen.values()]
    titles = [f"{name}: {scores['name'].iloc[i]}, AbsRel {scores['abs_rel'].iloc[i]:.3f}" for name, i in chosen.items()]
    return figures.best_median_worst(samples, [predict(s) for s in samples], titles, label)


def write_kitti_png(path: str | Path, disparity_px: np.ndarray) -> None:
    """Write a 16-bit PNG as KITTI's devkit reads it: pixels * 256, where 0 = none, so that 0 px is stored as 1."""
    known = np.isfinite(disparity_px)
    stored = np.clip(np.round(np.where(known, disparity_px, 0) * 256), 1, 65535)
    Image.fromarray(np.where(known, stored, 0).astype(np.uint16)).save(path)


def as_markdown(label: str, truth: str, summary, by_distance, by_region=None) -> str:
    shown = summary[["images", *METRICS]].copy()
    for metric in ("abs_rel", "d1_all"):  # the intervals of two metrics show how certain all of them are
        values = zip(*(summary[f"{metric}{end}"] for end in ("", "_low", "_high")), strict=True)
        shown[metric] = [f"{mean:.3f} ({low:.3f}-{high:.3f})" for mean, low, high in values]
    parts = [f"# {label}\n", "## Scores\n", markdown_table(shown), UNITS + "\n"]
    parts += [f"## Error by distance, {truth}\n", markdown_table(by_distance)]
    if by_region is not None:
        parts += [f"## Error by class and surface, {truth}\n", markdown_table(by_region)]
    published = "Trained on far more data than KITTI 2015 has: 29,000 pairs of KITTI raw (K), or Cityscapes too (CS).\n"
    return "\n".join([*parts, "## Published\n", published, markdown_table(PUBLISHED)])


def markdown_table(frame: pd.DataFrame) -> str:
    """A frame, with its index, as a Markdown table; NaN is a blank."""

    def text(value) -> str:
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.3f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    rows = frame.reset_index().astype(object)
    lines = [list(rows.columns), ["---"] * rows.shape[1], *([text(v) for v in row] for row in rows.to_numpy())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
