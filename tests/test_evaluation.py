"""Scores, baselines and tables. Metrics are computed a second time here, independently."""

import weakref

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from monodepth_nb.data.sample import Sample
from monodepth_nb.evaluation import (
    PUBLISHED,
    bootstrap_interval,
    cached,
    disparity_metrics,
    error_by_distance,
    error_by_region,
    evaluate,
    network_predictor,
    post_process,
    score_sample,
    to_depth_m,
    to_pixels,
)
from monodepth_nb.pixel_mean import PixelMeanBaseline

FOCAL, BASELINE = 721.5377, 0.54


def labelled(truth, name="scene_0", **more):
    truth = torch.as_tensor(np.asarray(truth, dtype=np.float32))
    image = torch.zeros(3, *truth.shape)
    return Sample(left=image, name=name, disparity_px=truth, focal_px=FOCAL, baseline_m=BASELINE, **more)


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


def test_metrics_agree_with_a_computation_pixel_by_pixel():
    rng = np.random.default_rng(0)
    truth = rng.uniform(2, 120, (30, 40))
    prediction = truth + rng.normal(0, 5, truth.shape)
    prediction[:3] = 0  # nothing predicted: 80 m
    prediction[3, :5] = -1
    for unknown in (np.nan, 0, np.inf, -3):
        without = rng.random(truth.shape) < 0.1
        truth[without], prediction[without] = unknown, 7
    scores = disparity_metrics(prediction, truth, FOCAL, BASELINE)
    assert list(scores) == ["abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "epe", "d1_all"]
    np.testing.assert_allclose(list(scores.values()), pixel_by_pixel(prediction, truth), rtol=1e-12)


def test_20_m_predicted_as_25_m():
    scores = disparity_metrics(np.array([16.0]), np.array([20.0]), 400.0, 1.0)
    expected = {"abs_rel": 5 / 20, "sq_rel": 25 / 20, "rmse": 5, "rmse_log": np.log(1.25), "a1": 0, "a2": 1, "a3": 1}
    assert scores == pytest.approx(expected | {"epe": 4, "d1_all": 100})


def test_the_papers_protocol_has_its_own_camera_and_clamps_only_the_prediction():
    # By hand: focal * 0.54 m = 389.630 m px; truth 389.63 and 9.7408 m, prediction 194.8 (so 80) and 7.7926 m.
    truth, prediction = np.full((2, 1242), np.nan), np.full((2, 1242), 9.0)
    truth[0, :2], prediction[0, :2] = (1, 40), (2, 50)
    scores = disparity_metrics(prediction, truth, 700.0, 0.5327, "monodepth")
    by_hand = {"abs_rel": 0.4973386, "sq_rel": 123.2229, "rmse": 218.94606, "rmse_log": 1.1305366}
    by_hand |= {"a1": 0.0, "a2": 0.5, "a3": 0.5, "epe": 5.5, "d1_all": 50.0}
    assert scores == pytest.approx(by_hand, rel=1e-6)
    truth[0, 1] = np.nan
    assert disparity_metrics(prediction, truth, 721.5377, 0.54, "monodepth")["abs_rel"] == pytest.approx(0.7946772)
    assert disparity_metrics(prediction, truth, 721.5377, 0.54)["abs_rel"] == 0  # both are 80 m


def test_pictures_of_other_widths_than_kittis_keep_their_camera_in_the_papers_protocol():
    scores = disparity_metrics(np.full((2, 500), 2.0), np.full((2, 500), 1.0), 400.0, 1.0, "monodepth")
    assert scores["abs_rel"] == pytest.approx(320 / 400)


def test_without_a_camera_there_are_disparity_errors_and_no_metres():
    sample = Sample(name="own", left=torch.zeros(3, 2, 4), disparity_px=np.full((2, 4), 20.0))
    scores = evaluate(lambda s: np.full((2, 4), 24.0), [sample]).iloc[0]
    assert scores["epe"] == 4 and scores["d1_all"] == 100
    assert scores[["abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3"]].isna().all()
    assert error_by_distance(lambda s: np.full((2, 4), 24.0), [sample])["pixels"].sum() == 0


@pytest.mark.parametrize(("focal", "baseline"), [(-700, 0.5), (700, -0.1), (700, 0), (np.inf, 0.5)])
def test_an_impossible_camera_is_refused(focal, baseline):
    with pytest.raises(ValueError, match=str(baseline)):
        disparity_metrics(np.ones((2, 2)), np.ones((2, 2)), focal, baseline)


def test_a_baseline_in_millimetres_is_noticed():
    sample = labelled(np.full((2, 4), 20.0)) | {"baseline_m": 540.0}
    with pytest.warns(UserWarning, match="millimetres"):
        evaluate(lambda s: np.full((2, 4), 24.0), [sample])


def test_d1_counts_errors_of_at_least_3_px_and_5_percent():
    for truth, prediction, wrong in ((20, 22.9, 0), (20, 23, 100), (100, 104.9, 0), (100, 105, 100), (61, 58, 0)):
        scores = disparity_metrics(np.array([prediction]), np.array([truth]), FOCAL, BASELINE)
        assert scores["d1_all"] == wrong, (truth, prediction)


def test_depth_is_clamped_to_1_mm_and_80_m():
    np.testing.assert_allclose(to_depth_m(np.array([0, -1, 1e-9, 1.0, 1e9]), FOCAL, BASELINE), [80, 80, 80, 80, 1e-3])
    assert to_depth_m(np.array(49.68), FOCAL, BASELINE) == pytest.approx(7.8428, abs=1e-4)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 3)), r"\(2, 2\).*\(2, 3\)"),
        (np.ones((2, 2)), np.full((2, 2), np.nan), "ground truth"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), "NaN"),
    ],
)
def test_maps_without_a_score_are_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        disparity_metrics(prediction, truth, FOCAL, BASELINE)


