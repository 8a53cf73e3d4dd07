"""Results of the notebooks: figures, numbers and their provenance, kept under build/ for the report."""

import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from monodepth_nb.checkpoints import write_whole
from monodepth_nb.course import ROOT
from monodepth_nb.course.profiles import Profile
from monodepth_nb.data.download import build_folder
from monodepth_nb.identity import code_of, short_hash
from monodepth_nb.machine import choose_device

BUILD = build_folder()
NOTEBOOKS = ROOT / "notebooks"
PNG = {"dpi": 100, "format": "png"}


def code_behind(notebook: str, profile: Profile, loaded: bool = False) -> str:
    """A hash of the code that a notebook's numbers depend on: its cells, what they import, and the profile.

    loaded: of `code_of`; the notebook itself asks for the code that it runs
    """
    return short_hash([code_of(NOTEBOOKS / f"{notebook}.py", loaded=loaded), profile])


class Record:
    """Collects one notebook's numbers and figures: `build/PROFILE/NOTEBOOK.csv` and `build/PROFILE/figures/`.

    Every number is stored with its notebook, code, experiment, seed, metric and data. The verdicts in the last notebook
    and the report are computed from these.
    """

    def __init__(self, notebook: str, profile: Profile):
        self.notebook, self.profile = notebook, profile
        self.folder = BUILD / profile.name
        self.started = time.perf_counter()
        self.code = code_behind(notebook, profile, loaded=True)  # now: the files may be edited while they run
        self.rows: list[dict] = []

    def add(self, experiment: str, data: str, seed: int = 0, **metrics: float) -> None:
        """Add the numbers of one run to the notebook's table."""
        row = {"notebook": self.notebook, "code": self.code}
        row |= {"profile": self.profile.name, "data": data, "experiment": experiment, "seed": seed}
        self.rows += [row | {"metric": name, "value": float(value)} for name, value in metrics.items()]
        save(self.folder / f"{self.notebook}.csv", pd.DataFrame(self.rows).to_csv, index=False)

    def figure(self, name: str, figure: Figure) -> Figure:
        """Save a figure for the report and return it for display."""
        save(self.folder / "figures" / f"{self.notebook}_{name}.png", figure.savefig, **PNG)
        return figure

    def provenance(self, data: str) -> str:
        """One line: profile, data, device, versions, date, duration."""
        minutes = (time.perf_counter() - self.started) / 60
        versions = f"Python {platform.python_version()}, torch {version('torch')}, torchvision {version('torchvision')}"
        return (
            f"Provenance: {self.profile.name} profile; data: {data}; {device_name()}; {versions}; "
            f"{time.strftime('%Y-%m-%d')}; {minutes:.1f} min"
        )


def save(path: Path, write: Callable, **options) -> None:
    """Call `write(path, **options)` through `write_whole`, and make the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, partial(write, **options))


def device_name(device: torch.device | None = None) -> str:
    """The name of a device, by default of the one that training chooses."""
    kind = (device or choose_device()).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return "Apple GPU (MPS)" if kind == "mps" else f"CPU with {threads} thread{'s' * (threads > 1)}"


def load_results(profile: Profile) -> pd.DataFrame:
    """All numbers that the notebooks, as they are now, saved with this profile; others are left out, which is printed.

    Raises FileNotFoundError if there are none.
    """
    files, current = sorted((BUILD / profile.name).glob("[0-9]*.csv")), []
    for file in files:
        table = pd.read_csv(file, dtype={"code": str})  # a hash may look like a number
        is_current = table.get("code", table["notebook"]) == code_behind(file.stem, profile)
        current.append(table[is_current])
        if not is_current.all():
            print(f"{file.stem}: {(~is_current).sum()} numbers of other code are left out; run that notebook again")
    if not sum(map(len, current)):
        raise FileNotFoundError(f"no results under {BUILD / profile.name}; run the notebooks before this one")
    return pd.concat(current, ignore_index=True)
