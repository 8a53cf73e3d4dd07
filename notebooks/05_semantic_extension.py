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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/05_semantic_extension.ipynb)
#
# # 5 · Does knowing what things are help to see how far they are?
#
# **What notebook 04 left open.** A network learnt depth from pairs alone. The course project gave it the features of
# a frozen *semantic* network and reported that the maps improve significantly (claim C6). But its baseline had lost
# its pretraining (D1) while the semantic branch had not, and the map it showed came from an untrained network (D4).
#
# **The question.** At the same budget and the same seeds, do semantic features help? And is it the *semantics*, or
# would any frozen features of that shape do?
#
# **Running time.** `smoke` seconds, `demo` about 12 minutes on two CPU cores, `paper` about 1.5 hours on a T4.

# %% tags=["setup"]
# Finds the package. On Colab it first fetches the repository; elsewhere it changes nothing.
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
    subprocess.run(["git", "clone", "--quiet", "--depth=1", REPO, "monodepth_course"], check=True)
    os.chdir("monodepth_course/notebooks")
    needed = {
        "skimage": "scikit-image",
        "seaborn": "seaborn",
        "pandas": "pandas",
        "tqdm": "tqdm",
        "torchvision": "torchvision",
    }
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
if project_root() is None:
    raise FileNotFoundError("monodepth_nb not found: open this notebook inside its repository")
sys.path.insert(0, str(project_root()))

# %%
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import display
from tqdm.auto import tqdm

from monodepth_nb import figures
from monodepth_nb.datasets import data_folder, full_set, motorcycle
from monodepth_nb.evaluation import disparity_metrics, evaluate, to_pixels
from monodepth_nb.inference import ask_for_photo, predict_photo
from monodepth_nb.networks import DispResNet, SemanticDispResNet
from monodepth_nb.pretrained import WeightsUnavailable, remembered_features
from monodepth_nb.profiles import choose_profile
from monodepth_nb.results import BUILD, Record, device_name, load_results
from monodepth_nb.segmenter import train_on_streets
from monodepth_nb.training import TrainConfig, choose_device, fit, predict_disparity, score, seed_everything
from monodepth_nb.transforms import Compose, MirroredFlip, PairedPhotometric
from monodepth_nb.verdicts import verdicts

profile = choose_profile()
data = full_set(profile)
label = profile.label(data.label)
record = Record("05_semantic_extension", profile)
print(f"{label}; device {choose_device()} ({device_name()})")

# %% [markdown]
# ## Where the semantics come from
# The course project used FCN-ResNet50 with COCO weights, whose classes know car, bus and person but no road, building
# or sky. Where those weights can be had they are used. Else a small segmenter is trained here on the class maps of
# rendered streets, which name road, sidewalk, building, car, pole, vegetation, person and sky.

# %%
streets_root = data_folder() / f"streets_{profile.image_size[0]}x{profile.image_size[1]}_{profile.train_scenes}_seed0"
segmenter_folder = BUILD / profile.name / "segmenter"


def semantic_source():
    """Weights and trunk for SemanticDispResNet, and their name."""
    try:
        SemanticDispResNet(weights="coco", width=profile.width)
        return "coco", "resnet50", "COCO segmenter"
    except WeightsUnavailable as error:
        print("COCO weights unavailable:", str(error).splitlines()[1])
    table = train_on_streets(streets_root, segmenter_folder, profile.image_size, epochs=profile.segmenter_epochs)
    display(table.round(2))
    record.add("segmenter", "rendered streets", mean_iou=table["mean"].iloc[0], position_iou=table["mean"].iloc[1])
    return f"streets:{segmenter_folder / 'segmenter.pt'}", "resnet18", "street segmenter"


weights, trunk, source = semantic_source()
print("semantic features from:", source)

