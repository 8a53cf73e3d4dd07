"""Changes made to a pair before the network sees it. Both views always get the same draw."""

import torch
import torch.nn.functional as F
from torch import Tensor

from monodepth_nb.sample import Sample


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
    now be nearer to the right edge. The mirrored right view is a valid *left* view, so they trade places. Ground
    truth belongs to the old left view and is dropped.
    """

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        if torch.rand(1, generator=generator) >= self.p:
            return sample
        return Sample(left=sample["right"].flip(-1), right=sample["left"].flip(-1), name=sample["name"])


class Compose:
    """Apply transforms in order, all drawing from one generator."""

    def __init__(self, *transforms):
        self.transforms = transforms

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        for transform in self.transforms:
            sample = transform(sample, generator)
        return sample
