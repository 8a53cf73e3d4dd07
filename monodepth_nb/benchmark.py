"""How fast this machine trains, predicts and loads: `python -m monodepth_nb benchmark`.

Times depend on the machine and on what else it does: shares and ratios are of times taken in one run, turn about.
"""

import statistics
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.segmentation import fcn_resnet50
from torchvision.transforms.functional import to_pil_image

from monodepth_nb.data.kitti import KittiStereo
from monodepth_nb.data.loading import PairCache, draws, make_loader
from monodepth_nb.data.recipes import course
from monodepth_nb.data.sample import Sample
from monodepth_nb.losses import MonodepthLoss
from monodepth_nb.networks import ENCODERS, DispResNet, SemanticDispResNet
from monodepth_nb.pretrained import LEVELS, remembered_features
from monodepth_nb.training import TrainConfig, Trainer, autocast_dtype, seed_everything

# (width, height, width in pixels, batch size) of the settings that the notebooks use
SETTINGS = ((1.0, 256, 512, 1), (1.0, 256, 512, 8), (0.25, 128, 256, 1), (0.25, 128, 256, 4))
FULL_SIZE, HALF_SIZE = (256, 512), (128, 256)
COST_BATCHES = (1, 2, 4, 8, 16)  # at FULL_SIZE
COST_SIZES = (HALF_SIZE, (192, 640), FULL_SIZE, (384, 1280))  # one image each
PAIRS = 8  # to measure loading with
WARM_UP = 2  # calls that do not count
Step = Callable[[], None]


# ---- What is timed ----


def make_training_step(batch_size: int = 1, height: int = 256, width: int = 512, device: str = "cpu") -> Step:
    """A function that runs one complete training step of the full-width network and waits until it is done."""
    return training_step(DispResNet(), batch_size, (height, width), torch.device(device))


def training_step(model: nn.Module, batch_size: int, size: tuple[int, int], device: torch.device) -> Step:
    """Forward, loss, backward and update of `model` as the trainer does them, on random pairs."""
    trainer = Trainer(model, TrainConfig(batch_size=batch_size), MonodepthLoss(), device)
    left, right = torch.rand(2, batch_size, 3, *size, device=device)
    trainer.model.train()

    def step() -> None:
        trainer.train_step(Sample(left=left, right=right))
        finish(device)

    return step


def prediction_step(
    model: nn.Module, batch_size: int, size: tuple[int, int], device: torch.device,
    dtype: torch.dtype = torch.float32, layout: torch.memory_format = torch.channels_last,
) -> Step:  # fmt: skip
    """One pass of the network that `checkpoints.load_model` makes. `predict` makes two, one of the mirrored picture."""
    image = torch.rand(batch_size, 3, *size, device=device).to(memory_format=layout)
    model = model.to(device, memory_format=layout).eval()

    @torch.inference_mode()
    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            model(image)
        finish(device)

    return step


class WholeFCN(nn.Module):
    """FCN-ResNet50 as the course project ran it for its features (defect D9): heads, gradients and train mode."""

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


# ---- How it is measured ----


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
    """Median of slow / fast, called turn about, so that whatever else the machine does delays both."""
    pairs = [(seconds_of(slow), seconds_of(fast)) for _ in range(WARM_UP + rounds)]
    return statistics.median(a / b for a, b in pairs[WARM_UP:])


def giga_macs(model: nn.Module, size: tuple[int, int]) -> float:
    """Billions of multiply-adds of one forward pass of one image."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.rand(1, 3, *size))
    return counter.get_total_flops() / 2e9


def matmul_gflops(device: torch.device) -> float:
    """The most a layer can hope for: the best of ten large matrix products in the trainer's number format."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = torch.rand(2, n, n, device=device).to(autocast_dtype("auto", device))
    return 2e-9 * n**3 / min(seconds_of(lambda: (a @ b, finish(device))) for _ in range(10))


