"""What the network learns from and how pairs are varied: as published, or for a few hundred pairs."""

from typing import NamedTuple

from torch.utils.data import ConcatDataset, Dataset

from monodepth_nb.data import transforms
from monodepth_nb.data.loading import PairCache
from monodepth_nb.data.transforms import Compose

RECIPES = ("course", "few-pairs")


class Recipe(NamedTuple):
    """What `fit` gets: what to learn from, how it is varied, and how in the last epochs (None: in the same way)."""

    data: Dataset
    transform: Compose | None = None
    late_transform: Compose | None = None


def course(pairs: Dataset) -> Recipe:
    """The pairs, varied as published: for `MonodepthLoss`."""
    return Recipe(pairs, Compose(transforms.MirroredFlip(), transforms.PairedPhotometric()))


def few_pairs(pairs: PairCache, streets: PairCache | None = None) -> Recipe:
    """The pairs with disparity matched in them, varied widely: for `DisparityLoss`.

    streets: rendered ones of `KittiStereo(truth="occ")`, to learn from besides. The pairs are repeated to be about as
             many, so that half of what the network sees is real.

    Zoomed and pasted streets are nearer than streets are, and the road is not where it always is. So the last epochs
    do without (as YOLOX ends without its mosaics, arXiv:2107.08430), or the network would go on answering too near.
    """
    from monodepth_nb.data.matching import MatchedPairs, RenderedPairs  # OpenCV is needed here only

    data = MatchedPairs(pairs)
    if streets:
        data = ConcatDataset([data] * max(1, round(len(streets) / len(pairs))) + [RenderedPairs(streets)])
    flip, recolour, shade = transforms.MirroredFlip(), transforms.StrongPhotometric(), transforms.Shade()
    vary = Compose(flip, transforms.Zoom(), recolour)
    return Recipe(data, Compose(vary, transforms.PasteNearer(data, vary), shade), Compose(flip, recolour, shade))
