"""What the five notebooks share: how much work they do, what they found, and the report."""

from pathlib import Path

from monodepth_nb.data.download import checkout

ROOT = checkout() or Path(__file__).resolve().parents[2]  # of the repository
