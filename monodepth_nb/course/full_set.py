"""Which pairs are trained on and which are scored, for the notebooks and the command line."""

import warnings
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset, Subset

from monodepth_nb.course.profiles import Profile
from monodepth_nb.data import recipes
from monodepth_nb.data.download import data_folder, download_kitti2015
from monodepth_nb.data.kitti import KittiStereo, paper_protocol, split_by_scene, truth_kinds
from monodepth_nb.data.loading import PairCache
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.data.pair_check import check_files, check_pairs, check_truth
from monodepth_nb.machine import process_rank
from monodepth_nb.pixel_mean import PixelMeanBaseline
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
    """The full data set of a profile, which `profile.stereo` names.

    streets:   rendered, with other seeds for validation and test
    kitti2015: downloaded; trains on the testing pairs, a tenth of which is the validation split, and is scored on
               frame 10 of the 200 labelled training scenes, as in the paper's Table 1
    a folder:  in KITTI's layout, with `testing/` and a labelled `training/`
    """
    size = profile.image_size
    if profile.stereo == "streets":
        counts = profile.train_scenes, profile.test_scenes, profile.test_scenes
        train, validation, test = (street_root(size, count, seed) for seed, count in enumerate(counts))
        pairs, watched = (PairCache(KittiStereo(root), size) for root in (train, validation))
        labelled, scored = (KittiStereo(root, truth="occ", size=size) for root in (train, test))
        return FullSet(pairs, watched, scored, f"{len(pairs)} rendered street pairs", labelled)
    root = download_kitti2015() if profile.stereo == "kitti2015" else Path(profile.stereo)
    pairs, test = paper_protocol(root, size=size)
    check_files(pairs)
    train, validation = split_by_scene(pairs, validation=0.1)
    label = f"{root.name}, {len(train)} pairs, {test.truth} truth"
    return FullSet(PairCache(train, size), PairCache(validation, size), test, label)


# ---- Of the command line; args: the options of `train` or `evaluate` ----


def training_data(args) -> FullSet:
    """The pairs that `--data` names, split by scene; `test`: the validation split, if it has ground truth.

    With `--no-validation`, all pairs are trained on.
    """
    size = args.size
    if args.data == "motorcycle":
        sample = motorcycle(size)
        warn_of_aspect(sample["disparity_px"].shape, size)
        return FullSet([sample], None, [sample], args.data)
    root = streets_of(args, args.scenes, args.streets_seed) if args.data == "streets" else folder_of_pairs(args)
    truth = "occ" if args.data == "streets" and args.recipe == "few-pairs" else None  # to learn from
    data = KittiStereo(root, truth=truth, focal_px=args.focal_px, baseline_m=args.baseline_m)
    if process_rank() == 0:
        check_files(data)
    if args.data not in ("streets", "kitti2015") and process_rank() == 0:
        warn_of_aspect(data.read_pair(data.names[0])[0].shape[-2:], size)
        if not args.no_pair_check:
            check_pairs(data, at_most=40)  # a user's own folder may hold views that are no pair
    if args.no_validation:
        return FullSet(PairCache(data, size), None, None, args.data)
    try:
        train, validation = split_by_scene(data)
    except ValueError as error:
        raise ValueError(f"{error}, or pass --no-validation") from error
    test = next(iter(labelled(validation, size, args).values()), None)
    if test:
        test[0]  # an error in it should be reported now, not after the training
        if process_rank() == 0:
            print(test.dataset.camera_note())
    return FullSet(PairCache(train, size), PairCache(validation, size), test, args.data)


def folder_of_pairs(args) -> Path:
    if args.data == "kitti2015":
        return download_kitti2015(args.data_root)
    if not Path(args.data).is_dir():
        others = "motorcycle, streets, " if hasattr(args, "scenes") else ""
        raise ValueError(f"unknown data {args.data!r}; known: {others}kitti2015, or a folder of pairs")
    return Path(args.data)


def warn_of_aspect(pictures: tuple[int, int], size: tuple[int, int]) -> None:
    """Warn if the pictures are upright and `size` is not, or the reverse; both are (height, width)."""
    (h, w), (height, width) = pictures, size
    if (h - w) * (height - width) < 0:
        problem = f"the pictures are {h} x {w} (height x width), the network gets {height} x {width}"
        warnings.warn(f"{problem}: --size takes the height first", stacklevel=2)


