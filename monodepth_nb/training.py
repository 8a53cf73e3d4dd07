"""Training: the same `fit` for notebooks, the command line and several processes.

Read from the bottom up: `fit` tells the story, `Trainer` does one step and one epoch, the rest are its parts.
"""

import os
import random
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from monodepth_nb import checkpoints, machine
from monodepth_nb.config import SCHEDULES, TrainConfig
from monodepth_nb.data.caching import local_processes
from monodepth_nb.data.loading import make_loader
from monodepth_nb.evaluation import NoTruth, evaluate, network_predictor
from monodepth_nb.losses import DisparityLoss, MonodepthLoss, check_images
from monodepth_nb.machine import autocast, choose_device, process_count, process_rank
from monodepth_nb.monitoring import as_row, means, require_finite, stop_after_epoch, warn_of_collapse
from monodepth_nb.networks import STRIDE


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
    if not encoder:
        raise ValueError("encoder_learning_rate is for a trainable encoder: pass trainable_encoder=True, or omit it")
    rest = [p for name, p in trainable if not name.startswith("encoder.")]
    return [{"params": rest}, {"params": encoder, "lr": config.encoder_learning_rate}]


class Objective(nn.Module):
    """Network and loss as one module, to be compiled and shared between processes as one.

    forward(left, right[, known disparity]) -> loss terms, total first, and the finest maps (B, 2, H, W)
    """

    def __init__(self, network: nn.Module, loss: nn.Module, layout: torch.memory_format, dtype: torch.dtype):
        super().__init__()
        self.network, self.loss, self.layout, self.dtype = network, loss, layout, dtype
        self.compiled, self.largest = None, 0

    def forward(self, left: Tensor, *others: Tensor):
        self.largest = max(self.largest, len(left))
        # A smaller last batch is not worth another compilation.
        run = self.compiled if self.compiled and len(left) == self.largest else self.plain
        return run(self.dtype, left, *others)

    def plain(self, dtype: torch.dtype, left: Tensor, *others: Tensor):
        with autocast(left.device.type, dtype):
            disparities = self.network(left.contiguous(memory_format=self.layout))
        return self.loss(disparities, left, *others), disparities[0].detach()


