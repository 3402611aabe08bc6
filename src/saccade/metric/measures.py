"""Measures of retrieval from the labels of neighbours (Musgrave et al., arXiv:2003.08505, section 3.2).

All of them follow from the ranks at which matches stand, see [`Ranks`][saccade.metric.measures.Ranks].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EQUALITY = torch.eq
RETRIEVAL = (
    "precision_at_1",
    "r_precision",
    "mean_average_precision",
    "mean_average_precision_at_r",
    "mean_reciprocal_rank",
)
"""The measures that follow from ranks."""
LabelCounts = tuple[Tensor, Tensor]
"""The distinct labels of queries, sorted, and how many references match each."""


def get_unique_labels(labels: Tensor) -> Tensor:
    """The distinct labels, sorted; rows where labels have several columns."""
    return torch.unique(labels, dim=0)


def label_numbers(labels: Tensor, unique: Tensor) -> Tensor:
    """Where each label stands among distinct ones.

    Args:
        labels: (n,), (n, 1), or (n, [1,] columns).
        unique: (u,) or (u, columns).

    Returns:
        (n,); -1 for labels that are not among them.
    """
    both = torch.cat([unique.reshape(len(unique), -1), labels.reshape(len(labels), -1)])
    if both.shape[1] == 1:
        _, numbers = torch.unique(both.squeeze(1), return_inverse=True)
    else:
        _, numbers = torch.unique(both, dim=0, return_inverse=True)
    place = torch.full((len(both),), -1, device=labels.device)
    place[numbers[: len(unique)]] = torch.arange(len(unique), device=labels.device)
    return place[numbers[len(unique) :]]


def get_label_match_counts(
    query_labels: Tensor, reference_labels: Tensor, label_comparison_fn: Callable[[Tensor, Tensor], Tensor]
) -> LabelCounts:
    """How many references match each distinct label of the queries.

    Args:
        query_labels: (b,) or (b, columns).
        reference_labels: (m,) or (m, columns).
        label_comparison_fn: Whether labels match, by broadcasting.

    Returns:
        Labels and counts.
    """
    unique = get_unique_labels(query_labels)
    if label_comparison_fn is EQUALITY:
        numbers = label_numbers(reference_labels, unique)
        return unique, numbers[numbers >= 0].bincount(minlength=len(unique))
    counts = [label_comparison_fn(unique[at : at + 1], reference_labels).sum() for at in range(len(unique))]
    return unique, torch.stack(counts).long()


def get_lone_query_labels(
    query_labels: Tensor,
    label_counts: LabelCounts,
    ref_includes_query: bool,
    label_comparison_fn: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Labels for which there is nothing to find.

    Args:
        query_labels: (b,) or (b, columns).
        label_counts: From `get_label_match_counts`.
        ref_includes_query: Whether a query is among the references; it does not count.
        label_comparison_fn: Whether labels match.

    Returns:
        The lone labels, and the mask of queries whose label is not one of them.
    """
    unique, counts = label_counts
    if ref_includes_query:
        counts = counts - matches(label_comparison_fn, unique, unique, 1).long()
    lone = counts <= 0
    return unique[lone], ~lone[label_numbers(query_labels, unique)]


def get_relevance_mask(
    shape: Sequence[int], gt_labels: Tensor, ref_includes_query: bool, label_counts: LabelCounts
) -> tuple[Tensor, Tensor]:
    """The first R ranks of each query, R being how many references of its label there are.

    Args:
        shape: (b, k).
        gt_labels: Of the queries.
        ref_includes_query: Whether a query is among the references; it does not count.
        label_counts: From `get_label_match_counts`.

    Returns:
        The mask (b, k), and R (b,).
    """
    relevant = relevant_counts(gt_labels, ref_includes_query, label_counts)
    return torch.arange(shape[1], device=relevant.device) < relevant.unsqueeze(1), relevant


def maybe_get_avg_of_avgs(
    accuracy_per_sample: Tensor, sample_labels: Tensor, avg_of_avgs: bool, return_per_class: bool
) -> float | list[float]:
    """The mean over queries, the mean of the means of classes, or the list of the latter in the order of labels."""
    if not (avg_of_avgs or return_per_class):
        return accuracy_per_sample.double().mean().item()
    rows = sample_labels.reshape(len(sample_labels), -1)
    _, numbers, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    means = numbers.bincount(accuracy_per_sample.double()) / counts
    return means.tolist() if return_per_class else means.mean().item()


def precision_at_k(
    knn_labels: Tensor,
    gt_labels: Tensor,
    k: int,
    avg_of_avgs: bool,
    return_per_class: bool,
    label_comparison_fn: Callable[[Tensor, Tensor], Tensor],
) -> float | list[float]:
    """The share of the k nearest that match.

    Args:
        knn_labels: Of the neighbours, (b, at least k) or (b, at least k, columns).
        gt_labels: Of the queries, (b, 1) or (b, 1, columns).
        k: How many count.
        avg_of_avgs: Whether to average classes first.
        return_per_class: Whether to list classes.
        label_comparison_fn: Whether labels match.

    Returns:
        In [0, 1].
    """
    hits = matches(label_comparison_fn, gt_labels, knn_labels[:, :k])
    return maybe_get_avg_of_avgs(hits.sum(dim=1).double() / k, gt_labels, avg_of_avgs, return_per_class)


