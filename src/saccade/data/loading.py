"""Loading that can be resumed to the sample: order and augmentation are functions of (seed, epoch, index)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

Order = Callable[[torch.Generator], Tensor]
"""Gives the indices of an epoch, in order."""


class Draw(NamedTuple):
    """What the sampler asks of the data set: the place of a sample, and the seed of its augmentation."""

    place: int
    seed: int


def mix(*numbers: int) -> int:
    """A seed from several numbers: nearby numbers give unrelated seeds (splitmix64).

    Args:
        numbers: Such as seed, epoch and index.

    Returns:
        In [0, 2^63).

    Example:
        >>> mix(0, 1) != mix(1, 0)
        True
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's, numpy's and Python's global generators start from `seed`; outside they are as they were.

    Args:
        seed: In [0, 2^63).
    """
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])


class EpochSampler(DistributedSampler[Draw]):
    """The order of an epoch as a function of (seed, epoch), shared out over processes, from any batch on.

    Consecutive samples go to consecutive processes, so that step t of W processes with batches of B sees the samples
    that one process with batches of W·B sees.

    Args:
        size: Number of samples.
        seed: Seed of the order and of the augmentation.
        order: Indices of an epoch; a random permutation where `None`.
        shuffle: Whether `order` is drawn at all; else 0 to size - 1.
        pad: Repeat some samples so that all processes have as many; training needs it, evaluation must not.
        epoch: The first epoch.
        start: Samples of this process's first epoch to leave out: they were seen before a kill.
        num_replicas: Processes; torch.distributed's where `None`.
        rank: This process; torch.distributed's where `None`.

    Example:
        >>> [draw.place for draw in EpochSampler(4, shuffle=False, start=2, num_replicas=1, rank=0)]
        [2, 3]
    """

    def __init__(
        self,
        size: int,
        *,
        seed: int = 0,
        order: Order | None = None,
        shuffle: bool = True,
        pad: bool = True,
        epoch: int = 0,
        start: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        if size < 1:
            raise ValueError("the data set is empty: there is nothing to load")
        if num_replicas is None or rank is None:
            ready = torch.distributed.is_available() and torch.distributed.is_initialized()
            num_replicas = torch.distributed.get_world_size() if ready else 1
            rank = torch.distributed.get_rank() if ready else 0
        super().__init__(range(size), num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.size = size
        self.order = order
        self.pad = pad
        self.epoch = self.first_epoch = epoch
        self.start = start

    def __iter__(self) -> Iterator[Draw]:
        """This process's draws of the epoch that `set_epoch` named."""
        indices = self._indices()
        start = self.start if self.epoch == self.first_epoch else 0
        for index in indices[self.rank :: self.num_replicas][start:]:
            yield Draw(index, mix(self.seed, self.epoch, index))

    def __len__(self) -> int:
        """Draws of a whole epoch in this process."""
        return len(range(self.rank, len(self._indices()), self.num_replicas))

    def _indices(self) -> list[int]:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        if not self.shuffle:
            indices = list(range(self.size))
        elif self.order is None:
            indices = torch.randperm(self.size, generator=generator).tolist()
        else:
            indices = self.order(generator).tolist()
        if self.pad and (short := -len(indices) % self.num_replicas):
            indices += indices[:short]
        return indices


class Seeded(Dataset[Any]):
    """A data set whose random augmentation is a function of the draw, in any worker and in any process.

    Args:
        dataset: Any map-style data set; what it draws from torch's, numpy's and Python's global generators repeats.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, draw: Draw) -> Any:
        """The sample that a draw names; the global generators are left as they were."""
        with seeded(draw.seed):
            return self.dataset[draw.place]


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    sampler: EpochSampler | None = None,
    train: bool = False,
    num_workers: int = 0,
    drop_last: bool = False,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """A loader over seeded samples.

    Args:
        dataset: Map-style.
        batch_size: Samples a batch and a process.
        sampler: The order; where `None` a fresh one, shuffled for training.
        train: Whether order and padding are those of training.
        num_workers: Processes that load; 0: this one.
        drop_last: Leave out a last batch that is not full.
        collate: Joins samples; torch's own where `None`.

    Returns:
        The loader.
    """
    sampler = sampler or EpochSampler(len(dataset), shuffle=train, pad=train)  # type: ignore[arg-type]
    return DataLoader(
        Seeded(dataset),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=drop_last,
        collate_fn=collate,
        persistent_workers=False,
        pin_memory=torch.cuda.is_available(),
    )
