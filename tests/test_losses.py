import numpy as np
import pytest
import torch

from monodepth_nb.losses import (
    LossTerms,
    MonodepthLoss,
    appearance_loss,
    edge_aware_smoothness,
    left_right_consistency,
    ssim_distance,
    warp_horizontal,
)
from monodepth_nb.networks import DispResNet


def random_case(seed=0, batch=2, h=64, w=64):
    g = torch.Generator().manual_seed(seed)
    left, right = torch.rand(2, batch, 3, h, w, generator=g)
    maps = [0.3 * torch.rand(batch, 2, h // 2**s, w // 2**s, generator=g) for s in range(4)]
    return maps, left, right


# An independent, slow and literal NumPy computation of the specification.


def np_warp(image, offset):
    """image (C, H, W), offset (H, W) in fractions of W; linear interpolation, zero outside."""
    _, h, w = image.shape
    out = np.zeros_like(image)
    for y in range(h):
        for x in range(w):
            position = x + offset[y, x] * w
            x0 = int(np.floor(position))
            for column, weight in ((x0, 1 - (position - x0)), (x0 + 1, position - x0)):
                if 0 <= column < w:
                    out[:, y, x] += weight * image[:, y, column]
    return out


def np_ssim_distance(x, y):
    c, h, w = x.shape
    out = np.zeros((c, h - 2, w - 2))
    for k in range(c):
        for i in range(h - 2):
            for j in range(w - 2):
                a, b = x[k, i : i + 3, j : j + 3], y[k, i : i + 3, j : j + 3]
                ma, mb, cov = a.mean(), b.mean(), (a * b).mean() - a.mean() * b.mean()
                ssim = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4)
                ssim /= (ma**2 + mb**2 + 1e-4) * (a.var() + b.var() + 9e-4)
                out[k, i, j] = np.clip((1 - ssim) / 2, 0, 1)
    return out


def np_smoothness(d, image):
    total = 0
    for axis in (0, 1):
        weight = np.exp(-np.abs(np.diff(image, axis=axis + 1)).mean(0))
        total += (np.abs(np.diff(d, axis=axis)) * weight).mean()
    return total


def np_terms(maps, left, right):
    """Appearance, smoothness and consistency of one pair, summed over scales and views."""
    appearance = smoothness = consistency = 0
    for s, (dl, dr) in enumerate(maps):
        f = 2**s
        shrunk = [v.reshape(3, v.shape[1] // f, f, v.shape[2] // f, f).mean((2, 4)) for v in (left, right)]
        ls, rs = shrunk
        for image, source, d, other, sign in ((ls, rs, dl, dr, -1), (rs, ls, dr, dl, +1)):
            estimate = np_warp(source, sign * d)
            appearance += 0.85 * np_ssim_distance(estimate, image).mean() + 0.15 * np.abs(estimate - image).mean()
            smoothness += np_smoothness(d, image) / f
            consistency += np.abs(d - np_warp(other[None], sign * d)[0]).mean()
    return appearance, smoothness, consistency


def test_zero_offset_changes_nothing():
    image = torch.rand(2, 3, 8, 16)
    torch.testing.assert_close(warp_horizontal(image, torch.zeros(2, 1, 8, 16)), image)


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_left_view_is_the_right_view_sampled_to_the_left(shift):
    right = torch.rand(1, 3, 8, 16)
    left = right.roll(shift, dims=-1)  # left(x) = right(x - shift)
    rebuilt = warp_horizontal(right, torch.full((1, 1, 8, 16), -shift / 16))
    torch.testing.assert_close(rebuilt[..., shift:], left[..., shift:])


def test_samples_beyond_the_edge_read_zero():
    rebuilt = warp_horizontal(torch.ones(1, 1, 4, 16), torch.full((1, 1, 4, 16), -4 / 16))
    assert rebuilt[..., :4].abs().max() < 1e-5
    torch.testing.assert_close(rebuilt[..., 4:], torch.ones(1, 1, 4, 12))


def test_half_a_pixel_averages_two_neighbours():
    image = torch.rand(1, 1, 2, 8)
    rebuilt = warp_horizontal(image, torch.full((1, 1, 2, 8), 0.5 / 8))
    torch.testing.assert_close(rebuilt[..., :-1], (image[..., :-1] + image[..., 1:]) / 2)


def test_warp_equals_numpy():
    image, offset = torch.rand(1, 3, 6, 16), 0.4 * torch.rand(1, 1, 6, 16) - 0.2
    expected = np_warp(image[0].double().numpy(), offset[0, 0].double().numpy())
    np.testing.assert_allclose(warp_horizontal(image, offset)[0].numpy(), expected, atol=2e-5)


def test_warp_names_both_shapes_when_they_do_not_fit():
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 8\).*\(1, 3, 8, 8\)"):
        warp_horizontal(torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 4, 8))


def test_ssim_distance_equals_numpy():
    x, y = torch.rand(2, 1, 3, 7, 9, dtype=torch.float64)
    np.testing.assert_allclose(ssim_distance(x, y)[0].numpy(), np_ssim_distance(x[0].numpy(), y[0].numpy()), atol=1e-9)


def test_ssim_distance_of_an_image_to_itself_is_zero_and_to_its_negative_is_large():
    x = torch.rand(1, 3, 16, 16)
    assert ssim_distance(x, x).max() < 1e-5
    assert ssim_distance(x, 1 - x).mean() > 0.8


def test_smoothness_charges_both_axes_alike():
    flat, ramp = torch.full((1, 3, 8, 8), 0.5), torch.linspace(0, 1, 8)
    for disparity in (ramp.expand(1, 1, 8, 8), ramp[:, None].expand(1, 1, 8, 8)):
        torch.testing.assert_close(edge_aware_smoothness(disparity, flat), torch.tensor(1 / 7))


def test_smoothness_damps_a_disparity_step_at_an_image_edge():
    disparity = torch.zeros(1, 1, 8, 8)
    disparity[..., 4:] = 0.1
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    at_edge, on_plain = (edge_aware_smoothness(disparity, i) for i in (edge, torch.zeros_like(edge)))
    torch.testing.assert_close(at_edge / on_plain, torch.exp(torch.tensor(-1.0)))


def test_every_term_equals_a_literal_numpy_computation():
    maps, left, right = random_case(h=32, w=32)
    terms = MonodepthLoss()(maps, left, right)
    expected = np.mean(
        [np_terms([m[i].double().numpy() for m in maps], left[i].double().numpy(), right[i].double().numpy())
         for i in range(2)], axis=0,
    )  # fmt: skip
    np.testing.assert_allclose([terms.appearance, terms.smoothness, terms.consistency], expected, rtol=1e-4)
    assert terms.total == pytest.approx(expected[0] + 0.1 * expected[1] + 1.0 * expected[2], rel=1e-4)


def test_parts_put_together_by_hand_give_the_reported_terms():
    maps, left, right = random_case(seed=1)
    d_left, d_right = maps[0].split(1, dim=1)
    terms = MonodepthLoss()(maps[:1], left, right)
    left_estimate, right_estimate = warp_horizontal(right, -d_left), warp_horizontal(left, d_right)
    appearance = appearance_loss(left_estimate, left) + appearance_loss(right_estimate, right)
    consistency = left_right_consistency(d_left, warp_horizontal(d_right, -d_left)) + left_right_consistency(
        d_right, warp_horizontal(d_left, d_right)
    )
    torch.testing.assert_close(terms.appearance, appearance)
    torch.testing.assert_close(terms.consistency, consistency)


def test_mirroring_a_pair_and_exchanging_its_views_leaves_every_term_unchanged():
    maps, left, right = random_case(seed=2)
    mirrored = [m.flip(-1).flip(1) for m in maps]  # columns and views both trade places
    before, after = MonodepthLoss()(maps, left, right), MonodepthLoss()(mirrored, right.flip(-1), left.flip(-1))
    for name in LossTerms._fields:
        torch.testing.assert_close(getattr(before, name), getattr(after, name))


def test_mirroring_without_the_exchange_breaks_a_perfect_match():
    right = torch.rand(1, 3, 64, 64)
    left = right.roll(4, dims=-1)
    maps = [torch.full((1, 2, 64, 64), 4 / 64)]
    loss = MonodepthLoss()
    exchanged = loss(maps, right.flip(-1), left.flip(-1)).appearance
    only_mirrored = loss(maps, left.flip(-1), right.flip(-1)).appearance
    assert exchanged < 0.2 * only_mirrored


def test_true_disparity_costs_less_than_a_shifted_or_a_wrong_one():
    right = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 68, 132), 5, 1)
    left = right.roll(8, dims=-1)
    costs = [MonodepthLoss()([torch.full((1, 2, 64, 128), d / 128)], left, right).appearance.item() for d in (8, 9, 20)]
    assert costs[0] < costs[1] < costs[2]


