"""Samplers: which samples of a data set form a batch.

All draw from numpy's global generator unless a `seed` is given, so that `numpy.random.seed` makes them repeat.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, Subset, WeightedRandomSampler

from saccade.metric.inputs import ArgumentError
from saccade.metric.tuples import appearance_weights

NUMPY_RANDOM: Any = np.random
"""What samplers without a seed draw from."""


def _source(seed: int | None) -> Any:
    return NUMPY_RANDOM if seed is None else np.random.RandomState(seed)


def indices_by_label(labels: Any) -> dict[Any, np.ndarray]:
    """The places of each label, in the order in which labels first appear.

    Example:
        >>> {label: places.tolist() for label, places in indices_by_label([5, 3, 5]).items()}
        {5: [0, 2], 3: [1]}
    """
    labels = _as_array(labels)
    names, firsts, numbers = np.unique(labels, return_index=True, return_inverse=True)
    places = np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])
    return {names[at].item(): places[at] for at in np.argsort(firsts)}


def choose(random: Any, items: Any, size: int) -> np.ndarray:
    """Draw without replacement, or with it where there are too few."""
    return random.choice(items, size=size, replace=len(items) < size)


class MPerClassSampler(Sampler[int]):
    """m samples of a class in a row; with a batch size, a batch holds batch_size / m different classes.

    Args:
        labels: Of the data set.
        m: Samples of a class; drawn with replacement where it has fewer.
        batch_size: Of the loader; without it, each pass goes through all classes.
        length_before_new_iter: How many samples an epoch has, rounded down to whole batches (or whole passes).
        seed: Of the draws; numpy's global generator where `None`.

    Raises:
        ValueError: A batch that m does not divide, or that is larger than m times the number of classes or an epoch.

    Example:
        >>> sampler = MPerClassSampler([0, 0, 0, 1, 1, 2, 2], m=2, batch_size=4, length_before_new_iter=9, seed=0)
        >>> len(sampler), len(list(sampler))
        (8, 8)
    """

    def __init__(
        self,
        labels: Any,
        m: int,
        batch_size: int | None = None,
        length_before_new_iter: int = 100000,
        seed: int | None = None,
    ) -> None:
        self.m_per_class = int(m)
        self.batch_size = None if batch_size is None else int(batch_size)
        self.labels_to_indices = indices_by_label(labels)
        self.labels = list(self.labels_to_indices)
        self.length_of_single_pass = self.m_per_class * len(self.labels)
        self.random = _source(seed)
        self._fixed = seed is not None
        whole = self.length_of_single_pass
        if self.batch_size is not None:
            whole = self.batch_size
            if self.length_of_single_pass < whole:
                raise ArgumentError(
                    f"a batch of {whole} is asked for, but m = {m} of each of {len(self.labels)} classes are"
                    f" {self.length_of_single_pass}"
                )
            if whole % self.m_per_class:
                raise ArgumentError(f"m = {m} does not divide the batch size {whole}")
            if length_before_new_iter < whole:
                raise ArgumentError(f"an epoch of {length_before_new_iter} is shorter than a batch of {whole}")
        self.list_size = int(length_before_new_iter)
        if self.list_size > whole:
            self.list_size -= self.list_size % whole

    def __len__(self) -> int:
        return self.list_size

    def __iter__(self) -> Iterator[int]:
        """Indices of one epoch."""
        random = self.random if self._fixed else NUMPY_RANDOM
        classes = len(self.labels) if self.batch_size is None else self.batch_size // self.m_per_class
        chosen: list[int] = []
        while len(chosen) < self.list_size:
            random.shuffle(self.labels)
            for label in self.labels[:classes]:
                chosen += choose(random, self.labels_to_indices[label], self.m_per_class).tolist()
        return iter(chosen[: self.list_size])


class HierarchicalSampler(Sampler[list[int]]):
    """A batch sampler over two levels of labels: each batch is shared by some super classes (arXiv:1909.09133 style).

    For every combination of `super_classes_per_batch` super classes there are `batches_per_super_tuple` batches; each
    super class fills an equal part with `samples_per_class` of each of some of its classes.

    Args:
        labels: (n, levels).
        batch_size: A multiple of `super_classes_per_batch`.
        samples_per_class: Samples of a class, or "all".
        batches_per_super_tuple: Batches of each combination.
        super_classes_per_batch: Super classes in a batch.
        inner_label: The column of classes.
        outer_label: The column of super classes.
        seed: Of the draws; numpy's global generator where `None`.

    Raises:
        ValueError: Sizes that do not divide each other.

    Example:
        >>> labels = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 0], [2, 1], [2, 1], [3, 1], [3, 1]])
        >>> sampler = HierarchicalSampler(labels, batch_size=4, samples_per_class=2, batches_per_super_tuple=1)
        >>> [len(batch) for batch in sampler]
        [4]
    """

    def __init__(
        self,
        labels: Any,
        batch_size: int,
        samples_per_class: int | str,
        batches_per_super_tuple: int = 4,
        super_classes_per_batch: int = 2,
        inner_label: int = 0,
        outer_label: int = 1,
        seed: int | None = None,
    ) -> None:
        labels = _as_array(labels)
        if labels.ndim != 2:
            raise ValueError(f"labels have the shape {labels.shape}; (number, levels) is accepted")
        if batch_size % super_classes_per_batch:
            raise ArgumentError(f"{super_classes_per_batch} super classes do not share a batch of {batch_size} evenly")
        self.batch_size = batch_size
        self.batches_per_super_tuple = batches_per_super_tuple
        self.samples_per_class = samples_per_class
        self.super_classes_per_batch = super_classes_per_batch
        self.sub_batch_len = batch_size // super_classes_per_batch
        if samples_per_class != "all" and (int(samples_per_class) <= 0 or self.sub_batch_len % int(samples_per_class)):
            raise ArgumentError(
                f"samples_per_class is {samples_per_class}; 'all' or a divisor of {self.sub_batch_len} is accepted"
            )
        self._seed, self.random = seed, _source(seed)
        self.super_image_lists = {
            above: {label: own[places] for label, places in indices_by_label(labels[own, inner_label]).items()}
            for above, own in sorted(indices_by_label(labels[:, outer_label]).items())
        }
        self.super_pairs = list(itertools.combinations(self.super_image_lists, super_classes_per_batch))
        self.reshuffle()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        """New batches at each epoch."""
        self.reshuffle()
        yield from self.batches

    def reshuffle(self) -> None:
        """Draw the batches of an epoch."""
        random = NUMPY_RANDOM if self._seed is None else self.random
        self.batches: list[list[int]] = []
        for combination in self.super_pairs:
            for _ in range(self.batches_per_super_tuple):
                batch = [index for above in combination for index in self._part(random, above)]
                random.shuffle(batch)
                self.batches.append(batch)
        random.shuffle(self.batches)

    def _part(self, random: Any, above: Any) -> list[int]:
        """One super class's share of a batch."""
        part: list[int] = []
        classes = list(self.super_image_lists[above])
        random.shuffle(classes)
        for label in classes:
            own = self.super_image_lists[above][label]
            size = len(own) if self.samples_per_class == "all" else int(self.samples_per_class)
            if len(part) + size <= self.sub_batch_len:
                part += choose(random, own, size).tolist()
        return part


