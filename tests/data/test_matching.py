"""Disparity found in the pairs themselves, and what is learnt from it."""

import math

import pytest
import torch

from monodepth_nb.data import recipes
from monodepth_nb.data.kitti import KittiStereo
from monodepth_nb.data.loading import PairCache
from monodepth_nb.data.matching import FARTHEST, MatchedPairs, RenderedPairs, filled, match_views
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import Shade
from monodepth_nb.losses import DisparityLoss
from monodepth_nb.networks import DispResNet
from monodepth_nb.streets.rendering import render_streets
from monodepth_nb.training import TrainConfig, fit


def textured_pair(shift_px=8, h=64, w=192, seed=0):
    """A plane whose disparity is `shift_px` pixels."""
    scene = torch.rand(3, h, w + shift_px, generator=torch.Generator().manual_seed(seed))
    return Sample(left=scene[..., :w], right=scene[..., shift_px:], name="plane")


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    return render_streets(tmp_path_factory.mktemp("data") / "streets", 3, (64, 128), 0, progress=False)


def test_matching_finds_the_shift_of_a_textured_plane_in_both_views():
    disparity_px = 192 * match_views(**{v: textured_pair()[v] for v in ("left", "right")})
    inside = disparity_px[:, 4:-4, 16:-16]
    assert (inside > 0).float().mean() > 0.95
    torch.testing.assert_close(inside[inside > 0], torch.full_like(inside[inside > 0], 8.0), rtol=0, atol=0.25)


def test_matching_finds_nothing_in_plain_views_and_little_in_unrelated_ones():
    plain = torch.full((3, 64, 192), 0.5)
    assert (match_views(plain, plain) > 0).float().mean() < 0.01
    unrelated = match_views(textured_pair(seed=0).left, textured_pair(seed=1).right)
    assert (unrelated > 0).float().mean() < 0.2


def test_matching_is_within_3_px_of_the_truth_on_nine_tenths_of_what_it_matches_of_the_motorcycle():
    sample = motorcycle()
    found_px = sample.disparity_px.shape[1] * match_views(sample.left, sample.right)[0]
    known = (found_px > 0) & sample.disparity_px.isfinite()
    assert known.float().mean() > 0.7
    assert ((found_px - sample.disparity_px).abs()[known] < 3).float().mean() > 0.9


def street_with_pole(pole_px, disparity_px, h=128, w=384):
    """A textured wall at infinity and before it a pole, `pole_px` wide; its columns in the left view."""
    draw = torch.Generator().manual_seed(0)
    wall, pole = torch.rand(3, h, w, generator=draw), torch.rand(3, h, pole_px, generator=draw)
    left, right, start = wall.clone(), wall.clone(), w // 2
    left[..., start : start + pole_px] = pole
    right[..., start - disparity_px : start - disparity_px + pole_px] = pole
    return Sample(left=left, right=right, name="pole"), slice(start, start + pole_px)


def test_labels_are_matched_at_twice_the_size_which_finds_a_pole_that_is_lost_at_the_size_itself():
    pair, columns = street_with_pole(pole_px=6, disparity_px=24)
    small = PairCache([pair], (64, 192))
    columns = slice(columns.start // 2, columns.stop // 2)
    labels, at_size = MatchedPairs(small)[0].disparity, match_views(small[0].left, small[0].right)
    found = [((192 * d[0, 4:-4, columns] - 12).abs() < 1).float().mean() for d in (labels, at_size)]
    assert found[0] > 0.8
    assert found[1] < 0.1


def test_pictures_are_not_enlarged_to_match_them():
    pair = textured_pair(12, 64, 128)
    label = MatchedPairs(PairCache([pair]))[0].disparity
    torch.testing.assert_close(label, filled(match_views(pair.left, pair.right)), rtol=1e-3, atol=0)


def test_what_is_unknown_is_filled_from_the_farther_neighbour_and_marked_by_its_sign():
    disparity = torch.tensor([[[0.0, 0, 0, 0, 0], [0.2, 0, 0, 0.1, 0]]])
    expected = torch.tensor([[[-0.2, -0.1, -0.1, -0.1, -0.1], [0.2, -0.1, -0.1, 0.1, -0.1]]])
    torch.testing.assert_close(filled(disparity), expected)
    assert (filled(torch.zeros(2, 3, 4)) == -FARTHEST).all()


def test_rendered_labels_are_the_truth_of_each_view_and_matching_agrees_with_them(streets):
    pairs = PairCache(KittiStereo(streets, truth="occ"))
    exact, matched = RenderedPairs(pairs)[0].disparity, MatchedPairs(pairs)[0].disparity
    truth = pairs.dataset[0].disparity_px / 128
    torch.testing.assert_close(exact[0], truth.nan_to_num(FARTHEST), rtol=1e-3, atol=1e-5)
    for view in (0, 1):
        both = (matched[view] > 0) & (exact[view] > FARTHEST)
        assert both.float().mean() > 0.3
        assert 128 * (matched - exact)[view][both].abs().median() < 0.5
        other_way_round = 128 * (matched[1 - view] - exact[view])[both].abs().median()
        assert 128 * (matched - exact)[view][both].abs().median() < other_way_round


def test_few_pairs_mixes_about_as_many_real_as_rendered_ones(streets):
    cache = PairCache(KittiStereo(streets, truth="occ"))
    one = PairCache([cache[0]])
    data = recipes.few_pairs(one, cache).data
    assert [type(part) for part in data.datasets] == [MatchedPairs] * 3 + [RenderedPairs]


def test_the_few_pairs_recipe_ends_with_streets_of_their_own_size_and_place():
    recipe = recipes.few_pairs(PairCache([textured_pair(12, 64, 128)]))
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


def test_a_network_learns_the_shift_of_a_plane_from_matches_and_leaves_its_own_record(tmp_path):
    data = recipes.few_pairs(PairCache([textured_pair(12, 64, 128)])).data
    torch.manual_seed(0)
    config = TrainConfig(epochs=40, batch_size=1, learning_rate=1e-3, recipe="few-pairs")
    network = DispResNet(width=0.25)
    history = fit(network, data, config, progress=False, run_dir=tmp_path, validation_data=data)
    columns = {
        f"{part}_{term}"
        for part in ("train", "validation")
        for term in ("total", "relative", "logarithmic", "absolute")
    }
    assert columns <= set(history) and "train_appearance" not in history
    with torch.no_grad():
        found = network(data[0].left[None])[0][0, 0].median().item()
    assert found == pytest.approx(12 / 128, rel=0.15)
    assert history["validation_total"].iloc[-1] < 0.5 * history["validation_total"].iloc[0]


def test_the_disparity_loss_counts_only_what_is_known_and_is_zero_at_the_truth():
    loss, known = DisparityLoss(), torch.full((1, 2, 64, 64), 0.1)
    images = torch.zeros(2, 1, 3, 64, 64)
    maps = [torch.full((1, 2, 64 // 2**s, 64 // 2**s), 0.1) for s in range(4)]
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


def test_the_disparity_loss_says_what_to_do_about_pairs_without_disparity():
    maps = [torch.full((1, 2, 64 // 2**s, 64 // 2**s), 0.1) for s in range(4)]
    with pytest.raises(ValueError, match="wrap them in matching.MatchedPairs"):
        DisparityLoss()(maps, *torch.zeros(2, 1, 3, 64, 64))


def test_pairs_that_are_not_cached_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"to match list pairs, wrap them first: PairCache\(pairs, size\)"):
        recipes.few_pairs([textured_pair()])
