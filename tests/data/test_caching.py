"""Memory: what is left in a machine or container, and what caches take of it."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from monodepth_nb.data import caching
from monodepth_nb.data.caching import CachedRows, available_memory, memory_for_caches, share_caches

MIB = 2**20


def linux_that_tells(monkeypatch, folder, files):
    """Makes `caching` read files below `folder` instead: {"proc/meminfo": text}."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(caching, "ROOT", folder)


@pytest.fixture
def memory(monkeypatch):
    """16 MiB of memory, no cache yet, plenty of shared memory; `memory.left` may be set."""
    machine = SimpleNamespace(left=16 * MIB, shared=2**40)
    monkeypatch.setattr(caching, "available_memory", lambda: machine.left)
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda _: SimpleNamespace(free=machine.shared))
    monkeypatch.setattr(caching.os.path, "isdir", lambda _: True)
    monkeypatch.setattr(caching, "_caches", type(caching._caches)())
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return machine


def cache_of(mib, rows=4):
    return CachedRows((rows, mib * MIB // rows), torch.uint8)


def fill(cache):
    """Read every row once."""
    for index in range(len(cache.known)):
        cache.row(index, lambda i: torch.full(cache.rows.shape[1:], i))


GROUPS = "sys/fs/cgroup"
LIMIT, USAGE = f"{GROUPS}/memory.max", f"{GROUPS}/memory.current"
LIMIT_1, USAGE_1 = f"{GROUPS}/memory/memory.limit_in_bytes", f"{GROUPS}/memory/memory.usage_in_bytes"  # version 1
JOB = {f"{GROUPS}/job/memory.max": "1000", f"{GROUPS}/job/memory.current": "300"}
LIMITS = {
    "of the machine": ({}, 9000 * 1024),
    "none in version 2": ({LIMIT: "max\n", USAGE: "5\n"}, 9000 * 1024),
    "none in version 1": ({LIMIT_1: "9223372036854771712\n", USAGE_1: "5\n"}, 9000 * 1024),
    "of a container, version 2": ({LIMIT: "1000\n", USAGE: "300\n"}, 700),
    "of a container, version 1, which sees the path outside": ({LIMIT_1: "1000\n", USAGE_1: "300\n"}, 700),
    "of the job, whose step has none": (JOB | {f"{GROUPS}/job/step/memory.max": "max"}, 700),
    "of a job that has read files": (JOB | {f"{GROUPS}/job/memory.stat": "anon 9\ninactive_file 200\n"}, 900),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_memory_left_is_what_the_tightest_limit_leaves(monkeypatch, tmp_path, limit):
    files, left = LIMITS[limit]
    usual = {"proc/meminfo": "MemTotal: 16000 kB\nMemAvailable:    9000 kB\n"}
    usual["proc/self/cgroup"] = "4:memory:/job/step\n1:cpu:/job\n0::/job/step\n"
    linux_that_tells(monkeypatch, tmp_path, usual | files)
    assert available_memory() == left


def test_memory_left_is_known_without_linux(monkeypatch, tmp_path):
    linux_that_tells(monkeypatch, tmp_path, {})
    monkeypatch.setattr(caching.os, "sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.get, raising=False)
    assert available_memory() == 40960
    monkeypatch.delattr(caching.os, "sysconf")  # Windows
    assert available_memory() > 2**31


def test_all_caches_together_take_half_of_the_memory_whether_filled_yet_or_not_until_they_are_gone(memory):
    first = cache_of(3)
    assert memory_for_caches() == 5 * MIB
    fill(first)
    memory.left -= 3 * MIB
    assert memory_for_caches() == 5 * MIB
    with pytest.warns(UserWarning, match=r"0\.01 GiB"):
        assert cache_of(6).rows is None
    assert cache_of(5).rows is not None
    memory.left += 3 * MIB
    del first
    assert memory_for_caches() == 8 * MIB


def test_processes_on_one_machine_share_the_memory(memory, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # as torchrun does
    assert memory_for_caches() == 2 * MIB


def test_huge_tables_are_refused_on_systems_with_32_bit_integers_too(memory):
    with pytest.warns(UserWarning, match="GiB"):
        assert CachedRows((30_000, 2, 3, 1024, 2048), torch.uint8).size_bytes == 30_000 * 6 * 2**21


def test_rows_are_shared_once_loader_workers_need_them_and_keep_their_values(memory):
    cache = cache_of(2)
    cache.row(1, lambda i: torch.full((MIB // 2,), 7))
    assert not cache.rows.is_shared()
    share_caches()
    share_caches()
    assert cache.rows.is_shared() and cache.known.is_shared()
    assert (cache.row(1, None) == 7).all() and cache.known.tolist() == [False, True, False, False]


def test_rows_that_do_not_fit_in_shared_memory_are_computed_by_every_worker_with_a_warning(memory):
    memory.shared = 3 * MIB  # half of it is for batches
    cache, small = cache_of(2), cache_of(1)
    with pytest.warns(UserWarning, match="/dev/shm"):
        share_caches()
    assert (cache.row(3, lambda i: torch.full((2,), i)) == 3).all() and cache.rows is None
    assert small.rows.is_shared()
    memory.left -= MIB
    assert memory_for_caches() == 7 * MIB


def test_without_a_limit_of_shared_memory_every_process_shares_its_rows(memory, monkeypatch):
    monkeypatch.setattr(caching.os.path, "isdir", lambda _: False)  # macOS and Windows have no /dev/shm
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    cache = cache_of(2)
    share_caches()
    assert cache.rows.is_shared()


def test_small_shared_memory_is_no_reason_to_warn_without_workers(memory):
    memory.shared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fill(cache_of(2))
