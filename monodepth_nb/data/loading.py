"""From a data set of pairs to batches: each pair decoded once, augmented and ordered reproducibly.

The augmentation depends on (seed, epoch, index) alone and the order on (seed, epoch) alone, not on the number of loader
workers or training processes.
"""

import signal
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from monodepth_nb.data.caching import CachedRows, share_caches
from monodepth_nb.data.sample import Sample
from monodepth_nb.data.transforms import resize


def seeded_generator(*key: int) -> torch.Generator:
    """A random generator seeded by the given numbers alone; neighbouring keys of one length give unrelated values."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


class PairCache(Dataset):
    """The views of a data set, decoded and resized on first use, then cached as 8-bit integers.

    dataset: map-style data set of Samples
    size:    (height, width) in pixels; None takes the size of the first sample
    yields Sample(left, right, name), float32 in [0, 1]; ground truth, whose size may differ, is dropped
    """

    def __init__(self, dataset: Dataset, size: tuple[int, int] | None = None):
        if not len(dataset):
            raise ValueError("the data set holds no pairs; check its folder")
        self.dataset = dataset
        self.size = tuple(size or dataset[0]["left"].shape[-2:])
        self.views = CachedRows((len(dataset), 2, 3, *self.size), torch.uint8)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]  # IndexError past the end, so that a plain `for` loop stops
        left, right = self.views.row(index, self.decode) / 255
        return Sample(left=left, right=right, name=f"pair {index}")

    def decode(self, index: int) -> Tensor:
        """(2, 3, H, W), whole numbers from 0 to 255."""
        sample = self.dataset[index]
        return (255 * torch.stack([resize(sample[view], self.size) for view in ("left", "right")])).round()


class TrainingPairs(Dataset):
    """The pairs of `dataset`, changed by `transform` with a generator seeded by (seed, epoch, index).

    late: (epoch, transform); from that epoch on, this transform instead.
    Call `set_epoch` before each epoch, as with PyTorch's DistributedSampler.
    """

    def __init__(self, dataset: Dataset, transform=None, seed: int = 0, late: tuple | None = None):
        self.dataset, self.transform, self.seed, self.late = dataset, transform, seed, late or (float("inf"), None)
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers outlive an epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        wanted = ("left", "right", "name", "disparity")  # no ground truth, whose size may differ between pairs
        pair = Sample({key: value for key, value in self.dataset[index].items() if key in wanted})
        epoch, (late_from, late_transform) = self.epoch.item(), self.late
        transform = self.transform if epoch < late_from else late_transform
        return transform(pair, seeded_generator(self.seed, epoch, index)) if transform else pair


class EpochOrder(Sampler[int]):
    """The indices that process `rank` of `world` sees in the current epoch of `pairs`.

    Batches of `world * batch_size` pairs are shared out among the processes. With `shuffle`, for training, up to
    `world` - 1 pairs of an epoch are dropped, because averaging gradients needs equally many pairs in every process.
    """

    def __init__(self, pairs: TrainingPairs, batch_size: int, shuffle: bool, rank: int = 0, world: int = 1):
        self.pairs, self.batch_size, self.shuffle, self.rank, self.world = pairs, batch_size, shuffle, rank, world

    def __iter__(self) -> Iterator[int]:
        n = len(self.pairs)
        order = torch.arange(n)
        if self.shuffle:
            order = torch.randperm(n, generator=seeded_generator(self.pairs.seed, self.pairs.epoch.item()))
            order = order[: n - n % self.world]
        for batch in order.split(self.world * self.batch_size):
            yield from batch.tensor_split(self.world)[self.rank].tolist()

    def __len__(self) -> int:
        return sum(1 for _ in self)


def prepare_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the training process decides
    cv2.setNumThreads(0)  # as PyTorch does with its own: the workers are the threads


def make_loader(
    dataset: Dataset, batch_size: int, *, shuffle: bool = False, transform=None, late: tuple | None = None,
    seed: int = 0, workers: int = 0, pin_memory: bool = False, rank: int = 0, world: int = 1,
) -> DataLoader:  # fmt: skip
    """Batches of `left`, `right` (B, 3, H, W) float32, and `disparity` (B, 2, H, W) where it is known.

    Call `loader.dataset.set_epoch` before each epoch.
    transform, late, seed: of `TrainingPairs`; batch_size (pairs per process), shuffle, rank, world: of `EpochOrder`
    """
    pairs = TrainingPairs(dataset, transform, seed, late)
    order = EpochOrder(pairs, batch_size, shuffle, rank, world)
    generator = torch.Generator().manual_seed(seed)  # else the loader draws worker seeds from the global generator
    options = {"sampler": order, "generator": generator, "pin_memory": pin_memory}
    if workers:
        share_caches()
        options |= {"num_workers": workers, "persistent_workers": True, "worker_init_fn": prepare_worker}
    return DataLoader(pairs, batch_size, collate_fn=collated, **options)


def collated(pairs: list[Sample]) -> Sample:
    """A batch. Raises ValueError, with the remedy, for pairs of different sizes."""
    if len(sizes := {tuple(pair["left"].shape[-2:]) for pair in pairs}) > 1:
        raise ValueError(f"pairs of one batch differ in size, {sorted(sizes)}: wrap them in PairCache(data, size)")
    return default_collate(pairs)
