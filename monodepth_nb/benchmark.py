"""How fast this machine trains, predicts and loads: `python -m monodepth_nb benchmark`.

Seconds depend on the machine and its load. Shares and ratios are more robust: their times are taken in one run, and
what is compared is interleaved.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.models.segmentation import fcn_resnet50
from torchvision.transforms.functional import to_pil_image

from monodepth_nb.data.kitti import KittiStereo
from monodepth_nb.data.loading import PairCache, make_loader
from monodepth_nb.data.motorcycle import motorcycle
from monodepth_nb.data.recipes import course
from monodepth_nb.losses import MonodepthLoss
from monodepth_nb.machine import autocast_dtype
from monodepth_nb.networks import ENCODERS, DispResNet, SemanticDispResNet
from monodepth_nb.pretrained import LEVELS, cached_features
from monodepth_nb.training import TrainConfig, Trainer, seed_everything

# (width, height, width in pixels, batch size) of the settings that the notebooks use
SETTINGS = ((1.0, 256, 512, 1), (1.0, 256, 512, 8), (0.25, 128, 256, 1), (0.25, 128, 256, 4))
FULL_SIZE, HALF_SIZE = (256, 512), (128, 256)
PAIRS = 8  # to measure loading with
WARM_UP = 2  # calls that do not count
Step = Callable[[], None]


# ---- What is timed ----


def make_training_step(
    batch_size: int = 1, height: int = 256, width: int = 512, device="cpu", model: nn.Module | None = None
) -> Step:
    """A function that runs one complete training step on random pairs and waits until it is done.

    model: default: the full-width network
    """
    device = torch.device(device)
    trainer = Trainer(model or DispResNet(), TrainConfig(batch_size=batch_size), MonodepthLoss(), device)
    left, right = torch.rand(2, batch_size, 3, height, width, device=device)
    trainer.model.train()

    def step() -> None:
        trainer.train_step({"left": left, "right": right})
        finish(device)

    return step


def prediction_step(
    model: nn.Module, batch_size: int, size: tuple[int, int], device: torch.device,
    dtype: torch.dtype = torch.float32, layout: torch.memory_format = torch.channels_last,
) -> Step:  # fmt: skip
    """One pass of the network. `predict` makes two, one of them of the mirrored picture."""
    image = torch.rand(batch_size, 3, *size, device=device).to(memory_format=layout)
    model = model.to(device, memory_format=layout).eval()

    @torch.inference_mode()
    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            model(image)
        finish(device)

    return step


class WholeFCN(nn.Module):
    """FCN-ResNet50 as the course project ran it for its features (defect D9): with heads, gradients and train mode."""

    def __init__(self):
        super().__init__()
        self.fcn = fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
        self.levels: list[Tensor] = []
        for name in LEVELS:
            self.fcn.backbone[name].register_forward_hook(lambda module, inputs, level: self.levels.append(level))

    def forward(self, image: Tensor) -> list[Tensor]:
        self.levels.clear()
        self.fcn(image)
        return list(self.levels)


def write_pairs(root: Path) -> None:
    """PNG pairs of KITTI's size, all of them the motorcycle."""
    sample = motorcycle((375, 1242))
    for side, view in (("image_2", sample["left"]), ("image_3", sample["right"])):
        (root / side).mkdir(exist_ok=True)
        for index in range(PAIRS):
            to_pil_image(view).save(root / side / f"{index:06d}_10.png")


# ---- How it is timed ----


