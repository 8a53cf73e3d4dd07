"""The training signal: how well each view is rebuilt from the other (Godard et al. 2017, section 3.2).

Disparity is a fraction of image width. Left estimate = right image sampled at x - d_left; right estimate = left image
sampled at x + d_right. Formulas follow the code (monodepth_model.py); where paper and code differ, only smoothness
follows the paper.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monodepth_nb.layers import check_option
from monodepth_nb.machine import autocast

PADDINGS = ("zeros", "border")  # what the warp reads outside of a picture, see `warp_horizontal`


class LossTerms(NamedTuple):
    """Scalars. `total` = appearance + weights * the others; the others are reported unweighted."""

    total: Tensor
    appearance: Tensor
    smoothness: Tensor
    consistency: Tensor


def warp_horizontal(image: Tensor, offset: Tensor, padding: str = "zeros") -> Tensor:
    """Resample every row of `image` at `x + offset` (bilinear; paper section 3.1).

    image:   (B, C, H, W)
    offset:  (B, 1, H, W), signed, in fractions of the image width
    padding: what samples beyond the edge read: "zeros", as in the original's bilinear_sampler.py, or "border", the
             value at the edge
    returns: (B, C, H, W)
    """
    b, _, h, w = image.shape
    if offset.shape != (b, 1, h, w):
        raise ValueError(f"offset is {tuple(offset.shape)}; an image of {tuple(image.shape)} needs {(b, 1, h, w)}")
    row = torch.linspace(-1, 1, w, device=image.device)  # -1 and 1 are pixel centres,
    col = torch.linspace(-1, 1, h, device=image.device)  # hence align_corners=True
    x = row + offset[:, 0] * (2 * w / (w - 1))  # (B, H, W)
    y = col[:, None].expand(b, h, w)
    grid = torch.stack((x, y), dim=-1)  # (B, H, W, 2)
    return F.grid_sample(image, grid, padding_mode=padding, align_corners=True)


def window_mean(x: Tensor) -> Tensor:
    """Mean over every 3 x 3 window: (..., H, W) -> (..., H-2, W-2).

    On a CPU, shifted sums are several times as fast as `avg_pool2d`, which PyTorch does not vectorise for this layout.
    """
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def ssim_distance(x: Tensor, y: Tensor) -> Tensor:
    """Structural dissimilarity of two images in [0, 1] over 3 x 3 windows: (1 - SSIM) / 2 in [0, 1].

    x, y:    (B, C, H, W)
    returns: (B, C, H-2, W-2), one value per full window (equation 2 of the paper; SSIM of Wang et al. 2004)
    """
    c1, c2 = 0.01**2, 0.03**2  # for images in [0, 1]
    mean_x, mean_y = window_mean(x), window_mean(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = window_mean(x * y) - product
    variances = window_mean(x**2 + y**2) - squares  # SSIM needs only their sum
    ssim = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return ((1 - ssim) / 2).clamp(0, 1)


def appearance_loss(estimate: Tensor, image: Tensor, alpha: float = 0.85) -> Tensor:
    """Mean of alpha * SSIM distance + (1 - alpha) * L1 (equation 2). Scalar."""
    return alpha * ssim_distance(estimate, image).mean() + (1 - alpha) * (estimate - image).abs().mean()


def edge_aware_smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """Mean disparity step between neighbours, damped where the image has an edge (equation 3). Scalar.

    disparity: (B, 1, H, W)
    image:     (B, 3, H, W)

    Differs from the original code, which loses the vertical part. The paper's formula has both.
    """
    total = disparity.new_zeros(())
    for axis in (-1, -2):
        edge = image.diff(dim=axis).abs().mean(dim=1, keepdim=True)
        total = total + (disparity.diff(dim=axis).abs() * torch.exp(-edge)).mean()
    return total


def left_right_consistency(disparity: Tensor, seen_from_other: Tensor) -> Tensor:
    """Mean difference between a view's disparity and the other view's, sampled where it points (equation 4)."""
    return (disparity - seen_from_other).abs().mean()


def _check_shapes(disparities: list[Tensor], left: Tensor, right: Tensor) -> None:
    if left.shape != right.shape:
        sizes = f"left view {tuple(left.shape)} and right view {tuple(right.shape)}"
        raise ValueError(f"{sizes} differ in size; resize both to one size")
    b, _, h, w = left.shape
    for scale, disparity in enumerate(disparities):
        expected = (b, 2, h >> scale, w >> scale)
        if disparity.shape != expected:
            raise ValueError(f"disparity at scale {scale} is {tuple(disparity.shape)}, expected {expected}")


def check_images(images: Tensor) -> None:
    """Raise ValueError unless every value lies in [0, 1], the range that SSIM's constants are made for (Bug 2)."""
    low, high = (value.item() for value in torch.aminmax(images))
    if not (low >= 0 and high <= 1):  # NaN fails both comparisons
        hint = "the images hold NaN; look for broken files" if low != low else "divide 8-bit images by 255"
        raise ValueError(f"image values lie in [{low:.4g}, {high:.4g}], the loss needs [0, 1]: {hint}")


