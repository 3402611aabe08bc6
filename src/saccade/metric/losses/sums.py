"""Log-sum-exp over part of a row, and all triplets of a batch without a list of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from saccade.metric.loss_terms import Indices, LossTerms
from saccade.metric.tuples import pairs_to_triplets

CELLS = 2**22
"""Triplets that are looked at at a time (16 MB in float32)."""


def masked_logsumexp(x: Float[Tensor, "b m"], mask: Bool[Tensor, "b m"], dim: int = 1) -> Float[Tensor, " n"]:
    """Log Σ exp(x) over the entries of a mask.

    Args:
        x: Any values.
        mask: Which of them count.
        dim: What is summed over.

    Returns:
        The lowest finite number where the mask is empty, so that gradients stay finite.

    Example:
        >>> masked_logsumexp(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[True, True, False]]))
        tensor([0.6931])
    """
    return logsumexp(x.masked_fill(~mask, torch.finfo(x.dtype).min), dim)


def logsumexp(x: Tensor, dim: int = 1) -> Tensor:
    """Log Σ exp(x) along a dimension, through the fused log-softmax: many times as fast where most terms underflow.

    Args:
        x: Finite values.
        dim: What is summed over.

    Returns:
        Without that dimension.
    """
    highest, where = x.max(dim=dim, keepdim=True)
    return (highest - x.log_softmax(dim=dim).gather(dim, where)).squeeze(dim)


def grouped_logsumexp(x: Float[Tensor, " n"], groups: Int[Tensor, " n"], size: int) -> Float[Tensor, " b"]:
    """Log Σ exp(x) over the entries of each group.

    Args:
        x: Any values.
        groups: In [0, size).
        size: Number of groups.

    Returns:
        The lowest finite number for an empty group.

    Example:
        >>> grouped_logsumexp(torch.tensor([0.0, 0.0]), torch.tensor([1, 1]), 2)[1]
        tensor(0.6931)
    """
    lowest = torch.finfo(x.dtype).min
    highest = x.new_full((size,), lowest).scatter_reduce(0, groups, x.detach(), "amax")
    total = x.new_zeros(size).index_add(0, groups, (x - highest[groups]).exp())
    return torch.where(total > 0, torch.where(total > 0, total, 1).log() + highest, lowest)


def in_chunks(function: Callable[..., Tensor], rows: int, *tensors: Tensor) -> Tensor:
    """A function of rows, computed chunk by chunk; with more than one, anew in the backward pass.

    Args:
        function: Of chunks of the tensors; gives one value a row.
        rows: How many a chunk.
        *tensors: As many rows each.

    Returns:
        The values of all rows.
    """
    chunks = list(zip(*(tensor.split(rows) for tensor in tensors), strict=True))
    if len(chunks) == 1 or not torch.is_grad_enabled():
        return torch.cat([function(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks])


class AllTriplets:
    """All triplets of two masks, in chunks of anchors that fit a bound of memory.

    Args:
        mat: Distances (b, m).
        same: Positives of each anchor.
        different: Negatives of each anchor.
    """

    def __init__(self, mat: Float[Tensor, "b m"], same: Bool[Tensor, "b m"], different: Bool[Tensor, "b m"]) -> None:
        self.mat = mat
        self.same = same
        self.different = different
        counts = same.sum(dim=1)
        rows, columns = torch.where(same)
        within = torch.arange(len(rows), device=mat.device) - (counts.cumsum(0) - counts)[rows]
        self.most = int(counts.max()) if len(counts) else 0
        self.positives = counts.new_zeros((len(mat), self.most))
        self.positives[rows, within] = columns
        self.filled = torch.arange(self.most, device=mat.device) < counts.unsqueeze(1)

    def counts(self) -> Int[Tensor, " b"]:
        """Number of triplets of each anchor."""
        return self.filled.sum(dim=1) * self.different.sum(dim=1)

    def indices(self) -> tuple[Tensor, ...]:
        """Written out."""
        return pairs_to_triplets((*torch.where(self.same), *torch.where(self.different)))

    def map(self, function: Callable[..., Any], between: Float[Tensor, "m m"] | None = None) -> Iterator[Any]:
        """Apply a function to chunk after chunk, computed anew in the backward pass.

        Args:
            function: Of the distances to positives (r, p, 1), to negatives (r, 1, m), from positives to negatives
                (r, p, m) or `None`, and the mask (r, p, m) of what is a triplet; returns tensors.
            between: Distances between references, where the function wants them.

        Yields:
            What the function returns.
        """
        rows = max(1, CELLS // max(self.most * self.mat.shape[1], 1))
        again = torch.is_grad_enabled() and rows < len(self.mat)

        def chunk(mat: Tensor, positives: Tensor, filled: Tensor, different: Tensor) -> Any:
            triplets = filled.unsqueeze(2) & different.unsqueeze(1)
            d_pn = None if between is None else between[positives]
            return function(mat.gather(1, positives).unsqueeze(2), mat.unsqueeze(1), d_pn, triplets)

        whole = (self.mat, self.positives, self.filled, self.different)
        for parts in zip(*(tensor.split(rows) for tensor in whole), strict=True):
            yield checkpoint(chunk, *parts, use_reentrant=False) if again else chunk(*parts)


class HingeTriplets(LossTerms):
    r"""$[d_{ap} - d_{an} + m]_+$ of all triplets, in O(b m log m).

    The sum of hinges is linear in the distances between two changes of the set of violated triplets: each distance
    counts as often as it is in one. These numbers follow from sorted negatives; no triplet is looked at by itself.

    Args:
        triplets: With distances in which larger means farther.
        margin: m.
    """

    def __init__(self, triplets: AllTriplets, margin: float) -> None:
        self.triplets = triplets
        self.margin = margin

    def totals(self, low: float = -math.inf, high: float = math.inf) -> tuple[Tensor, Tensor]:
        """Sums and numbers of each anchor."""
        triplets = self.triplets
        with torch.no_grad():
            rows = max(1, CELLS // max(triplets.mat.shape[1], 1))
            whole = (triplets.mat, triplets.positives, triplets.filled, triplets.different)
            chunks = zip(*(tensor.split(rows) for tensor in whole), strict=True)
            parts = [self._coefficients(*chunk, low=max(low, 0.0), high=high) for chunk in chunks]
            weights = torch.cat([weight for weight, _ in parts])
            active = torch.cat([count for _, count in parts])
        sums = (weights * triplets.mat).sum(dim=1) + self.margin * active
        if low >= 0:
            return sums, active
        counts = triplets.counts()  # those that are not violated are terms, too: zeros
        if high < math.inf:
            above = self._above(high)
            return sums, counts - above
        return sums, counts

    def _coefficients(
        self, mat: Tensor, positives: Tensor, filled: Tensor, different: Tensor, *, low: float, high: float
    ) -> tuple[Tensor, Tensor]:
        """How often each distance counts, and how many terms of each anchor are in (low, high)."""
        negatives, order = mat.masked_fill(~different, torch.inf).sort(dim=1)
        reach = mat.gather(1, positives) + self.margin  # a negative below it violates
        last = torch.searchsorted(negatives, (reach - low).contiguous())
        first = (
            torch.zeros_like(last)
            if high == math.inf
            else torch.searchsorted(negatives, (reach - high).contiguous(), right=True).minimum(last)
        )
        limit = different.sum(dim=1, keepdim=True)
        last, first = last.minimum(limit) * filled, first.minimum(limit) * filled
        change = mat.new_zeros((len(mat), mat.shape[1] + 1))
        one = filled.to(mat.dtype)
        change.scatter_add_(1, first, one).scatter_add_(1, last, -one)
        covered = torch.zeros_like(mat).scatter_(1, order, change.cumsum(dim=1)[:, :-1])
        each = (last - first).to(mat.dtype)
        return (-covered).scatter_add_(1, positives, each), each.sum(dim=1)

    def _above(self, high: float) -> Tensor:
        """Number of terms of each anchor that are not below `high`."""
        return torch.cat(
            [
                ((d_ap - d_an + self.margin).clamp(min=0).ge(high) & triplet).sum(dim=(1, 2))
                for d_ap, d_an, triplet in self.triplets.map(lambda p, n, _, mask: (p, n, mask))
            ]
        )

    def explicit(self) -> tuple[Tensor, Indices]:
        """One for each triplet."""
        anchors, positives, negatives = indices = self.triplets.indices()
        mat = self.triplets.mat
        return (mat[anchors, positives] - mat[anchors, negatives] + self.margin).relu(), indices


class ChunkedTriplets(LossTerms):
    """Any function of the three distances of all triplets.

    Args:
        triplets: All of them.
        function: Of the distances anchor-positive, anchor-negative and positive-negative.
        between: Distances between references (m, m), where the function wants them.
    """

    def __init__(
        self, triplets: AllTriplets, function: Callable[[Tensor, Tensor, Any], Tensor], between: Tensor | None = None
    ) -> None:
        self.triplets = triplets
        self.function = function
        self.between = between

    def totals(self, low: float = -math.inf, high: float = math.inf) -> tuple[Tensor, Tensor]:
        """Sums and numbers of each anchor."""

        def chunk(d_ap: Tensor, d_an: Tensor, d_pn: Tensor | None, triplet: Tensor) -> tuple[Tensor, Tensor]:
            losses = self.function(d_ap, d_an, d_pn)
            kept = triplet & (losses > low) & (losses < high) if low > -math.inf or high < math.inf else triplet
            return torch.where(kept, losses, 0).sum(dim=(1, 2)), kept.sum(dim=(1, 2))

        parts = list(self.triplets.map(chunk, self.between))
        return torch.cat([sums for sums, _ in parts]), torch.cat([counts for _, counts in parts])

    def explicit(self) -> tuple[Tensor, Indices]:
        """One for each triplet."""
        anchors, positives, negatives = indices = self.triplets.indices()
        mat = self.triplets.mat
        d_pn = None if self.between is None else self.between[positives, negatives]
        return self.function(mat[anchors, positives], mat[anchors, negatives], d_pn), indices
