"""Changes made to a pair before the network sees it. Both views always get the same draw.

Each takes a Sample and a generator, or None for the global one, and returns a new Sample. Those of the course recipe
come first; `Zoom`, `StrongPhotometric`, `PasteNearer` and `Shade` belong to the few-pairs recipe and carry `disparity`
along.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from monodepth_nb.data.sample import Sample


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Area-antialiased resize of (..., C, H, W) to `size` = (height, width), values kept within [0, 1]."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batched = image if image.dim() == 4 else image[None]
    resized = F.interpolate(batched, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return (resized if image.dim() == 4 else resized[0]).clamp(0, 1)


def _uniform(low: float, high: float, count: int, generator: torch.Generator | None) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


class PairedPhotometric:
    """With probability `p`, change gamma, brightness and colour of both views by one draw.

    Ranges of the original code (monodepth_dataloader.py, `augment_image_pair`): gamma in [0.8, 1.2], brightness
    in [0.5, 2.0], one factor per colour channel in [0.8, 1.2]. One draw for both views, because the loss compares
    their colours.
    """

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        if torch.rand(1, generator=generator) >= self.p:
            return sample
        gamma = _uniform(0.8, 1.2, 1, generator)
        brightness = _uniform(0.5, 2.0, 1, generator)
        colour = _uniform(0.8, 1.2, 3, generator)[:, None, None]
        views = {v: (sample[v] ** gamma * brightness * colour).clamp(0, 1) for v in ("left", "right")}
        return Sample(sample, **views)


class MirroredFlip:
    """With probability `p`, mirror both views and exchange them.

    Mirroring alone would reverse the sign of disparity: what was nearer to the left edge in the right view would
    now be nearer to the right edge. The mirrored right view is a valid *left* view, so they trade places, and so do
    the two maps of `disparity`. Ground truth of the old left view alone is dropped.
    """

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        if torch.rand(1, generator=generator) >= self.p:
            return sample
        mirrored = Sample(left=sample["right"].flip(-1), right=sample["left"].flip(-1), name=sample["name"])
        if "disparity" in sample:
            mirrored["disparity"] = sample["disparity"].flip(0).flip(-1)
        return mirrored


class Zoom:
    """Cut out 1 / z of both sides, z drawn from [1, `largest`], at a random place, and resize it to the whole.

    Disparity, a fraction of the width, grows by z.
    """

    def __init__(self, largest: float = 1.15):
        self.largest = largest

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        h, w = sample["left"].shape[-2:]
        zoom, down, along = _uniform(0, 1, 3, generator).tolist()
        zoom = 1 + (self.largest - 1) * zoom
        rows, columns = round(h / zoom), round(w / zoom)
        top, start = round(down * (h - rows)), round(along * (w - columns))
        window = (..., slice(top, top + rows), slice(start, start + columns))
        zoomed = Sample(sample, **{view: resize(sample[view][window], (h, w)) for view in ("left", "right")})
        if "disparity" in sample:
            disparity = F.interpolate(sample["disparity"][window][None], (h, w), mode="nearest-exact")[0]
            zoomed["disparity"] = disparity * (w / columns)
        return zoomed


class StrongPhotometric:
    """With probability `p`, change tone, colour and contrast of both views by one draw, else nothing; always add noise.

    Wider than `PairedPhotometric`: gamma in [0.7, 1.4], brightness in [0.55, 1.8], channels in [0.8, 1.2], saturation
    in [0, 1.4], contrast in [0.7, 1.3]; noise of up to 0.02 standard deviation.
    """

    def __init__(self, p: float = 0.8):
        self.p = p

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        views = torch.stack((sample["left"], sample["right"]))
        if torch.rand(1, generator=generator) < self.p:
            gamma, brightness = _uniform(0.7, 1.4, 1, generator), _uniform(-0.6, 0.6, 1, generator).exp()
            colour = _uniform(0.8, 1.2, 3, generator)[:, None, None]
            saturation, contrast = _uniform(0, 1.4, 1, generator), _uniform(0.7, 1.3, 1, generator)
            views = (views**gamma * brightness * colour).clamp(0, 1)
            grey = views.mean(dim=1, keepdim=True)
            views = (grey + (views - grey) * saturation).clamp(0, 1)
            views = views.mean() + (views - views.mean()) * contrast
        noise = 0.02 * torch.rand(1, generator=generator) * torch.randn(views.shape, generator=generator)
        left, right = (views + noise).clamp(0, 1)
        return Sample(sample, left=left, right=right)


class PasteNearer:
    """With probability `p`, put what is nearer in another pair of `dataset` in front of this one.

    One camera took all pairs, so wherever the other scene is nearer it would hide this one: two streets become a third
    that could exist, but for its light. Needs `disparity` in both. After DepthMix (Hoyer et al., CVPR 2021).

    dataset: labelled pairs, such as `MatchedPairs`
    prepare: transform of the other pair
    """

    def __init__(self, dataset, prepare, p: float = 0.5):
        self.dataset, self.prepare, self.p = dataset, prepare, p

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        if torch.rand(1, generator=generator) >= self.p:
            return sample
        index = torch.randint(len(self.dataset), (1,), generator=generator).item()
        other = self.prepare(self.dataset[index], generator)
        disparity, nearer = sample["disparity"], other["disparity"]
        # By a margin, so that not every unevenness of the road counts; and known, not guessed (negative).
        front = nearer > 1.15 * disparity.abs() + 0.004
        front = F.avg_pool2d(front.float(), 5, stride=1, padding=2) > 0.5  # no specks
        views = {v: torch.where(front[i], other[v], sample[v]) for i, v in enumerate(("left", "right"))}
        return Sample(sample, **views, disparity=torch.where(front, nearer, disparity))


class Shade:
    """With probability `p`, let light and shadow fall on the picture where none fell: a road is as far in either.

    One half are soft lights, brightness times e^(a noise of up to 0.5 standard deviation); the other half shadows of
    25 to 85 % of the brightness, slightly tinted, with soft to sharp edges. 3 to 16 patches fill the height, 1 to 3.5
    times as many the width. Not for the appearance loss: both views get the same field, as if it were infinitely far.
    """

    def __init__(self, p: float = 0.7):
        self.p = p

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        if torch.rand(1, generator=generator) >= self.p:
            return sample
        size = sample["left"].shape[-2:]
        rows = torch.randint(3, 17, (1,), generator=generator).item()
        columns = int(rows * _uniform(1, 3.5, 1, generator).item())
        patches = torch.randn(1, 1, rows, columns, generator=generator)
        field = F.interpolate(patches, size, mode="bicubic", align_corners=True)[0]
        if torch.rand(1, generator=generator) < 0.5:
            light = (field * _uniform(0, 0.5, 1, generator)).exp()
        else:
            border, sharpness = 0.6 * torch.randn(1, generator=generator), _uniform(3, 20, 1, generator)
            tint = 1 + 0.1 * torch.randn(3, 1, 1, generator=generator)
            shadow = ((field - border) * sharpness).sigmoid()
            light = 1 - shadow * (1 - tint * _uniform(0.25, 0.85, 1, generator))
        return Sample(sample, **{view: (sample[view] * light).clamp(0, 1) for view in ("left", "right")})


class Compose:
    """Apply transforms in order, all drawing from one generator."""

    def __init__(self, *transforms):
        self.transforms = transforms

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        for transform in self.transforms:
            sample = transform(sample, generator)
        return sample