def test_gradients_reach_the_first_layer():
    network = DispResNet(width=0.125)
    left, right = torch.rand(2, 1, 3, 64, 64)
    MonodepthLoss()(network(left), left, right).total.backward()
    assert network.encoder.conv1.conv.weight.grad.abs().sum() > 0


def test_loss_weights_reach_the_total():
    maps, left, right = random_case(seed=3)
    plain, heavy = MonodepthLoss()(maps, left, right), MonodepthLoss(2.0, 3.0)(maps, left, right)
    expected = plain.appearance + 2 * plain.smoothness + 3 * plain.consistency
    torch.testing.assert_close(heavy.total, expected)


def test_appearance_mixes_ssim_and_l1_in_the_shares_that_alpha_gives():
    case = random_case()
    ssim, l1, mixed = (MonodepthLoss(alpha=alpha)(*case).appearance for alpha in (1, 0, 0.85))
    torch.testing.assert_close(mixed, 0.85 * ssim + 0.15 * l1)
    assert abs(ssim - l1) > 0.01


def test_loss_stays_float32_when_the_network_runs_in_bfloat16():
    maps, left, right = random_case(seed=4)
    with torch.autocast("cpu", torch.bfloat16):
        terms = MonodepthLoss()([m.bfloat16() for m in maps], left, right)
    assert terms.total.dtype == torch.float32


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda left, right: (255 * left, 255 * right), "255"),
        (lambda left, right: (left - 0.5, right), r"\[0, 1\]"),
        (lambda left, right: (left, torch.full_like(right, torch.nan)), "NaN"),
        (lambda left, right: (left, right[..., :32]), "differ in size"),
        (lambda left, right: (left[..., :32], right[..., :32]), "disparity at scale 0"),
    ],
)
def test_unusable_images_are_refused_with_the_remedy(spoil, message):
    maps, left, right = random_case()
    with pytest.raises(ValueError, match=message):
        MonodepthLoss()(maps, *spoil(left, right))


