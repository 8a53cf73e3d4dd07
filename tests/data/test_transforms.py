import pytest
import torch
import torch.nn.functional as F

from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import (
    Compose,
    MirroredFlip,
    PairedPhotometric,
    PasteNearer,
    RandomConvolution,
    Shade,
    Sharpness,
    StrongPhotometric,
    Zoom,
    resize,
)
from monodepth_nb.losses import warp_horizontal


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted_pair(shift=4, h=32, w=64):
    """A textured plane: its disparity is `shift` pixels in both views."""
    right = F.interpolate(torch.rand(1, 3, h // 8, w // 8, generator=seeded(0)), (h, w), mode="bicubic").clamp(0, 1)[0]
    disparity = torch.full((2, h, w), shift / w)
    return Sample(left=right.roll(shift, dims=-1), right=right, name="shifted", disparity=disparity)


def rebuild_error(sample, shift):
    """Mean error of the left view rebuilt from the right by a disparity of `shift` pixels, away from the edges."""
    _, h, w = sample.left.shape
    rebuilt = warp_horizontal(sample.right[None], torch.full((1, 1, h, w), -shift / w))[0]
    margin = int(shift) + 12
    return (rebuilt - sample.left)[..., 4:-4, margin:-margin].abs().mean().item()


def of_one_picture(image, **others):
    return Sample(left=image, right=image, name="x", **others)


def test_a_mirrored_pair_warps_only_if_its_views_and_disparity_maps_are_exchanged():
    disparity = torch.rand(2, 32, 64, generator=seeded(0))
    pair = Sample(shifted_pair(), disparity=disparity, disparity_px=torch.ones(32, 64))
    mirrored = MirroredFlip(p=1)(pair)
    assert rebuild_error(mirrored, 4) < 1e-5
    assert rebuild_error(Sample(left=pair.left.flip(-1), right=pair.right.flip(-1)), 4) > 0.1
    assert "disparity_px" not in mirrored  # the truth of the old left view
    assert torch.equal(mirrored.disparity[0], disparity[1].flip(-1))
    twice = MirroredFlip(p=1)(mirrored)
    assert all(torch.equal(twice[key], pair[key]) for key in ("left", "right", "disparity"))


def test_photometric_changes_cover_their_ranges_in_both_views_alike():
    grey, generator = of_one_picture(torch.full((3, 1, 1), 0.25)), seeded(0)
    changed = [PairedPhotometric(p=1)(grey, generator) for _ in range(500)]
    assert all(torch.equal(pair.left, pair.right) for pair in changed)
    values = torch.stack([pair.left for pair in changed])
    # gamma 1.2 / 0.8, brightness 0.5 / 2.0, colour 0.8 / 1.2
    lowest, highest = 0.25**1.2 * 0.5 * 0.8, 0.25**0.8 * 2.0 * 1.2
    assert values.min() >= lowest and values.min() < 1.3 * lowest
    assert 0.8 * highest < values.max() <= highest
    assert (values[:, 0] - values[:, 1]).abs().max() > 0.01  # a factor for each channel


def test_strong_photometric_changes_both_views_alike_apart_from_noise():
    pair = of_one_picture(torch.rand(3, 64, 64, generator=seeded(0)))
    for seed in range(20):
        out = StrongPhotometric(p=1)(pair, seeded(seed))
        assert 0 < (out.left - out.right).abs().mean() < 0.03  # the noise, which two cameras do not share
        assert (out.left - pair.left).abs().mean() > 0.03


def test_noise_is_normal_independent_of_place_and_view_and_at_most_as_strong_as_asked_for():
    grey, deviations = of_one_picture(torch.full((3, 64, 64), 0.5)), []
    for seed in range(40):
        out = StrongPhotometric(p=0, noise=0.05)(grey, seeded(seed))
        noise = torch.stack((out.left, out.right)) - 0.5
        deviations.append(noise.std().item())
        noise = noise / noise.std()
        assert abs(noise.mean()) < 0.03
        assert ((noise.abs() < 1).float().mean() - 0.683).abs() < 0.02  # of a normal distribution
        assert ((noise.abs() < 2).float().mean() - 0.954).abs() < 0.01
        for neighbour in (noise.roll(1, dims) for dims in range(4)):
            assert (noise * neighbour).mean().abs() < 0.03
    assert min(deviations) < 0.005 and 0.045 < max(deviations) < 0.0505


def test_recolouring_does_not_depend_on_the_number_of_threads():
    recolour = Compose(RandomConvolution(p=1), Sharpness(p=1), StrongPhotometric(p=1))
    pair, found, threads = of_one_picture(torch.rand(3, 64, 128, generator=seeded(0))), [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append([recolour(pair, seeded(seed)).left for seed in range(8)])
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))


def test_a_random_convolution_changes_both_views_alike_and_keeps_brightness_and_shapes():
    pair = of_one_picture(torch.rand(3, 64, 64, generator=seeded(0)).round())  # of random, sharp edges
    for seed in range(20):
        out = RandomConvolution(p=1)(pair, seeded(seed))
        assert torch.equal(out.left, out.right)
        assert (out.left.mean() - 0.5).abs() < 0.05
    step = torch.zeros(3, 64, 64)
    step[..., 32:] = 1
    out = RandomConvolution(p=1)(of_one_picture(step), seeded(1)).left
    for flat in (out[..., :30], out[..., 35:]):  # as before
        assert flat.std(dim=(1, 2)).max() < 1e-4


def test_sharpness_changes_how_steep_an_edge_is_and_not_where_it_is_or_how_bright_its_sides_are():
    step = torch.full((3, 32, 64), 0.3)
    step[..., 32:] = 0.7
    steepness = []
    for seed in range(40):
        out = Sharpness(p=1)(of_one_picture(step), seeded(seed))
        assert torch.equal(out.left, out.right)
        assert (out.left[..., :26] - 0.3).abs().max() < 0.01 and (out.left[..., 38:] - 0.7).abs().max() < 0.01
        change = out.left[0, 16].diff()
        assert change.argmax() == 31
        steepness.append(change[31].item())
    assert min(steepness) < 0.25 and max(steepness) > 0.55


@pytest.mark.parametrize(
    "transform", [PairedPhotometric(p=1), RandomConvolution(p=1), Sharpness(p=1), StrongPhotometric(p=1), Shade(p=1)]
)
def test_colours_stay_in_the_unit_range(transform):
    bright = Sample(left=torch.ones(3, 8, 8), right=torch.rand(3, 8, 8), name="x")
    for seed in range(20):
        out = transform(bright, seeded(seed))
        assert min(out.left.min(), out.right.min()) >= 0 and max(out.left.max(), out.right.max()) <= 1


@pytest.mark.parametrize("transform", [MirroredFlip, PairedPhotometric])
def test_the_seed_decides_which_half_of_the_pairs_is_changed(transform):
    pair, runs = shifted_pair(), []
    for _ in range(2):
        generator = seeded(0)
        runs.append([not torch.equal(transform()(pair, generator).left, pair.left) for _ in range(400)])
    assert 160 < sum(runs[0]) < 240
    assert runs[0] == runs[1]


def test_resize_averages_the_area_it_shrinks_whatever_the_leading_dimensions():
    stripes = torch.zeros(3, 64, 64)
    stripes[..., ::4] = 1  # a quarter of the area, and finer than the small image can hold
    small = resize(stripes, (16, 16))
    assert (small[..., 1:-1] - 0.25).abs().max() < 0.05
    assert torch.equal(resize(stripes.expand(2, 5, 3, 64, 64), (16, 16)), small.expand(2, 5, 3, 16, 16))


def test_a_zoomed_pair_still_warps_with_its_grown_disparity():
    pair = shifted_pair(8, 96, 192)
    for seed in range(3):
        zoomed = Zoom(1.5)(pair, seeded(seed))
        grown_px = 192 * zoomed.disparity[0, 0, 0].item()
        assert grown_px > 1.01 * 8  # it did zoom
        assert rebuild_error(zoomed, grown_px) < min(0.02, rebuild_error(zoomed, 8))


def test_a_zoomed_window_may_lie_anywhere():
    row, column = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 80), indexing="ij")
    pair = Sample(left=torch.stack((row, column, row)), right=torch.zeros(3, 40, 80), name="x")
    windows = torch.stack([Zoom(1.5)(pair, seeded(seed)).left for seed in range(40)])
    for first, last in ((windows[:, 0, 0, 0], windows[:, 0, -1, 0]), (windows[:, 1, 0, 0], windows[:, 1, 0, -1])):
        assert first.min() < 0.05 and first.max() > 0.2 and last.min() < 0.8 and last.max() > 0.95


