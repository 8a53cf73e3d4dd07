"""The files of a run, and how it resumes from them. Each file is written whole or not at all.

config.json   settings            last.pt   everything, to resume from
history.csv   a row per epoch     best.pt   the network at its best epoch
"""

import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from monodepth_nb.networks import build_network

FORMAT = "monodepth_nb checkpoint 1"
# These do not change what is learnt, so they may differ when a run resumes.
FREE_SETTINGS = ("metrics_every", "checkpoint_every", "compile", "workers", "batch_size")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or that belongs to another run."""


# ---- Writing ----


def write_whole(path: Path, write) -> None:
    """Call `write(temporary path)`, then rename in one step: a kill leaves the old file or the new."""
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())  # else a power cut may leave the new name with no content
    os.replace(temporary, path)


def save(folder: Path, model: nn.Module, settings: dict, history: list[dict], parts: dict) -> None:
    """Write history.csv and last.pt, and best.pt if the last row of `history` is the best of those saved.

    parts: what else has a `state_dict`, by name
    """
    weights = {
        "format": FORMAT,
        "arguments": getattr(model, "arguments", None),  # of its constructor
        "model": model.state_dict(),
        "settings": settings,
        "history": history,
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy")},
    }
    states = {name: part.state_dict() for name, part in parts.items()}
    everything = weights | states
    write_whole(folder / "history.csv", lambda path: pd.DataFrame(history).to_csv(path, index=False))
    if to_minimise(history[-1]) < best_so_far(folder):
        write_whole(folder / "best.pt", lambda path: torch.save(weights, path))
    # Last of all: if a kill comes first, this epoch is done again, and so are the other files.
    write_whole(folder / "last.pt", lambda path: torch.save(everything, path))


def best_so_far(folder: Path) -> float:
    """The loss of best.pt; infinite before the first checkpoint of a run, even if an older run has left a best.pt."""
    if not ((folder / "last.pt").exists() and (folder / "best.pt").exists()):
        return float("inf")
    return to_minimise(load(folder / "best.pt", mmap=True)["history"][-1])


def to_minimise(row: dict) -> float:
    return row.get("validation_total", row["train_total"])


# ---- Reading ----


def load(path: str | Path, mmap: bool = False) -> dict:
    """The content of a checkpoint, on the CPU; mmap: tensors are read when used.

    Raises FileNotFoundError and CheckpointError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: pass the last.pt or best.pt of a run folder")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # damaged files fail in many ways
        raise CheckpointError(
            f"{path} is damaged or no checkpoint ({type(error).__name__}): use another or delete it"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} does not have the format {FORMAT!r}: use another file, or train again")
    return state


def load_model(path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Rebuild the network of a checkpoint, in eval mode; its `size` is the (height, width) it was trained at.

    Raises FileNotFoundError and CheckpointError.
    """
    state = load(path)
    if state["arguments"] is None:
        raise CheckpointError(f"{path} does not say how to build its network: build it and load load(path)['model']")
    model = build_network(state["arguments"])
    load_weights(model, state, path)
    model.size = tuple(state["settings"]["image_size"])
    return model.to(device, memory_format=torch.channels_last).eval()  # predicts faster, also on CPUs


def load_weights(model: nn.Module, state: dict, path: Path) -> None:
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds another network, {state['arguments']}, than {getattr(model, 'arguments', None)}: "
            "use another run folder"
        ) from error


def resume(folder: Path, model: nn.Module, settings: dict, parts: dict) -> list[dict]:
    """Restore model and `parts` from last.pt and return its history; [] if there is no last.pt.

    Raises CheckpointError if the run had another network or other settings. More epochs may be asked for if neither
    the schedule nor the recipe depends on their number.
    """
    path = folder / "last.pt"
    if not path.exists():
        return []
    state = load(path)
    network = {"network": getattr(model, "arguments", None)}
    before = state["settings"] | {"network": state["arguments"]}
    require_same_settings(before, settings | network, len(state["history"]), folder)
    load_weights(model, state, path)
    for name, part in parts.items():
        if state[name]:  # a gradient scaler has none where none is needed
            part.load_state_dict(state[name])
    return state["history"]


def require_same_settings(old: dict, new: dict, epochs_done: int, folder: Path) -> None:
    differing = {name for name in old | new if old.get(name) != new.get(name)} - set(FREE_SETTINGS)
    lengthenable = new["schedule"] == "constant" and new["recipe"] == "course"
    if lengthenable and new["epochs"] >= epochs_done:
        differing.discard("epochs")
    if differing:
        lines = [f"{name} {old.get(name)} (asked for: {new.get(name)})" for name in sorted(differing)]
        if "epochs" in differing and not lengthenable:
            lines.append("and schedule or recipe depend on the number of epochs, which therefore cannot change")
        remedy = "use its settings, or another folder, or delete that one"
        raise CheckpointError(f"{folder} holds a run with {', '.join(lines)}: {remedy}")


def start_folder(folder: Path, settings: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.json", lambda path: path.write_text(json.dumps(settings, indent=2) + "\n"))


def settings_of(config, train_data, loss: nn.Module, transform, processes: int) -> dict:
    """The settings that identify a run. Only the product of batch size and processes matters.

    The mean colour of the first picture identifies the data. A checksum would not do, because machines differ in the
    last bits of resized pictures.
    """
    first = train_data[0]["left"]
    data = {"training_pairs": len(train_data), "image_size": list(first.shape[1:])}
    data["first_picture"] = [round(colour.item(), 3) for colour in first.mean(dim=(1, 2))]
    data |= {"loss": type(loss).__name__, "augmented": transform is not None}
    return asdict(config) | data | {"pairs_per_step": processes * config.batch_size}
