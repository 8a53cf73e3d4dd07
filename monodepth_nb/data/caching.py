"""Tables that are computed row by row and kept in memory, as far as the machine or container has room for them."""

import math
import os
import re
import shutil
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path("/")  # of the files in which Linux tells about memory
# Limit and usage of a control group, in versions 2 and 1. Docker, Kubernetes and Slurm set such limits.
CGROUP_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
_caches: weakref.WeakSet = weakref.WeakSet()  # all of this process; they share one budget


class CachedRows:
    """The rows of a table of `shape` (N, ...), each computed on first use, then kept.

    If the table does not fit in memory, it warns and computes rows again on every use.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype):
        self.dtype, self.size_bytes = dtype, math.prod(shape) * dtype.itemsize
        self.rows, self.known = None, torch.zeros(shape[0], dtype=torch.bool)
        if self.fits(memory_for_caches(), "A smaller image size or fewer pairs avoid that."):
            self.rows = torch.empty(shape, dtype=dtype)  # takes memory row by row, as they are written
            _caches.add(self)

    def row(self, index: int, compute: Callable[[int], Tensor]) -> Tensor:
        """`compute(index)`, rounded to the table's dtype from the first use on, so that all epochs see the same."""
        if self.rows is None:
            return compute(index).to(self.dtype)
        if not self.known[index]:
            self.rows[index] = compute(index)
            self.known[index] = True  # set last: another process must never read half a row
        return self.rows[index]

    def fits(self, room: float, remedy: str) -> bool:
        if self.size_bytes > room:
            sizes = f"the pairs need {self.size_bytes / 2**30:.2f} GiB, but only {room / 2**30:.2f} GiB may be used"
            warnings.warn(f"{sizes}: every epoch decodes them again. {remedy}", stacklevel=4)
        return self.size_bytes <= room

    def share(self) -> None:
        """Move the rows to shared memory, all at once. If they do not fit there, keep none."""
        if self.rows.is_shared():
            return
        # Linux has shared memory in /dev/shm, of which containers often get 64 MB; batches of workers need some too.
        limit = shutil.disk_usage("/dev/shm").free // 2 // local_processes() if os.path.isdir("/dev/shm") else math.inf
        if self.fits(limit, "Use no workers, or give the container a larger /dev/shm."):
            self.rows.share_memory_()
            self.known.share_memory_()
        else:
            self.rows = None  # else every worker would fill a table of its own
            _caches.discard(self)

    @property
    def held_bytes(self) -> int:
        return self.size_bytes if self.rows.is_shared() else int(self.known.float().mean() * self.size_bytes)


def share_caches() -> None:
    """Call this before loader workers start, so that all fill and read the same rows."""
    for cache in list(_caches):
        cache.share()


def memory_for_caches() -> int:
    """Bytes that one more cache may take: the caches of all processes together may use half of the memory."""
    half = (available_memory() + sum(cache.held_bytes for cache in _caches)) // 2
    return max(0, half // local_processes() - sum(cache.size_bytes for cache in _caches))


def local_processes() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun sets it


def available_memory() -> int:
    """Bytes that the machine, and the containers or jobs that this process runs in, have left."""
    rooms = [1024 * int(kb) for kb in re.findall(r"MemAvailable:\s+(\d+)", text_of(ROOT / "proc/meminfo"))]
    if not rooms:  # not Linux
        rooms = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**32]
    for folder in control_groups():
        for limit, usage in CGROUP_FILES:
            limit, usage = text_of(folder / limit).strip(), text_of(folder / usage).strip()
            if limit.isdigit() and usage.isdigit():  # "max" is no limit
                # The kernel drops cached files when memory is needed.
                files = re.search(r"inactive_file (\d+)", text_of(folder / "memory.stat"))
                rooms.append(int(limit) - int(usage) + (int(files[1]) if files else 0))
    return min(rooms)


def control_groups() -> Iterator[Path]:
    """Folders of the control groups of this process: its own, those around it, and what a container shows as root."""
    for line in text_of(ROOT / "proc/self/cgroup").splitlines():  # version 2: "0::/job/step", 1: "4:memory:/job/step"
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            for part in (Path(path), *Path(path).parents):
                yield ROOT / "sys/fs/cgroup" / controllers / part.relative_to("/")


def text_of(path: Path) -> str:
    """What is in a file; "" if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
