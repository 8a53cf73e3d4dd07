"""What `python -m monodepth_nb evaluate` writes about one network: tables, a figure sheet and KITTI's file format."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from monodepth_nb import figures
from monodepth_nb.evaluation import (
    PUBLISHED,
    OtherScenesMean,
    bootstrap_interval,
    error_by_distance,
    error_by_region,
    evaluate,
    network_predictor,
    remembered,
)

BASELINE, PLAIN, POST = "pixel-mean baseline", "network", "network, post-processed"
METRICS = ["abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "epe", "d1_all"]
UNITS = (
    "AbsRel, SqRel [m], RMSE [m], RMSE log, shares of ratios below 1.25, 1.25^2, 1.25^3 (a1-a3), EPE [px], D1-all [%]; "
    "the mean over images, with the 95 % bootstrap interval over images. The baseline has seen no picture: it is the "
    "mean disparity of each pixel position over labelled scenes other than the one scored."
)


def write_report(network, datasets: dict, size: tuple[int, int], folder: str | Path, label: str, baseline=None) -> str:
    """Score a network, write tables and figures into `folder`, return the text of report.md.

    datasets: labelled data by kind of truth, {"occ": ..., "noc": ...}; either may lack. The first kind is also
              looked at by distance, by class and image by image
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
    networks = {PLAIN: network_predictor(network, size), POST: network_predictor(network, size, post=True)}
    networks = {name: remembered(predict) for name, predict in networks.items()}
    methods = {truth: baselines(data, baseline) | networks for truth, data in datasets.items()}
    per_image = pd.concat(
        evaluate(predict, datasets[kind]).assign(truth=kind, method=name)
        for kind, predictors in methods.items()
        for name, predict in predictors.items()
    )
    tables = {"Scores": summarise(per_image)}
    tables[f"Error by distance, {truth}"] = by_method(error_by_distance, methods[truth], dataset)
    names = ["summary.csv", "by_distance.csv"]
    if "classes" in dataset[0]:
        tables[f"Error by class and surface, {truth}"] = by_method(error_by_region, methods[truth], dataset)
        names.append("by_region.csv")
    per_image.to_csv(folder / "per_image.csv", index=False)
    for name, table in zip(names, tables.values(), strict=True):
        table.to_csv(folder / name)
    scores = per_image[(per_image["truth"] == truth) & (per_image["method"] == POST)]
    best_median_worst_sheet(networks[POST], dataset, scores, label).savefig(folder / "best_median_worst.png", dpi=100)
    write_predictions(networks[POST], dataset, folder / "disp_0")
    text = as_markdown(label, tables)
    (folder / "report.md").write_text(text, encoding="utf-8")
    return text


def baselines(dataset, baseline) -> dict:
    if baseline is None and len(dataset) > 1:
        baseline = OtherScenesMean(dataset)
    return {BASELINE: baseline} if baseline else {}


def summarise(per_image: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric by truth and method, and in columns METRIC_low, METRIC_high its 95 % interval."""
    rows = {}
    for key, group in per_image.groupby(["truth", "method"], sort=False):
        intervals = {metric: bootstrap_interval(group[metric]) for metric in METRICS}
        rows[key] = group[METRICS].mean().to_dict() | {
            f"{metric}_{end}": value
            for metric, pair in intervals.items()
            for end, value in zip(("low", "high"), pair, strict=True)
        }
        rows[key] = {"images": len(group)} | rows[key]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["truth", "method"]).astype({"images": int})


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


def write_predictions(predict, dataset, folder: Path) -> None:
    for i in range(len(dataset)):
        sample = dataset[i]
        write_kitti_png(folder / f"{sample['name']}.png", predict(sample))


def write_kitti_png(path: str | Path, disparity_px: np.ndarray) -> None:
    """16-bit PNG as KITTI's devkit reads it: pixels * 256, 0 = none, so a known disparity is stored as at least 1."""
    known = np.isfinite(disparity_px)
    stored = np.clip(np.round(np.where(known, disparity_px, 0) * 256), 1, 65535)
    Image.fromarray(np.where(known, stored, 0).astype(np.uint16)).save(path)


def as_markdown(label: str, tables: dict[str, pd.DataFrame]) -> str:
    scores = tables["Scores"]
    shown = scores[["images", *METRICS]].copy()
    for metric in ("abs_rel", "d1_all"):  # two intervals tell how sure all of them are
        pairs = zip(scores[metric], scores[f"{metric}_low"], scores[f"{metric}_high"], strict=True)
        shown[metric] = [f"{mean:.3f} ({low:.3f}-{high:.3f})" for mean, low, high in pairs]
    parts = [f"# {label}\n", "## Scores\n", markdown_table(shown), UNITS + "\n"]
    for title, table in list(tables.items())[1:]:
        parts += [f"## {title}\n", markdown_table(table)]
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
