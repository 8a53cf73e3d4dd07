"""How fast this machine trains and predicts: `python -m monodepth_nb benchmark`.

Seconds depend on the machine and its load. Ratios are more robust, because what is compared is interleaved.
"""

import runpy
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from monodepth_nb.losses import MonodepthLoss
from monodepth_nb.machine import autocast, autocast_dtype
from monodepth_nb.networks import ENCODERS, DispResNet
from monodepth_nb.pretrained import cached_features
from monodepth_nb.training import TrainConfig, Trainer

# (width, height, width in pixels, batch size) of the settings that the notebooks use
SETTINGS = ((1.0, 256, 512, 1), (1.0, 256, 512, 8), (0.25, 128, 256, 1), (0.25, 128, 256, 4))
WARM_UP, ROUNDS = 2, 5  # calls that do not count, and those of which the median does
Step = Callable[[], None]


def make_training_step(
    batch_size: int = 1, height: int = 256, width: int = 512, device="cpu", model: nn.Module | None = None, **config
) -> Step:
    """A function that does one training step on random pairs.

    model: default: the full-width network; config: fields of `TrainConfig`
    """
    device = torch.device(device)
    trainer = Trainer(model or DispResNet(), TrainConfig(batch_size=batch_size, **config), MonodepthLoss(), device)
    left, right = torch.rand(2, batch_size, 3, height, width, device=device)
    trainer.model.train()

    def step() -> None:
        trainer.train_step({"left": left, "right": right})
        finish(device)

    return step


def prediction_step(
    model: nn.Module, batch_size: int, size, device: torch.device, dtype=torch.float32, layout=torch.channels_last
) -> Step:
    """One pass of the network. `predict` makes two, one of them of the mirrored picture."""
    image = torch.rand(batch_size, 3, *size, device=device).to(memory_format=layout)
    model = model.to(device, memory_format=layout).eval()

    @torch.inference_mode()
    def step() -> None:
        with autocast(device.type, dtype):
            model(image)
        finish(device)

    return step


def finish(device: torch.device) -> None:
    """Wait for work that an accelerator has only queued."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds_of(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def seconds_per_call(step: Step) -> float:
    return statistics.median([seconds_of(step) for _ in range(WARM_UP + ROUNDS)][WARM_UP:])


def times_faster(slow: Step, fast: Step) -> float:
    """Median of slow / fast. The calls are interleaved, so that load affects both equally."""
    pairs = [(seconds_of(slow), seconds_of(fast)) for _ in range(WARM_UP + ROUNDS)]
    return statistics.median(a / b for a, b in pairs[WARM_UP:])


def benchmark(device: torch.device) -> pd.DataFrame:
    """Seconds of a training step and of a prediction, and pairs or images per second; a row per entry of SETTINGS."""
    rows = []
    for width, *size, batch in SETTINGS:
        model = DispResNet(width=width)
        step_s = seconds_per_call(make_training_step(batch, *size, device, model))
        predict_s = seconds_per_call(prediction_step(model, batch, size, device))
        rows.append((width, "x".join(map(str, size)), batch, step_s, predict_s, batch / step_s, batch / predict_s))
    return pd.DataFrame(rows, columns=["width", "size", "batch", "step_s", "predict_s", "pairs_per_s", "images_per_s"])


def comparisons(device: torch.device) -> Iterator[tuple[str, Step, Step]]:
    """What is compared with what, and a slow and a fast step. Speed does not depend on the weights."""
    for encoder, width, size in (("imagenet", 1.0, (256, 512)), ("imagenet18", 0.25, (128, 256))):
        again, once = (DispResNet(encoder, width, weights="random") for _ in range(2))
        what = f"step on one pair, {size[0]}x{size[1]}: features of a frozen {ENCODERS[encoder]} cached, not computed"
        with cached_features(once):
            yield what, *(make_training_step(1, *size, device, network) for network in (again, once))
    if device.type == "cuda":
        steps = (make_training_step(8, device=device, compile=compiled) for compiled in (False, True))
        yield "step on 8 pairs, 256x512: network and loss compiled, not eager", *steps
    plain = prediction_step(DispResNet(), 1, (256, 512), device, layout=torch.contiguous_format)
    for dtype in dict.fromkeys((torch.float32, autocast_dtype("auto", device), torch.bfloat16)):
        what = f"prediction of one image, 256x512: channels last, {dtype}, not plain eager float32"
        yield what, plain, prediction_step(DispResNet(), 1, (256, 512), device, dtype)


def ratios(device: torch.device) -> pd.Series:
    """How many times faster the fast step of each of `comparisons` is."""
    return pd.Series({what: times_faster(slow, fast) for what, slow, fast in comparisons(device)})


def against_reference(path: Path, device: torch.device, batch=8, size=(256, 512), width=1.0) -> pd.Series:
    """How many times faster, and smaller in memory, training and prediction are than in another implementation.

    path: Python file that defines `make_reference_step(batch_size, height, width, device)`, a function of no arguments
    that runs a training step, and `ReferenceNet()`, its network
    """
    try:
        reference = runpy.run_path(str(path))
    except SyntaxError as error:
        raise ValueError(f"{path} is not written in Python ({error}): see benchmark.against_reference") from error
    if missing := [name for name in ("make_reference_step", "ReferenceNet") if name not in reference]:
        raise ValueError(f"{path} does not define {' and '.join(missing)}: see benchmark.against_reference")

    def ours() -> Step:
        return make_training_step(batch, *size, device, DispResNet(width=width))

    def theirs() -> Step:
        return reference["make_reference_step"](batch_size=batch, height=size[0], width=size[1], device=str(device))

    slow = prediction_step(reference["ReferenceNet"](), batch, size, device, layout=torch.contiguous_format)
    fast = prediction_step(DispResNet(width=width), batch, size, device, autocast_dtype("auto", device))
    found = {"prediction": times_faster(slow, fast)}
    del slow, fast  # they take memory, which is measured next
    found["memory"] = peak_memory(theirs, device) / peak_memory(ours, device)
    return pd.Series(found | {"training step": times_faster(theirs(), ours())})


def peak_memory(make: Callable[[], Step], device: torch.device) -> float:
    """Bytes that a GPU holds at most while a step is made and run; NaN elsewhere."""
    if device.type != "cuda":
        return float("nan")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    step = make()
    for _ in range(WARM_UP):
        step()
    return torch.cuda.max_memory_allocated(device)
