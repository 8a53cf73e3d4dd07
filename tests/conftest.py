"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Several threads may add numbers in another order from run to run, which changes the last bit of a sum."""
    torch.set_num_threads(1)