def r_precision(
    knn_labels: Tensor,
    gt_labels: Tensor,
    ref_includes_query: bool,
    label_counts: LabelCounts,
    avg_of_avgs: bool,
    return_per_class: bool,
    label_comparison_fn: Callable[[Tensor, Tensor], Tensor],
) -> float | list[float]:
    """The share of the R nearest that match. Arguments as for `precision_at_k` and `get_relevance_mask`."""
    ranks = Ranks(matches(label_comparison_fn, gt_labels, knn_labels))
    scores = ranks.r_precision(relevant_counts(gt_labels, ref_includes_query, label_counts))
    return maybe_get_avg_of_avgs(scores, gt_labels, avg_of_avgs, return_per_class)


def mean_average_precision(
    knn_labels: Tensor,
    gt_labels: Tensor,
    ref_includes_query: bool,
    label_counts: LabelCounts,
    avg_of_avgs: bool,
    return_per_class: bool,
    label_comparison_fn: Callable[[Tensor, Tensor], Tensor],
    at_r: bool = False,
) -> float | list[float]:
    """The precisions at the ranks of matches, summed and divided by R; only the first R ranks count where `at_r`."""
    ranks = Ranks(matches(label_comparison_fn, gt_labels, knn_labels))
    scores = ranks.average_precision(relevant_counts(gt_labels, ref_includes_query, label_counts), at_r)
    return maybe_get_avg_of_avgs(scores, gt_labels, avg_of_avgs, return_per_class)


def mean_reciprocal_rank(
    knn_labels: Tensor,
    gt_labels: Tensor,
    avg_of_avgs: bool,
    return_per_class: bool,
    label_comparison_fn: Callable[[Tensor, Tensor], Tensor],
) -> float | list[float]:
    """One over the rank of the first match; 0 where there is none."""
    scores = Ranks(matches(label_comparison_fn, gt_labels, knn_labels)).reciprocal_rank()
    return maybe_get_avg_of_avgs(scores, gt_labels, avg_of_avgs, return_per_class)


def try_getting_not_lone_labels(
    knn_labels: Tensor, query_labels: Tensor, not_lone_query_mask: Tensor
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Labels of neighbours and of queries without lone queries; `None` where all are."""
    if not bool(not_lone_query_mask.any()):
        return None, None
    return knn_labels[not_lone_query_mask], query_labels[not_lone_query_mask]


def nan_accuracy(unique_labels: Tensor, return_per_class: bool) -> float | list[float]:
    """What stands where no query has anything to find."""
    return [float("nan")] * len(unique_labels) if return_per_class else float("nan")


class Ranks:
    """The ranks at which matches stand, as flat lists over all queries.

    Args:
        hits: (b, k): whether the neighbour at each rank matches.
    """

    def __init__(self, hits: Tensor) -> None:
        self.queries, self.k = hits.shape
        self.row, column = torch.where(hits)
        self.rank = column + 1
        counts = self.row.bincount(minlength=self.queries)
        self.ordinal = torch.arange(1, len(column) + 1, device=hits.device) - (counts.cumsum(0) - counts)[self.row]

    def _sum(self, values: Tensor) -> Tensor:
        return self.row.bincount(values.double(), minlength=self.queries)

    def first(self) -> Tensor:
        """1 where the nearest matches, (b,)."""
        return self._sum(self.rank == 1)

    def reciprocal_rank(self) -> Tensor:
        """One over the rank of the first match, (b,)."""
        return self._sum((self.ordinal == 1) / self.rank.double())

    def r_precision(self, relevant: Tensor) -> Tensor:
        """The share of the first R ranks that match, (b,)."""
        return self._sum(self.rank <= relevant[self.row]) / relevant.clamp(max=self.k)

    def average_precision(self, relevant: Tensor, at_r: bool) -> Tensor:
        """Precisions at matches, over R, (b,)."""
        precision = self.ordinal / self.rank.double()
        return self._sum(precision * (self.rank <= relevant[self.row]) if at_r else precision) / relevant

    def scores(self, name: str, relevant: Tensor) -> Tensor:
        """One of the measures named in `RETRIEVAL`, (b,)."""
        if name == "precision_at_1":
            return self.first()
        if name == "mean_reciprocal_rank":
            return self.reciprocal_rank()
        if name == "r_precision":
            return self.r_precision(relevant)
        return self.average_precision(relevant, at_r=name.endswith("_at_r"))


def matches(compare: Callable[[Tensor, Tensor], Tensor], own: Tensor, other: Tensor, dims: int = 2) -> Tensor:
    """Whether labels match; equality of several columns is that of each."""
    matches = compare(own, other)
    return matches.flatten(dims).all(dim=dims) if matches.ndim > dims else matches.bool()


def relevant_counts(labels: Tensor, ref_includes_query: bool, label_counts: LabelCounts) -> Tensor:
    """How many references match each query's label, without itself."""
    numbers = label_numbers(labels, label_counts[0])
    counts = label_counts[1] - int(ref_includes_query)
    return torch.where(numbers >= 0, counts[numbers], 0)
