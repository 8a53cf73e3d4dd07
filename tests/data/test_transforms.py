import pytest
import torch

from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import (
    Compose,
    MirroredFlip,
    PairedPhotometric,
    PasteNearer,
    Shade,
    StrongPhotometric,
    Zoom,
    resize,
)
from monodepth_nb.losses import warp_horizontal


def shifted_pair(shift=4, h=32, w=64):
    right = torch.rand(3, h, w)
    return Sample(left=right.roll(shift, dims=-1), right=right, name="shifted")


def rebuild_error(sample, shift=4):
    """Mean error of the left view rebuilt from the right by a constant disparity, away from the edges."""
    _, h, w = sample.left.shape
    rebuilt = warp_horizontal(sample.right[None], torch.full((1, 1, h, w), -shift / w))[0]
    return (rebuilt - sample.left)[..., 2 * shift : -2 * shift].abs().mean().item()


def test_a_flipped_and_exchanged_pair_still_warps():
    assert rebuild_error(MirroredFlip(p=1)(shifted_pair())) < 1e-5


def test_a_flipped_pair_without_the_exchange_does_not_warp():
    pair = shifted_pair()
    assert rebuild_error(Sample(left=pair.left.flip(-1), right=pair.right.flip(-1))) > 0.1


def test_flipping_twice_gives_the_pair_back():
    pair = shifted_pair()
    twice = MirroredFlip(p=1)(MirroredFlip(p=1)(pair))
    torch.testing.assert_close(twice.left, pair.left)


def test_both_views_get_the_same_photometric_draw():
    grey = torch.full((3, 4, 4), 0.3)
    for seed in range(20):
        out = PairedPhotometric(p=1)(Sample(left=grey, right=grey), torch.Generator().manual_seed(seed))
        torch.testing.assert_close(out.left, out.right)


def test_photometric_draws_cover_their_ranges_and_stay_within_them():
    grey = Sample(left=torch.full((3, 1, 1), 0.25), right=torch.full((3, 1, 1), 0.25))
    g = torch.Generator().manual_seed(0)
    values = torch.stack([PairedPhotometric(p=1)(grey, g).left for _ in range(2000)])
    # gamma 1.2 / 0.8, brightness 0.5 / 2.0, colour 0.8 / 1.2
    lowest, highest = 0.25**1.2 * 0.5 * 0.8, 0.25**0.8 * 2.0 * 1.2
    assert values.min() >= lowest and values.min() < 1.3 * lowest
    assert 0.8 * highest < values.max() <= highest
    assert (values[:, 0] - values[:, 1]).abs().max() > 0.01  # a factor for each channel


def test_photometric_output_stays_in_the_unit_range():
    bright = Sample(left=torch.ones(3, 4, 4), right=torch.rand(3, 4, 4))
    for seed in range(20):
        out = PairedPhotometric(p=1)(bright, torch.Generator().manual_seed(seed))
        assert min(out.left.min(), out.right.min()) >= 0 and max(out.left.max(), out.right.max()) <= 1


@pytest.mark.parametrize("transform", [MirroredFlip, PairedPhotometric])
def test_half_of_the_draws_change_the_pair(transform):
    g = torch.Generator().manual_seed(0)
    pair = shifted_pair()
    changed = sum(not torch.equal(transform()(pair, g).left, pair.left) for _ in range(400))
    assert 160 < changed < 240


def test_the_same_seed_gives_the_same_augmentation():
    pair, both = shifted_pair(), Compose(PairedPhotometric(), MirroredFlip())
    a, b = (both(pair, torch.Generator().manual_seed(7)).left for _ in range(2))
    torch.testing.assert_close(a, b)


def test_ground_truth_is_dropped_by_a_flip_because_it_belongs_to_the_old_left_view():
    pair = Sample(shifted_pair(), disparity_px=torch.ones(32, 64))
    assert "disparity_px" not in MirroredFlip(p=1)(pair)


def test_resize_averages_the_area_it_shrinks():
    stripes = torch.zeros(3, 64, 64)
    stripes[..., ::4] = 1  # a quarter of the area, and finer than the small image can hold
    small = resize(stripes, (16, 16))
    assert (small[..., 1:-1] - 0.25).abs().max() < 0.05


def labelled(disparity, h=40, w=80):
    return Sample(left=torch.rand(3, h, w), right=torch.rand(3, h, w), name="x", disparity=disparity)


