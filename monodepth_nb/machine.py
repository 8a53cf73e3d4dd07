"""One training shared by several processes: `torchrun --nproc-per-node 2 -m monodepth_nb train ...`."""

import os
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def processes_of_torchrun():
    """Inside, `training.fit` shares its work with the other processes that torchrun has started, if it has.

    A process that dies ends the others: torchrun stops those of its machine, the time-out those elsewhere. That is an
    hour, for they also wait while the first one downloads or renders.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(hours=1))
    yield  # no `finally`: a process that has failed must not wait for the others
    dist.destroy_process_group()


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def summed_over_processes(rows: Tensor) -> Tensor:
    """The sum of every process's `rows`, on the CPU."""
    if process_count() > 1:
        dist.all_reduce(rows)
    return rows.cpu().double()


@contextmanager
def first_process_first():
    """The other processes enter when the first has left: what it has downloaded or cached, they find."""
    if process_count() > 1 and process_rank() > 0:
        dist.barrier()
    yield
    if process_count() > 1 and process_rank() == 0:
        dist.barrier()