def test_shade_falls_in_patches_alike_on_both_views_and_leaves_disparity_alone():
    grey = of_one_picture(torch.full((3, 64, 128), 0.4), disparity=torch.full((2, 64, 128), 0.05))
    spreads, only_darker = [], 0
    for seed in range(200):
        out = Shade(p=1)(grey, seeded(seed))
        assert torch.equal(out.left, out.right) and torch.equal(out.disparity, grey.disparity)
        spreads.append((out.left.mean(0).max() / out.left.mean(0).min()).item())
        only_darker += int(out.left.mean(0).max() < 0.401)
    assert torch.tensor(spreads).median() > 1.3  # not one factor for the whole picture
    assert 60 < only_darker < 140  # shadows; the others are lights too


def test_pasting_puts_what_is_nearer_in_front_in_both_views_and_never_a_guess():
    far, near = torch.full((2, 40, 80), 0.05), torch.full((2, 40, 80), 0.02)
    near[0, 10:30, 20:40] = near[1, 10:30, 12:32] = 0.1  # an object, in the left and in the right view
    near[:, 10:30, 60:75] = -0.2  # a guess
    near[:, 20, 50] = 0.1  # a speck
    left, right = torch.rand(2, 2, 3, 40, 80, generator=seeded(0))
    here, other = (Sample(left=left[i], right=right[i], disparity=d) for i, d in enumerate((far, near)))
    prepared = []
    out = PasteNearer([other], lambda sample, generator: prepared.append(sample) or sample, p=1)(here)
    assert prepared == [other]
    for i, (view, start) in enumerate((("left", 20), ("right", 12))):
        inside = (slice(None), slice(12, 28), slice(start + 2, start + 18))
        assert torch.equal(out[view][inside], other[view][inside])
        assert torch.equal(out[view][..., 45:], here[view][..., 45:])
        assert (out.disparity[i][inside[1:]] == 0.1).all()
    assert (out.disparity[..., 45:] == 0.05).all()
    assert torch.equal(PasteNearer([here], Compose(), p=1)(here).left, here.left)  # nothing is nearer than itself
