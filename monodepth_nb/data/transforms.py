"""Augmentation of stereo pairs. Both views always get the same random change, and `disparity` follows it.

Each transform takes a Sample and a generator (None: the global one) and returns a new Sample. A CPU prepares the pairs
while another device trains, so OpenCV does what PyTorch does slowly on a CPU, on the same memory.
"""

import math
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
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


def _uniform(low: float, high: float, generator: torch.Generator | None) -> float:
    return low + (high - low) * torch.rand(1, generator=generator).item()


def _views(sample: Sample) -> list[Tensor]:
    return [sample["left"], sample["right"]]


def _with_views(sample: Sample, views: Tensor) -> Sample:
    """The sample with `views` (2, 3, H, W), which are clamped in place."""
    left, right = views.clamp_(0, 1)
    return Sample(sample, left=left, right=right)


def _enlarge(images: list[Tensor], size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> Tensor:
    """(N, C, H, W) of N images (C, h, w), channel by channel."""
    enlarged = images[0].new_empty(len(images), len(images[0]), *size)
    for image, places in zip(images, enlarged.numpy(), strict=True):
        for channel, place in zip(image.numpy(), places, strict=True):
            cv2.resize(channel, size[::-1], dst=place, interpolation=interpolation)
    return enlarged


def _majority(masks: Tensor) -> Tensor:
    """(V, H, W) bool: whether most of the 5 x 5 pixels around each are set, which removes specks."""
    box = {"ddepth": -1, "ksize": (5, 5), "normalize": False, "borderType": cv2.BORDER_CONSTANT}
    return torch.from_numpy(np.stack([cv2.boxFilter(mask, **box) for mask in masks.byte().numpy()])) > 12


def _toned(sample: Sample, gamma: float, brightness: float, generator: torch.Generator | None) -> Tensor:
    """(2, 3, H, W) in [0, 1]: both views in 8 bits, to the power of gamma, times brightness and a factor per colour."""
    colour = torch.empty(3, 1).uniform_(0.8, 1.2, generator=generator)
    # A table for each colour instead of powers of all pixels, and 8 bits because pictures and caches have no more.
    tables = ((torch.arange(256) / 255) ** gamma * brightness * colour).clamp_(0, 1).numpy()  # (3, 256)
    toned = torch.empty(2, *sample["left"].shape)
    for view, places in zip(_views(sample), toned.numpy(), strict=True):
        for channel, table, place in zip(view.numpy(), tables, places, strict=True):
            cv2.LUT(cv2.convertScaleAbs(channel, alpha=255), table, dst=place)
    return toned


# 256 equally likely values of the standard normal distribution
NORMAL = torch.special.ndtri((torch.arange(256) + 0.5) / 256).numpy()


def _add_noise(views: Tensor, deviation: float, generator: torch.Generator | None) -> None:
    """Add normal noise in place: a random byte chooses each value, several times as fast as `torch.randn`."""
    numbers = torch.randint(-(2**63), 2**63 - 1, (views.numel() // 8 + 1,), generator=generator)  # of 8 bytes each
    chosen = numbers.view(torch.uint8)[: views.numel()].view(views.shape).flatten(0, 1).numpy()
    for channel, values in zip(views.flatten(0, 1).numpy(), chosen, strict=True):
        channel += cv2.LUT(values, deviation * NORMAL)


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
        gamma, brightness = _uniform(0.8, 1.2, generator), _uniform(0.5, 2.0, generator)
        return _with_views(sample, _toned(sample, gamma, brightness, generator))


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
        zoomed = _with_views(sample, _enlarge([view[window] for view in _views(sample)], (h, w)))
        if "disparity" in sample:
            disparity = _enlarge([sample["disparity"][window]], (h, w), cv2.INTER_NEAREST_EXACT)[0]
            zoomed["disparity"] = disparity * (w / columns)  # a fraction of the width
        return zoomed


class RandomConvolution(Sometimes):
    """Blend both views with their convolution by one random kernel: this changes colours and textures, not shapes.

    Mean brightness and contrast stay. After Xu et al., "Robust and Generalizable Visual Representation Learning via
    Random Convolutions" (ICLR 2021).
    """

    def change(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        size = 1 + 2 * torch.randint(3, (1,), generator=generator).item()  # 1, 3 or 5 pixels
        kernel = torch.randn(3, 3, size, size, generator=generator).numpy()
        views = torch.stack(_views(sample))
        # OpenCV and NumPy, because PyTorch's sums depend on the number of threads.
        filtered = partial(cv2.filter2D, ddepth=-1, borderType=cv2.BORDER_REPLICATE)
        mixed = np.array(
            [
                [sum(filtered(c, kernel=k) for c, k in zip(view, kernels, strict=True)) for kernels in kernel]
                for view in views.numpy()
            ]
        )
        mixed = (mixed - mixed.mean()) * (views.numpy().std() / max(mixed.std(), 1e-3)) + views.numpy().mean()
        return _with_views(sample, views.lerp(torch.from_numpy(mixed), _uniform(0, 0.7, generator)))


class Sharpness(Sometimes):
    """Blur or sharpen both views equally, by different widths along rows and columns.

    A network that was trained at a single sharpness takes blur for nearness. When real streets were blurred by one
    pixel, the disparity that such a network predicted rose by a third (docs/results.md).
    """

    def change(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        amount, x, y = _uniform(-1, 1, generator), *(_uniform(0.3, 1.2, generator) for _ in range(2))
        views = torch.stack(_views(sample))
        for channel in views.flatten(0, 1).numpy():  # amount -1: the blurred channel; 1: sharpened by as much
            blurred = cv2.GaussianBlur(channel, (0, 0), sigmaX=x, sigmaY=y, borderType=cv2.BORDER_REPLICATE)
            cv2.addWeighted(channel, 1 + amount, blurred, -amount, 0, dst=channel)
        return _with_views(sample, views)


@dataclass
class StrongPhotometric:
    """With probability `p`, change tone, colour and contrast equally in both views, more than `PairedPhotometric`.

    Always add noise, which differs between the views, with a standard deviation of up to `noise`.
    """

    p: float = 0.8
    noise: float = 0.02

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        if torch.rand(1, generator=generator) >= self.p:
            views = torch.stack(_views(sample))
        else:
            gamma, brightness = _uniform(0.7, 1.4, generator), math.exp(_uniform(-0.6, 0.6, generator))
            views = _toned(sample, gamma, brightness, generator)
            saturation, contrast = _uniform(0, 1.4, generator), _uniform(0.7, 1.3, generator)
            views.lerp_(views.mean(dim=1, keepdim=True), 1 - saturation).clamp_(0, 1)
            mean = torch.tensor(views.numpy().mean())  # PyTorch's own depends on the number of threads
            views.lerp_(mean, 1 - contrast)
        _add_noise(views, _uniform(0, self.noise, generator), generator)
        return _with_views(sample, views)


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
        front = _majority(front).float()  # weights of 0 and 1 choose exactly, and faster than `torch.where`
        left, right = map(torch.lerp, _views(sample), _views(other), front)
        return Sample(sample, left=left, right=right, disparity=disparity.lerp(nearer, front))


@dataclass
class Shade(Sometimes):
    """Add, equally often, soft lighting or tinted shadows in random patches; the geometry is unchanged.

    Both views get the same field, as if it were infinitely far away: unsuitable for the appearance loss.
    """

    p: float = 0.7

    def change(self, sample: Sample, generator: torch.Generator | None) -> Sample:
        h, w = sample["left"].shape[-2:]
        rows = torch.randint(3, 17, (1,), generator=generator).item()  # patches that fill the height
        columns = int(rows * _uniform(1, 3.5, generator))
        patches = torch.randn(1, 1, rows, columns, generator=generator)
        half = (h + 1) // 2, (w + 1) // 2  # fine enough for the field
        field = F.interpolate(patches, half, mode="bicubic", align_corners=True)[0]
        if torch.rand(1, generator=generator) < 0.5:
            light = (field * _uniform(0, 0.5, generator)).exp()
        else:
            border, sharpness = 0.6 * torch.randn(1, generator=generator), _uniform(3, 20, generator)
            tint = 1 + 0.1 * torch.randn(3, 1, 1, generator=generator)
            shadow = ((field - border) * sharpness).sigmoid()
            light = 1 - shadow * (1 - tint * _uniform(0.25, 0.85, generator))  # what a shadow leaves
        return _with_views(sample, torch.stack(_views(sample)).mul_(_enlarge([light], (h, w))))


class Compose:
    """Apply transforms in order, all with the same generator."""

    def __init__(self, *transforms):
        self.transforms = transforms

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        for transform in self.transforms:
            sample = transform(sample, generator)
        return sample
