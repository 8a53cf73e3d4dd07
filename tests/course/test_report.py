"""What `train` and `evaluate` write: tables and figures."""

import numpy as np
import pandas as pd
import pytest
import torch

from monodepth_nb.course.report import markdown, write_report, write_run_figures
from monodepth_nb.data.sample import Sample


def test_a_frame_becomes_a_markdown_table():
    frame = pd.DataFrame({"epe": [1.23456, np.nan], "pixels": [1200, 3]}, index=pd.Index(["a", "b"], name="where"))
    assert markdown(frame) == "| where | epe | pixels |\n| --- | --- | --- |\n| a | 1.235 | 1200 |\n| b |  | 3 |\n"


@pytest.fixture(scope="module")
def streets():
    rng = np.random.default_rng(0)
    known = {"lane_paint": np.zeros((16, 48), bool), "shiny": np.ones((16, 48), bool), "classes": np.ones((16, 48))}
    known |= {"focal_px": 721.5377, "baseline_m": 0.54}
    views = {"left": torch.zeros(3, 16, 48), "right": torch.zeros(3, 16, 48)}
    names = ("000000_10", "000001_10", "000050_10")
    return [Sample(name=name, disparity_px=rng.uniform(2, 9, (16, 48)), **views, **known) for name in names]


def network(images):
    return [torch.linspace(0.01, 0.03, 64).expand(len(images), 2, 64, 64)]


def test_the_report_compares_network_and_baseline_for_both_kinds_of_truth(tmp_path, streets):
    text = write_report(network, {"occ": streets, "noc": streets[:2]}, (64, 64), tmp_path, "smoke, test data")
    scores = pd.read_csv(tmp_path / "per_image.csv")
    counts = scores.groupby(["truth", "method"]).size().unstack()
    assert counts.loc["occ"].tolist() == [3, 3, 3] and counts.loc["noc"].tolist() == [2, 2, 2]
    summary = pd.read_csv(tmp_path / "summary.csv").set_index(["truth", "method"])
    row = summary.loc[("occ", "network")]
    assert row["epe"] != summary.loc[("occ", "network, post-processed"), "epe"]
    assert row["abs_rel_low"] <= row["abs_rel"] <= row["abs_rel_high"]
    assert row["abs_rel"] == pytest.approx(scores.query("truth == 'occ' and method == 'network'")["abs_rel"].mean())
    for file in ("by_distance.csv", "by_region.csv", "best_median_worst.png"):
        assert (tmp_path / file).stat().st_size > 0
    assert text == (tmp_path / "report.md").read_text()
    assert "| occ | pixel-mean baseline | metres | 3 |" in text and "| Godard, VGG | K | 0.124 |" in text


def test_pictures_of_kittis_size_are_scored_by_the_papers_protocol_which_every_table_names(tmp_path):
    camera = {"focal_px": 721.5, "baseline_m": 0.5327}
    view = torch.zeros(3, 64, 64)
    kitti = [Sample(name="000000_10", left=view, right=view, disparity_px=np.full((375, 1242), 20.0), **camera)]
    text = write_report(network, {"noc": kitti}, (64, 64), tmp_path, "label")
    assert "| noc | network | monodepth | 1 |" in text
    headings = [line for line in text.splitlines() if line.startswith("## ") and "Published" not in line]
    assert headings and all("protocol" in line for line in headings)
    assert set(pd.read_csv(tmp_path / "per_image.csv")["protocol"]) == {"monodepth"}


@pytest.mark.filterwarnings("error")
def test_without_a_camera_the_report_has_disparity_errors_and_nothing_by_distance(tmp_path, streets):
    unknown = [Sample(s, focal_px=np.nan, baseline_m=np.nan) for s in streets]
    text = write_report(network, {"occ": unknown}, (64, 64), tmp_path, "cost$x_{$")  # no formula
    row = pd.read_csv(tmp_path / "summary.csv").set_index("method").loc["network"]
    assert row["epe"] > 0 and np.isnan(row["abs_rel"])
    assert "distance" not in text.split("## Summary")[1] and (tmp_path / "best_median_worst.png").exists()


@pytest.mark.parametrize("labelled", [0, 1, 3])
def test_a_finished_run_has_figures_of_loss_and_maps_and_scores_if_there_is_truth(labelled, streets, tmp_path):
    history = pd.DataFrame({"epoch": [1, 2], "train_total": [1.0, 0.5]})
    write_run_figures(tmp_path, network, history, streets, streets[:labelled])
    files = {"loss.png", "figure.png"} | ({"metrics.csv"} if labelled else set())
    assert {path.name for path in tmp_path.iterdir()} == files
    if labelled:
        assert pd.read_csv(tmp_path / "metrics.csv")["name"].tolist() == [s["name"] for s in streets[:labelled]]
