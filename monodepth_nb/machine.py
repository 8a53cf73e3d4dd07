"""The machine that trains: its device, number format, memory, and the processes that share the work."""

import ctypes
import os
import sys
import warnings
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

PRECISIONS = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class OutOfMemory(RuntimeError):
    """A batch does not fit in the device's memory."""


def choose_device() -> torch.device:
    """CUDA if available, else Apple's MPS where it can train, else CPU. Under torchrun: the GPU of this process."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    alone = process_count() == 1  # torch has no backend with which processes could share work on MPS
    mps = alone and torch.backends.mps.is_available() and can_warp(torch.device("mps"))
    return torch.device("mps" if mps else "cpu")


def can_warp(device: torch.device) -> bool:
    """Whether the device has `grid_sample` and its gradient, which older versions of MPS lack."""
    image = torch.ones(1, 1, 1, 1, device=device, requires_grad=True)
    try:
        F.grid_sample(image, image.new_zeros(1, 1, 1, 2), padding_mode="border", align_corners=True).sum().backward()
    except RuntimeError:  # NotImplementedError is one
        return False
    return True


def keep_freed_memory() -> None:
    """Make this process keep freed memory for its next step: a CPU trains up to a fifth faster (Linux with glibc).

    By default glibc gives large blocks back to the system, which clears every page before it hands the page out again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD of malloc.h
    for limit, megabytes in ((-3, 32), (-1, 512), (-2, 64)) if mallopt else ():
        mallopt(limit, megabytes << 20)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format that `precision`, one of PRECISIONS, means on `device`."""
    if precision == "auto" and device.type == "cuda":
        # A T4 emulates bf16, which is slow. Its fp16 is fast.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision == "fp16" and device.type not in ("cuda", "cpu"):
        raise ValueError(f"precision fp16 needs CUDA or a CPU, this is {device.type}; use fp32 or auto")
    if precision == "fp16" and device.type == "cpu":
        warnings.warn("a CPU computes in fp16 much slower than in fp32: only for trying out", stacklevel=2)
    return PRECISIONS[precision]


def autocast(device_type: str, dtype: torch.dtype = torch.float32):
    """A context in which layers compute in `dtype`. With float32, it switches an outer autocast off."""
    if device_type == "meta":  # shapes without numbers
        return nullcontext()
    on = dtype != torch.float32
    # A disabled autocast ignores the format, but torch 2.6 warns of float32 on MPS.
    return torch.autocast(device_type, dtype if on else torch.float16, enabled=on)


@contextmanager
def advice_on_memory(shape: tuple[int, ...], multiple: int):
    """Turn "out of memory" on any device into `OutOfMemory`, which says what to try.

    shape: of a batch of images; multiple: that image sizes must be a multiple of
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        known = "out of memory", "can't allocate memory", "not enough memory"  # the last one on Windows
        if not (isinstance(error, MemoryError) or any(words in text for words in known)):
            raise
        b, _, h, w = shape
        smaller = " x ".join(str(max(multiple, n // 2 // multiple * multiple)) for n in (h, w))
        advice = f"batch size {b // 2} or image size {smaller}" if b > 1 else f"image size {smaller}"
        raise OutOfMemory(f"{b} pairs of {h} x {w} do not fit in memory: try {advice}") from error


@contextmanager
def processes_of_torchrun(device: str | None = None):
    """Within this context, `training.fit` shares its work with the other processes that torchrun started, if any.

    device: that training will ask for, such as "cpu"; None: CUDA if available
    If one process dies, torchrun stops the others on its machine. Those on other machines notice by the time-out at the
    latest: an hour, because the processes also wait while the first one downloads or renders.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    on_cuda = torch.cuda.is_available() and (device or "cuda").startswith("cuda")
    if on_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_cuda else "gloo", timeout=timedelta(hours=1))
    yield  # no `finally`: a process that has failed must not wait for the others
    dist.destroy_process_group()


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def summed_over_processes(rows: Tensor) -> Tensor:
    """The sum of the `rows` of all processes, on the CPU."""
    if process_count() > 1:
        dist.all_reduce(rows)
    return rows.cpu().double()


def gathered_from_processes(item) -> list:
    """The `item` of every process, in all of them."""
    items = [item] * process_count()
    if process_count() > 1:
        dist.all_gather_object(items, item)
    return items


@contextmanager
def first_process_first():
    """The first process runs the block before the others do, so that they find what it has downloaded or rendered."""
    if process_rank() > 0:
        dist.barrier()
    yield
    if process_rank() == 0 and process_count() > 1:
        dist.barrier()