# %% [markdown]
# ## How features join
# The trunk is frozen, in evaluation mode, without gradients, and normalises its own input (D9). Its first level joins
# the skip at 1/4, its deeper levels the skip at 1/8. Concatenated as they are, they outnumber the skip's own channels
# many times; *projected* by a 1x1 convolution first, they do not.

# %%
for join in ("wide", "projected"):
    model = SemanticDispResNet(weights=weights, trunk=trunk, join=join, width=profile.width)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    print(f"{join:10s} trainable {trainable:>11,}  frozen {frozen:>11,}  skip channels {model.encoder.channels[1:3]}")

# %% [markdown]
# ## Arms
# Four networks, alike in everything but the frozen features: none; semantic; *random* weights in the same trunk (are
# more channels enough?); ImageNet weights in the same trunk (is any pretraining enough?). An arm whose weights cannot
# be had is left out, and its verdict says *not tested*.


# %%
def arm_networks():
    """Functions that build each arm's network anew, by name."""
    arms = {"no extra features": partial(DispResNet, width=profile.width)}
    sources = {"semantic": weights, "random features": "random", "ImageNet features": "imagenet"}
    for name, origin in sources.items():
        build = partial(SemanticDispResNet, weights=origin, trunk=trunk, width=profile.width)
        try:
            build()
            arms[name] = build
        except WeightsUnavailable as error:
            print(f"{name} left out:", str(error).splitlines()[1])
    return arms


arms = arm_networks()
list(arms)

# %% [markdown]
# ## One pair
# The course project's first experiment: the motorcycle again, no augmentation, so the frozen features of the only
# picture are computed once.

# %%
pair = motorcycle(profile.image_size)
truth_px = pair.disparity_px.numpy()
rows = []
for seed in range(profile.seeds):
    for name, build in arms.items():
        seed_everything(seed)
        model = build()
        config = TrainConfig(
            epochs=profile.semantic_single_epochs, batch_size=1, learning_rate=profile.learning_rate, seed=seed
        )
        with remembered_features(model):
            fit(model, [pair], config, progress=False)
        result = disparity_metrics(
            to_pixels(predict_disparity(model, [pair])[0, 0], truth_px.shape), truth_px, pair.focal_px, pair.baseline_m
        )
        rows.append({"arm": name, "seed": seed, "epe": result["epe"], "d1_all": result["d1_all"]})
        record.add(f"one pair, {name}", "motorcycle", seed, epe=result["epe"], d1_all=result["d1_all"])
pd.DataFrame(rows).groupby("arm", sort=False)[["epe", "d1_all"]].agg(["mean", "min", "max"]).round(2)

# %% [markdown]
# ## The full set
# **Hypothesis**, from the literature: fixed semantic guidance improved AbsRel from 0.111 to 0.102 on KITTI (Guizilini
# et al., ICLR 2020). Expect a gain of that order, a few per cent, if at all: about as much as two runs differ by
# chance.


# %%
def train_arm(build, seed):
    """A fresh network of one arm, trained on the full set; the network itself comes back (D4)."""
    seed_everything(seed)
    model = build()
    config = TrainConfig(
        epochs=profile.semantic_full_epochs,
        batch_size=profile.batch_size,
        learning_rate=profile.full_learning_rate,
        schedule=profile.full_schedule,
        seed=seed,
    )
    fit(model, data.train, config, transform=Compose(MirroredFlip(), PairedPhotometric()), progress=False)
    return model


baseline_scores = evaluate(data.pixel_mean(), data.test).mean(numeric_only=True)
record.add("pixel_mean", data.label, **baseline_scores.to_dict())
full_rows, trained = [], {}
for seed in tqdm(range(profile.seeds), desc="seeds"):
    for name, build in arms.items():
        trained[name] = train_arm(build, seed)
        means = score(trained[name], data.test).mean(numeric_only=True)
        full_rows.append({"arm": name, "seed": seed, **means})
        record.add(f"full set, {name}", data.label, seed, **means.to_dict())
