"""What the network learns from and how pairs are varied: as published, or for a few hundred pairs."""

from torch.utils.data import ConcatDataset, Dataset

from monodepth_nb.loading import PairCache
from monodepth_nb.transforms import Compose, MirroredFlip, PairedPhotometric, PasteNearer, StrongPhotometric, Zoom

RECIPES = ("course", "few-pairs")


def course(pairs: Dataset) -> tuple[Dataset, Compose]:
    """The pairs and their augmentation as published: for `MonodepthLoss`."""
    return pairs, Compose(MirroredFlip(), PairedPhotometric())


def few_pairs(pairs: Dataset, streets: PairCache | None = None) -> tuple[Dataset, Compose]:
    """The pairs with disparity matched in them, varied widely: for `DisparityLoss`.

    streets: rendered ones of `KittiStereo(truth="occ")`, to learn from besides. The pairs are repeated to be about as
             many, so that half of what the network sees is real.
    """
    from monodepth_nb.matching import MatchedPairs, RenderedPairs  # OpenCV is needed here only

    data = MatchedPairs(pairs)
    if streets:
        data = ConcatDataset([data] * max(1, round(len(streets) / len(pairs))) + [RenderedPairs(streets)])
    vary = Compose(MirroredFlip(), Zoom(), StrongPhotometric())
    return data, Compose(vary, PasteNearer(data, vary))
