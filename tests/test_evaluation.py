"""Scores, baselines and tables. Metrics are computed a second time here, independently."""

import numpy as np
import pandas as pd
import pytest
import torch

from monodepth_nb.course.report import METRICS, markdown_table, summarise, write_kitti_png, write_report
from monodepth_nb.data.kitti import read_disparity
from monodepth_nb.data.sample import Sample
from monodepth_nb.evaluation import (
    PUBLISHED,
    OtherScenesMean,
    PixelMeanBaseline,
    bootstrap_interval,
    disparity_metrics,
    error_by_distance,
    error_by_region,
    evaluate,
    network_predictor,
    post_process,
    remembered,
    score_sample,
    to_depth_m,
    to_pixels,
    to_points_m,
)

FOCAL, BASELINE = 721.5377, 0.54


def labelled(truth, name="scene_0", **more):
    truth = np.asarray(truth, dtype=np.float32)
    image = torch.rand(3, *truth.shape, generator=torch.Generator().manual_seed(0))
    return Sample(
        left=image, right=image, name=name, disparity_px=torch.from_numpy(truth), focal_px=FOCAL, baseline_m=BASELINE,
        **more,
    )  # fmt: skip


def constant_network(images):
    """Says 0.02 of the width on the left half of the picture, 0.06 on the right half."""
    d = torch.full((len(images), 2, *images.shape[-2:]), 0.02)
    d[..., images.shape[-1] // 2 :] = 0.06
    return [d]


# ---- metrics ----


def pixel_by_pixel(prediction, truth):
    """All metrics, one pixel at a time."""
    rel, sq, square, log, within, epe, wrong, n = 0, 0, 0, 0, [0, 0, 0], 0, 0, 0
    for p, t in zip(prediction.ravel(), truth.ravel(), strict=True):
        if not (np.isfinite(t) and t > 0):
            continue
        n += 1
        gt = min(max(FOCAL * BASELINE / t, 1e-3), 80)
        z = 80 if p <= 0 else min(max(FOCAL * BASELINE / p, 1e-3), 80)
        rel += abs(gt - z) / gt
        sq += (gt - z) ** 2 / gt
        square += (gt - z) ** 2
        log += (np.log(gt) - np.log(z)) ** 2
        for k in range(3):
            within[k] += max(gt / z, z / gt) < 1.25 ** (k + 1)
        epe += abs(p - t)
        wrong += abs(p - t) >= 3 and abs(p - t) / t >= 0.05
    return [rel / n, sq / n, (square / n) ** 0.5, (log / n) ** 0.5, *(w / n for w in within), epe / n, 100 * wrong / n]


def test_all_metrics_agree_with_a_computation_pixel_by_pixel():
    rng = np.random.default_rng(0)
    truth = rng.uniform(2, 120, (30, 40))
    truth[rng.random(truth.shape) < 0.3] = np.nan
    prediction = truth + rng.normal(0, 5, truth.shape)
    prediction[np.isnan(truth)] = 7
    prediction[:3] = 0  # nothing predicted: 80 m
    prediction[3, :5] = -1
    scores = disparity_metrics(prediction, truth, FOCAL, BASELINE)
    names = ["abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "epe", "d1_all"]
    assert list(scores) == names
    np.testing.assert_allclose([scores[n] for n in names], pixel_by_pixel(prediction, truth), rtol=1e-12)


def test_a_pixel_worked_by_hand():
    # 20 m predicted as 25 m: 400 px m / 20 px and / 16 px
    scores = disparity_metrics(np.array([[16.0]]), np.array([[20.0]]), 400.0, 1.0)
    expected = {"abs_rel": 5 / 20, "sq_rel": 25 / 20, "rmse": 5, "rmse_log": np.log(1.25), "a1": 0, "a2": 1, "a3": 1}
    assert scores == pytest.approx(expected | {"epe": 4, "d1_all": 100})


@pytest.mark.parametrize(
    ("truth", "prediction", "wrong"),
    [(20, 22.9, 0), (20, 23, 100), (100, 104.9, 0), (100, 105, 100), (60, 57, 100), (61, 58, 0)],
)
def test_d1_counts_errors_of_at_least_3_px_and_5_percent(truth, prediction, wrong):
    scores = disparity_metrics(np.array([[prediction]]), np.array([[float(truth)]]), FOCAL, BASELINE)
    assert scores["d1_all"] == wrong


def test_pixels_without_truth_do_not_count():
    truth = np.array([[20, np.nan, 0, np.inf, -3]])
    scores = disparity_metrics(np.array([[20, 90, 90, 90, 90]]), truth, FOCAL, BASELINE)
    assert scores["epe"] == 0 and scores["abs_rel"] == 0


def test_depth_is_capped_at_80_m_and_1_mm():
    np.testing.assert_allclose(to_depth_m(np.array([0, -1, 1e-9, 1.0, 1e9]), FOCAL, BASELINE), [80, 80, 80, 80, 1e-3])
    assert to_depth_m(np.array(49.68), 721.5377, 0.54) == pytest.approx(7.8428, abs=1e-4)
    far = disparity_metrics(np.array([[0.0]]), np.array([[1.0]]), FOCAL, BASELINE)  # 390 m counts as 80 m
    assert far["abs_rel"] == 0 and far["epe"] == 1


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 3)), "resize"),
        (np.ones((2, 2)), np.full((2, 2), np.nan), "no pixel"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), "diverged"),
    ],
)
def test_what_cannot_be_scored_is_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        disparity_metrics(prediction, truth, FOCAL, BASELINE)


