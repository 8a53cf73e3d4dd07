"""What all tests share."""

import pytest
import torch

from monodepth_nb import checkpoints


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Several threads may add numbers in another order from run to run, which changes the last bit of a sum."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def a_checkpoint_after_every_epoch(monkeypatch):
    """Runs of tests take less than the two minutes between checkpoints."""
    monkeypatch.setattr(checkpoints, "EVERY_S", 0)