class FixedSetOfTriplets(Sampler[int]):
    """Anchor, positive, negative, anchor and so on, from triplets that are drawn once.

    Args:
        labels: Of the data set.
        num_triplets: How many; an epoch is three times as long, in a new order of triplets.
        seed: Of the draws; numpy's global generator where `None`.

    Raises:
        ValueError: No triplet is asked for, or there are not two classes.

    Example:
        >>> len(FixedSetOfTriplets([0, 0, 1, 1], num_triplets=5))
        15
    """

    def __init__(self, labels: Any, num_triplets: int, seed: int | None = None) -> None:
        self.labels_to_indices = indices_by_label(labels)
        self.num_triplets = int(num_triplets)
        self._seed, self.random = seed, _source(seed)
        self.create_fixed_set_of_triplets()

    def __len__(self) -> int:
        return 3 * self.num_triplets

    def __iter__(self) -> Iterator[int]:
        """The triplets, in a new order."""
        (NUMPY_RANDOM if self._seed is None else self.random).shuffle(self.fixed_set_of_triplets)
        return iter(self.fixed_set_of_triplets.flatten().tolist())

    def create_fixed_set_of_triplets(self) -> None:
        """Draw for each triplet two classes, then two samples of the first and one of the second."""
        if self.num_triplets < 1 or len(self.labels_to_indices) < 2:
            raise ArgumentError(
                f"{self.num_triplets} triplets of {len(self.labels_to_indices)} classes are asked for; at least 1 of 2"
            )
        random, triplets = self.random, []
        for _ in range(self.num_triplets):
            own, other = random.choice(list(self.labels_to_indices), size=2, replace=False).tolist()
            anchor, positive = choose(random, self.labels_to_indices[own], 2)
            triplets.append((anchor, positive, random.choice(self.labels_to_indices[other])))
        self.fixed_set_of_triplets = np.array(triplets, dtype=int)


class TuplesToWeightsSampler(Sampler[int]):
    """Samples drawn as often as a miner names them: each epoch the data set is embedded and mined.

    Args:
        model: From an input to embeddings.
        miner: Of pairs or triplets.
        dataset: Of (input, label).
        subset_size: Embed and mine a random part of this size; it is also the length of an epoch then.
        **tester_kwargs: As for [`BaseTester`][saccade.metric.testers.BaseTester].

    Attributes:
        weights: Of all samples, from the last epoch's mining.
    """

    def __init__(
        self,
        model: nn.Module,
        miner: nn.Module,
        dataset: Dataset[Any],
        subset_size: int | None = None,
        **tester_kwargs: Any,
    ) -> None:
        from saccade.metric.testers import BaseTester

        self.model = model
        self.miner = miner
        self.dataset = dataset
        self.subset_size = subset_size
        self.tester = BaseTester(**tester_kwargs)
        self.device = self.tester.data_device
        self.weights: Tensor | None = None

    def __len__(self) -> int:
        return self.subset_size or len(self.dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        """Indices of one epoch, with replacement."""
        size = len(self.dataset)  # type: ignore[arg-type]
        chosen = np.arange(size) if not self.subset_size else choose(NUMPY_RANDOM, np.arange(size), self.subset_size)
        part = Subset(self.dataset, chosen.tolist()) if self.subset_size else self.dataset
        embeddings, labels = self.tester.get_all_embeddings(part, self.model)
        labels = labels.squeeze(1)
        tuples = self.miner(embeddings, labels)
        self.weights = torch.zeros(size, device=self.device)
        weights = appearance_weights(tuples, len(labels)).to(self.device)
        self.weights[torch.as_tensor(chosen, device=self.device)] = weights
        return iter(WeightedRandomSampler(self.weights.tolist(), len(self), replacement=True))


def _as_array(labels: Any) -> np.ndarray:
    return labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
