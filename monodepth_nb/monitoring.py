"""What is recorded of every training step, and how divergence and collapse are noticed in it."""

import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from monodepth_nb.layers import MAX_DISPARITY
from monodepth_nb.machine import process_count


class TrainingDiverged(RuntimeError):
    """The loss became infinite or NaN."""


def as_row(terms: tuple[Tensor, ...], finest: Tensor) -> Tensor:
    """Of a step on n pairs: n, then n times each loss term, spread (deviation / mean) and mean of the finest maps."""
    deviation, mean = torch.std_mean(finest.float(), dim=(2, 3))
    values = torch.stack((*(term.detach() for term in terms), (deviation / mean.clamp(min=1e-6)).mean(), mean.mean()))
    return torch.cat((values.new_ones(1), values)) * len(finest)


def means(rows: Tensor, prefix: str, terms: tuple[str, ...]) -> dict[str, float]:
    """The loss terms per pair, for the history."""
    total = rows.sum(dim=0)
    return {f"{prefix}_{name}": (total[1 + i] / total[0]).item() for i, name in enumerate(terms)}


def require_finite(model: nn.Module | None, rows: Tensor, row: dict, run_dir: str | Path | None) -> None:
    """Raise TrainingDiverged unless all losses of an epoch are finite, and the weights too if `model` is given.

    The weights matter before they are saved: the last step can spoil them without any loss showing it.
    """
    bad = (~rows.isfinite()).any(dim=1).nonzero()
    if len(bad):
        step = bad[0].item() + 1
        is_validation = "validation_total" in row and step == len(rows)  # the last row
        what = f"the loss is not finite {'in the validation' if is_validation else f'at step {step}'}"
    elif model and not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        what = "weights are not finite after the last step"
    else:
        return
    last = Path(run_dir or "", "last.pt")
    good = f"the last good checkpoint is {last}" if run_dir and last.exists() else "there is no checkpoint"
    where = f"epoch {row['epoch']}, at learning rate {row['learning_rate']:g}"
    raise TrainingDiverged(f"{what} of {where}; {good}. Try a third of the learning rate")


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
        problem = f"after epoch {epoch} the predicted disparity is {how}: the network has collapsed"
        remedy = "Check that left and right are not swapped, or try a smaller learning rate or another seed"
        warnings.warn(f"{problem} and will rarely recover. {remedy}.", stacklevel=3)
    return bool(how)


@contextmanager
def stop_after_epoch():
    """Ctrl-C within this context adds to the list that it yields, for the training to stop; a second one interrupts.

    Only in the main thread, which gets signals, and not with several processes, which would stop in different epochs.
    """
    asked = []

    def note(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this epoch; Ctrl-C again stops at once", file=sys.stderr)

    listens = process_count() == 1 and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, note) if listens else None
    try:
        yield asked
    finally:
        if listens:
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)
