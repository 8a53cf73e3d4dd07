"""Where the notebooks' stereo pairs come from: one real pair, and a full set to learn from and to be scored on."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from monodepth_nb.download import download_kitti2015
from monodepth_nb.evaluation import OtherScenesMean, PixelMeanBaseline
from monodepth_nb.kitti import KittiStereo, paper_protocol, split_by_scene
from monodepth_nb.loading import PairCache
from monodepth_nb.profiles import Profile
from monodepth_nb.sample import Sample
from monodepth_nb.streets import render_streets
from monodepth_nb.transforms import resize


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


class FullSet(NamedTuple):
    """Pairs to learn from, pairs to watch while learning, and scenes with ground truth that are only scored on."""

    train: Dataset
    validation: Dataset
    test: KittiStereo
    label: str  # for titles and tables
    labelled: KittiStereo | None = None  # the training scenes with their ground truth, for the baseline only

    def pixel_mean(self) -> PixelMeanBaseline | OtherScenesMean:
        """The no-learning baseline: mean truth of the training scenes, or, where they have none, of other scenes."""
        return PixelMeanBaseline(self.labelled) if self.labelled else OtherScenesMean(self.test)


def data_folder() -> Path:
    """Where data sets live: MONODEPTH_DATA, else `datasets/` beside the package."""
    return Path(os.environ.get("MONODEPTH_DATA", Path(__file__).resolve().parent.parent / "datasets"))


def full_set(profile: Profile) -> FullSet:
    """The full data set of a profile; MONODEPTH_STEREO overrides it: "streets", "kitti2015", or a folder.

    streets:   rendered; other scenes, of other seeds, for validation and test
    kitti2015: downloaded; learns from the testing pairs, a tenth of them held out for validation, and is scored on
               frame 10 of the 200 labelled training scenes, as the paper's Table 1 does
    a folder:  in KITTI's layout, with `testing/` and a labelled `training/`
    """
    choice, size = os.environ.get("MONODEPTH_STEREO") or profile.stereo, profile.image_size
    if choice == "streets":
        return street_set(profile)
    root = download_kitti2015(data_folder()) if choice == "kitti2015" else Path(choice)
    pairs, test = paper_protocol(root, size=size)
    train, validation = split_by_scene(pairs, validation=0.1)
    label = f"{root.name}, {len(train)} pairs, {test.truth} truth"
    return FullSet(PairCache(train, size), PairCache(validation, size), test, label)


def street_root(size: tuple[int, int], count: int, seed: int, folder: Path | None = None) -> Path:
    """The folder, within `folder` or `data_folder`, of `count` streets, rendered first if need be.

    Other seeds are other streets. The settings are in its name, so that several may lie side by side.
    """
    folder = (folder or data_folder()) / f"streets_{size[0]}x{size[1]}_{count}_seed{seed}"
    return render_streets(folder, count, size, seed)


def street_set(profile: Profile) -> FullSet:
    size, counts = profile.image_size, (profile.train_scenes, profile.test_scenes, profile.test_scenes)
    train, validation, test = (street_root(size, count, seed) for seed, count in enumerate(counts))
    pairs, watched = (PairCache(KittiStereo(root), size) for root in (train, validation))
    labelled, scored = (KittiStereo(root, truth="occ", size=size) for root in (train, test))
    return FullSet(pairs, watched, scored, f"{len(pairs)} rendered street pairs", labelled)
