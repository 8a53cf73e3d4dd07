"""Disparity found in the pairs themselves, and what is learnt from it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from monodepth_nb.data import recipes
from monodepth_nb.data.loading import PairCache
from monodepth_nb.data.matching import (
    FARTHEST,
    SEARCH_RANGE,
    MatchedPairs,
    RenderedPairs,
    filled,
    hidden_pixels,
    match_views,
)
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import Shade
from monodepth_nb.layers import MAX_DISPARITY
from monodepth_nb.losses import DisparityLoss
from monodepth_nb.training import TrainConfig, fit


def textured_pair(shift_px=8, h=64, w=192, seed=0):
    """A plane whose disparity is `shift_px` pixels."""
    scene = torch.rand(3, h, w + shift_px, generator=torch.Generator().manual_seed(seed))
    return Sample(left=scene[..., :w], right=scene[..., shift_px:], name="plane")


def wall_with_pole(pole_px, disparity_px, wall_px=0, h=128, w=384):
    """A textured wall and a pole before it; returns the pair and the pole's columns in each view."""
    generator, start = torch.Generator().manual_seed(0), w // 2
    wall, pole = torch.rand(3, h, w + wall_px, generator=generator), torch.rand(3, h, pole_px, generator=generator)
    columns = [slice(s, s + pole_px) for s in (start, start - disparity_px)]
    views = [wall[..., :w].clone(), wall[..., wall_px:].clone()]
    for view, place in zip(views, columns, strict=True):
        view[..., place] = pole
    return Sample(left=views[0], right=views[1], name="pole"), columns


def test_matching_finds_the_shift_of_a_textured_plane_in_both_views():
    disparity_px = 192 * match_views(**{v: textured_pair()[v] for v in ("left", "right")})
    inside = disparity_px[:, 4:-4, 16:-16]
    assert (inside > 0).float().mean() > 0.95
    torch.testing.assert_close(inside[inside > 0], torch.full_like(inside[inside > 0], 8.0), rtol=0, atol=0.25)
    assert SEARCH_RANGE == MAX_DISPARITY  # what a network can answer


def test_matching_finds_nothing_in_plain_views_and_little_in_unrelated_ones():
    plain = torch.full((3, 64, 192), 0.5)
    assert (match_views(plain, plain) > 0).float().mean() < 0.01
    unrelated = match_views(textured_pair(seed=0).left, textured_pair(seed=1).right)
    assert (unrelated > 0).float().mean() < 0.2


def test_matching_is_within_3_px_of_the_truth_on_nine_tenths_of_what_it_matches_of_the_motorcycle():
    sample, rows = motorcycle(), slice(150, 350)
    truth_px = sample.disparity_px[rows]
    found_px = truth_px.shape[1] * match_views(sample.left[:, rows], sample.right[:, rows])[0]
    known = (found_px > 0) & truth_px.isfinite()
    assert known.float().mean() > 0.7
    assert ((found_px - truth_px).abs()[known] < 3).float().mean() > 0.9