def streets_of(args, count: int, seed: int) -> Path:
    root = street_root(args.size, count, seed, Path(args.data_root or data_folder()))
    print(root)
    return root


def follow_recipe(data: FullSet, args) -> tuple[recipes.Recipe, Dataset | None]:
    """What `--recipe` makes of the training and the validation pairs. Streets of `--rendered` are rendered here."""
    recipe, validation, streets = recipes.course(data.train), data.validation, None
    if args.recipe == "few-pairs":
        if args.data == "motorcycle":
            raise ValueError("--recipe few-pairs needs several pairs: pass --data streets, kitti2015, or a folder")
        if args.rendered:
            root = streets_of(args, args.rendered, args.streets_seed + OTHER_STREETS)
            streets = PairCache(KittiStereo(root, truth="occ"), args.size)
        recipe = recipes.few_pairs(data.train, streets)
        validation = data.validation and recipes.few_pairs(data.validation).data
    elif args.rendered:
        raise ValueError("--rendered belongs to --recipe few-pairs")
    return recipes.Recipe(recipe.data) if args.no_augmentation else recipe, validation


class Scored(NamedTuple):
    """What `evaluate` scores."""

    scenes: dict[str, Subset]  # by kind of truth, the paper's first
    baseline: PixelMeanBaseline | None  # of the scenes that `train` trains on; None with --all
    label: str  # for titles and tables

    def names(self) -> set[str]:
        return {split.dataset.names[i] for split in self.scenes.values() for i in split.indices}


def scored_scenes(args, size: tuple[int, int]) -> Scored:
    """The labelled ones of the scenes that `train` holds out, or, with `--all`, of all."""
    data = KittiStereo(folder_of_pairs(args))
    try:
        train, scored = (None, Subset(data, range(len(data)))) if args.all else split_by_scene(data)
    except ValueError as error:
        raise ValueError(f"{error}, or pass --all") from error
    scenes = labelled(scored, size, args)
    if not scenes:
        remedy = "add it" if args.all else "add it, or pass --all"
        raise ValueError(f"{data.folder} has no ground truth of the scenes to score: {remedy}")
    print(next(iter(scenes.values())).dataset.camera_note())
    training = train and next(iter(labelled(train, size, args).values()), None)
    counts = ", ".join(f"{len(split)} with {kind} truth" for kind, split in scenes.items())
    label = f"{Path(args.data).name}, {len(scored)} {'' if args.all else 'held-out '}scenes: {counts}"
    return Scored(scenes, training and PixelMeanBaseline(training), label)


def labelled(split: Subset, size: tuple[int, int], args) -> dict[str, Subset]:
    """The scenes of `split` that have ground truth, by its kind, the paper's kind first."""
    names, found = {split.dataset.names[i] for i in split.indices}, {}
    for kind in truth_kinds(split.dataset):
        data = KittiStereo(
            split.dataset.folder, truth=kind, size=size, focal_px=args.focal_px, baseline_m=args.baseline_m
        )
        if usable := check_truth(Subset(data, [i for i, name in enumerate(data.names) if name in names])):
            found[kind] = usable
    return found


def unbiased(path: Path, network, scored: set[str], held_out: bool) -> Path:
    """The checkpoint to score: last.pt instead of a best.pt that was chosen on the `scored` pairs. Says so.

    held_out: whether the report will call the scored pairs held out. Warns if it will and the network held none out
    """
    settings = getattr(network, "settings", {})
    if held_out and settings.get("validation", ()) is None:
        problem = f"{path} was trained on all pairs of its data and held none out"
        warnings.warn(f"{problem}: score it on other data, with --all; these scores may flatter it", stacklevel=2)
    chosen_on = scored & set(settings.get("validation") or ())
    if path.name != "best.pt" or not chosen_on:
        return path
    reason = f"{len(chosen_on)} of the {len(scored)} scored pairs, by name, were the validation pairs that chose {path}"
    last = path.with_name("last.pt")
    if last.is_file():
        print(f"{reason}: {last} is scored instead, which no pair has chosen")
        return last
    warnings.warn(f"{reason}, which flatters its scores: keep last.pt beside it", stacklevel=2)
    return path