class Trainer:
    """A network with its optimiser, schedule and number format; trains and validates one epoch at a time."""

    def __init__(self, model: nn.Module, config: TrainConfig, loss: nn.Module, device: torch.device):
        self.device, self.dtype = device, machine.autocast_dtype(config.precision, device)
        # Faster for 16-bit numbers, for small networks and for depthwise convolutions. Not tried on MPS.
        layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
        self.model = model.to(device, memory_format=layout)
        self.objective = Objective(self.model, loss.to(device), layout, self.dtype)
        if config.compile:
            self.objective.compiled = torch.compile(self.objective.plain, dynamic=False)
        self.averaging = self.objective  # gradients over the processes
        if torch.distributed.is_initialized():
            self.averaging = DistributedDataParallel(self.objective, [device.index] if device.type == "cuda" else None)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # try out its algorithms once, because sizes stay the same
        elif device.type == "cpu":
            machine.keep_freed_memory()
        groups, fused = parameter_groups(model, config), device.type in ("cuda", "cpu")
        self.optimizer = torch.optim.Adam(groups, config.learning_rate, (0.9, 0.999), eps=1e-8, fused=fused)
        factor = SCHEDULES[config.schedule]
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda e: factor(e, config.epochs))
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def forward(self, objective: nn.Module, batch) -> tuple[tuple[Tensor, ...], Tensor]:
        """The loss terms, total first, and the finest maps (B, 2, H, W)."""
        names = [name for name in ("left", "right", "disparity") if name in batch]
        tensors = [batch[name].to(self.device, non_blocking=self.device.type == "cuda") for name in names]
        terms, finest = objective(*tensors)
        # fp16 ends at 65,504. Reading the loss makes a GPU wait, hence only there.
        if self.dtype == torch.float16 and not terms.total.isfinite():
            terms, finest = self.objective.plain(torch.float32, *tensors)
        self.terms = terms._fields
        return terms, finest

    def train_step(self, batch) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        terms, finest = self.forward(self.averaging, batch)
        self.scaler.scale(terms.total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return as_row(terms, finest)

    def epoch(self, epoch: int, train_loader, validation_loader, bar: tqdm) -> tuple[dict, Tensor]:
        """Train and validate once. Returns the row of the history, and `as_row` of every step and of the validation."""
        row, started = {"epoch": epoch, "learning_rate": self.scheduler.get_last_lr()[0]}, time.perf_counter()
        train_loader.dataset.set_epoch(epoch)
        rows = self.train(train_loader, bar)
        seconds, pairs = time.perf_counter() - started, rows[:, 0].sum().item()
        row |= means(rows, "train", self.terms)
        bar.set_postfix(epoch=epoch, loss=f"{row['train_total']:.4f}", refresh=False)
        if validation_loader is not None:  # an empty share still takes part in the sum over the processes
            rows = torch.cat((rows, self.validate(validation_loader)))
            row |= means(rows[-1:], "validation", self.terms)
        return row | {"seconds": seconds, "pairs_per_s": pairs / seconds}, rows

    def train(self, loader: DataLoader, bar: tqdm) -> Tensor:
        """One pass over the pairs. Returns `as_row` of every step."""
        self.model.train()
        rows = []
        for batch in loader:
            with machine.advice_on_memory(batch["left"].shape, STRIDE):
                rows.append(self.train_step(batch))
            bar.update(len(batch["left"]) * process_count())
            # Reading a value makes an accelerator wait, so there the bar shows the loss once an epoch.
            if self.device.type == "cpu":
                bar.set_postfix(loss=f"{rows[-1][1] / rows[-1][0]:.4f}", refresh=False)
        with warnings.catch_warnings():  # a scaler that skipped every step so far makes PyTorch suspect a mistake
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.scheduler.step()
        return machine.summed_over_processes(torch.stack(rows))

    @torch.no_grad()
    def validate(self, loader: DataLoader) -> Tensor:
        """The sum of `as_row` over one pass in eval mode, as one row."""
        self.model.eval()
        for buffer in self.model.buffers() if process_count() > 1 else ():
            torch.distributed.broadcast(buffer, 0)  # batch-norm statistics: those that are saved
        rows = [as_row(*self.forward(self.objective, batch)) for batch in loader]
        rows = torch.stack(rows) if rows else torch.zeros(1, 3 + len(self.terms), device=self.device)
        return machine.summed_over_processes(rows.sum(dim=0, keepdim=True))


def score(model: nn.Module, truth_data: Dataset, dtype: torch.dtype = torch.float32) -> pd.DataFrame:
    """`evaluation.evaluate` of a network, which is put in eval mode, at the size of the images of `truth_data`.

    The processes share the scenes, and each returns the whole table. dtype: what the network computes in
    Raises what `evaluate` does; NoTruth only if no process has a scene that can be scored.
    """
    share = Subset(truth_data, range(process_rank(), len(truth_data), process_count()))
    try:
        with autocast(next(model.parameters()).device.type, dtype):
            outcome = evaluate(network_predictor(model, tuple(truth_data[0]["left"].shape[-2:])), share)
    except Exception as error:  # to be raised in all processes, because they wait for each other
        outcome = error
    outcomes = machine.gathered_from_processes(outcome)
    tables = [table for table in outcomes if isinstance(table, pd.DataFrame) and len(table)]
    for error in outcomes:
        if isinstance(error, Exception) and not (tables and isinstance(error, NoTruth)):
            raise error
    return pd.concat(tables, ignore_index=True)


def mean_scores(model: nn.Module, data: Dataset, dtype: torch.dtype) -> dict[str, float]:
    """The mean of `score`. What fails in it is only warned of: a training must not be lost for its scores."""
    try:
        return score(model, data, dtype).mean(numeric_only=True).to_dict()
    except Exception as error:
        warnings.warn(f"the network could not be scored ({error}): the training goes on without", stacklevel=3)
        return {}


def worker_count(config: TrainConfig, pairs: int, device: torch.device) -> int:
    """Loader processes: as asked for, else some on CUDA. A CPU has none to spare, and one batch needs none."""
    cores = (os.cpu_count() or 1) // local_processes()  # all of them: this process mostly waits for the GPU
    chosen = min(8, cores) if device.type == "cuda" and pairs > config.batch_size else 0
    return chosen if config.workers is None else config.workers


def fit(
    model: nn.Module, train_data: Dataset, config: TrainConfig, *,
    validation_data: Dataset | None = None, truth_data: Dataset | None = None, loss: nn.Module | None = None,
    transform=None, late_transform=None, run_dir: str | Path | None = None, device: torch.device | None = None,
    on_epoch=None, on_mismatch: str = "restart", progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Train `model` in place on stereo pairs. Seeds the global random generators.

    >>> from monodepth_nb import DispResNet, TrainConfig, fit, motorcycle
    >>> model = DispResNet(width=0.25)
    >>> history = fit(model, [motorcycle((128, 256))], TrainConfig(epochs=300, learning_rate=4e-4))

    train_data, validation_data: Samples with `left`, `right` (3, H, W), all of one size, e.g. a `PairCache`
    truth_data: Samples with ground truth, to score the network on every `config.metrics_every` epochs
    loss:       default: that of `config.recipe`, `MonodepthLoss` with the paper's weights or `DisparityLoss`
    transform:  augmentation, called as transform(sample, generator); the generator depends on (seed, epoch, index)
    late_transform: replaces `transform` in the last quarter of the epochs; None: `transform` stays
    run_dir:    folder for checkpoints, at most every two minutes, and history. An unfinished run there is resumed, and
                ends as if it had not been interrupted: exactly on a CPU, up to rounding on a GPU
    on_mismatch: "restart" or "refuse", if run_dir holds a run of other code, data or settings: see `RunFolder.resume`
    device:     default: `choose_device()`; the model stays there, in eval mode
    on_epoch:   called as on_epoch(epoch, model) after every epoch
    returns: one row per epoch: epoch (from 1), learning_rate, train_TERM, validation_TERM (per pair), seconds
             (of training), pairs_per_s, and the metrics of the epochs that were scored

    Ctrl-C finishes and saves the epoch, then raises KeyboardInterrupt, so that no notebook takes half a training for a
    result; a second one raises it at once. Within `processes_of_torchrun`, the processes share every batch, and Ctrl-C
    ends them at once: what came after the last checkpoint, up to two minutes, is lost.
    Raises TrainingDiverged, OutOfMemory and CheckpointError.
    """
    pairs, device = len(train_data), torch.device(device or choose_device())
    if pairs < process_count():
        raise ValueError(f"{pairs} training pairs for {process_count()} processes; each needs one at least")
    if loss is None:
        loss = MonodepthLoss(padding=config.padding) if config.recipe == "course" else DisparityLoss()
    if config.compile:
        check_images(train_data[0]["left"])  # which a compiled loss cannot do
    trainer = Trainer(model, config, loss, device)
    options = {"batch_size": config.batch_size, "seed": config.seed, "pin_memory": device.type == "cuda"}
    options |= {"rank": process_rank(), "world": process_count()}
    late = (config.epochs - config.epochs // 4 + 1, late_transform) if late_transform else None
    workers = worker_count(config, pairs, device)
    train_loader = make_loader(train_data, shuffle=True, transform=transform, late=late, workers=workers, **options)
    validation_loader = make_loader(validation_data, **options) if validation_data else None

    run, history, first = None, [], process_rank() == 0  # the first process writes and prints for all
    if run_dir:
        data = train_data, validation_data, truth_data
        settings = checkpoints.settings_of(model, config, loss, (transform, late_transform), *data)
        parts = {name: getattr(trainer, name) for name in ("optimizer", "scheduler", "scaler")}
        run = checkpoints.RunFolder(Path(run_dir), model, settings, parts)
        with machine.first_process_first():  # it may move another run aside
            history = run.resume(on_mismatch)
        if len(set(machine.gathered_from_processes(len(history)))) > 1:  # they would average different networks
            problem = f"the runs in {run_dir} differ between the machines"
            raise checkpoints.CheckpointError(f"{problem}: pass a folder that they share")
        run = run.start() if first else None
    done, collapsed = len(history), False
    if truth_data and done and config.scores(done) and "epe" not in history[-1]:  # interrupted before its scores
        history[-1] |= mean_scores(model, truth_data, trainer.dtype)
        if run:
            run.write(history)
    bar = tqdm(total=config.epochs * pairs, initial=done * pairs, unit="pair", disable=not (progress and first))
    with bar, stop_after_epoch() as stop:
        for epoch in range(done + 1, config.epochs + 1):
            # Dropout depends on these two numbers only, so that a resumed run repeats it.
            seed_everything(hash((config.seed, epoch)) % 2**32)
            row, rows = trainer.epoch(epoch, train_loader, validation_loader, bar)
            require_finite(model if run else None, rows, row, run_dir)
            collapsed = collapsed or (first and warn_of_collapse(rows[-1], epoch))
            history.append(row)
            saves = run and run.save(history, epoch == config.epochs)
            if truth_data and config.scores(epoch):
                row |= mean_scores(model, truth_data, trainer.dtype)
                if saves:
                    run.write(history)
            if on_epoch:
                on_epoch(epoch, model)
            if stop:
                if run:
                    run.write(history)
                break
    model.eval()
    if stop:
        more = "; the same call goes on from there" if run else ""
        raise KeyboardInterrupt(f"stopped after {len(history)} of {config.epochs} epochs{more}")
    return pd.DataFrame(history)
