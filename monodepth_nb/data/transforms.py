"""Augmentation of stereo pairs. Both views always get the same random change, and `disparity` follows it.

Each transform takes a Sample and a generator (None: the global one) and returns a new Sample.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from monodepth_nb.data.sample import Sample


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Area-antialiased resize of (..., C, H, W) to `size` = (height, width), values kept within [0, 1]."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image.reshape(-1, *image.shape[-3:])
    resized = F.interpolate(batch, tuple(size), mode="bilinear", antialias=True)
    return resized.reshape(*image.shape[:-2], *size).clamp(0, 1)


def _uniform(low: float, high: float, count: int, generator: torch.Generator | None) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _views(sample: Sample) -> Tensor:
    return torch.stack((sample["left"], sample["right"]))  # (2, 3, H, W)


def _with_views(sample: Sample, views: Tensor, **others: Tensor) -> Sample:
    left, right = views.clamp(0, 1)
    return Sample(sample, left=left, right=right, **others)


@dataclass
class Sometimes:
    """Base of transforms that change a pair with probability `p`, else return it as it is."""

    p: float = 0.5

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        return sample if torch.rand(1, generator=generator) >= self.p else self.change(sample, generator)


class PairedPhotometric(Sometimes):
    """Change gamma, brightness and colour equally in both views, because the loss compares their colours.

    Ranges of the original code (monodepth_dataloader.py, `augment_image_pair`).
    """

    def change(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        gamma = _uniform(0.8, 1.2, 1, generator)
        brightness = _uniform(0.5, 2.0, 1, generator)
        colour = _uniform(0.8, 1.2, 3, generator)[:, None, None]
        return _with_views(sample, _views(sample) ** gamma * brightness * colour)


class MirroredFlip(Sometimes):
    """Mirror both views and exchange them.

    Mirroring alone would reverse the sign of disparity; the mirrored right view is a valid *left* view. Ground truth
    belongs to the old left view and is dropped.
    """

    def change(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        mirrored = Sample(left=sample["right"].flip(-1), right=sample["left"].flip(-1), name=sample["name"])
        if "disparity" in sample:
            mirrored["disparity"] = sample["disparity"].flip(0).flip(-1)
        return mirrored


@dataclass
class Zoom:
    """Crop 1 / z of both sides at a random place, z in [1, `largest`], and resize it to the full size."""

    largest: float = 1.15

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        h, w = sample["left"].shape[-2:]
        zoom, down, along = torch.rand(3, generator=generator).tolist()
        zoom = 1 + (self.largest - 1) * zoom
        rows, columns = round(h / zoom), round(w / zoom)
        top, start = round(down * (h - rows)), round(along * (w - columns))
        window = (..., slice(top, top + rows), slice(start, start + columns))
        zoomed = _with_views(sample, resize(_views(sample)[window], (h, w)))
        if "disparity" in sample:
            disparity = F.interpolate(sample["disparity"][window][None], (h, w), mode="nearest-exact")[0]
            zoomed["disparity"] = disparity * (w / columns)  # a fraction of the width
        return zoomed


@dataclass
class StrongPhotometric:
    """With probability `p`, change tone, colour and contrast equally in both views, more than `PairedPhotometric`.

    Always add noise, which differs between the views, with a standard deviation of up to 0.02.
    """

    p: float = 0.8

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        views = _views(sample)
        if torch.rand(1, generator=generator) < self.p:
            gamma, brightness = _uniform(0.7, 1.4, 1, generator), _uniform(-0.6, 0.6, 1, generator).exp()
            colour = _uniform(0.8, 1.2, 3, generator)[:, None, None]
            saturation, contrast = _uniform(0, 1.4, 1, generator), _uniform(0.7, 1.3, 1, generator)
            views = (views**gamma * brightness * colour).clamp(0, 1)
            grey = views.mean(dim=1, keepdim=True)
            views = (grey + (views - grey) * saturation).clamp(0, 1)
            views = views.mean() + (views - views.mean()) * contrast
        noise = 0.02 * torch.rand(1, generator=generator) * torch.randn(views.shape, generator=generator)
        return _with_views(sample, views + noise)


class PasteNearer(Sometimes):
    """Paste whatever is nearer in another pair of `dataset` over this one.

    The same camera took all pairs, so the result is geometrically possible; only its lighting is mixed. After DepthMix
    (Hoyer et al., CVPR 2021).

    dataset: pairs with `disparity`, such as `MatchedPairs`
    prepare: transform of the other pair
    """

    def __init__(self, dataset, prepare, p: float = 0.5):
        super().__init__(p)
        self.dataset, self.prepare = dataset, prepare

    def change(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        index = torch.randint(len(self.dataset), (1,), generator=generator).item()
        other = self.prepare(self.dataset[index], generator)
        disparity, nearer = sample["disparity"], other["disparity"]
        # The margin ignores unevenness of the road. Guesses of the other pair are negative, hence never nearer.
        front = nearer > 1.15 * disparity.abs() + 0.004
        front = F.avg_pool2d(front.float(), 5, stride=1, padding=2) > 0.5  # no specks
        views = torch.where(front[:, None], _views(other), _views(sample))
        return _with_views(sample, views, disparity=torch.where(front, nearer, disparity))


@dataclass
class Shade(Sometimes):
    """Add, equally often, soft lighting or tinted shadows in random patches; the geometry is unchanged.

    Both views get the same field, as if it were infinitely far away: unsuitable for the appearance loss.
    """

    p: float = 0.7

    def change(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        size = sample["left"].shape[-2:]
        rows = torch.randint(3, 17, (1,), generator=generator).item()  # patches that fill the height
        columns = int(rows * _uniform(1, 3.5, 1, generator).item())
        patches = torch.randn(1, 1, rows, columns, generator=generator)
        field = F.interpolate(patches, size, mode="bicubic", align_corners=True)[0]
        if torch.rand(1, generator=generator) < 0.5:
            light = (field * _uniform(0, 0.5, 1, generator)).exp()
        else:
            border, sharpness = 0.6 * torch.randn(1, generator=generator), _uniform(3, 20, 1, generator)
            tint = 1 + 0.1 * torch.randn(3, 1, 1, generator=generator)
            shadow = ((field - border) * sharpness).sigmoid()
            light = 1 - shadow * (1 - tint * _uniform(0.25, 0.85, 1, generator))  # what a shadow leaves
        return _with_views(sample, _views(sample) * light)


class Compose:
    """Apply transforms in order, all with the same generator."""

    def __init__(self, *transforms):
        self.transforms = transforms

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        for transform in self.transforms:
            sample = transform(sample, generator)
        return sample
