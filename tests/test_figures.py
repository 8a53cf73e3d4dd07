"""Figures say what they show: titles, units, one range per quantity."""

import io

import numpy as np
import pandas as pd
import pytest
import torch

from monodepth_nb import figures
from monodepth_nb.data.sample import Sample

LABEL = "smoke profile, shifted noise"
SHIFT = 5


@pytest.fixture(scope="module")
def sample():
    """The left view is the right one moved 5 px to the right."""
    right = torch.rand(3, 40, 100, generator=torch.Generator().manual_seed(0))
    truth = np.full((40, 100), SHIFT, np.float32)
    truth[0] = np.nan
    return Sample(
        left=right.roll(SHIFT, -1), right=right, name="noise", disparity_px=torch.from_numpy(truth),
        focal_px=100.0, baseline_m=0.5,
    )  # fmt: skip


HISTORY = pd.DataFrame(
    {"epoch": [1, 2], "train_total": [8.0, 1], "validation_total": [3.0, 2], "train_smoothness": [0.0, 1]}
)

RUNS = pd.DataFrame({"arm": ["b", "a", "b", "a"], "seed": [0, 0, 1, 1], "abs_rel": [0.2, 0.4, 0.3, 0.6]})


def all_figures(sample):
    guess, fraction = np.full((40, 100), 7.0), np.full((40, 100), 0.05)
    scores = pd.DataFrame({"arm": ["a", "a", "b"], "seed": [0, 1, 0], "epe": [1, 2, 3], "d1_all": [10, 20, 30]})
    yield figures.prediction_figure(sample, guess, LABEL)
    yield figures.best_median_worst([sample] * 3, [guess] * 3, ["best", "median", "worst"], LABEL)
    yield figures.reconstruction_figure(sample, torch.full((20, 50), 0.05), LABEL)
    yield figures.loss_curves(HISTORY, LABEL)
    yield figures.two_by_two(sample.left, fraction, sample.left, fraction, LABEL)
    yield figures.map_grid(sample.left, {"1e-4": guess}, sample.disparity_px, LABEL, "Maps by rate")
    yield figures.arms_figure({"a": guess, "b": guess}, sample.disparity_px, scores, LABEL)
    yield figures.spread_figure(RUNS, "abs_rel", "AbsRel", 0.3, LABEL)
    yield figures.pairs_strip([sample] * 2, LABEL)
    yield figures.scanline_figure(sample, 20, 50, LABEL, max_shift_px=20)
    yield figures.disparity_histogram({"truth": sample.disparity_px, "prediction": guess}, LABEL)
    yield figures.point_cloud_figure(sample.left, guess, 100.0, 0.5, LABEL)
    yield figures.photo_sheet(np.ones((40, 100, 3)), fraction, None, LABEL)


def test_every_figure_names_profile_and_data_and_is_not_left_open(sample):
    for fig in all_figures(sample):
        titles = [fig.get_suptitle(), *(ax.get_title() for ax in fig.axes)]
        assert any(LABEL in title for title in titles)
        assert fig.get_size_inches()[0] <= 12
        assert not figures.plt.get_fignums()
        fig.savefig(io.BytesIO(), dpi=30)


def test_every_run_stands_in_the_row_of_its_arm_with_mean_and_spread():
    (ax,) = figures.spread_figure(RUNS, "abs_rel", "AbsRel", 0.3, LABEL).axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["b", "a"]  # as they come
    points = {tuple(p) for c in ax.collections if hasattr(c, "get_sizes") for p in np.round(c.get_offsets(), 6)}
    assert points == {(0.2, 0), (0.3, 0), (0.4, 1), (0.6, 1)}
    (bands,) = (c for c in ax.collections if hasattr(c, "get_segments"))
    np.testing.assert_allclose(bands.get_segments(), [[(0.2, 0), (0.3, 0)], [(0.4, 1), (0.6, 1)]])
    lines = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert lines["mean"] == pytest.approx([0.25, 0.5]) and lines["pixel-mean baseline"] == [0.3, 0.3]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["seed 0", "seed 1", "mean", "pixel-mean baseline"]


def panel(fig, title):
    return next(ax for ax in fig.axes if title in ax.get_title()).images[0]