def test_an_offset_between_the_cameras_enters_the_depth_and_not_the_disparity_error():
    truth = np.full((4, 8), 30.0)
    sample = Sample(name="offset", disparity_px=truth, focal_px=1000.0, baseline_m=0.2, doffs_px=20.0)
    scores = score_sample(truth + 10, sample)
    assert scores["epe"] == pytest.approx(10)
    assert scores["abs_rel"] == pytest.approx(abs(200 / 60 - 200 / 50) / (200 / 50))


# ---- from a network to pixels and points ----


def test_fractions_are_scaled_by_the_full_width_and_resized_between_pixel_centres():
    np.testing.assert_allclose(to_pixels(torch.full((4, 8), 0.04), (375, 1242)), 49.68, rtol=1e-5)
    ramp = torch.tensor([[0.0, 1.0, 2.0, 3.0]]) / 8
    np.testing.assert_allclose(to_pixels(ramp, (1, 8))[0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)


def test_post_processing_takes_each_border_from_one_map_with_ramps_between():
    joined = post_process(torch.zeros(2, 401), torch.ones(2, 401))[0]  # x = column / 400
    assert (joined[:21] == 1).all() and (joined[380:] == 0).all()
    torch.testing.assert_close(joined[40:361], torch.full((321,), 0.5))
    torch.testing.assert_close(joined[[30, 370]], torch.tensor([0.75, 0.25]))  # 7.5 %: half-way down the ramp


def test_a_network_predicts_at_the_truths_size_and_post_processing_mirrors_back():
    def constant_network(images):
        """0.02 of the width in the left half of the image, 0.06 in the right half."""
        d = torch.full((len(images), 2, *images.shape[-2:]), 0.02)
        d[..., images.shape[-1] // 2 :] = 0.06
        return [d]

    sample = labelled(np.ones((20, 100)))
    plain, post = (network_predictor(constant_network, (64, 64), post)(sample) for post in (False, True))
    assert plain.shape == post.shape == (20, 100)
    np.testing.assert_allclose(plain[:, [0, 25, -1]], [[2, 2, 6]] * 20, rtol=1e-5)
    np.testing.assert_allclose(post[:, [0, 25, -1]], [[6, 4, 6]] * 20, rtol=1e-5)  # left border: from the mirrored


def test_a_cached_prediction_is_made_once():
    calls = []
    predict = cached(lambda sample: calls.append(sample["name"]) or np.ones((2, 2)))
    for name in ("a", "b", "a"):
        predict({"name": name})
    assert calls == ["a", "b"]


def test_a_network_predicts_in_batches_and_its_cached_maps_are_small():
    batches = []

    def network(images):
        batches.append(len(images))
        return [images.mean(1, keepdim=True).expand(-1, 2, -1, -1)]

    data = [labelled(np.full((200, 600), 20.0), str(i)) for i in range(11)]
    predict = cached(network_predictor(network, (64, 64)))
    table = evaluate(predict, data)
    assert batches == [8, 3] and len(table) == 11
    evaluate(predict, data)
    assert batches == [8, 3]
    assert predict.maps(data)[0].shape == (64, 64)


def test_few_samples_are_in_memory_at_a_time():
    samples, most = [], 0

    class Data:
        def __len__(self):
            return 30

        def __getitem__(self, i):
            nonlocal most
            sample = labelled(np.full((4, 8), 20.0), str(i))
            samples.append(weakref.ref(sample))
            most = max(most, sum(reference() is not None for reference in samples))
            return sample

    evaluate(lambda s: np.full((4, 8), 24.0), Data())
    assert most <= 17  # a batch, and the next


def test_a_prediction_follows_the_distance_of_the_scored_cameras():
    def network(images):
        return [torch.full((len(images), 2, 64, 64), 0.02)]

    sample = labelled(np.ones((4, 100)))  # 0.54 m
    for trained_on, expected in ((0.27, 4), (0.54, 2), (0.5327, 2), (None, 2)):
        predict = network_predictor(network, (64, 64), baseline_m=trained_on)
        np.testing.assert_allclose(predict(sample), expected, rtol=1e-5)


# ---- baselines ----


def test_the_pixel_mean_is_the_mean_of_the_known_disparities():
    first, second = np.full((96, 320), 10.0), np.full((96, 320), 30.0)
    first[:, :100] = np.nan  # known in the second only
    first[0], second[0] = np.nan, np.nan  # known in neither
    mean = PixelMeanBaseline([labelled(first), labelled(second)]).disparity
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean[1:, :100], 30 / 320)
    np.testing.assert_allclose(mean[1:, 100:], 20 / 320, rtol=1e-6)
    np.testing.assert_allclose(mean[0], mean[1])


def test_the_pixel_mean_averages_images_of_any_size_as_fractions_of_the_width():
    baseline = PixelMeanBaseline([labelled(np.full((375, 1242), 12.42)), labelled(np.full((96, 320), 9.6))])
    np.testing.assert_allclose(baseline.disparity, 0.02, rtol=1e-6)  # 1 % and 3 %
    np.testing.assert_allclose(baseline(labelled(np.ones((37, 122)))), np.full((37, 122), 2.44), rtol=1e-5)


def test_no_ground_truth_gives_no_pixel_mean():
    for data in ([], [labelled(np.full((4, 4), np.nan))]):
        with pytest.raises(ValueError, match="ground truth"):
            PixelMeanBaseline(data)


def test_the_mean_of_other_scenes_excludes_the_whole_drive():
    values = {"000002_10": 10, "000003_10": 20, "000050_10": 60}  # 2 and 3 are one drive
    data = [labelled(np.full((8, 32), v), name) for name, v in values.items()]
    assert [PixelMeanBaseline(data, leave_out=True)(s).mean().round(3) for s in data] == [60, 60, 15]
    single_drive = data[:2]
    assert [PixelMeanBaseline(single_drive, leave_out=True)(s).mean().round(3) for s in single_drive] == [20, 10]


def test_the_mean_of_other_scenes_knows_the_drives_of_the_data_set_that_a_split_is_of():
    data = type("Drives", (list,), {"drives": {"000050": "a", "000051": "a"}})(
        labelled(np.full((8, 32), v), f"0000{v}_10") for v in (50, 51, 60)
    )
    split = Subset(data, range(3))
    assert [PixelMeanBaseline(split, leave_out=True)(s).mean().round(3) for s in split] == [60, 60, 50.5]


# ---- tables ----


def test_evaluate_gives_a_row_per_image():
    data = [labelled(np.full((4, 8), v), f"image {v}") for v in (10, 20)]
    table = evaluate(lambda sample: np.full((4, 8), 14.0), data)
    assert table["name"].tolist() == ["image 10", "image 20"]
    assert table["epe"].tolist() == [4, 6]


def test_an_image_without_truth_is_named_and_skipped_and_the_others_keep_their_places():
    data = [labelled(np.full((2, 2), v), f"image {i}") for i, v in enumerate((10, np.nan, 20))]
    with pytest.warns(UserWarning, match="image 1"):
        table = evaluate(lambda s: np.full((2, 2), 10.0), data)
    assert table.index.tolist() == [0, 2] and table["name"].tolist() == ["image 0", "image 2"]


def test_errors_name_the_image():
    with pytest.raises(ValueError, match="image 7.*truth='occ'"):
        evaluate(None, [Sample(name="image 7")])
    with pytest.raises(ValueError, match="image 8"):
        evaluate(lambda s: np.ones((2, 2)), [labelled(np.full((2, 2), np.nan), "image 8")])


def test_the_bootstrap_interval_depends_on_the_seed_only_and_has_the_right_width():
    values = np.random.default_rng(1).normal(5, 1, 400)
    interval = bootstrap_interval(values, seed=3)
    assert interval == bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    standard_error = values.std() / 20
    assert interval == pytest.approx(values.mean() + 1.96 * standard_error * np.array([-1, 1]), abs=0.02)
    assert bootstrap_interval([2.0]) == (2, 2)


def test_errors_are_grouped_by_true_distance():
    truth = FOCAL * BASELINE / np.array([[5.0, 5, 15, 30, 60, 300]])
    truth[0, 1] = np.nan
    table = error_by_distance(lambda s: truth + 2, [labelled(truth)] * 2)
    assert table["pixels"].to_dict() == {"0-10 m": 2, "10-20 m": 2, "20-40 m": 2, "40-80 m": 4}
    np.testing.assert_allclose(table["epe"], 2, rtol=1e-5)


def test_an_offset_between_the_cameras_counts_in_the_bands_of_distance():
    truth = FOCAL * BASELINE / np.array([[5.0, 15]])
    sample = labelled(truth - 4, doffs_px=4.0)
    table = error_by_distance(lambda s: np.asarray(s["disparity_px"]), [sample])
    assert table["pixels"].tolist() == [1, 1, 0, 0] and (table["abs_rel"].dropna() < 1e-6).all()


def test_errors_by_region_separate_lane_paint_and_shiny_surfaces_from_plain_road():
    classes, ids = ("road", "sky", "car"), np.array([[0, 0, 0, 2]], dtype=np.uint8)
    paint, shiny = np.array([[True, False, False, False]]), np.array([[False, False, False, True]])
    sample = labelled([[10, 10, 10, 10]], classes=ids, lane_paint=paint, shiny=shiny)
    table = error_by_region(lambda s: np.array([[14.0, 11, 12, 16]]), [sample], classes)
    expected = {"road": 7 / 3, "car": 6, "lane paint": 4, "shiny": 6, "plain road": 1.5}
    assert table["epe"].dropna().to_dict() == pytest.approx(expected)
    assert table["pixels"].to_dict() == {
        "road": 3, "sky": 0, "car": 1, "lane paint": 1, "shiny": 1, "shiny, no car": 0, "plain road": 2
    }  # fmt: skip


def test_published_numbers_name_their_source():
    assert PUBLISHED.loc["Godard, VGG", ["abs_rel", "d1_all"]].tolist() == [0.124, 30.272]
    assert PUBLISHED["source"].str.len().min() > 0
