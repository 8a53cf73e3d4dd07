"""What the network learns from and how pairs are augmented: as published, or for a few hundred pairs."""

from typing import NamedTuple

from torch.utils.data import ConcatDataset, Dataset

from monodepth_nb.data import transforms
from monodepth_nb.data.loading import PairCache
from monodepth_nb.data.matching import RenderedPairs, with_disparity
from monodepth_nb.data.transforms import Compose

RECIPES = ("course", "few-pairs")


class Recipe(NamedTuple):
    """What `fit` gets: the pairs, their augmentation, and another one for the last epochs (None: the same)."""

    data: Dataset
    transform: Compose | None = None
    late_transform: Compose | None = None


def course(pairs: Dataset) -> Recipe:
    """The pairs, augmented as published: for `MonodepthLoss`."""
    return Recipe(pairs, Compose(transforms.MirroredFlip(), transforms.PairedPhotometric()))


def few_pairs(pairs: PairCache, streets: PairCache | None = None) -> Recipe:
    """Pairs with disparity from stereo matching, or from rendering, strongly augmented: for `DisparityLoss`.

    pairs:   matched, unless their data set knows the disparity of both views, as `KittiStereo(truth="occ")` does of
             rendered streets. Then the network learns this disparity, and colours and textures vary more
    streets: rendered pairs of `KittiStereo(truth="occ")` to learn from as well. The others are repeated to about the
             same number, so that half of what the network sees is real.

    The last epochs do not zoom or paste, which moves things nearer and would leave the network biased towards near
    depth (YOLOX likewise ends without its mosaics, arXiv:2107.08430).
    """
    data = with_disparity(pairs)
    if streets:
        data = ConcatDataset([data] * max(1, round(len(streets) / len(pairs))) + [with_disparity(streets)])
    flip, recolour, shade = transforms.MirroredFlip(), transforms.StrongPhotometric(), transforms.Shade()
    if isinstance(data, RenderedPairs):  # no real pair shows what real textures and lenses look like
        recolour = transforms.StrongPhotometric(noise=0.05)
        recolour = Compose(transforms.RandomConvolution(), transforms.Sharpness(), recolour)
    vary = Compose(flip, transforms.Zoom(), recolour)
    return Recipe(data, Compose(vary, transforms.PasteNearer(data, vary), shade), Compose(flip, recolour, shade))
