"""Profiles: how much work the notebooks do, chosen by MONODEPTH_PROFILE or by the machine."""

import os
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Profile:
    """Sizes of every experiment. An epoch is one pass over its pairs; on one pair it is one step."""

    name: str
    image_size: tuple[int, int]  # (height, width) in pixels that the networks see
    width: float  # multiplies the channel counts of the networks trained from scratch
    learning_rate: float
    seeds: int  # repetitions of every comparison
    # 02 single image, 03 learning rates
    single_epochs: int
    single_schedule: str  # one of config.SCHEDULES
    what_if_epochs: int  # of the small what-if experiments
    paint_scenes: int  # at most, each overfitted by itself
    study_epochs: int  # of the studies with a frozen encoder, which have their own numbers of seeds
    study_seeds: int  # of 03, and of the single pair in 05
    pretraining_seeds: int  # of 02: pretrained against random encoder
    # 04 full data set, 05 semantic extension
    train_scenes: int  # rendered streets to train on, where KITTI is not used
    test_scenes: int  # unseen rendered streets to score on
    batch_size: int
    full_epochs: int
    scratch_epochs: int  # of the paper's own network in 04, a third of that
    full_learning_rate: float
    full_schedule: str  # one of config.SCHEDULES
    full_width: float  # multiplies the channel counts of the decoder on the pretrained encoder
    full_encoder_rate: float | None  # learning rate of that encoder; None: frozen, as in the course project
    segmenter_epochs: int
    semantic_single_epochs: int  # on one pair
    semantic_pairs: int  # of the full set, the most that each arm and seed of 05 trains on
    semantic_full_epochs: int
    encoder: str = "imagenet"  # the pretrained encoder of 02-05
    stereo: str = "streets"  # the full set: "streets" (rendered), "kitti2015" (1.7 GB download), or a folder

    def label(self, data: str) -> str:
        """What every figure title and table says about its origin."""
        warning = ", nothing to be learnt from its numbers" if self.name == "smoke" else ""
        return f"{self.name} profile{warning}, {data}"


PROFILES = {
    # The course project's sizes, for a Colab T4. Its 90 semantic epochs are shared out among arms and seeds.
    "paper": Profile(
        "paper", (256, 512), 1.0, 1e-4, seeds=3, single_epochs=1000, single_schedule="constant",
        what_if_epochs=300, paint_scenes=3, study_epochs=1000, study_seeds=3, pretraining_seeds=3,
        train_scenes=400, test_scenes=40, batch_size=8, full_epochs=100, scratch_epochs=33, full_learning_rate=1e-4,
        full_schedule="constant", full_width=1.0, full_encoder_rate=None,
        segmenter_epochs=30,
        semantic_single_epochs=100, semantic_pairs=400, semantic_full_epochs=8, stereo="kitti2015",
    ),
    # Minutes on two CPU cores: a quarter of the width, a quarter of the pixels, four times the rate.
    "demo": Profile(
        "demo", (128, 256), 0.25, 4e-4, seeds=3, single_epochs=1600, single_schedule="halving",
        what_if_epochs=80, paint_scenes=3, study_epochs=200, study_seeds=3, pretraining_seeds=3,
        train_scenes=800, test_scenes=24, batch_size=4, full_epochs=14, scratch_epochs=5, full_learning_rate=1e-3,
        full_schedule="cosine", full_width=0.25, full_encoder_rate=3e-4,
        segmenter_epochs=2,
        semantic_single_epochs=200, semantic_pairs=160, semantic_full_epochs=8, encoder="lite0",
    ),
    # Seconds, for continuous integration: every line runs, the numbers mean nothing.
    "smoke": Profile(
        "smoke", (64, 128), 0.125, 2e-4, seeds=1, single_epochs=4, single_schedule="halving",
        what_if_epochs=2, paint_scenes=1, study_epochs=2, study_seeds=1, pretraining_seeds=1,
        train_scenes=4, test_scenes=2, batch_size=2, full_epochs=1, scratch_epochs=1, full_learning_rate=1e-3,
        full_schedule="cosine", full_width=0.125, full_encoder_rate=3e-4, segmenter_epochs=1,
        semantic_single_epochs=2, semantic_pairs=4, semantic_full_epochs=1, encoder="lite0",
    ),
}  # fmt: skip
# What is stored and shown: the experiments of `demo`, large enough to decide their questions. Hours.
PROFILES["long"] = replace(
    PROFILES["demo"], name="long", seeds=5, what_if_epochs=300, paint_scenes=96, study_epochs=1000, study_seeds=10,
    pretraining_seeds=20, test_scenes=96, full_epochs=28, scratch_epochs=10, segmenter_epochs=3,
    semantic_single_epochs=400, semantic_pairs=500,
)  # fmt: skip


def choose_profile() -> Profile:
    """The profile in MONODEPTH_PROFILE, else "paper" on a GPU and "demo" on a CPU; MONODEPTH_STEREO sets its data."""
    name = os.environ.get("MONODEPTH_PROFILE") or ("paper" if torch.cuda.is_available() else "demo")
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r} (MONODEPTH_PROFILE); known: {', '.join(PROFILES)}")
    profile = PROFILES[name]
    return replace(profile, stereo=os.environ.get("MONODEPTH_STEREO") or profile.stereo)