def test_labels_are_matched_at_twice_the_size_which_finds_a_pole_that_is_lost_at_the_size_itself():
    pair, (columns, _) = wall_with_pole(pole_px=6, disparity_px=24)
    small = PairCache([pair], (64, 192))
    columns = slice(columns.start // 2, columns.stop // 2)
    labels, at_size = MatchedPairs(small)[0].disparity, match_views(small[0].left, small[0].right)
    found = [((192 * d[0, 4:-4, columns] - 12).abs() < 1).float().mean() for d in (labels, at_size)]
    assert found[0] > 0.8
    assert found[1] < 0.1
    label = MatchedPairs(PairCache([pair]))[0].disparity  # images are not enlarged
    torch.testing.assert_close(label, filled(match_views(pair.left, pair.right)), rtol=1e-3, atol=0)


def test_what_is_unknown_is_filled_from_the_farther_neighbour_and_marked_by_its_sign():
    disparity = torch.tensor([[[0.0, 0, 0, 0, 0], [0.2, 0, 0, 0.1, 0]]])
    expected = torch.tensor([[[-0.2, -0.1, -0.1, -0.1, -0.1], [0.2, -0.1, -0.1, 0.1, -0.1]]])
    torch.testing.assert_close(filled(disparity), expected)
    assert (filled(torch.zeros(2, 3, 4)) == -FARTHEST).all()


def test_hidden_from_the_right_camera_are_the_strip_left_of_a_near_thing_and_what_lies_outside_its_view():
    disparity = np.full((2, 20), 2.0)
    disparity[:, 10:14] = 5  # lands on columns 5 to 8 of the right view, where the wall from 7 to 10 would be
    assert np.flatnonzero(hidden_pixels(disparity)[0]).tolist() == [0, 1, 7, 8, 9]


def test_rendered_labels_are_the_truth_of_each_view_and_matching_agrees_with_them():
    pair, columns = wall_with_pole(pole_px=40, disparity_px=24, wall_px=6, h=64)
    for key, place in zip(("disparity_px", "disparity_right_px"), columns, strict=True):
        pair[key] = torch.full((64, 384), 6.0)
        pair[key][:, place], pair[key][:4] = 24, torch.nan  # above all is the sky
    pairs = PairCache([pair])
    exact, matched = RenderedPairs(pairs)[0].disparity, MatchedPairs(pairs)[0].disparity
    for view, place in enumerate(columns):
        assert torch.equal(exact[view, :4], torch.full((4, 384), FARTHEST).half().float())
        assert (384 * exact[view, 4:, place] - 24).abs().max() < 0.01
        assert (384 * exact[view, 4:, : place.start] - 6).abs().max() < 0.01
        both = (matched[view] > 0) & (exact[view] > 2 * FARTHEST)
        error, other_way_round = (384 * (m - exact[view])[both].abs() for m in (matched[view], matched[1 - view]))
        assert both.float().mean() > 0.3 and error.median() < 0.5
        assert error.mean() < other_way_round.mean()


def test_few_pairs_mixes_as_many_real_as_rendered_ones_and_ends_with_pairs_of_their_own_size_and_place():
    pairs = PairCache([textured_pair(12, 64, 128)])
    street = Sample(textured_pair(), disparity_px=torch.ones(4, 8), disparity_right_px=torch.ones(4, 8))
    assert type(recipes.few_pairs(PairCache([street])).data) is RenderedPairs  # whose truth is known
    parts = recipes.few_pairs(pairs, PairCache([street] * 3)).data.datasets
    assert [type(part) for part in parts] == [MatchedPairs] * 3 + [RenderedPairs]
    recipe = recipes.few_pairs(pairs)
    own = recipe.data[0].disparity
    possible = own, own.flip(0).flip(-1)  # mirrored
    for seed in range(8):
        first, late = (
            t(recipe.data[0], torch.Generator().manual_seed(seed)).disparity
            for t in (recipe.transform, recipe.late_transform)
        )
        assert any(torch.equal(late, p) for p in possible)
        assert not any(torch.equal(first, p) for p in possible)
    for transform in (recipe.transform, recipe.late_transform):
        assert any(isinstance(step, Shade) for step in transform.transforms)  # to the end


class OneConvolution(nn.Conv2d):
    """Disparity of both views at the four scales, from the colour of each pixel alone."""

    def forward(self, image):
        score = super().forward
        return [MAX_DISPARITY * score(F.avg_pool2d(image, 2**scale)).sigmoid() for scale in range(4)]


def test_the_few_pairs_recipe_teaches_the_shift_of_a_plane_and_leaves_its_own_record():
    data = recipes.few_pairs(PairCache([textured_pair(12, 64, 128)])).data
    config = TrainConfig(epochs=40, batch_size=1, learning_rate=0.05, recipe="few-pairs")
    torch.manual_seed(0)
    network = OneConvolution(3, 2, kernel_size=1)
    history = fit(network, data, config, progress=False, validation_data=data)
    terms = ("total", "relative", "logarithmic", "absolute")
    assert {f"{part}_{term}" for part in ("train", "validation") for term in terms} <= set(history)
    assert "train_appearance" not in history
    found = network(data[0].left[None])[0][0, 0].median().item()
    assert found == pytest.approx(12 / 128, rel=0.15)
    assert history["validation_total"].iloc[-1] < 0.5 * history["validation_total"].iloc[0]


def test_the_disparity_loss_counts_only_what_is_known_and_is_zero_at_the_truth():
    maps = [torch.full((1, 2, 64 // 2**s, 64 // 2**s), 0.1) for s in range(4)]
    loss, known, images = DisparityLoss(), torch.full((1, 2, 64, 64), 0.1), torch.zeros(2, 1, 3, 64, 64)
    known[..., 32:] = -0.3  # a guess
    assert loss(maps, *images, known).total == 0
    twice = loss([2 * m for m in maps], *images, known)
    # Twice the disparity is half the depth: a relative error of one half, at weights 1 + 3 * 1/2.
    assert twice.relative.item() == pytest.approx(2.5 * 0.5)
    assert twice.absolute.item() == pytest.approx(2.5 * 0.1)
    assert twice.logarithmic.item() == pytest.approx(2.5 * math.log(2))
    assert twice.total.item() == pytest.approx(2.5 * (0.7 * 0.5 + 0.3 * math.log(2) + 20 * 0.1))
    nearly_zero = loss([m * 1e-9 for m in maps], *images, known)
    assert nearly_zero.relative.item() == pytest.approx(2.5 * 5)  # the largest that counts
    known[:] = 0
    assert loss(maps, *images, known).total == 0
    with pytest.raises(ValueError, match="MatchedPairs"):
        loss(maps, *images)


def test_pairs_without_a_cache_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"list.*PairCache"):
        recipes.few_pairs([textured_pair()])