class MonodepthLoss(nn.Module):
    """Appearance matching + smoothness + left-right consistency over four scales and both views (equation 1).

    >>> from monodepth_nb import DispResNet, MonodepthLoss, motorcycle
    >>> pair = motorcycle((128, 256))
    >>> left, right = pair.left[None], pair.right[None]
    >>> terms = MonodepthLoss()(DispResNet(width=0.25)(left), left, right)  # terms.total.backward() trains

    forward(disparities, left, right) -> LossTerms
    disparities: list of (B, 2, H/2^s, W/2^s), finest first; channel 0 belongs to the left view, 1 to the right
    left, right: (B, 3, H, W) in [0, 1]
    Raises ValueError for other ranges, NaN images, and views or maps whose sizes do not fit.

    alpha:   share of SSIM in the appearance term, the rest is L1
    padding: of `warp_horizontal`. As published ("zeros"), a pixel that points out of the other picture is compared with
             black and with disparity 0. That pulls the map down along the border; "border" does not
    """

    def __init__(self, smoothness_weight=0.1, consistency_weight=1.0, padding: str = "zeros", alpha: float = 0.85):
        super().__init__()
        check_option("padding", padding, PADDINGS)
        self.smoothness_weight, self.consistency_weight = smoothness_weight, consistency_weight
        self.padding, self.alpha, self._range_checked = padding, alpha, False

    def forward(self, disparities: list[Tensor], left: Tensor, right: Tensor) -> LossTerms:
        _check_shapes(disparities, left, right)
        self.check_range(left, right)
        # One batch holds both views, [left; right]: half the calls for the same arithmetic.
        with autocast(left.device.type):  # sums of small differences need float32
            # Few channels, so sliding windows are faster in the contiguous layout, whatever the network's is.
            views, scales = torch.cat((left.contiguous(), right.contiguous())).float(), []
            for scale, disparity in enumerate(disparities):
                views = F.avg_pool2d(views, 2) if scale else views
                scales.append(self.terms_at_scale(views, disparity.float().contiguous(), scale))
        return LossTerms(*(torch.stack(term).sum() for term in zip(*scales, strict=True)))

    def terms_at_scale(self, views: Tensor, disparity: Tensor, scale: int) -> LossTerms:
        """Terms of one scale. views: (2B, 3, h, w), left views first; disparity: (B, 2, h, w)."""
        d_left, d_right = disparity.split(1, dim=1)
        own, other = torch.cat((d_left, d_right)), torch.cat((d_right, d_left))
        sources, offset = views.roll(len(disparity), dims=0), torch.cat((-d_left, d_right))  # right views first
        # The loss is the sum of the two views' means. A mean over both views is half of that sum, hence the 2.
        appearance = 2 * appearance_loss(warp_horizontal(sources, offset, self.padding), views, self.alpha)
        smoothness = 2 * edge_aware_smoothness(own, views) / 2**scale  # coarse maps step more per pixel
        consistency = 2 * left_right_consistency(own, warp_horizontal(other, offset, self.padding))
        total = appearance + self.smoothness_weight * smoothness + self.consistency_weight * consistency
        return LossTerms(total, appearance, smoothness, consistency)

    def check_range(self, left: Tensor, right: Tensor) -> None:
        # Reading a value makes a compiler give up, and an accelerator finish all queued work: there, once is enough.
        if not torch.compiler.is_compiling() and (left.device.type == "cpu" or not self._range_checked):
            check_images(left)
            check_images(right)
            self._range_checked = True


class DisparityTerms(NamedTuple):
    """Scalars. `total` is the weighted sum of the others, see `DisparityLoss`."""

    total: Tensor
    relative: Tensor
    logarithmic: Tensor
    absolute: Tensor


class DisparityLoss(nn.Module):
    """Distance from disparity that is known from matching or rendering, over four scales and both views.

    forward(disparities, left, right, known) -> DisparityTerms
    disparities, left, right: as for `MonodepthLoss`
    known: (B, 2, H, W), fractions of the width, left view first; 0 or less where unknown
    Raises ValueError without `known`, and for maps whose sizes do not fit. The terms are means over the known pixels of
    the batch. Of several processes, each takes those of its own part, which differs a little from one whole batch.

    relative:    mean |known / predicted - 1|, clamped to 5: the relative error in depth, which AbsRel measures. It
                 biases the network towards near depth where it is uncertain
    logarithmic: mean |log(known / predicted)|, which has no such bias
    absolute:    mean |predicted - known|, in which near surfaces weigh more
    """

    WEIGHTS = (0.7, 0.3, 20.0)

    def forward(self, disparities: list[Tensor], left: Tensor, right: Tensor, known: Tensor | None = None):
        if known is None:
            raise ValueError("these pairs have no known disparity: wrap them in data.matching.MatchedPairs")
        _check_shapes(disparities, left, right)
        scales = [self.terms_at_scale(d.float(), known, scale) for scale, d in enumerate(disparities)]
        return DisparityTerms(*(torch.stack(term).sum() for term in zip(*scales, strict=True)))

    def terms_at_scale(self, disparity: Tensor, known: Tensor, scale: int) -> DisparityTerms:
        step = 2**scale
        known = known[..., step // 2 :: step, step // 2 :: step]  # a sample, because a mean would blend edges
        valid = known > 0
        ratio = torch.where(valid, known / disparity.clamp(min=1e-3), 1.0)
        errors = (ratio - 1).abs().clamp(max=5), ratio.log().abs(), (disparity - known).abs()
        share = (1.0 if scale == 0 else 0.5) / valid.sum().clamp(min=1)  # coarse maps count half
        terms = [(error * valid).sum() * share for error in errors]
        return DisparityTerms(sum(w * term for w, term in zip(self.WEIGHTS, terms, strict=True)), *terms)
