"""The files of a run, and how it resumes from them. Each file is written whole or not at all.

config.json   settings            last.pt   everything, to resume from
history.csv   a row per epoch     best.pt   the network at its best epoch
"""

import errno
import json
import os
import time
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import nn

from monodepth_nb.identity import changed_code, code_of, described, move_aside, names_of, short_hash
from monodepth_nb.layers import check_option
from monodepth_nb.machine import process_count
from monodepth_nb.networks import build_network

FORMAT = "monodepth_nb checkpoint 1"
EVERY_S = 120  # between checkpoints; a large one has 0.7 GB, and an epoch may take seconds
# These do not change what is learnt, so they may differ when a run resumes.
FREE_SETTINGS = ("metrics_every", "compile", "workers", "batch_size", "baseline_m")
MEASURED = ("validation", "truth")  # what is only measured may be added or left out, but not exchanged


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or that belongs to another run."""


def write_whole(path: Path, write) -> None:
    """Call `write(temporary path)`, then rename in one step: a kill leaves the old file or the new.

    Raises OSError, which names file and remedy, if the disk is full or the folder is not writable; the old file stays.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")  # another process may write this file too
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name with no content
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # it may fill the disk
        if isinstance(error, OSError) or "inline_container" in str(error):  # torch.save raises RuntimeError
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            if path.is_dir():
                raise OSError(f"{path} is a folder: pass the name of a file") from error
            space = not isinstance(error, OSError) or error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "free some space" if space and "ermission" not in reason else "allow this user to write"
            raise OSError(f"{path} cannot be written ({reason}): {remedy} there, or choose another folder") from error
        raise


@contextmanager
def alone_in(folder: Path):
    """Within this context no other process trains in `folder`. Raises CheckpointError if one does already."""
    place = folder.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        problem = f"another process is training in {folder}"
        raise CheckpointError(f"{problem}: wait for it, or pass another run_dir") from None
    except (NotImplementedError, OSError):  # network folders, such as Colab's Drive, may have no locks
        pass
    try:
        yield
    finally:
        lock.release()


class RunFolder:
    """The folder of a run, its settings, and what its checkpoints hold: the network and other `parts` with a state."""

    def __init__(self, folder: Path, model: nn.Module, settings: dict, parts: dict):
        self.folder, self.model, self.settings, self.parts = folder, model, settings, parts
        self.best: dict = {}  # weights of the best epoch, in memory until the next checkpoint
        self.best_loss, self.best_epochs, self.best_is_new = float("inf"), 0, False
        self.written_at = time.monotonic()

    def start(self) -> "RunFolder":
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.settings, indent=2) + "\n"
        write_whole(self.folder / "config.json", lambda path: path.write_text(text))
        return self

    def save(self, history: list[dict], is_last: bool) -> bool:
        """After an epoch: keep the best weights, and write after the last one or when it is time. Whether it wrote."""
        self.keep_best(history)
        is_due = is_last or time.monotonic() - self.written_at >= EVERY_S
        if is_due:
            self.write(history)
        return is_due

    def keep_best(self, history: list[dict]) -> None:
        """Copy the weights if the last row of `history` is the best so far."""
        loss = to_minimise(history[-1])
        if loss < self.best_loss:
            self.best_loss, self.best_epochs, self.best_is_new = loss, len(history), True
            for name, tensor in self.model.state_dict().items():  # into the same memory as the last time
                self.best.setdefault(name, torch.empty_like(tensor, device="cpu")).copy_(tensor)

    def write(self, history: list[dict]) -> None:
        """Write history.csv, best.pt if there is a better one than before, and last.pt."""
        common = {
            "format": FORMAT,
            "arguments": arguments_of(self.model),
            "settings": self.settings,
            "versions": {name: version(name) for name in ("torch", "torchvision", "numpy")},
        }
        write_whole(self.folder / "history.csv", lambda path: pd.DataFrame(history).to_csv(path, index=False))
        if self.best_is_new:
            best = common | {"model": self.best, "history": history[: self.best_epochs]}
            write_whole(self.folder / "best.pt", lambda path: torch.save(best, path))
            self.best_is_new = False
        last = common | {"model": self.model.state_dict(), "history": history}
        last |= {name: part.state_dict() for name, part in self.parts.items()}
        # Last of all: if a kill comes first, these epochs are done again, and so are the other files.
        write_whole(self.folder / "last.pt", lambda path: torch.save(last, path))
        self.written_at = time.monotonic()

    def resume(self, on_mismatch: str = "restart") -> list[dict]:
        """Restore network and parts from last.pt and return its history; [] if there is none.

        on_mismatch: if it is of another run, whose code, network, data or settings differ: "refuse" raises
                     CheckpointError, "restart" moves the folder aside, says so in one line, and returns []
        More epochs may be asked for if neither the schedule nor the recipe depends on their number.
        """
        check_option("on_mismatch", on_mismatch, ("restart", "refuse"))
        path = self.folder / "last.pt"
        if not path.exists():
            return []
        state = load(path)
        changes = "; ".join(differences(state["settings"], self.settings, len(state["history"])))
        if changes and on_mismatch == "refuse":
            remedy = f"pass the old settings or another run_dir, or delete {self.folder} to start afresh"
            raise CheckpointError(f"{self.folder} holds another run: {changes}: {remedy}")
        if changes:
            print(f"{self.folder}: {changes}: starting afresh; the old run is kept in {move_aside(self.folder)}")
            return []
        if missing := self.parts.keys() - state.keys():
            problem = f"{path} is a copy of a best.pt, without {', '.join(sorted(missing))}"
            raise CheckpointError(f"{problem}: delete it, and start a new run from those weights")
        load_weights(self.model, state, path)
        for name, part in self.parts.items():
            if state[name]:  # a gradient scaler has none where none is needed
                part.load_state_dict(state[name])
        if (self.folder / "best.pt").exists():
            best = load(self.folder / "best.pt", mmap=True)
            if best["settings"].get("validation") == self.settings["validation"]:  # chosen by the same pairs
                self.best_loss = to_minimise(best["history"][-1])
        return state["history"]


