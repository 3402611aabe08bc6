"""Batches for learning from continuous labels: an anchor, its nearest by label, and others from farther away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.metric.label_distances import EXACT


@runtime_checkable
class Neighbours(Protocol):
    """Who knows the neighbours of every sample by label."""

    def __len__(self) -> int:
        """Number of samples."""

    def of(self, anchor: int) -> tuple[Int[Tensor, " m"], Float[Tensor, " m"]]:
        """All other samples, the nearest first, and their label distances."""


class LabelNeighbours:
    """Neighbours by labels or by a matrix of their distances; lists are sorted when asked for, so nothing is kept.

    Args:
        labels: Labels (n, k), compared by Euclidean distance, or label distances (n, n) with a diagonal of 0.

    Raises:
        ValueError: Another shape, negative or infinite distances, a square matrix whose diagonal is not 0.

    Example:
        >>> LabelNeighbours(torch.tensor([[0.0], [5.0], [1.0]])).of(0)
        (tensor([2, 1]), tensor([1., 5.]))
    """

    def __init__(self, labels: Float[Tensor, "n k"]) -> None:
        if labels.ndim != 2 or not labels.is_floating_point():
            raise ValueError(
                f"labels are {labels.dtype} {tuple(labels.shape)}; floats (n, k), or distances (n, n), are accepted"
            )
        if not bool(torch.isfinite(labels).all()):
            raise ValueError("labels hold NaN or infinity")
        self.matrix = labels.shape[0] == labels.shape[1]
        if self.matrix and (bool((labels.diagonal() != 0).any()) or bool((labels < 0).any())):
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} are read as distances: they have to be 0 on the diagonal and "
                "nowhere negative; for labels of that many numbers give torch.cdist(labels, labels)"
            )
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def distances(self, anchor: int) -> Float[Tensor, " n"]:
        """Label distances of one sample to all."""
        if self.matrix:
            return self.labels[anchor]
        return torch.cdist(self.labels[anchor][None], self.labels, compute_mode=EXACT)[0]

    def of(self, anchor: int) -> tuple[Int[Tensor, " m"], Float[Tensor, " m"]]:
        """All other samples, the nearest first (ties by index), and their label distances."""
        distances, order = self.distances(anchor).sort(stable=True)
        kept = order != anchor
        return order[kept], distances[kept]


def dense_neighbours(
    available: int, neighbours: int, num_nearest: int, generator: torch.Generator | None = None
) -> Int[Tensor, " m"]:
    """Places in a sorted neighbour list: the nearest, and others drawn from all the rest without replacement, sorted.

    Args:
        available: Length of the list.
        neighbours: How many to take.
        num_nearest: How many of them are the first ones.
        generator: Draws; torch's global one where `None`.

    Returns:
        Ascending.

    Example:
        >>> dense_neighbours(100, 8, 5)[:5]
        tensor([0, 1, 2, 3, 4])
    """
    _check(available, neighbours, num_nearest)
    rest = num_nearest + torch.randperm(available - num_nearest, generator=generator)[: neighbours - num_nearest]
    return torch.cat([torch.arange(num_nearest), rest.sort().values])


def binary_neighbours(
    available: int,
    neighbours: int,
    num_positives: int = 30,
    positives_per_batch: int = 5,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " m"]:
    """Places in a sorted neighbour list: some of the first `num_positives`, then some of the rest.

    Args:
        available: Length of the list.
        neighbours: How many to take.
        num_positives: So many of the nearest count as the same.
        positives_per_batch: How many of those to draw.
        generator: Draws; torch's global one where `None`.

    Returns:
        Ascending; the first `positives_per_batch` are the positives.

    Example:
        >>> bool((binary_neighbours(100, 8)[:5] < 30).all())
        True
    """
    _check(available, neighbours, positives_per_batch)
    if not positives_per_batch <= num_positives <= available - (neighbours - positives_per_batch):
        raise ValueError(
            f"num_positives is {num_positives}; with {available} other samples, {positives_per_batch} positives and "
            f"{neighbours - positives_per_batch} negatives a batch, {positives_per_batch} to "
            f"{available - neighbours + positives_per_batch} is accepted"
        )
    near = torch.randperm(num_positives, generator=generator)[:positives_per_batch]
    far = num_positives + torch.randperm(available - num_positives, generator=generator)
    return torch.cat([near.sort().values, far[: neighbours - positives_per_batch].sort().values])


def dense_neighbour_batches(
    labels: Float[Tensor, "n k"] | Neighbours,
    batch_size: int = 150,
    num_nearest: int = 5,
    generator: torch.Generator | None = None,
) -> Iterator[Int[Tensor, " b"]]:
    """An epoch of batches for dense triplets (arXiv:1904.09626): every sample is the anchor once.

    A batch holds the anchor, its `num_nearest` nearest by label, and others drawn without replacement from all the
    rest, in the order of their label distance. Anchors come in random order; each epoch draws anew.

    Args:
        labels: Labels (n, k), label distances (n, n), or [`Neighbours`][saccade.metric.neighbour_batches.Neighbours].
        batch_size: Samples of a batch, the anchor among them.
        num_nearest: Nearest neighbours in every batch.
        generator: Draws; torch's global one where `None`.

    Returns:
        An iterator over n index vectors, the anchor first.

    Raises:
        ValueError: A batch that leaves no other samples beside the nearest, or is larger than the data set.

    Example:
        >>> batches = list(dense_neighbour_batches(torch.randn(40, 3), batch_size=12))
        >>> len(batches), batches[0].shape
        (40, torch.Size([12]))
    """
    lists = LabelNeighbours(labels) if isinstance(labels, Tensor) else labels
    _check(len(lists) - 1, batch_size - 1, num_nearest)
    return _epoch(lists, generator, lambda: dense_neighbours(len(lists) - 1, batch_size - 1, num_nearest, generator))


def binary_neighbour_batches(
    labels: Float[Tensor, "n k"] | Neighbours,
    batch_size: int = 150,
    num_positives: int = 30,
    positives_per_batch: int = 5,
    generator: torch.Generator | None = None,
) -> Iterator[Int[Tensor, " b"]]:
    """An epoch of batches for triplets of near and far: every sample is the anchor once.

    A batch holds the anchor, `positives_per_batch` of its `num_positives` nearest by label, and others from the rest.

    Args:
        labels: Labels (n, k), label distances (n, n), or [`Neighbours`][saccade.metric.neighbour_batches.Neighbours].
        batch_size: Samples of a batch, the anchor among them.
        num_positives: So many of the nearest count as the same.
        positives_per_batch: How many of those are in a batch.
        generator: Draws; torch's global one where `None`.

    Returns:
        An iterator over n index vectors: the anchor, the positives, the negatives.

    Raises:
        ValueError: A batch that leaves no negatives, or is larger than the data set.

    Example:
        >>> next(binary_neighbour_batches(torch.randn(60, 3), batch_size=12)).shape
        torch.Size([12])
    """
    lists = LabelNeighbours(labels) if isinstance(labels, Tensor) else labels
    rest = len(lists) - 1, batch_size - 1, num_positives, positives_per_batch
    binary_neighbours(*rest, torch.Generator())  # what is wrong is said here, not at the first batch
    return _epoch(lists, generator, lambda: binary_neighbours(*rest, generator))


def _epoch(lists: Neighbours, generator: torch.Generator | None, draw: Callable[[], Tensor]) -> Iterator[Tensor]:
    for anchor in torch.randperm(len(lists), generator=generator).tolist():
        order, _ = lists.of(anchor)
        yield torch.cat([torch.tensor([anchor]), order[draw()].cpu()])


def _check(available: int, neighbours: int, nearest: int) -> None:
    if nearest < 1:
        raise ValueError(f"the number of nearest neighbours is {nearest}; at least 1 is accepted")
    if neighbours <= nearest:
        raise ValueError(
            f"a batch of {neighbours + 1} has no room beside the anchor and {nearest} nearest: batch_size has to be "
            f"at least {nearest + 2}"
        )
    if neighbours > available:
        raise ValueError(f"a batch of {neighbours + 1} is larger than the data set of {available + 1} samples")
