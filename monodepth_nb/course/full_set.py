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
from monodepth_nb.evaluation import PixelMeanBaseline
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

    def pixel_mean(self) -> PixelMeanBaseline:
        """The image-independent baseline: mean truth of the training scenes, or, if unlabelled, of other scenes."""
        return PixelMeanBaseline(self.labelled or self.test, leave_out=not self.labelled)


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


# ---- Of the command line; args: the options of `train` or `evaluate` ----


def training_data(args) -> FullSet:
    """The pairs that `--data` names, split by scene; `test`: the validation split, if it has ground truth."""
    size = args.size
    if args.data == "motorcycle":
        sample = motorcycle(size)
        return FullSet([sample], None, [sample], args.data)
    data = KittiStereo(streets_of(args, args.scenes, args.seed) if args.data == "streets" else folder_of(args))
    if args.data not in ("streets", "kitti2015") and process_rank() == 0:
        check_pairs(data, at_most=40)  # a user's own folder may hold views that are no pair
    train, validation = split_by_scene(data)
    test = next(iter(labelled(validation, size, args).values()), None)
    if test:
        test[0]  # an error in it should be reported now, not after the training
    return FullSet(PairCache(train, size), PairCache(validation, size), test, args.data)


def folder_of(args) -> Path:
    if args.data == "kitti2015":
        return download_kitti2015(args.data_root)
    if not Path(args.data).is_dir():
        raise ValueError(f"unknown data {args.data!r}; known: motorcycle, streets, kitti2015, or a folder of pairs")
    return Path(args.data)


def streets_of(args, count: int, seed: int) -> Path:
    root = street_root(args.size, count, seed, Path(args.data_root))
    print(root)
    return root


def follow_recipe(data: FullSet, args) -> tuple[recipes.Recipe, Dataset | None]:
    """What `--recipe` makes of the training and the validation pairs. Streets of `--rendered` are rendered here."""
    recipe, validation, streets = recipes.course(data.train), data.validation, None
    if args.recipe == "few-pairs":
        if args.rendered:
            root = streets_of(args, args.rendered, args.seed + OTHER_STREETS)
            streets = PairCache(KittiStereo(root, truth="occ"), args.size)
        recipe = recipes.few_pairs(data.train, streets)
        validation = data.validation and recipes.few_pairs(data.validation).data
    elif args.rendered:
        raise ValueError("--rendered belongs to --recipe few-pairs")
    return recipes.Recipe(recipe.data) if args.no_augmentation else recipe, validation


def scored_scenes(args, size: tuple[int, int]) -> tuple[dict[str, Subset], PixelMeanBaseline | None]:
    """The scenes to score, by kind of truth: those that `train` holds out, and the baseline of its training scenes.

    With `--all`: all labelled scenes, and no baseline.
    """
    data = KittiStereo(folder_of(args))
    try:
        train, scored = (None, Subset(data, range(len(data)))) if args.all else split_by_scene(data)
    except ValueError as error:
        raise ValueError(f"{error}, or pass --all") from error
    scenes = labelled(scored, size, args)
    if not scenes:
        raise ValueError(f"{data.folder} has no disp_noc_0 or disp_occ_0 of the scenes to score: add it or pass --all")
    training = train and next(iter(labelled(train, size, args).values()), None)
    return scenes, training and PixelMeanBaseline(training)


def labelled(split: Subset, size: tuple[int, int], args) -> dict[str, Subset]:
    """The scenes of `split` that have ground truth, by its kind, the paper's kind first."""
    names, found = {split.dataset.names[i] for i in split.indices}, {}
    for kind in truth_kinds(split.dataset):
        data = KittiStereo(
            split.dataset.folder, truth=kind, size=size, focal_px=args.focal_px, baseline_m=args.baseline_m
        )
        if indices := [i for i, name in enumerate(data.names) if name in names]:
            found[kind] = Subset(data, indices)
    return found