def test_a_flip_exchanges_the_disparity_of_the_views_too():
    disparity = torch.rand(2, 40, 80)
    mirrored = MirroredFlip(p=1)(labelled(disparity))
    assert torch.equal(mirrored.disparity[0], disparity[1].flip(-1))
    assert torch.equal(MirroredFlip(p=1)(mirrored).disparity, disparity)


def test_a_zoomed_pair_still_warps_with_its_grown_disparity():
    coarse = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 24), scale_factor=8, mode="bicubic").clamp(0, 1)[0]
    pair = Sample(left=coarse.roll(8, dims=-1), right=coarse, name="x", disparity=torch.full((2, 96, 192), 8 / 192))
    for seed in range(3):
        zoomed = Zoom(1.5)(pair, torch.Generator().manual_seed(seed))
        assert zoomed.disparity.min() > 1.01 * 8 / 192  # it did zoom
        grown = 192 * zoomed.disparity[0, 0, 0].item()
        rebuilt = warp_horizontal(zoomed.right[None], -zoomed.disparity[None, :1])[0]
        stale = warp_horizontal(zoomed.right[None], torch.full((1, 1, 96, 192), -8 / 192))[0]
        inside = (..., slice(4, -4), slice(int(grown) + 12, -12))
        error, stale_error = ((r - zoomed.left)[inside].abs().mean().item() for r in (rebuilt, stale))
        assert error < 0.02
        assert error < stale_error


def test_a_zoomed_window_may_lie_anywhere():
    row, column = torch.linspace(0, 1, 40)[:, None].expand(40, 80), torch.linspace(0, 1, 80).expand(40, 80)
    pair = Sample(left=torch.stack((row, column, row)), right=torch.zeros(3, 40, 80), name="x")
    draws = [Zoom(1.5)(pair, torch.Generator().manual_seed(seed)).left for seed in range(40)]
    for axis, end in ((0, (-1, 0)), (1, (0, -1))):
        first, last = (torch.stack([draw[(axis, *at)] for draw in draws]) for at in ((0, 0), end))
        assert first.min() < 0.05 and first.max() > 0.2 and last.min() < 0.8 and last.max() > 0.95


def test_strong_recolouring_draws_once_for_both_views_and_stays_within_0_and_1():
    image = torch.rand(3, 64, 64)
    for seed in range(20):
        out = StrongPhotometric(p=1)(Sample(left=image, right=image, name="x"), torch.Generator().manual_seed(seed))
        assert out.left.min() >= 0 and out.left.max() <= 1
        assert 0 < (out.left - out.right).abs().mean() < 0.03  # the noise, which two cameras do not share
        assert (out.left - image).abs().mean() > 0.03


def test_shade_falls_in_patches_alike_on_both_views_and_leaves_disparity_alone():
    plain = torch.full((3, 64, 128), 0.4)
    grey = Sample(left=plain, right=plain, name="x", disparity=torch.full((2, 64, 128), 0.05))
    spreads, only_darker = [], 0
    for seed in range(200):
        out = Shade(p=1)(grey, torch.Generator().manual_seed(seed))
        assert torch.equal(out.left, out.right) and torch.equal(out.disparity, grey.disparity)
        assert out.left.min() >= 0 and out.left.max() <= 1
        spreads.append((out.left.mean(0).max() / out.left.mean(0).min()).item())
        only_darker += int(out.left.mean(0).max() < 0.401)
    assert torch.tensor(spreads).median() > 1.3  # not one factor for the whole picture
    assert 60 < only_darker < 140  # shadows; the others are lights too


def test_pasting_puts_what_is_nearer_in_front_in_both_views_and_never_a_guess():
    far, near = torch.full((2, 40, 80), 0.05), torch.full((2, 40, 80), 0.02)
    near[0, 10:30, 20:40] = 0.1  # an object, in the left view
    near[1, 10:30, 12:32] = 0.1  # and in the right view
    near[:, 10:30, 60:75] = -0.2  # a guess
    here, other = labelled(far), labelled(near)
    prepared = []
    out = PasteNearer([other], lambda sample, generator: prepared.append(sample) or sample, p=1)(here)
    assert prepared == [other]
    for i, view in enumerate(("left", "right")):
        start = (20, 12)[i]
        inside = (slice(None), slice(12, 28), slice(start + 2, start + 18))
        assert torch.equal(out[view][inside], other[view][inside])
        assert torch.equal(out[view][..., 45:], here[view][..., 45:])
        assert (out.disparity[i][inside[1:]] == 0.1).all()
    assert (out.disparity[..., 45:] == 0.05).all()
    assert torch.equal(PasteNearer([here], Compose(), p=1)(here).left, here.left)  # nothing is nearer than itself
