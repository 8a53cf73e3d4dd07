"""Which pairs are trained on and which are scored, for the notebooks and the command line."""

import os
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset, Subset

from monodepth_nb.course.profiles import Profile
from monodepth_nb.data import recipes
from monodepth_nb.data.download import data_folder, download_kitti2015
from monodepth_nb.data.kitti import KittiStereo, paper_protocol, split_by_scene, truth_kinds
from monodepth_nb.data.loading import PairCache
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.data.pair_check import check_pairs
from monodepth_nb.evaluation import OtherScenesMean, PixelMeanBaseline
from monodepth_nb.machine import process_rank
from monodepth_nb.streets.rendering import street_root

OTHER_STREETS = 1000  # added to the seed of --data streets, so that --rendered gives others


class FullSet(NamedTuple):
    """Pairs to train on, pairs for validation, and scenes with ground truth that are only scored."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    label: str  # for titles and tables
    labelled: KittiStereo | None = None  # the training scenes with their ground truth, for the baseline only

    def pixel_mean(self) -> PixelMeanBaseline | OtherScenesMean:
        """The image-independent baseline: mean truth of the training scenes, or, if unlabelled, of other scenes."""
        return PixelMeanBaseline(self.labelled) if self.labelled else OtherScenesMean(self.test)


# ---- Of the notebooks ----


def full_set(profile: Profile) -> FullSet:
    """The full data set of a profile; MONODEPTH_STEREO overrides it: "streets", "kitti2015", or a folder.

    streets:   rendered, with other seeds for validation and test
    kitti2015: downloaded; trains on the testing pairs, a tenth of which is the validation split, and is scored on
               frame 10 of the 200 labelled training scenes, as in the paper's Table 1
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


# ---- Of the command line; args: the options of `train` ----


def training_data(args) -> FullSet:
    """The pairs that `--data` names. A folder of the user's own is first checked for views that are no pair."""
    if args.data == "motorcycle":
        sample = motorcycle(args.size)
        return FullSet([sample], None, [sample], args.data)
    if args.data == "streets":
        root = streets_of(args)
    elif args.data == "kitti2015":
        root = download_kitti2015(args.data_root)
    else:
        root = Path(args.data)
        if not root.is_dir():
            raise ValueError(f"unknown data {args.data!r}; known: motorcycle, streets, kitti2015, or a folder of pairs")
        if process_rank() == 0:
            check_pairs(KittiStereo(root), at_most=40)
    return split_folder(root, args.size, focal_px=args.focal_px, baseline_m=args.baseline_m)


def streets_of(args) -> Path:
    root = street_root(args.size, args.scenes, args.seed, Path(args.data_root))
    print(root)
    return root


def follow_recipe(data: FullSet, args) -> tuple[recipes.Recipe, Dataset | None]:
    """What `--recipe` makes of the training and the validation pairs. Streets of `--rendered` are rendered here."""
    if args.recipe == "course":
        if args.rendered:
            raise ValueError("--rendered belongs to --recipe few-pairs")
        recipe, validation = recipes.course(data.train), data.validation
    else:
        streets = None
        if args.rendered:
            root = street_root(args.size, args.rendered, args.seed + OTHER_STREETS, Path(args.data_root))
            streets = PairCache(KittiStereo(root, truth="occ"), args.size)
        recipe = recipes.few_pairs(data.train, streets)
        validation = data.validation and recipes.few_pairs(data.validation).data
    return recipes.Recipe(recipe.data) if args.no_augmentation else recipe, validation


def split_folder(root: Path, size: tuple[int, int], **camera) -> FullSet:
    """A folder in KITTI's layout, split by scene. `test`: the validation split, if it has ground truth.

    camera: focal_px and baseline_m, as of `KittiStereo`
    """
    everything = KittiStereo(root)
    train, validation = split_by_scene(everything)
    test = None
    for kind in truth_kinds(everything)[:1]:
        labelled = within(validation, KittiStereo(root, truth=kind, size=size, **camera))
        if len(labelled):  # of frames 10 and 11 of a scene, say, only the first has truth
            test = labelled
            test[0]  # an error in it should be reported now, not after the training
    return FullSet(PairCache(train, size), PairCache(validation, size), test, root.name)


def within(split: Subset, labelled: KittiStereo) -> Subset:
    """The scenes of `split` that have ground truth."""
    names = {split.dataset.names[i] for i in split.indices}
    return Subset(labelled, [i for i, name in enumerate(labelled.names) if name in names])


def scored_scenes(root: Path, size: tuple[int, int], everything: bool, **camera):
    """The scenes to score, by kind of truth, and the baseline of the training split.

    everything: score all scenes (no training split and no baseline then), not only those that `train` holds out
    """
    data = KittiStereo(root)
    scored = {kind: KittiStereo(root, truth=kind, size=size, **camera) for kind in truth_kinds(data)}
    if not scored:
        raise ValueError(f"{data.folder} has neither disp_noc_0 nor disp_occ_0: nothing to score against")
    if everything:
        return scored, None
    try:
        train, validation = split_by_scene(data)
    except ValueError as error:
        raise ValueError(f"{error}, or pass --all") from error
    training = within(train, next(iter(scored.values())))
    held_out = {kind: within(validation, labelled) for kind, labelled in scored.items()}
    if not (len(training) and len(next(iter(held_out.values())))):
        raise ValueError(f"{root} lacks ground truth in its training or its validation split: pass --all")
    return held_out, PixelMeanBaseline(training)
