"""The image-independent baseline: a network that does not beat it has learnt nothing."""

import numpy as np
import torch

from monodepth_nb.data.kitti import scene_blocks
from monodepth_nb.evaluation import has_truth, to_pixels

GRID = (96, 320)  # rows, columns: the baselines' size


class PixelMeanBaseline:
    """Image-independent baseline: the mean disparity of each pixel position over the ground truth of `dataset`.

    Called with a sample, it predicts pixels at the size of the sample's ground truth. `disparity` is the mean on
    GRID, as a fraction of the width; cells without any ground truth (the sky) take the nearest cell's value.

    leave_out: for a sample of `dataset`, average only over scenes of other drives: for data that is scored as a whole
               and not trained on, as in the paper's Table 1, where the mean must not contain the scored scene.
    Raises ValueError if there is no ground truth at all.
    """

    def __init__(self, dataset, leave_out: bool = False):
        samples = [(sample["name"], truth_on_grid(sample)) for sample in dataset]
        names, grids = [name for name, _ in samples], [grid for _, grid in samples]
        total = sum(grids, np.zeros((2, *GRID)))
        self.disparity, self.without = mean_of_cells(total), {}
        drives = getattr(getattr(dataset, "dataset", dataset), "drives", None)
        blocks = scene_blocks(names, drives) if leave_out else []
        if len(blocks) == 1:  # a single drive: leave out only the image itself
            blocks = [[i] for i in blocks[0]]
        for block in blocks:
            others = mean_of_cells(total - sum(grids[i] for i in block))
            self.without |= {names[i]: others for i in block}

    def __call__(self, sample) -> np.ndarray:
        disparity = self.without.get(sample["name"], self.disparity)
        return to_pixels(torch.from_numpy(disparity), sample["disparity_px"].shape)


def truth_on_grid(sample) -> np.ndarray:
    """(2, *GRID): mean of the known disparities in each cell, as a fraction of the width, and 1; both 0 if none is."""
    truth = np.asarray(sample["disparity_px"], dtype=np.float64)
    y, x = np.nonzero(has_truth(sample))
    (h, w), (rows, columns) = truth.shape, GRID
    cells = (y * rows // h) * columns + x * columns // w
    total, count = (np.bincount(cells, v, rows * columns).reshape(GRID) for v in (truth[y, x] / w, np.ones(len(x))))
    return np.stack((total / count.clip(1), count > 0))  # so every image has the same weight, whatever its size


def mean_of_cells(sums_and_counts: np.ndarray) -> np.ndarray:
    """(2, h, w) sum and count -> (h, w) float32 mean; empty cells take the value of the nearest other cell."""
    from scipy.ndimage import distance_transform_edt  # comes with scikit-image

    total, count = sums_and_counts
    if not (count > 0.5).any():
        raise ValueError("no pixel has ground truth, so there is no mean: pass a labelled data set of several scenes")
    nearest = distance_transform_edt(count < 0.5, return_distances=False, return_indices=True)
    return (total[tuple(nearest)] / count[tuple(nearest)]).astype(np.float32)
