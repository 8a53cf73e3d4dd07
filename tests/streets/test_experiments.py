"""Moved cars: what is changed changes, and the rest, above all the true distance, stays."""

import numpy as np
import pytest

from monodepth_nb.streets.experiments import one_car_street
from monodepth_nb.streets.rendering import FOCAL

SIZE, SEED, DISTANCE_M = (128, 256), 500, 10.0
FOCAL_ROWS = FOCAL[0] * SIZE[0]


def car(**change):
    return one_car_street(SEED, DISTANCE_M, size=SIZE, **change)


def extent(sample):
    """Last row of the car, and its width in pixels."""
    rows, columns = np.nonzero(sample.car)
    return rows.max(), np.ptp(columns) + 1


@pytest.fixture(scope="module")
def plain():
    return car()


@pytest.mark.parametrize("change", [{}, {"lift_m": 0.5}, {"scale": 0.6}, {"pitch": 0.02}, {"shadow": False}], ids=str)
def test_the_rear_of_the_car_is_as_far_as_asked_for_whatever_else_is_changed(change):
    sample = car(**change)
    nearest = sample.focal_px * sample.baseline_m / sample.disparity_px[sample.car].max()
    assert nearest == pytest.approx(DISTANCE_M, rel=0.02)


def test_a_lifted_car_stands_higher_in_the_picture_and_is_as_large(plain):
    (row, width), (lifted_row, lifted_width) = extent(plain), extent(car(lift_m=0.5))
    wheels_m = plain.focal_px * plain.baseline_m / plain.disparity_px[row][plain.car[row]].mean()
    assert row - lifted_row == pytest.approx(FOCAL_ROWS * 0.5 / wheels_m, abs=1)
    assert lifted_width == pytest.approx(width, abs=1)


def test_a_scaled_car_is_larger_and_touches_the_road_in_the_same_row(plain):
    (row, width), (scaled_row, scaled_width) = extent(plain), extent(car(scale=1.5))
    assert scaled_row == pytest.approx(row, abs=1)
    assert scaled_width == pytest.approx(1.5 * width, abs=2)


def test_a_pitched_camera_moves_the_car_down_by_the_angle(plain):
    row, pitched = extent(plain)[0], extent(car(pitch=0.03))[0]
    assert pitched - row == pytest.approx(0.03 * FOCAL_ROWS, abs=1)


def test_without_its_shadow_the_same_things_stand_on_a_brighter_road(plain):
    without = car(shadow=False)
    np.testing.assert_array_equal(without.disparity_px, plain.disparity_px)
    brighter = (without.left - plain.left).mean(0)[~plain.car]
    assert brighter.max() > 0.1 and brighter.min() > -0.05  # the exposure follows the mean


def test_one_experiment_leaves_no_trace_in_the_next(plain):
    np.testing.assert_array_equal(car().left, plain.left)
