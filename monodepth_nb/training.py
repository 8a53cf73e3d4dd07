"""Training: the same `fit` for notebooks, the command line and several processes.

Read from the bottom up: `fit` is the story, `Trainer` one step and one epoch of it, the rest its parts.
"""

import os
import random
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from monodepth_nb import checkpoints
from monodepth_nb.data.loading import make_loader
from monodepth_nb.data.recipes import RECIPES
from monodepth_nb.evaluation import evaluate, left_disparity, network_predictor
from monodepth_nb.losses import PADDINGS, DisparityLoss, MonodepthLoss
from monodepth_nb.machine import process_count, process_rank, summed_over_processes
from monodepth_nb.networks import MAX_DISPARITY, STRIDE, check_option


class TrainingDiverged(RuntimeError):
    """The loss became infinite or NaN."""


class OutOfMemory(RuntimeError):
    """A batch does not fit in the device's memory."""


# ---- What to do ----


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


# Learning-rate factor of an epoch, counted from 0, of `epochs`.
SCHEDULES = {"constant": constant, "halving": halving, "cosine": cosine}
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Defaults are the paper's, but for `schedule`: its rate was halved twice ("halving")."""

    epochs: int = 50
    batch_size: int = 8  # pairs per process and step
    learning_rate: float = 1e-4  # of Adam, at the start
    schedule: str = "constant"  # one of SCHEDULES
    encoder_learning_rate: float | None = None  # of the trainable part of model.encoder; None: learning_rate
    recipe: str = "course"  # one of RECIPES; chooses the loss, where `fit` gets no other
    padding: str = "zeros"  # of `MonodepthLoss`
    seed: int = 0  # of order, augmentation and what the network draws itself
    metrics_every: int = 0  # epochs between scores against ground truth; 0: after the last only
    checkpoint_every: int = 1  # epochs between checkpoints in the run folder
    precision: str = "auto"  # one of PRECISIONS; auto: bf16 or else fp16 on CUDA, fp32 elsewhere
    compile: bool = False  # torch.compile the network: slow to start, faster steps on CUDA
    workers: int | None = None  # processes that prepare batches; None: as many as are useful on the device

    def __post_init__(self):
        check_option("schedule", self.schedule, SCHEDULES)
        check_option("precision", self.precision, PRECISIONS)
        check_option("recipe", self.recipe, RECIPES)
        check_option("padding", self.padding, PADDINGS)
        for name in ("epochs", "batch_size", "learning_rate", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be larger than 0")


def seed_everything(seed: int) -> None:
    """Seed PyTorch (all devices), NumPy and Python; call it before a network is built."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002, for libraries that use the global generator
    torch.manual_seed(seed)


def choose_device() -> torch.device:
    """CUDA if there, else Apple's MPS where it can train, else CPU. Under torchrun: the GPU of this process."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    mps = torch.backends.mps.is_available() and can_warp(torch.device("mps"))
    return torch.device("mps" if mps else "cpu")


def can_warp(device: torch.device) -> bool:
    """Whether the loss works there: `grid_sample` with borders, and its gradient, came to MPS long after the rest."""
    image = torch.ones(1, 1, 1, 1, device=device, requires_grad=True)
    try:
        F.grid_sample(image, image.new_zeros(1, 1, 1, 2), padding_mode="border", align_corners=True).sum().backward()
    except RuntimeError:  # also what is not implemented
        return False
    return True


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        # A T4 emulates bf16, slowly; its fp16 is fast.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision fp16 needs a CUDA device, this is {device.type}; use fp32 or auto")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """What Adam is to change: everything trainable, the encoder at its own learning rate if it has one."""
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
        # Units for 16-bit numbers want it, also those of CPUs: 1.2 to 1.3 times the speed.
        channels_last = device.type == "cuda" or self.dtype != torch.float32
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
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

    def learning_rate(self) -> float:
        return self.scheduler.get_last_lr()[0]

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
        """Train and validate once. Returns the row of the history; the `as_row`s of steps and validation."""
        row, started = {"epoch": epoch, "learning_rate": self.learning_rate()}, time.perf_counter()
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
        """One pass over the pairs. Returns the `as_row` of every step."""
        self.model.train()
        rows, shown = [], time.monotonic()
        for batch in loader:
            with advice_on_memory(batch["left"].shape):
                rows.append(self.train_step(batch))
            bar.update(len(batch["left"]) * process_count())
            # Reading a value makes an accelerator wait, so there the bar shows the loss once an epoch.
            if self.device.type == "cpu" and time.monotonic() - shown > 0.5:
                bar.set_postfix(loss=f"{rows[-1][1] / rows[-1][0]:.4f}", refresh=False)
                shown = time.monotonic()
        self.next_learning_rate()
        return summed_over_processes(torch.stack(rows))

    def next_learning_rate(self) -> None:
        with warnings.catch_warnings():  # the scaler may have skipped every step so far, which looks like a mistake
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.scheduler.step()

    @torch.no_grad()
    def validate(self, loader: DataLoader) -> Tensor:
        """The sum of the rows of one pass without learning, as one row."""
        self.model.eval()
        rows = [as_row(*self.forward(self.model, batch)) for batch in loader]
        rows = torch.stack(rows) if rows else torch.zeros(1, 3 + len(self.terms), device=self.device)
        return summed_over_processes(rows.sum(dim=0, keepdim=True))


def wrapped(model: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """The network as training calls it: its gradients averaged over the processes, compiled if asked for."""
    network = model
    if process_count() > 1:
        network = DistributedDataParallel(model, [device.index] if device.type == "cuda" else None)
    return torch.compile(network) if config.compile else network


def as_row(terms: tuple[Tensor, ...], finest: Tensor) -> Tensor:
    """What is kept of a step on n pairs: n, then n times each loss term, spread and mean of the finest maps.

    Spread = standard deviation over a map / its mean.
    """
    deviation, mean = torch.std_mean(finest.float(), dim=(2, 3))
    values = torch.stack((*(term.detach() for term in terms), (deviation / mean.clamp(min=1e-6)).mean(), mean.mean()))
    return torch.cat((values.new_ones(1), values)) * len(finest)


def means(rows: Tensor, prefix: str, terms: tuple[str, ...]) -> dict[str, float]:
    """The loss terms per pair, for the history."""
    total = rows.sum(dim=0)
    return {f"{prefix}_{name}": (total[1 + i] / total[0]).item() for i, name in enumerate(terms)}


# ---- What can go wrong ----


@contextmanager
def advice_on_memory(shape: tuple[int, ...]):
    """Turn "out of memory" of any device into `OutOfMemory`, which says what to try. shape: of a batch."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if not (isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text):
            raise
        b, _, h, w = shape
        smaller = " x ".join(str(max(STRIDE, n // 2 // STRIDE * STRIDE)) for n in (h, w))
        advice = f"batch size {b // 2} or image size {smaller}" if b > 1 else f"image size {smaller}"
        raise OutOfMemory(f"{b} pairs of {h} x {w} do not fit in memory: try {advice}") from error


def require_finite_losses(rows: Tensor, row: dict, run_dir: Path | None) -> None:
    """Raise TrainingDiverged if a step of the epoch, or its validation, gave values that are not finite."""
    bad = (~rows.isfinite()).any(dim=1).nonzero()
    if len(bad):
        step = bad[0].item() + 1
        validation = "validation_total" in row and step == len(rows)  # the last row
        where = "in the validation" if validation else f"at step {step}"
        raise diverged(f"the loss is not finite {where}", row, run_dir)


def require_finite_weights(model: nn.Module, row: dict, run_dir: Path | None) -> None:
    """Raise TrainingDiverged if the last step has spoilt the weights, which no loss has shown yet."""
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise diverged("weights are not finite after the last step", row, run_dir)


def diverged(what: str, row: dict, run_dir: Path | None) -> TrainingDiverged:
    last = run_dir / "last.pt" if run_dir else None
    good = f"the last good checkpoint is {last}" if last and last.exists() else "there is no checkpoint"
    return TrainingDiverged(
        f"{what} of epoch {row['epoch']}, at learning rate {row['learning_rate']:g}; {good}. "
        "Try a third of the learning rate"
    )


def collapse(row: Tensor) -> str | None:
    """How the maps behind a row of `as_row` have collapsed, if they have."""
    spread, mean = (row[-2:] / row[0]).tolist()
    if mean < 0.01 * MAX_DISPARITY:
        return "nearly zero everywhere"
    if mean > 0.99 * MAX_DISPARITY:
        return f"nearly {MAX_DISPARITY} (the largest possible) everywhere"
    return "the same everywhere" if spread < 1e-3 else None


def warn_of_collapse(row: Tensor, epoch: int) -> bool:
    how = collapse(row)
    if how:
        warnings.warn(
            f"after epoch {epoch} the predicted disparity is {how}: the network has collapsed and will "
            "hardly recover. Check that left and right are not swapped; try a smaller learning rate or other seed.",
            stacklevel=3,
        )
    return bool(how)


# ---- All epochs ----


def score(model: nn.Module, truth_data: Dataset) -> pd.DataFrame:
    """`evaluation.evaluate` of a network, which is put in eval mode, at the size of the images of `truth_data`."""
    return evaluate(network_predictor(model, image_size(truth_data)), truth_data)


def image_size(data: Dataset) -> tuple[int, int]:
    return tuple(data[0]["left"].shape[-2:])


def make_loaders(
    train_data: Dataset, validation_data: Dataset | None, transforms: tuple, config: TrainConfig, device: torch.device
) -> tuple[DataLoader, DataLoader | None]:
    """This process's share of the batches. Only training is shuffled and augmented.

    transforms: of the training pairs, first and in the last quarter of the epochs (None: no other)
    """
    transform, late_transform = transforms
    late = (config.epochs - config.epochs // 4 + 1, late_transform) if late_transform else None
    cuda = device.type == "cuda"
    workers = config.workers
    if workers is None:  # a CPU has none to spare, and a few pairs are not worth them
        workers = min(8, (os.cpu_count() or 1) // 2) if cuda and len(train_data) > config.batch_size else 0
    options = {"batch_size": config.batch_size, "seed": config.seed, "pin_memory": cuda}
    options |= {"rank": process_rank(), "world": process_count()}
    train_loader = make_loader(train_data, shuffle=True, transform=transform, late=late, workers=workers, **options)
    return train_loader, make_loader(validation_data, **options) if validation_data else None


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

    train_data, validation_data: Samples with `left`, `right` (3, H, W), all of one size, e.g. a `PairCache`
    truth_data: Samples with ground truth, to score the network on every `config.metrics_every` epochs
    loss:       default: of `config.recipe`, `MonodepthLoss` with the paper's weights or `DisparityLoss`
    transform:  augmentation, called as transform(sample, generator); draws depend on (seed, epoch, index)
    late_transform: takes its place in the last quarter of the epochs; None: none does
    run_dir:    folder for checkpoints, history and figures. If it holds an unfinished run of these settings,
                that is taken up and ends exactly as if it had not been interrupted
    device:     default: `choose_device()`; the model stays there, in eval mode
    on_epoch:   called as on_epoch(epoch, model) after every epoch
    returns: one row per epoch: epoch (from 1), learning_rate, train_TERM, validation_TERM (per pair), seconds
             (of training), pairs_per_s, and the metrics where they were taken

    Ctrl-C ends the training with a warning; the rows so far are returned. Within `processes_of_torchrun`, the processes
    share every batch. Raises TrainingDiverged, OutOfMemory and CheckpointError.
    """
    if len(train_data) < process_count():
        raise ValueError(f"{len(train_data)} training pairs for {process_count()} processes; each needs one at least")
    device = torch.device(device or choose_device())
    run_dir = Path(run_dir) if run_dir else None
    if loss is None:
        loss = MonodepthLoss(padding=config.padding) if config.recipe == "course" else DisparityLoss()
    trainer = Trainer(model, config, loss, device)
    train_loader, validation_loader = make_loaders(
        train_data, validation_data, (transform, late_transform), config, device
    )

    settings = checkpoints.settings_of(config, train_data, loss, transform, process_count())
    history = checkpoints.resume(run_dir, model, settings, trainer.parts()) if run_dir else []
    first = process_rank() == 0  # writes and speaks for all
    if run_dir and first:
        checkpoints.start_folder(run_dir, settings)
    pairs, hidden, collapsed = len(train_data), not (progress and first), False
    bar = tqdm(total=config.epochs * pairs, initial=len(history) * pairs, unit="pair", disable=hidden)
    with bar, suppress(KeyboardInterrupt):
        for epoch in range(len(history) + 1, config.epochs + 1):
            # What the network draws itself (dropout) depends on these two alone, so a resumed run draws the same.
            seed_everything(hash((config.seed, epoch)) % 2**32)
            row, rows = trainer.epoch(epoch, train_loader, validation_loader, bar)
            require_finite_losses(rows, row, run_dir)
            if first and not collapsed:
                collapsed = warn_of_collapse(rows[-1], epoch)
            if first and truth_data and is_due(epoch, config.metrics_every, config.epochs):
                row |= score(model, truth_data).mean(numeric_only=True).to_dict()
            history.append(row)
            if first and run_dir and is_due(epoch, config.checkpoint_every, config.epochs):
                require_finite_weights(model, row, run_dir)
                checkpoints.save(run_dir, model, settings, history, trainer.parts())
            if on_epoch:
                on_epoch(epoch, model)
    model.eval()
    if first and len(history) < config.epochs:
        more = "; the same call goes on from the last checkpoint" if run_dir else ""
        warnings.warn(f"interrupted after {len(history)} of {config.epochs} epochs{more}", stacklevel=2)
    elif first and run_dir:
        write_run_figures(run_dir, model, history, train_data, truth_data)
    return pd.DataFrame(history)


def write_run_figures(run_dir: Path, model: nn.Module, history: list[dict], train_data, truth_data=None) -> None:
    """Figures and scores of a finished run: loss.png, figure.png and, with ground truth, metrics.csv."""
    from monodepth_nb import figures  # Matplotlib takes a second to load
    from monodepth_nb.course.report import best_median_worst_sheet

    figures.loss_curves(pd.DataFrame(history), run_dir.name).savefig(run_dir / "loss.png")
    if truth_data:
        table = score(model, truth_data)
        checkpoints.write_whole(run_dir / "metrics.csv", lambda path: table.to_csv(path, index=False))
        predict = network_predictor(model, image_size(truth_data))
        if len(truth_data) > 2:
            figure = best_median_worst_sheet(predict, truth_data, table, run_dir.name)
        else:
            figure = figures.prediction_figure(truth_data[0], predict(truth_data[0]), run_dir.name)
    else:
        sample = train_data[0]
        disparity = left_disparity(model, sample["left"][None])[0]
        figure = figures.reconstruction_figure(sample, disparity, run_dir.name)
    figure.savefig(run_dir / "figure.png")