full_rows = pd.DataFrame(full_rows)

# %%
summary = full_rows.groupby("arm", sort=False)[["abs_rel", "rmse", "a1", "epe", "d1_all"]].agg(["mean", "min", "max"])
display(summary.round(3))
print(f"pixel-mean baseline: AbsRel {baseline_scores['abs_rel']:.3f}, D1 {baseline_scores['d1_all']:.1f} %")

# %%
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
sns.stripplot(full_rows, x="abs_rel", y="arm", hue="seed", palette="colorblind", size=9, ax=ax)
ax.axvline(baseline_scores["abs_rel"], color="0.4", linestyle="--", label="pixel-mean baseline")
ax.set(
    xlabel=f"AbsRel on {len(data.test)} unseen scenes (lower is better)",
    ylabel="",
    title=f"Same budget, same seeds, other features\n{label}",
)
plt.close(fig)
record.figure("arms", fig)

# %%
example = data.test[0]
maps = {
    name: to_pixels(predict_disparity(model, [example])[0, 0], example.disparity_px.shape)
    for name, model in trained.items()
}
record.figure("maps", figures.map_grid(example.left, maps, example.disparity_px, label, "An unseen scene, last seed"))

# %% [markdown]
# ## Your own photo
# The semantic network of the last seed on a picture of yours: on Colab this asks for a file; elsewhere set
# `MONODEPTH_PHOTO=/path/to/photo.jpg`.

# %%
photo = ask_for_photo()
if photo is None:
    print("no photo given: set MONODEPTH_PHOTO to the path of one")
else:
    picture, disparity = predict_photo(trained["semantic"], photo, profile.image_size)
    fraction = predict_disparity(trained["semantic"], [example])[0, 0]
    display(figures.two_by_two(example.left, fraction, picture, disparity, f"{label}; your photo"))

# %% [markdown]
# ## The verdicts
# The table is computed from the numbers that the five notebooks saved, so it cannot say anything else than they do.
# *Not tested* means that a number is missing, and which.

# %%
table = verdicts(load_results(profile), profile.name)
table.to_csv(BUILD / profile.name / "verdicts.csv", index=False)
with pd.option_context("display.max_colwidth", None):
    display(table.set_index("id"))

# %% [markdown]
# ## What was learnt
# - A comparison is fair when one thing differs: here the frozen features, with the same budget, seeds, width and
#   decoder.
# - Without the random-feature control a gain from mere extra channels would have passed for semantics.
# - The spread between seeds decides what counts as a difference. A null result is a result.
#
# **What this does not show.** The segmenter knows the very kind of streets it is tested on; its features come from
# labels (class maps), so the semantic arm is not free of supervision, only of *depth* supervision.
#
# ## Exercises
# 1. **Predict:** give the trunk the *true* class map instead of features. An upper bound for semantics?
#
# <details><summary>Solution</summary>
#
# Not for features: a class map names the surface but has lost its texture and where inside the object a pixel lies.
# It bounds what perfect *labels* could add, not what a network's inner features could.
# </details>
#
# 2. **Change one line:** pass `join="wide"` in `arm_networks`. What happens to the number of trainable parameters and
#    to AbsRel?
#
# <details><summary>Solution</summary>
#
# `SemanticDispResNet(weights=origin, trunk=trunk, join="wide", width=profile.width)`. The decoder's first
# convolutions at 1/4 and 1/8 grow with the trunk's channels, see the printed counts; whether that helps must be read
# against the spread of the seeds.
# </details>
#
# 3. **Explain:** why was the course project's comparison unable to say anything about semantics?
#
# <details><summary>Solution</summary>
#
# Its baseline's encoder had lost its pretraining (D1), the semantic branch had kept its own, so two things differed;
# and the map it showed came from a network that was never trained (D4).
# </details>

# %%
print(record.provenance(f"Middlebury motorcycle pair and {data.label}"))
