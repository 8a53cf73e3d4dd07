"""Training: the same `fit` for notebooks, the command line and several processes.

Read from the bottom up: `fit` tells the story, `Trainer` does one step and one epoch, the rest are its parts.
"""

import os
import random
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from monodepth_nb import checkpoints
from monodepth_nb.data.loading import make_loader
from monodepth_nb.data.recipes import RECIPES
from monodepth_nb.evaluation import evaluate, network_predictor
from monodepth_nb.losses import PADDINGS, DisparityLoss, MonodepthLoss
from monodepth_nb.machine import (
    PRECISIONS,
    advice_on_memory,
    autocast_dtype,
    choose_device,
    process_count,
    process_rank,
    summed_over_processes,
)
from monodepth_nb.monitoring import as_row, means, require_finite, warn_of_collapse
from monodepth_nb.networks import STRIDE, check_option

# ---- Configuration ----


def constant(epoch: int, epochs: int) -> float:
    return 1.0


def halving(epoch: int, epochs: int) -> float:
    """1 for the first 60 % of the training, then 1/2, then 1/4 for the last 20 % (section 4 of the paper)."""
    if 5 * epoch < 3 * epochs:
        return 1.0
    return 0.5 if 5 * epoch < 4 * epochs else 0.25


def cosine(epoch: int, epochs: int) -> float:
    """Rises linearly for the first sixth of the training (at least an epoch), then falls to 0 as a cosine."""
    warm_up = max(1, epochs // 6)
    if epoch < warm_up:
        return (epoch + 1) / (warm_up + 1)
    return 0.5 + 0.5 * float(np.cos(np.pi * (epoch - warm_up) / max(1, epochs - warm_up)))


# Factor of the learning rate in an epoch, counted from 0, of `epochs`.
SCHEDULES = {"constant": constant, "halving": halving, "cosine": cosine}


def option(default, text: str, choices=None):
    """A field of `TrainConfig`: its default, its line in `train --help`, and the values it may take."""
    return field(default=default, metadata={"help": text, "choices": choices and tuple(choices)})


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are the paper's, except for `schedule`: the paper uses "halving".

    >>> from monodepth_nb import TrainConfig
    >>> config = TrainConfig(epochs=300, batch_size=1, learning_rate=4e-4, schedule="cosine")

    Raises ValueError for values that are out of range or unknown.
    """

    epochs: int = option(50, "passes over the training pairs")
    batch_size: int = option(8, "pairs per step and process")
    learning_rate: float = option(1e-4, "of Adam, before the schedule")
    schedule: str = option("constant", "of the learning rate", SCHEDULES)
    encoder_learning_rate: float | None = option(None, "of a trainable encoder; None: that of the rest")
    recipe: str = option("course", "as published, or for a few hundred pairs; chooses the loss as well", RECIPES)
    padding: str = option("zeros", "what the loss reads beyond the edge of a picture", PADDINGS)
    seed: int = option(0, "of order, augmentation and dropout")
    metrics_every: int = option(0, "epochs between scores against ground truth; 0: after the last epoch only")
    checkpoint_every: int = option(1, "epochs between checkpoints")
    precision: str = option("auto", "number format; auto: bf16 or fp16 on CUDA, fp32 elsewhere", PRECISIONS)
    compile: bool = option(False, "compile the network with torch.compile: a slow start, then faster steps on CUDA")
    workers: int | None = option(None, "processes that prepare batches; None: chosen by device")

    def __post_init__(self):
        for known in fields(self):
            if known.metadata["choices"]:
                check_option(known.name, getattr(self, known.name), known.metadata["choices"])
        for name in ("epochs", "batch_size", "learning_rate", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be larger than 0")


def seed_everything(seed: int) -> None:
    """Seed PyTorch (all devices), NumPy and Python. Call it before you build a network."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002, for libraries that use the global generator
    torch.manual_seed(seed)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """All trainable parameters for Adam; those of the encoder in a group of their own if it has its own rate."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.encoder_learning_rate is None:
        return [{"params": [p for _, p in trainable]}]
    encoder = [p for name, p in trainable if name.startswith("encoder.")]
    rest = [p for name, p in trainable if not name.startswith("encoder.")]
    return [{"params": rest}, {"params": encoder, "lr": config.encoder_learning_rate}]


# ---- One epoch ----


class Trainer:
    """A network with its optimiser, schedule and number format; trains and validates one epoch at a time."""

    def __init__(self, model: nn.Module, config: TrainConfig, loss: nn.Module, device: torch.device):
        self.device, self.dtype = device, autocast_dtype(config.precision, device)
        # Faster for 16-bit numbers, for small networks and for depthwise convolutions. Not tried on MPS.
        self.layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
        self.model = model.to(device, memory_format=self.layout)
        self.loss = loss.to(device)
        self.network = wrapped(self.model, config, device)
        groups, fused = parameter_groups(model, config), device.type in ("cuda", "cpu")
        self.optimizer = torch.optim.Adam(groups, config.learning_rate, (0.9, 0.999), eps=1e-8, fused=fused)
        factor = SCHEDULES[config.schedule]
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda e: factor(e, config.epochs))
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def parts(self) -> dict:
        """What a checkpoint needs besides the network."""
        return {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler}

    def forward(self, network: nn.Module, batch) -> tuple[tuple[Tensor, ...], Tensor]:
        """The loss terms, total first, and the finest maps (B, 2, H, W)."""
        views = (batch[view] for view in ("left", "right"))
        left, right = (v.to(self.device, non_blocking=True, memory_format=self.layout) for v in views)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            disparities = network(left)
        known = (batch["disparity"].to(self.device),) if "disparity" in batch else ()
        terms = self.loss(disparities, left, right, *known)
        self.terms = terms._fields
        return terms, disparities[0].detach()

    def train_step(self, batch) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        terms, finest = self.forward(self.network, batch)
        self.scaler.scale(terms.total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return as_row(terms, finest)

    def epoch(
        self, epoch: int, train_loader: DataLoader, validation_loader: DataLoader | None, bar: tqdm
    ) -> tuple[dict, Tensor]:
        """Train and validate once. Returns the row of the history, and `as_row` of every step and of the validation."""
        row, started = {"epoch": epoch, "learning_rate": self.scheduler.get_last_lr()[0]}, time.perf_counter()
        train_loader.dataset.set_epoch(epoch)
        rows = self.train(train_loader, bar)
        seconds = time.perf_counter() - started
        row |= means(rows, "train", self.terms)
        bar.set_postfix(epoch=epoch, loss=f"{row['train_total']:.4f}", refresh=False)
        pairs = rows[:, 0].sum().item()
        if validation_loader:
            rows = torch.cat((rows, self.validate(validation_loader)))
            row |= means(rows[-1:], "validation", self.terms)
        return row | {"seconds": seconds, "pairs_per_s": pairs / seconds}, rows

    def train(self, loader: DataLoader, bar: tqdm) -> Tensor:
        """One pass over the pairs. Returns `as_row` of every step."""
        self.model.train()
        rows, shown = [], time.monotonic()
        for batch in loader:
            with advice_on_memory(batch["left"].shape, STRIDE):
                rows.append(self.train_step(batch))
            bar.update(len(batch["left"]) * process_count())
            # Reading a value makes an accelerator wait, so there the bar shows the loss once an epoch.
            if self.device.type == "cpu" and time.monotonic() - shown > 0.5:
                bar.set_postfix(loss=f"{rows[-1][1] / rows[-1][0]:.4f}", refresh=False)
                shown = time.monotonic()
        with warnings.catch_warnings():  # a scaler that skipped every step so far makes PyTorch suspect a mistake
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.scheduler.step()
        return summed_over_processes(torch.stack(rows))

    @torch.no_grad()
    def validate(self, loader: DataLoader) -> Tensor:
        """The sum of `as_row` over one pass in eval mode, as one row."""
        self.model.eval()
        rows = [as_row(*self.forward(self.model, batch)) for batch in loader]
        rows = torch.stack(rows) if rows else torch.zeros(1, 3 + len(self.terms), device=self.device)
        return summed_over_processes(rows.sum(dim=0, keepdim=True))


def wrapped(model: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """The network as training calls it: gradients averaged over the processes, compiled if asked for."""
    network = model
    if process_count() > 1:
        network = DistributedDataParallel(model, [device.index] if device.type == "cuda" else None)
    return torch.compile(network) if config.compile else network


# ---- All epochs ----


def score(model: nn.Module, truth_data: Dataset) -> pd.DataFrame:
    """`evaluation.evaluate` of a network, which is put in eval mode, at the size of the images of `truth_data`."""
    return evaluate(network_predictor(model, tuple(truth_data[0]["left"].shape[-2:])), truth_data)


def worker_count(config: TrainConfig, pairs: int, device: torch.device) -> int:
    """Loader processes: as asked for, else some on CUDA. A CPU has none to spare, and one batch needs none."""
    if config.workers is not None:
        return config.workers
    return min(8, (os.cpu_count() or 1) // 2) if device.type == "cuda" and pairs > config.batch_size else 0


def is_due(epoch: int, every: int, epochs: int) -> bool:
    """Every so many epochs, and after the last; 0: after the last only."""
    return epoch == epochs or (every > 0 and epoch % every == 0)


def fit(
    model: nn.Module,
    train_data: Dataset,
    config: TrainConfig,
    *,
    validation_data: Dataset | None = None,
    truth_data: Dataset | None = None,
    loss: nn.Module | None = None,
    transform=None,
    late_transform=None,
    run_dir: str | Path | None = None,
    device: torch.device | None = None,
    on_epoch=None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train `model` in place on stereo pairs, without labels. Seeds the global random generators.

    >>> from monodepth_nb import DispResNet, TrainConfig, fit, motorcycle
    >>> model = DispResNet(width=0.25)
    >>> history = fit(model, [motorcycle((128, 256))], TrainConfig(epochs=300, learning_rate=4e-4))

    train_data, validation_data: Samples with `left`, `right` (3, H, W), all of one size, e.g. a `PairCache`
    truth_data: Samples with ground truth, to score the network on every `config.metrics_every` epochs
    loss:       default: that of `config.recipe`, `MonodepthLoss` with the paper's weights or `DisparityLoss`
    transform:  augmentation, called as transform(sample, generator); the generator depends on (seed, epoch, index)
    late_transform: replaces `transform` in the last quarter of the epochs; None: `transform` stays
    run_dir:    folder for checkpoints and history. An unfinished run of the same settings there is resumed, and ends
                exactly as if it had not been interrupted
    device:     default: `choose_device()`; the model stays there, in eval mode
    on_epoch:   called as on_epoch(epoch, model) after every epoch
    returns: one row per epoch: epoch (from 1), learning_rate, train_TERM, validation_TERM (per pair), seconds
             (of training), pairs_per_s, and the metrics of the epochs that were scored

    Ctrl-C ends the training with a warning; the rows so far are returned. Within `processes_of_torchrun`, the processes
    share every batch. Raises TrainingDiverged, OutOfMemory and CheckpointError.
    """
    pairs, device = len(train_data), torch.device(device or choose_device())
    if pairs < process_count():
        raise ValueError(f"{pairs} training pairs for {process_count()} processes; each needs one at least")
    run_dir = Path(run_dir) if run_dir else None
    if loss is None:
        loss = MonodepthLoss(padding=config.padding) if config.recipe == "course" else DisparityLoss()
    trainer = Trainer(model, config, loss, device)
    options = {"batch_size": config.batch_size, "seed": config.seed, "pin_memory": device.type == "cuda"}
    options |= {"rank": process_rank(), "world": process_count()}
    late = (config.epochs - config.epochs // 4 + 1, late_transform) if late_transform else None
    workers = worker_count(config, pairs, device)
    train_loader = make_loader(train_data, shuffle=True, transform=transform, late=late, workers=workers, **options)
    validation_loader = make_loader(validation_data, **options) if validation_data else None

    settings = checkpoints.settings_of(config, train_data, loss, transform, process_count())
    history = checkpoints.resume(run_dir, model, settings, trainer.parts()) if run_dir else []
    first, collapsed = process_rank() == 0, False  # the first process writes and prints for all
    if run_dir and first:
        checkpoints.start_folder(run_dir, settings)
    hidden = not (progress and first)
    bar = tqdm(total=config.epochs * pairs, initial=len(history) * pairs, unit="pair", disable=hidden)
    with bar, suppress(KeyboardInterrupt):
        for epoch in range(len(history) + 1, config.epochs + 1):
            # Dropout depends on these two numbers only, so that a resumed run repeats it.
            seed_everything(hash((config.seed, epoch)) % 2**32)
            row, rows = trainer.epoch(epoch, train_loader, validation_loader, bar)
            saves = first and run_dir and is_due(epoch, config.checkpoint_every, config.epochs)
            require_finite(model if saves else None, rows, row, run_dir)
            if first and not collapsed:
                collapsed = warn_of_collapse(rows[-1], epoch)
            if first and truth_data and is_due(epoch, config.metrics_every, config.epochs):
                row |= score(model, truth_data).mean(numeric_only=True).to_dict()
            history.append(row)
            if saves:
                checkpoints.save(run_dir, model, settings, history, trainer.parts())
            if on_epoch:
                on_epoch(epoch, model)
    model.eval()
    if first and len(history) < config.epochs:
        more = "; the same call resumes from the last checkpoint" if run_dir else ""
        warnings.warn(f"interrupted after {len(history)} of {config.epochs} epochs{more}", stacklevel=2)
    return pd.DataFrame(history)