def test_pixels_are_the_fraction_times_the_full_width():
    np.testing.assert_allclose(to_pixels(torch.full((4, 8), 0.04), (375, 1242)), 49.68, rtol=1e-5)


def test_maps_are_enlarged_between_the_centres_of_their_pixels():
    ramp = torch.tensor([[0.0, 1.0, 2.0, 3.0]]) / 8  # 8 pixels: values are those of the 4 centres
    np.testing.assert_allclose(to_pixels(ramp, (1, 8))[0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)


def test_points_lie_where_the_camera_saw_them():
    picture = np.zeros((3, 5, 3))
    picture[1, 4] = (1, 0.5, 0)
    disparity = np.full((3, 5), np.nan)
    disparity[1, 4], disparity[0, 0] = 4, 0  # 10 m away; no disparity: the sky
    xyz, colours = to_points_m(picture, disparity, 40.0, 1.0)
    np.testing.assert_allclose(xyz, [[2 * 10 / 40, 0, 10]])  # two pixels right of the middle
    assert colours.tolist() == [[255, 128, 0]]


# ---- post-processing ----


def test_post_processing_takes_the_borders_from_one_map_each_and_ramps_between():
    w = 401  # x = column / 400
    joined = post_process(torch.zeros(2, w), torch.ones(2, w))[0]
    assert (joined[:21] == 1).all() and (joined[380:] == 0).all()
    torch.testing.assert_close(joined[40:361], torch.full((321,), 0.5))
    torch.testing.assert_close(joined[30], torch.tensor(0.75))  # 7.5 %: half-way down the ramp
    torch.testing.assert_close(joined[370], torch.tensor(0.25))


def test_post_processing_mirrors_the_second_prediction_back():
    sample = labelled(np.full((8, 40), 1.0))
    plain, post = (network_predictor(constant_network, (8, 40), post=p)(sample) for p in (False, True))
    np.testing.assert_allclose(plain[0, [0, 10, -1]], [0.8, 0.8, 2.4], rtol=1e-5)
    np.testing.assert_allclose(post[0, [0, 10, -1]], [2.4, 1.6, 2.4], rtol=1e-5)  # left border: from the mirrored


def test_a_network_predicts_at_the_size_of_the_truth():
    sample = labelled(np.full((20, 100), 5.0))
    prediction = network_predictor(constant_network, (64, 64))(sample)
    assert prediction.shape == (20, 100)
    np.testing.assert_allclose(prediction[:, [0, 99]], [[2, 6]] * 20, rtol=1e-5)


def test_a_remembered_prediction_is_made_once():
    calls = []
    predict = remembered(lambda sample: calls.append(sample["name"]) or np.ones((2, 2)))
    for name in ("a", "b", "a"):
        predict({"name": name})
    assert calls == ["a", "b"]


# ---- baselines ----


def test_the_pixel_mean_is_the_mean_of_the_known_disparities():
    first, second = np.full((96, 320), 10.0), np.full((96, 320), 30.0)
    first[:, :100] = np.nan  # known in the second only
    first[0], second[0] = np.nan, np.nan  # known in none
    baseline = PixelMeanBaseline([labelled(first), labelled(second)])
    assert baseline.disparity.dtype == np.float32
    np.testing.assert_allclose(baseline.disparity[1:, :100], 30 / 320)
    np.testing.assert_allclose(baseline.disparity[1:, 100:], 20 / 320, rtol=1e-6)
    np.testing.assert_allclose(baseline.disparity[0], baseline.disparity[1])


def test_the_pixel_mean_joins_images_of_different_size_as_fractions_of_the_width():
    baseline = PixelMeanBaseline([labelled(np.full((375, 1242), 12.42)), labelled(np.full((96, 320), 9.6))])
    np.testing.assert_allclose(baseline.disparity, 0.02, rtol=1e-6)  # 1 % and 3 %
    prediction = baseline(labelled(np.full((370, 1226), 1.0)))
    assert prediction.shape == (370, 1226)
    assert score_sample(baseline, labelled(prediction))["epe"] == pytest.approx(0, abs=1e-4)


def test_there_is_no_mean_of_nothing():
    with pytest.raises(ValueError, match="no pixel has ground truth"):
        PixelMeanBaseline([labelled(np.full((4, 4), np.nan))])


def test_the_mean_of_other_scenes_leaves_out_the_whole_drive():
    values = {"000002_10": 10, "000003_10": 20, "000050_10": 60}  # 2 and 3 are one drive
    data = [labelled(np.full((96, 320), v), name) for name, v in values.items()]
    baseline = OtherScenesMean(data)
    assert [baseline(s).mean().round(3) for s in data] == [60, 60, 15]


# ---- tables ----


def test_evaluate_gives_a_row_per_image():
    data = [labelled(np.full((4, 8), v), f"image {v}") for v in (10, 20)]
    table = evaluate(lambda sample: np.full((4, 8), 14.0), data)
    assert table["name"].tolist() == ["image 10", "image 20"]
    assert table["epe"].tolist() == [4, 6]


def test_errors_name_the_image():
    with pytest.raises(ValueError, match="image 7 has no ground truth.*truth='occ'"):
        evaluate(None, [Sample(name="image 7")])
    with pytest.raises(ValueError, match="image 8: no pixel"):
        evaluate(lambda s: np.ones((2, 2)), [labelled(np.full((2, 2), np.nan), "image 8")])


def test_the_bootstrap_interval_depends_on_the_seed_only_and_has_the_right_width():
    values = np.random.default_rng(1).normal(5, 1, 400)
    low, high = bootstrap_interval(values, seed=3)
    assert (low, high) == bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    standard_error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.02)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.02)
    assert bootstrap_interval([2.0]) == (2, 2)


