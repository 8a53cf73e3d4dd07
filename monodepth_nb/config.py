"""How to train: `TrainConfig`, whose fields are also the options of `python -m monodepth_nb train`."""

from dataclasses import dataclass, field, fields

import numpy as np

from monodepth_nb.data.recipes import RECIPES
from monodepth_nb.layers import check_option
from monodepth_nb.losses import PADDINGS
from monodepth_nb.machine import PRECISIONS


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
SCHEDULES = {"constant": lambda epoch, epochs: 1.0, "halving": halving, "cosine": cosine}


def setting(default, text: str, choices=None):
    """A field of `TrainConfig`: its default, its line in `train --help`, and the values it may take."""
    return field(default=default, metadata={"help": text, "choices": choices and tuple(choices)})


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are the paper's, except for `schedule`: the paper uses "halving".

    >>> from monodepth_nb import TrainConfig
    >>> config = TrainConfig(epochs=300, batch_size=1, learning_rate=4e-4, schedule="cosine")

    Raises ValueError for values that are out of range or unknown.
    """

    epochs: int = setting(50, "passes over the training pairs")
    batch_size: int = setting(8, "pairs per step and process")
    learning_rate: float = setting(1e-4, "of Adam; the schedule multiplies it")
    schedule: str = setting("constant", "how the learning rate changes over the epochs", SCHEDULES)
    encoder_learning_rate: float | None = setting(None, "of a trainable encoder (default: --learning-rate)")
    recipe: str = setting(
        "course",
        "augmentation and loss: the paper's, or those that learn from matched (on streets: true) disparity",
        RECIPES,
    )
    padding: str = setting("zeros", "what the loss reads beyond a picture: black, or the colour at its edge", PADDINGS)
    seed: int = setting(0, "of order, augmentation and dropout")
    metrics_every: int = setting(0, "epochs between scores against ground truth; 0: after the last epoch only")
    precision: str = setting("auto", "number format; auto: 16 bits on CUDA, else 32; fp16 is slow on CPUs", PRECISIONS)
    compile: bool = setting(False, "compile network and loss (torch.compile): a slow start, then faster steps")
    workers: int | None = setting(None, "processes that prepare batches (default: chosen by device)")

    def __post_init__(self):
        for known in fields(self):
            name, value = known.name, getattr(self, known.name)
            if isinstance(value, np.generic):  # which a checkpoint could not store
                object.__setattr__(self, name, value.item())
            if known.metadata["choices"]:
                check_option(name, value, known.metadata["choices"])
            if name in ("epochs", "batch_size", "learning_rate") and not value > 0:
                raise ValueError(f"{name} is {value}; it must be larger than 0")
            if name == "encoder_learning_rate" and value is not None and not value >= 0:
                raise ValueError(f"{name} is {value}; it must not be negative")

    def scores(self, epoch: int) -> bool:
        """Whether the network is scored against ground truth after this epoch, counted from 1."""
        return epoch == self.epochs or (self.metrics_every > 0 and epoch % self.metrics_every == 0)
