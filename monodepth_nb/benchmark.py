"""How fast this machine trains and predicts: `python -m monodepth_nb benchmark`."""

import statistics
import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from monodepth_nb.losses import MonodepthLoss
from monodepth_nb.networks import DispResNet
from monodepth_nb.sample import Sample
from monodepth_nb.training import TrainConfig, Trainer, seed_everything

# (width, height, width in pixels, batch size) of the settings that the notebooks use
SETTINGS = ((1.0, 256, 512, 1), (1.0, 256, 512, 8), (0.25, 128, 256, 1), (0.25, 128, 256, 4))


def make_training_step(batch_size: int = 1, height: int = 256, width: int = 512, device: str = "cpu") -> Callable:
    """A function that runs one complete training step of the full-width network and waits until it is done."""
    return training_step(DispResNet(), batch_size, (height, width), torch.device(device))


def training_step(model: nn.Module, batch_size: int, size: tuple[int, int], device: torch.device) -> Callable:
    """Forward, loss, backward and update of `model` as the trainer does them, on random pairs."""
    trainer = Trainer(model, TrainConfig(epochs=1, batch_size=batch_size), MonodepthLoss(), device)
    left, right = torch.rand(2, batch_size, 3, *size, device=device)
    trainer.model.train()

    def step() -> None:
        trainer.train_step(Sample(left=left, right=right))
        finish(device)

    return step


def prediction_step(model: nn.Module, batch_size: int, size: tuple[int, int], device: torch.device) -> Callable:
    image = torch.rand(batch_size, 3, *size, device=device)
    model.to(device).eval()

    @torch.inference_mode()
    def step() -> None:
        model(image)
        finish(device)

    return step


def finish(device: torch.device) -> None:
    """Wait for work that an accelerator has only queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_per_call(step: Callable, rounds: int) -> float:
    """Median after two calls to warm up."""
    times = []
    for _ in range(rounds + 2):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def giga_macs(model: nn.Module, size: tuple[int, int]) -> float:
    """Billions of multiply-adds of one forward pass of one image."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.rand(1, 3, *size))
    return counter.get_total_flops() / 2e9


def benchmark(device: torch.device, rounds: int = 5) -> pd.DataFrame:
    """One row per entry of SETTINGS: seconds a training step, pairs/s, GMAC, achieved GFLOP/s, images/s predicted.

    A training step counts as three forward passes: the backward pass computes two gradients per layer.
    """
    rows = []
    for width, *size, batch_size in SETTINGS:
        seed_everything(0)
        model = DispResNet(width=width)
        macs = giga_macs(model, size)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step_s = seconds_per_call(training_step(model, batch_size, size, device), rounds)
        row = {"width": width, "size": "x".join(map(str, size)), "batch": batch_size, "step_s": step_s}
        row |= {"pairs_per_s": batch_size / step_s, "gmac": macs, "gflops": 6 * macs * batch_size / step_s}
        if device.type == "cuda":
            row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        predict_s = seconds_per_call(prediction_step(model, batch_size, size, device), rounds)
        rows.append(row | {"images_per_s": batch_size / predict_s})
    return pd.DataFrame(rows)