def test_truth_and_prediction_share_colours_and_range_and_errors_are_in_pixels(sample):
    fig = figures.prediction_figure(sample, np.full((40, 100), 7.0), LABEL)
    truth, prediction, error = (panel(fig, t) for t in ("ground truth", "prediction", "error, mean 2.0 px"))
    assert truth.get_clim() == prediction.get_clim() == (0, 10)  # a tenth of the width
    assert truth.get_cmap().name == prediction.get_cmap().name
    np.testing.assert_allclose(np.ma.compressed(error.get_array()), 2)
    assert {"disparity [px]", "absolute error [px]"} <= {ax.get_ylabel() for ax in fig.axes}


def test_the_course_projects_figure_shows_both_maps_in_one_range(sample):
    maps = np.full((40, 100), 0.02), np.full((40, 100), 0.09)
    fig = figures.two_by_two(sample.left, maps[0], sample.left, maps[1], LABEL)
    assert [ax.images[0].get_clim() for ax in fig.axes[1:4:2]] == [(0, 0.1)] * 2


def test_the_right_view_warped_by_the_true_disparity_is_the_left_view(sample):
    fig = figures.reconstruction_figure(sample, torch.full((40, 100), SHIFT / 100), LABEL)
    difference = np.asarray(panel(fig, "difference").get_array())
    np.testing.assert_allclose(difference[:, SHIFT:], 0, atol=1e-5)


def test_losses_are_drawn_per_term_on_a_log_axis_where_they_are_positive():
    total, smoothness = figures.loss_curves(HISTORY, LABEL).axes
    assert (total.get_title(), total.get_yscale()) == ("total (log scale)", "log")
    assert (smoothness.get_title(), smoothness.get_yscale()) == ("smoothness", "linear")
    assert [line.get_ydata().tolist() for line in total.lines if len(line.get_ydata())] == [[8, 1], [3, 2]]


def test_titles_of_the_grid_tell_name_and_error(sample):
    fig = figures.map_grid(sample.left, {"step 1,000": np.full((40, 100), 7.5)}, sample.disparity_px, LABEL, "Maps")
    assert [ax.get_title() for ax in fig.axes][:3] == ["left view", "step 1,000\nEPE 2.5 px", "ground truth"]


def test_matching_cost_is_zero_at_the_disparity(sample):
    cost = figures.matching_cost(sample.left, sample.right, row=3, column=50, half_width=8, max_shift_px=60)
    assert cost.shape == (61,) and np.nanargmin(cost) == SHIFT and cost[SHIFT] == 0
    assert np.isnan(cost[43:]).all() and np.isfinite(cost[:43]).all()  # further, the piece would leave the image
    with pytest.raises(ValueError, match="leaves an image 100 px wide"):
        figures.matching_cost(sample.left, sample.right, 3, 99, 8, 60)


def test_the_anaglyph_is_red_from_the_left_and_cyan_from_the_right(sample):
    anaglyph = figures.anaglyph(sample.left, sample.right)
    np.testing.assert_array_equal(anaglyph[..., 0], sample.left[0])
    np.testing.assert_array_equal(anaglyph[..., 1:], sample.right[1:].permute(1, 2, 0))


def test_disparity_colours_run_from_black_to_light_and_are_cut_at_the_ends():
    colours = figures.colour_disparity(np.array([[-1, 0, 0.05, 0.1, 9]]))[0].astype(int)
    assert colours.dtype == int and (colours[0] == colours[1]).all() and (colours[3] == colours[4]).all()
    assert colours[1].sum() < colours[2].sum() < colours[3].sum()


def test_two_axes_of_the_point_cloud_are_in_metres(sample):
    fig = figures.point_cloud_figure(sample.left, np.full((40, 100), 5.0), 100.0, 0.5, LABEL)
    oblique, above = fig.axes
    assert (above.get_xlabel(), above.get_ylabel()) == ("to the right [m]", "depth [m]")
    np.testing.assert_allclose(above.collections[0].get_offsets()[:, 1], 10)
    assert len(oblique.collections[0].get_offsets()) == 4000


def test_a_scene_without_a_near_point_is_refused(sample):
    with pytest.raises(ValueError, match="no pixel is nearer than 80 m"):
        figures.point_cloud_figure(sample.left, np.zeros((40, 100)), 100.0, 0.5, LABEL)