def test_errors_are_sorted_by_true_distance():
    truth = FOCAL * BASELINE / np.array([[5.0, 5, 15, 30, 60, 300]])
    truth[0, 1] = np.nan
    table = error_by_distance(lambda s: truth + 2, [labelled(truth)] * 2)
    assert table.index.tolist() == ["0-10 m", "10-20 m", "20-40 m", "40-80 m"]
    assert table["pixels"].tolist() == [2, 2, 2, 4]
    np.testing.assert_allclose(table["epe"], 2, rtol=1e-5)


def test_errors_by_region_set_paint_and_shiny_surfaces_beside_plain_road():
    classes = np.array([[0, 0, 0, 3]], dtype=np.uint8)  # road, road, road, car
    paint, shiny = np.array([[True, False, False, False]]), np.array([[False, False, False, True]])
    sample = labelled([[10, 10, 10, 10]], classes=classes, lane_paint=paint, shiny=shiny)
    table = error_by_region(lambda s: np.array([[14.0, 11, 12, 16]]), [sample])
    expected = {"road": 7 / 3, "car": 6, "lane paint": 4, "shiny": 6, "plain road": 1.5}
    assert table["epe"].dropna().to_dict() == pytest.approx(expected)
    assert table.loc["shiny, no car", "pixels"] == 0
    assert table.loc["sky", "pixels"] == 0 and np.isnan(table.loc["sky", "epe"])