def shifted_pair(shift_px=8, h=32, w=64):
    """A textured wall at one disparity, its true maps, and its two views."""
    texture = torch.rand(1, 3, h, w + shift_px, generator=torch.Generator().manual_seed(0))
    left, right = texture[..., :w], texture[..., shift_px:]
    return torch.full((1, 2, h, w), shift_px / w), left, right


def border_gradients(padding):
    """Gradient of a slightly too small left map where it points left of the right picture."""
    truth, left, right = shifted_pair()
    maps = (0.9 * truth).requires_grad_()
    MonodepthLoss(smoothness_weight=0, padding=padding)([maps], left, right).total.backward()
    return maps.grad[0, 0, :, :7]


def test_as_published_the_border_pulls_the_map_down_and_with_border_padding_it_does_not():
    assert border_gradients("zeros").min() > 0  # a descent step makes the disparity smaller
    assert border_gradients("border").abs().max() == 0


def test_with_border_padding_the_true_map_of_a_plane_is_consistent_everywhere():
    truth, left, right = shifted_pair()
    zeros, border = (MonodepthLoss(padding=padding)([truth], left, right) for padding in ("zeros", "border"))
    assert zeros.consistency > 0.01 and border.consistency < 1e-6


def test_a_map_that_points_out_of_the_picture_does_not_escape_the_loss():
    truth, left, right = shifted_pair()
    escaping = truth.clone()
    escaping[..., :24] = 0.9  # these columns of the left view point nowhere
    kept, fled = (MonodepthLoss(padding="border")([maps], left, right) for maps in (truth, escaping))
    assert fled.appearance > kept.appearance and fled.consistency > kept.consistency


def test_unknown_padding_is_refused():
    with pytest.raises(ValueError, match="zeros, border"):
        MonodepthLoss(padding="mirror")
