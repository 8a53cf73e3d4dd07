"""Results of the notebooks: figures, numbers and their provenance, kept under build/ for the report."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from monodepth_nb.checkpoints import write_whole
from monodepth_nb.course import ROOT
from monodepth_nb.course.profiles import Profile
from monodepth_nb.machine import choose_device

BUILD = Path(os.environ.get("MONODEPTH_BUILD", ROOT / "build"))


class Record:
    """Collects one notebook's numbers and figures: `build/PROFILE/NOTEBOOK.csv` and `build/PROFILE/figures/`.

    Every number is stored with its notebook, experiment, seed, metric and data. The verdicts in the last notebook and
    the report are computed from these.
    """

    def __init__(self, notebook: str, profile: Profile):
        self.notebook, self.profile = notebook, profile
        self.folder = BUILD / profile.name
        self.started = time.perf_counter()
        self.rows: list[dict] = []

    def add(self, experiment: str, data: str, seed: int = 0, **metrics: float) -> None:
        """Add the numbers of one run to the notebook's table."""
        self.rows += [
            {"notebook": self.notebook, "profile": self.profile.name, "data": data, "experiment": experiment,
             "seed": seed, "metric": name, "value": float(value)} for name, value in metrics.items()
        ]  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(self.rows)
        write_whole(self.folder / f"{self.notebook}.csv", lambda part: table.to_csv(part, index=False))

    def figure(self, name: str, figure: Figure) -> Figure:
        """Save a figure for the report and return it for display."""
        folder = self.folder / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{self.notebook}_{name}.png", dpi=100)
        return figure

    def provenance(self, data: str) -> str:
        """One line: profile, data, device, versions, date, duration."""
        minutes = (time.perf_counter() - self.started) / 60
        versions = f"Python {platform.python_version()}, torch {version('torch')}, torchvision {version('torchvision')}"
        return (
            f"Provenance: {self.profile.name} profile; data: {data}; {device_name()}; {versions}; "
            f"{time.strftime('%Y-%m-%d')}; {minutes:.1f} min"
        )


def device_name(device: torch.device | None = None) -> str:
    """The name of a device, by default of the one that training chooses."""
    kind = (device or choose_device()).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return "Apple GPU (MPS)" if kind == "mps" else f"CPU with {threads} thread{'s' * (threads > 1)}"


def load_results(profile: Profile) -> pd.DataFrame:
    """All numbers that the notebooks saved with this profile. Raises FileNotFoundError if there are none."""
    tables = sorted((BUILD / profile.name).glob("[0-9]*.csv"))
    if not tables:
        raise FileNotFoundError(f"no results under {BUILD / profile.name}; run the notebooks before this one")
    return pd.concat([pd.read_csv(t) for t in tables], ignore_index=True)