def test_published_numbers_say_where_they_come_from():
    assert PUBLISHED.loc["Godard, VGG", ["abs_rel", "d1_all"]].tolist() == [0.124, 30.272]
    assert PUBLISHED["source"].str.len().min() > 0


# ---- files ----


def test_a_prediction_comes_back_from_kittis_file_format(tmp_path):
    disparity = np.array([[0.0, 1e-4, 1.5, 100.25, np.nan, 400]], dtype=np.float32)
    write_kitti_png(tmp_path / "a.png", disparity)
    back = read_disparity(tmp_path / "a.png").numpy()
    np.testing.assert_allclose(back, [[1 / 256, 1 / 256, 1.5, 100.25, np.nan, 65535 / 256]])


def test_a_frame_becomes_a_markdown_table():
    frame = pd.DataFrame({"epe": [1.23456, np.nan], "pixels": [1200, 3]}, index=pd.Index(["a", "b"], name="where"))
    expected = "| where | epe | pixels |\n| --- | --- | --- |\n| a | 1.235 | 1,200 |\n| b |  | 3 |\n"
    assert markdown_table(frame) == expected


def test_the_report_compares_network_and_baseline_for_both_kinds_of_truth(tmp_path):
    rng = np.random.default_rng(0)
    known = {"lane_paint": np.zeros((32, 96), bool), "shiny": np.ones((32, 96), bool), "classes": np.ones((32, 96))}
    data = [labelled(rng.uniform(2, 9, (32, 96)), f"{i:06}_10", **known) for i in (0, 1, 50)]
    text = write_report(constant_network, {"occ": data, "noc": data[:2]}, (64, 64), tmp_path, "smoke, test data")
    scores = pd.read_csv(tmp_path / "per_image.csv")
    assert scores.groupby(["truth", "method"]).size().unstack().loc["occ"].tolist() == [3, 3, 3]
    summary = pd.read_csv(tmp_path / "summary.csv").set_index(["truth", "method"])
    row = summary.loc[("occ", "network")]
    assert row["abs_rel_low"] <= row["abs_rel"] <= row["abs_rel_high"]
    assert row["abs_rel"] == pytest.approx(scores.query("truth == 'occ' and method == 'network'")["abs_rel"].mean())
    for file in ("by_distance.csv", "by_region.csv", "best_median_worst.png", "disp_0/000050_10.png"):
        assert (tmp_path / file).stat().st_size > 0
    assert text == (tmp_path / "report.md").read_text()
    assert "| occ | pixel-mean baseline | 3 |" in text and "| Godard, VGG | K | 0.124 |" in text


def test_the_summary_takes_the_mean_over_images():
    rows = [{"name": "a", "truth": "occ", "method": "m"} | dict.fromkeys(METRICS, value) for value in (1.0, 3.0)]
    assert summarise(pd.DataFrame(rows)).loc[("occ", "m"), "epe"] == 2


def test_an_offset_between_the_cameras_enters_the_depth_and_not_the_disparity_error():
    truth = np.full((4, 8), 30.0)
    sample = Sample(name="offset", disparity_px=truth, focal_px=1000.0, baseline_m=0.2, doffs_px=20.0)
    scores = score_sample(lambda _: truth + 10, sample)
    assert scores["epe"] == pytest.approx(10)
    assert scores["abs_rel"] == pytest.approx(abs(200 / 60 - 200 / 50) / (200 / 50))