def finish(device: torch.device) -> None:
    """Wait for work that an accelerator has only queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def seconds_per_call(step: Step, rounds: int) -> float:
    return statistics.median([seconds_of(step) for _ in range(WARM_UP + rounds)][WARM_UP:])


def times_faster(slow: Step, fast: Step, rounds: int) -> float:
    """Median of slow / fast. The calls are interleaved, so that load affects both equally."""
    pairs = [(seconds_of(slow), seconds_of(fast)) for _ in range(WARM_UP + rounds)]
    return statistics.median(a / b for a, b in pairs[WARM_UP:])


def loading_seconds(batch_size: int, size: tuple[int, int], root: Path) -> tuple[float, float]:
    """Seconds to load all batches, augmented as in `train`: in epoch 1, which decodes, and in a later one.

    In this process, which waits meanwhile. Training on CUDA hides most of it behind worker processes.
    """
    recipe = course(PairCache(KittiStereo(root), size))
    loader = make_loader(recipe.data, batch_size, shuffle=True, transform=recipe.transform)
    seconds = []
    for epoch in (1, 2, 3, 4):
        loader.dataset.set_epoch(epoch)
        seconds.append(seconds_of(lambda: deque(loader, maxlen=0)))
    return seconds[0], statistics.median(seconds[1:])


# ---- Tables ----


def benchmark(device: torch.device, rounds: int = 5) -> pd.DataFrame:
    """One row per entry of SETTINGS.

    step_s: of a training step. loading_first, loading_later: share of an epoch's time that is spent on loading, in
    epoch 1 and in a later one. peak_gib: the most memory that PyTorch allocates in a training step, on CUDA only.
    """
    rows = []
    with TemporaryDirectory() as folder:
        write_pairs(Path(folder))
        for width, *size, batch in SETTINGS:
            seed_everything(0)
            model = DispResNet(width=width)
            row = {"width": width, "size": f"{size[0]}x{size[1]}", "batch": batch}
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            step_s = seconds_per_call(make_training_step(batch, *size, device, model), rounds)
            row |= {"step_s": step_s, "pairs_per_s": batch / step_s}
            if device.type == "cuda":
                row["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
            first, later = (s * batch / PAIRS for s in loading_seconds(batch, size, Path(folder)))
            row |= {"loading_first": first / (first + step_s), "loading_later": later / (later + step_s)}
            predict_s = seconds_per_call(prediction_step(model, batch, size, device), rounds)
            rows.append(row | {"images_per_s": batch / predict_s})
    return pd.DataFrame(rows)


def comparisons(device: torch.device) -> Iterator[tuple[str, str, Step, Step]]:
    """What, its yardstick, and a step of the yardstick and of what. Speed does not depend on the weights."""
    width, size = (1.0, FULL_SIZE) if device.type == "cuda" else (0.25, HALF_SIZE)
    for join in ("projected", "wide"):
        whole, ours = (SemanticDispResNet("random", join=join, width=width) for _ in range(2))
        whole.encoder.trunk = WholeFCN()
        what = f"semantic training step, {join}, width {width:g}, {size[0]}x{size[1]}, batch 8"
        yield what, "whole FCN, with gradients", *(make_training_step(8, *size, device, net) for net in (whole, ours))
    for encoder, width, size in (("imagenet", 1.0, FULL_SIZE), ("imagenet18", 0.25, HALF_SIZE)):
        again, once = (DispResNet(encoder, width, weights="random") for _ in range(2))
        what = f"step on one pair, frozen {ENCODERS[encoder]}, width {width:g}, {size[0]}x{size[1]}"
        with cached_features(once):
            yield what, "encoder run each step", *(make_training_step(1, *size, device, net) for net in (again, once))
    plain = prediction_step(DispResNet(), 1, FULL_SIZE, device, torch.float32, torch.contiguous_format)
    for dtype in dict.fromkeys((torch.float32, autocast_dtype("auto", device), torch.bfloat16)):
        what = f"prediction, channels last, {str(dtype).removeprefix('torch.')}, 256x512, batch 1"
        yield what, "plain eager fp32 forward", plain, prediction_step(DispResNet(), 1, FULL_SIZE, device, dtype)


def ratios(device: torch.device, rounds: int = 5) -> pd.DataFrame:
    """How many times faster each entry of `comparisons` is than its yardstick."""
    rows = [(what, than, times_faster(slow, fast, rounds)) for what, than, slow, fast in comparisons(device)]
    return pd.DataFrame(rows, columns=["what", "compared_with", "times_faster"])
