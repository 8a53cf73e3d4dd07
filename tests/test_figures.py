"""Figures say what they show: titles, units, one range per quantity. The smoke notebooks render them."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from monodepth_nb import figures
from monodepth_nb.data.sample import Sample

LABEL = "smoke profile, shifted noise"
SHIFT = 5
HISTORY = pd.DataFrame(
    {"epoch": [1, 2], "train_total": [8.0, 1], "validation_total": [3.0, 2], "train_smoothness": [0.0, 1]}
)
SCORES = pd.DataFrame({"name": ["a", "b", "c"], "abs_rel": [0.3, 0.1, 0.2]})
MAP = np.full((40, 100), 7.0)


@pytest.fixture(scope="module")
def sample():
    """The left view is the right one shifted by 5 px to the right."""
    right = torch.rand(3, 40, 100, generator=torch.Generator().manual_seed(0))
    truth = torch.full((40, 100), float(SHIFT))
    truth[0] = torch.nan
    return Sample(left=right.roll(SHIFT, -1), right=right, name="noise", disparity_px=truth)


def panel(fig, title):
    return next(ax for ax in fig.axes if title in ax.get_title()).images[0]


def titles(fig):
    return [ax.get_title() for ax in fig.axes]


def test_every_figure_names_profile_and_data_and_is_not_left_open(sample):
    fraction = MAP / 100
    for fig in (
        figures.prediction_figure(sample, MAP, LABEL),
        figures.best_median_worst(lambda sample: MAP, [sample] * 3, SCORES, LABEL),
        figures.reconstruction_figure(sample, torch.full((20, 50), 0.05), LABEL),
        figures.loss_curves(HISTORY, LABEL),
        figures.two_by_two(sample.left, fraction, sample.left, fraction, LABEL),
        figures.map_grid(sample.left, {"1e-4": MAP}, sample.disparity_px, LABEL, "Maps by rate"),
        figures.pairs_strip([sample] * 2, LABEL),
        figures.photo_sheet(np.ones((40, 100, 3)), fraction, None, LABEL),
    ):
        assert LABEL in fig.get_suptitle()
        assert 11 <= fig.get_size_inches()[0] <= 12  # over 1000 pixels
        assert hasattr(fig, "number")  # made by pyplot, else a notebook may show it as text
    assert not plt.get_fignums()


def test_truth_and_prediction_share_colours_and_range_and_errors_are_in_pixels(sample):
    fig = figures.prediction_figure(sample, MAP, LABEL)
    truth, prediction, error = (panel(fig, t) for t in ("ground truth", "prediction", "error, mean 2.0 px"))
    assert truth.get_clim() == prediction.get_clim() == (0.4, 10)  # to a tenth of the width
    assert truth.get_cmap().name == prediction.get_cmap().name
    np.testing.assert_allclose(np.ma.compressed(error.get_array()), 2)
    assert {"disparity [px]", "absolute error [px]"} <= {ax.get_ylabel() for ax in fig.axes}


def test_an_image_is_stretched_to_its_map_and_both_maps_share_one_range():
    small, maps = torch.zeros(3, 20, 50), (np.full((40, 100), 0.02), np.full((80, 50), 0.09))
    fig = figures.two_by_two(small, maps[0], np.zeros((80, 50, 3)), maps[1], LABEL, "your photo")
    images = [ax.images[0] for ax in fig.axes[:4]]
    assert [image.get_extent() for image in images] == [[0, 100, 40, 0]] * 2 + [[0, 50, 80, 0]] * 2
    assert images[1].get_clim() == images[3].get_clim() == (0.004, 0.1)


def test_samples_are_columns_from_image_to_error_with_the_best_first(sample):
    fig = figures.best_median_worst(lambda sample: MAP, [sample] * 3, SCORES, LABEL)
    expected = ["best: b, AbsRel 0.100", "median: c, AbsRel 0.200", "worst: a, AbsRel 0.300"]
    assert titles(fig)[:12] == expected + ["ground truth"] * 3 + ["prediction"] * 3 + ["error, mean 2.0 px"] * 3


def test_the_right_view_warped_by_the_true_disparity_is_the_left_view(sample):
    fig = figures.reconstruction_figure(sample, torch.full((40, 100), SHIFT / 100), LABEL)
    difference = np.asarray(panel(fig, "difference").get_array())
    np.testing.assert_allclose(difference[:, SHIFT:], 0, atol=1e-5)


def test_losses_are_drawn_per_term_on_a_log_axis_where_they_are_positive():
    total, smoothness = figures.loss_curves(HISTORY, LABEL).axes
    assert "total" in total.get_title() and total.get_yscale() == "log"
    assert "smoothness" in smoothness.get_title() and smoothness.get_yscale() == "linear"
    assert [line.get_ydata().tolist() for line in total.lines if len(line.get_ydata())] == [[8, 1], [3, 2]]


def test_grid_titles_give_name_and_error_and_spare_panels_are_removed(sample):
    maps = {f"step {step}": MAP + 0.5 for step in range(3)}
    fig = figures.map_grid(sample.left, maps, sample.disparity_px, LABEL, "Maps")
    steps = [f"step {step}\nEPE 2.5 px" for step in range(3)]
    assert titles(fig)[:-1] == ["left view", *steps, "ground truth"]  # and the colour bar


def test_each_run_is_in_the_row_of_its_arm_with_mean_and_range():
    runs = pd.DataFrame({"arm": ["b", "a", "b", "a"], "seed": [0, 0, 1, 1], "abs_rel": [0.2, 0.4, 0.3, 0.6]})
    ax = plt.Figure().subplots()
    figures.draw_runs(ax, runs, "abs_rel", "AbsRel", band=True)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["b", "a"]  # in order of appearance
    points = {tuple(p) for c in ax.collections if hasattr(c, "get_sizes") for p in np.round(c.get_offsets(), 6)}
    assert points == {(0.2, 0), (0.3, 0), (0.4, 1), (0.6, 1)}
    (bands,) = (c for c in ax.collections if hasattr(c, "get_segments"))
    np.testing.assert_allclose(bands.get_segments(), [[(0.2, 0), (0.3, 0)], [(0.4, 1), (0.6, 1)]])
    handles, labels = ax.get_legend_handles_labels()
    assert labels == ["seed 0", "seed 1", "mean"]
    assert list(handles[-1].get_xdata()) == pytest.approx([0.25, 0.5])


def test_disparity_colours_run_from_black_to_light_and_are_clipped_at_the_ends_and_grey_is_unknown():
    colours = figures.colour_disparity(np.array([[-1, 0, 0.05, 0.1, 9, np.nan]]))[0].astype(int)
    assert (colours[0] == colours[1]).all() and (colours[3] == colours[4]).all()
    assert colours[1].sum() < colours[2].sum() < colours[3].sum()
    assert colours[5].tolist() == [209] * 3


def test_twice_the_distance_is_the_same_step_of_colour_near_and_far():
    scale = figures.disparity_range(width=100)
    steps = np.diff(scale([0.8, 1.6, 3.2, 6.4]))
    np.testing.assert_allclose(steps, steps[0])
    assert steps[0] > 0.2


def test_a_dollar_in_a_name_is_no_formula(sample):
    odd = Sample(sample, name="$\\bad{$")
    fig = figures.prediction_figure(odd, MAP, "data $\\worse{$")
    fig.savefig(io.BytesIO())  # a formula that cannot be parsed would raise
    assert titles(fig)[0] == odd.name


def test_an_animation_holds_every_frame_and_shows_the_last_one_longest(tmp_path):
    frames = [
        figures.grid([figures.Panel(np.full((8, 16, 3), tone), "")], 1, LABEL, width=3) for tone in (0.1, 0.5, 0.9)
    ]
    figures.write_animation(tmp_path / "a.gif", frames)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 3 and gif.width == 300
        shown = []
        for number in range(3):
            gif.seek(number)
            shown.append(gif.info["duration"])
    assert shown[2] > shown[0] == shown[1]
