"""The one real stereo pair that needs no download."""

import numpy as np
import torch

from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import resize


def motorcycle(size: tuple[int, int] | None = None) -> Sample:
    """The real stereo pair that scikit-image ships: Middlebury 2014 "Motorcycle" at 500 x 741.

    size:    (height, width) of the two images in the sample, None for full size; the truth stays full size
    returns: Sample with `left`, `right`, `disparity_px` (500, 741; NaN where the truth is unknown), `focal_px`,
             `baseline_m`, and `doffs_px`: the principal points of the two cameras differ by that many pixels, so
             depth = focal_px * baseline_m / (disparity_px + doffs_px) here. KITTI's is 0.
    Source: D. Scharstein et al., GCPR 2014, through `skimage.data.stereo_motorcycle`.
    """
    from skimage.data import stereo_motorcycle

    left, right, disparity = stereo_motorcycle()
    views = [torch.from_numpy(v).permute(2, 0, 1).float() / 255 for v in (left, right)]
    if size is not None:
        views = [resize(v, size) for v in views]
    truth = torch.from_numpy(np.where(np.isfinite(disparity), disparity, np.nan).astype(np.float32))
    return Sample(
        left=views[0], right=views[1], name="motorcycle", disparity_px=truth,
        focal_px=994.978, baseline_m=0.193001, doffs_px=31.086,
    )  # fmt: skip