def to_minimise(row: dict) -> float:
    return row.get("validation_total", row["train_total"])


def checkpoint_file(path: str | Path) -> Path:
    """The file itself, where `path` is a run folder its best.pt."""
    return Path(path) / "best.pt" if Path(path).is_dir() else Path(path)


def load(path: str | Path, mmap: bool = False) -> dict:
    """The content of a checkpoint, on the CPU; mmap: tensors are read when used.

    Raises FileNotFoundError and CheckpointError.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: pass the last.pt or best.pt of a run folder")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except PermissionError:
        raise
    except Exception as error:  # damaged files fail in many ways
        problem = f"{path} is damaged or no checkpoint of `train` ({type(error).__name__})"
        raise CheckpointError(f"{problem}: pass the last.pt or best.pt of a run folder") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} does not have the format {FORMAT!r}: use another file, or train again")
    return state


def load_model(path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The network of a checkpoint, in eval mode, with its run's `settings` and `size`, the (height, width) of images.

    Raises FileNotFoundError and CheckpointError.
    """
    state = load(path)
    if state["arguments"] is None:
        raise CheckpointError(f"{path} does not say how to build its network: build it and load load(path)['model']")
    try:
        model = build_network(state["arguments"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds a network that this version cannot build ({error}): update") from error
    load_weights(model, state, path)
    model.settings, model.size = state["settings"], tuple(state["settings"]["image_size"])
    untried = torch.device(device).type == "mps"
    layout = torch.contiguous_format if untried else torch.channels_last  # the latter predicts faster, also on CPUs
    return model.to(device, memory_format=layout).eval()


def load_weights(model: nn.Module, state: dict, path: Path) -> None:
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        networks = f"another network, {state['arguments']}, than {getattr(model, 'arguments', None)}"
        raise CheckpointError(f"{path} holds {networks}: use another run folder") from error


def arguments_of(model: nn.Module) -> dict | None:
    """The arguments of its constructor, with Python's numbers instead of NumPy's, which `load` would refuse."""
    arguments = getattr(model, "arguments", None)
    return arguments and {k: v.item() if isinstance(v, np.generic) else v for k, v in arguments.items()}


def settings_of(
    model: nn.Module, config, loss: nn.Module, transforms: tuple, train_data, validation_data=None, truth_data=None
) -> dict:
    """What a run depends on, for `RunFolder`. transforms: the first and the late one"""
    package = (type(m).__module__.partition("monodepth_nb.") for m in (*model.modules(), loss))
    frozen = (p.detach().cpu().double().abs().sum().item() for p in model.parameters() if not p.requires_grad)
    arguments = arguments_of(model) or {}
    trunk = Path(str(arguments.get("weights", "")).removeprefix("streets:"))
    return {
        **asdict(config),
        "pairs_per_step": process_count() * config.batch_size,  # either may change, not the product
        "code": code_of("training", "data.kitti", "data.motorcycle", *sorted({m[2] for m in package} - {""})),
        "network": {"class": described(type(model))} | arguments,
        "layers": short_hash([described(type(m)) for m in model.modules()]),
        "frozen_weights": f"{sum(frozen):.6g}",
        "segmenter": short_hash(trunk.read_bytes()) if trunk.is_file() else None,
        "started_from": getattr(model, "started_from", None),  # the trained network that `--start-from` names
        "loss": described(loss),
        "transform": described(transforms[0]),
        "late_transform": described(transforms[1]),
        "training_pairs": len(train_data),
        "names": short_hash([described(type(train_data)), names_of(train_data)]),
        "image_size": list(train_data[0]["left"].shape[1:]),
        "colours": colours(train_data),
        "validation": names_of(validation_data) if validation_data else None,
        "truth": names_of(truth_data) if truth_data else None,
        "baseline_m": baseline_m_of(train_data),
    }


def colours(data) -> list[float]:
    """Mean colours of both views of eight pairs from the whole data set, to recognise pictures that were exchanged.

    A checksum would not do, because machines differ in the last bits of resized and rendered pictures.
    """
    pairs = (data[i] for i in np.unique(np.linspace(0, len(data) - 1, 8).round().astype(int)).tolist())
    return [round(c, 3) for pair in pairs for view in ("left", "right") for c in pair[view].mean(dim=(1, 2)).tolist()]


def baseline_m_of(data) -> float | None:
    """The distance of the cameras of the training pairs, in metres, if the data set, or one that it wraps, knows it."""
    value = data[0].get("baseline_m")
    while value is None and data is not None:
        if hasattr(data, "first_camera"):
            value = data.first_camera()[0].baseline_m
        inner = getattr(data, "datasets", [getattr(data, "dataset", getattr(data, "pairs", None))])
        data = inner[0] if value is None else None
    return float(value) if value is not None and np.isfinite(value) else None


def differences(old: dict, new: dict, epochs_done: int) -> list[str]:
    """What keeps a run of settings `new` from resuming one of `old`."""
    if "code" not in old and "code" in new:
        return [changed_code({}, new["code"])]
    lines, lengthenable = [], new["schedule"] == "constant" and new["recipe"] == "course"
    lengthenable &= new.get("late_transform", "None") == "None"  # its first epoch depends on their number
    for name in sorted((old | new).keys() - set(FREE_SETTINGS)):
        before, now = old.get(name), new.get(name)
        if before == now or (name in MEASURED and None in (before, now)):
            continue
        if name == "colours" and len(before or ()) == len(now) and np.allclose(before, now, rtol=0, atol=2e-3):
            continue
        if name == "code":
            lines.append(changed_code(before, now))
        elif name in ("names", "colours"):  # a hash, and numbers that tell a reader nothing
            lines.append(f"other training pairs ({name} differ)")
        elif isinstance(before, dict) and isinstance(now, dict):
            lines += [f"{name} {k} {before.get(k)} (asked for: {now.get(k)})" for k in now if before.get(k) != now[k]]
        elif name != "epochs" or not lengthenable or now < epochs_done:
            depends = " (schedule or recipe depend on it)" if name == "epochs" else ""
            short = [f"{v[:160]}... #{short_hash(v)}" if len(v) > 160 else v for v in (str(before), str(now))]
            lines.append(f"{name} {short[0]} (asked for: {short[1]}){depends}")
    return lines
