"""Where the notebooks' stereo pairs come from: one real pair, and a full set to learn from and to be scored on."""

import os
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset

from monodepth_nb.course.profiles import Profile
from monodepth_nb.data.download import data_folder, download_kitti2015
from monodepth_nb.data.kitti import KittiStereo, paper_protocol, split_by_scene
from monodepth_nb.data.loading import PairCache
from monodepth_nb.evaluation import OtherScenesMean, PixelMeanBaseline
from monodepth_nb.streets.rendering import street_root


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


def street_set(profile: Profile) -> FullSet:
    size, counts = profile.image_size, (profile.train_scenes, profile.test_scenes, profile.test_scenes)
    train, validation, test = (street_root(size, count, seed) for seed, count in enumerate(counts))
    pairs, watched = (PairCache(KittiStereo(root), size) for root in (train, validation))
    labelled, scored = (KittiStereo(root, truth="occ", size=size) for root in (train, test))
    return FullSet(pairs, watched, scored, f"{len(pairs)} rendered street pairs", labelled)
