"""Batches: decoded once, the same for any number of workers and processes."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from monodepth_nb.data import caching
from monodepth_nb.data.loading import PairCache, make_loader, seeded_generator
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import Compose, MirroredFlip, PairedPhotometric

SHUFFLED = {"shuffle": True, "transform": Compose(MirroredFlip(), PairedPhotometric()), "seed": 3}
assert_same = partial(torch.testing.assert_close, rtol=0, atol=0)


class CountingPairs(Dataset):
    """Random pairs that count, across processes, how often each is decoded."""

    def __init__(self, count: int, size=(12, 16)):
        self.views = torch.rand(count, 2, 3, *size, generator=torch.Generator().manual_seed(0))
        self.reads = torch.zeros(count, dtype=torch.int64).share_memory_()

    def __len__(self):
        return len(self.views)

    def __getitem__(self, index):
        self.reads[index] += 1
        left, right = self.views[index]
        return Sample(left=left, right=right, name=str(index), disparity_px=torch.zeros(index + 1, 3))


def batches_of(loader, epoch=1):
    loader.dataset.set_epoch(epoch)
    return [batch["left"] for batch in loader]


def epochs_of(loader, epochs=2):
    """All left views of the given number of epochs, each epoch's in one tensor."""
    return [torch.cat(batches_of(loader, epoch)) for epoch in range(1, epochs + 1)]


def painted(value, sample, generator):
    return Sample(sample, left=torch.full_like(sample["left"], value))


def test_seeded_generators_depend_on_every_part_of_the_key():
    keys = [(0, 1, 2), (1, 0, 2), (0, 2, 1), (0, 1), (0, 1, 2)]
    *different, again = (torch.rand(1, generator=seeded_generator(*key)).item() for key in keys)
    assert len(set(different)) == 4 and again == different[0]


def test_order_and_augmentation_change_from_epoch_to_epoch_and_with_the_seed_but_not_the_global_generators():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for options in ({"transform": SHUFFLED["transform"]}, {"shuffle": True}):
        loaders = [make_loader(CountingPairs(6), 2, seed=seed, **options) for seed in (0, 1)]
        (first, second), (other, _) = (epochs_of(loader) for loader in loaders)
        assert not torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_workers_change_neither_the_batches_nor_when_the_late_transform_replaces_the_other():
    assert_same(*(epochs_of(make_loader(CountingPairs(5), 2, workers=w, **SHUFFLED)) for w in (0, 2)))
    first, late = partial(painted, 0.1), (2, partial(painted, 0.9))
    for workers in (0, 2):
        found = epochs_of(make_loader(CountingPairs(2), 2, transform=first, late=late, workers=workers), epochs=3)
        torch.testing.assert_close([views.unique().item() for views in found], [0.1, 0.9, 0.9])


def test_two_processes_train_on_the_batches_of_one_at_twice_the_size_and_validate_every_pair_once():
    pairs = CountingPairs(7)
    whole = batches_of(make_loader(pairs, 4, **SHUFFLED))
    loaders = [make_loader(pairs, 2, rank=rank, world=2, **SHUFFLED) for rank in (0, 1)]
    for one, *halves in zip(whole, *map(batches_of, loaders), strict=True):
        assert len(halves[0]) == len(halves[1])  # else their gradients must not be averaged
        both = torch.cat(halves)
        assert_same(both, one[: len(both)])  # of 7 pairs the last is dropped
    assert [len(loader) for loader in loaders] == [2, 2]
    seen = [epochs_of(make_loader(pairs, 2, rank=rank, world=2), 1)[0] for rank in (0, 1)]
    assert sorted(torch.cat(seen)[:, 0, 0, 0].tolist()) == sorted(pairs.views[:, 0, 0, 0, 0].tolist())


@pytest.mark.parametrize("workers", [0, 2])
def test_cache_decodes_every_pair_once_for_all_workers(workers):
    pairs = CountingPairs(5)
    cache = PairCache(pairs, (12, 16))
    first, second = epochs_of(make_loader(cache, 2, workers=workers))
    here = torch.stack([sample.left for sample in cache])
    assert pairs.reads.tolist() == [1] * 5
    assert_same([second, here], [first, first])
    torch.testing.assert_close(first, pairs.views[:, 0], rtol=0, atol=0.5 / 255 + 1e-6)


def test_cache_resizes_and_keeps_views_apart_and_refuses_an_empty_data_set():
    pairs = CountingPairs(2, size=(24, 32))
    pairs.views[:, 1] = 1.0
    sample = PairCache(pairs, (12, 16))[1]
    assert sample.left.shape == sample.right.shape == (3, 12, 16)
    assert sample.right.min() == 1 > sample.left.mean()
    with pytest.raises(ValueError, match="no pairs"):
        PairCache([])


@pytest.mark.parametrize("workers", [0, 2])
def test_cache_that_does_not_fit_warns_and_gives_the_same_pairs(monkeypatch, workers):
    pairs = CountingPairs(3)
    kept = [sample.left for sample in PairCache(pairs)]
    monkeypatch.setattr(caching, "available_memory", lambda: 0)
    with pytest.warns(UserWarning, match="GiB"):
        cache = PairCache(pairs)
    assert_same(epochs_of(make_loader(cache, 2, workers=workers)), [torch.stack(kept)] * 2)