class LiveBytes(TorchDispatchMode):
    """`peak`: the most bytes held at one time by the tensors that operators took or returned.

    Not what operators use inside: the memory of the process grows by 10 to 50 % more.
    """

    def __init__(self):
        super().__init__()
        self.held, self.peak = {}, 0  # bytes of each storage alive

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, Tensor):
                self.see(tensor.untyped_storage())  # which views share
        return result

    def see(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self.held:
            self.held[id(storage)] = storage.nbytes()
            weakref.finalize(storage, self.held.pop, id(storage))
            self.peak = max(self.peak, sum(self.held.values()))


def peak_gib(step: Step, device: torch.device) -> float:
    """Memory of weights, gradients, Adam's state and activations at the worst moment of a call.

    On CUDA everything that PyTorch has allocated, elsewhere what `LiveBytes` sees.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) / 2**30
    with LiveBytes() as counter:
        step()  # shows it Adam's state, which waits through the forward pass unseen
        step()
    return counter.peak / 2**30


# ---- Loading ----


def write_pairs(root: Path) -> None:
    """PNG pairs of KITTI's size. Blurred like this, random colours compress and decode like its pictures."""
    for index in range(PAIRS):
        dots = torch.rand(2, 3, 47, 155, generator=draws(index))
        views = F.interpolate(dots, (375, 1242), mode="bicubic").clamp(0, 1)
        for side, view in zip(("image_2", "image_3"), views, strict=True):
            (root / side).mkdir(exist_ok=True)
            to_pil_image(view).save(root / side / f"{index:06d}_10.png")


def loading_seconds(batch_size: int, size: tuple[int, int], root: Path) -> tuple[float, float]:
    """Seconds to get all batches of epoch 1, which decodes, and of a later one; augmented like `train`.

    In this one process, which waits meanwhile. The workers that training on CUDA has hide most of it.
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

    gmac: of one image's forward pass. gflops: reached in training, a step counted as three forward passes, because
    the backward pass computes two gradients per layer. peak_gib: of a training step. loading_first, _later: share of
    an epoch's time spent on loading; first_by_later: its seconds in epoch 1 by those in a later one.
    """
    peak, rows = matmul_gflops(device), []
    with TemporaryDirectory() as folder:
        write_pairs(Path(folder))
        for width, *size, batch in SETTINGS:
            seed_everything(0)
            model = DispResNet(width=width)
            macs, step = giga_macs(model, size), training_step(model, batch, size, device)
            step_s = seconds_per_call(step, rounds)
            row = {"width": width, "size": f"{size[0]}x{size[1]}", "batch": batch, "step_s": step_s}
            row |= {"pairs_per_s": batch / step_s, "gmac": macs, "gflops": 6 * macs * batch / step_s}
            row |= {"matmul_gflops": peak, "share_of_matmul": row["gflops"] / peak, "peak_gib": peak_gib(step, device)}
            first, later = (s * batch / PAIRS for s in loading_seconds(batch, size, Path(folder)))
            row |= {"loading_first": first / (first + step_s), "loading_later": later / (later + step_s)}
            row["first_by_later"] = first / later
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
        yield what, "whole FCN, with gradients", *(training_step(model, 8, size, device) for model in (whole, ours))
    for encoder, width, size in (("imagenet", 1.0, FULL_SIZE), ("imagenet18", 0.25, HALF_SIZE)):
        again, once = (DispResNet(encoder, width, weights="random") for _ in range(2))
        what = f"step on one pair, frozen {ENCODERS[encoder]}, width {width:g}, {size[0]}x{size[1]}"
        with remembered_features(once):
            steps = (training_step(model, 1, size, device) for model in (again, once))
            yield what, "encoder run each step", *steps
    plain = prediction_step(DispResNet(), 1, FULL_SIZE, device, torch.float32, torch.contiguous_format)
    for dtype in dict.fromkeys((torch.float32, autocast_dtype("auto", device), torch.bfloat16)):
        what = f"prediction, channels last, {str(dtype).removeprefix('torch.')}, 256x512, batch 1"
        yield what, "plain eager fp32 forward", plain, prediction_step(DispResNet(), 1, FULL_SIZE, device, dtype)


def ratios(device: torch.device, rounds: int = 5) -> pd.DataFrame:
    rows = [(what, than, times_faster(slow, fast, rounds)) for what, than, slow, fast in comparisons(device)]
    return pd.DataFrame(rows, columns=["what", "compared_with", "times_faster"])


def cost(device: torch.device, width: float = 1.0, rounds: int = 5) -> pd.DataFrame:
    """Seconds of a training step over batch size and over image size; megapixels: of all left views of the batch."""
    settings = [("batch size", FULL_SIZE, batch) for batch in COST_BATCHES]
    settings += [("image size", size, 1) for size in COST_SIZES]
    model, rows = DispResNet(width=width), []
    for varied, size, batch in settings:
        step_s = seconds_per_call(training_step(model, batch, size, device), rounds)
        rows.append((varied, f"{size[0]}x{size[1]}", batch, batch * size[0] * size[1] / 1e6, step_s))
    return pd.DataFrame(rows, columns=["varied", "size", "batch", "megapixels", "step_s"])


def cost_exponent(table: pd.DataFrame) -> float:
    """e of step_s = constant * megapixels ** e, by least squares of the logarithms."""
    return float(np.polyfit(np.log(table["megapixels"]), np.log(table["step_s"]), 1)[0])
