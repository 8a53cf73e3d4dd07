"""The one real stereo pair that needs no download."""

import torch

from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import resize


def motorcycle(size: tuple[int, int] | None = None) -> Sample:
    """The real stereo pair that scikit-image ships: Middlebury 2014 "Motorcycle" at 500 x 741.

    >>> from monodepth_nb import motorcycle
    >>> pair = motorcycle(size=(256, 512))
    >>> depth_m = pair.focal_px * pair.baseline_m / (pair.disparity_px + pair.doffs_px)  # (500, 741), NaN = unknown

    size:    (height, width) of the two images, None for full size; the ground truth stays at full size
    returns: Sample with `left`, `right`, `disparity_px`, `focal_px`, `baseline_m`, and `doffs_px`, the distance of the
             two cameras' principal points in pixels (0 for KITTI)
    Source: D. Scharstein et al., GCPR 2014, through `skimage.data.stereo_motorcycle`.
    """
    from skimage.data import stereo_motorcycle

    *views, disparity = map(torch.from_numpy, stereo_motorcycle())
    left, right = (view.permute(2, 0, 1).float() / 255 for view in views)
    size = size or left.shape[-2:]
    return Sample(
        left=resize(left, size), right=resize(right, size), name="motorcycle",
        disparity_px=disparity.float().where(disparity.isfinite(), torch.nan),
        focal_px=994.978, baseline_m=0.193001, doffs_px=31.086,
    )  # fmt: skip
