"""Retrieval and clustering measures of embeddings (Musgrave et al., arXiv:2003.08505, section 3.2).

All measures of retrieval follow from the ranks at which the references of a query's class stand; so no list of
neighbours has to be kept, and memory stays bounded whatever the number of embeddings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saccade.metric.measures import (
    EQUALITY,
    RETRIEVAL,
    LabelCounts,
    Ranks,
    get_label_match_counts,
    get_lone_query_labels,
    get_relevance_mask,
    get_unique_labels,
    label_numbers,
    matches,
    maybe_get_avg_of_avgs,
    mean_average_precision,
    mean_reciprocal_rank,
    nan_accuracy,
    precision_at_k,
    r_precision,
    relevant_counts,
    try_getting_not_lone_labels,
)
from saccade.metric.neighbours import (
    CELLS,
    CustomKNN,
    FaissKMeans,
    FaissKNN,
    FlatL2,
    default_device,
    relative_distances,
)
from saccade.metric.ordering import smallest_of_rows
from saccade.metric.tiles import nearest_in_tiles, tiles_pay

__all__ = [
    "EQUALITY",
    "AccuracyCalculator",
    "get_label_match_counts",
    "get_lone_query_labels",
    "get_relevance_mask",
    "get_unique_labels",
    "maybe_get_avg_of_avgs",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "nan_accuracy",
    "precision_at_k",
    "r_precision",
    "try_getting_not_lone_labels",
]

LOGGER = logging.getLogger("saccade")


class AccuracyCalculator:
    """Measures of a set of embeddings: P@1, R-precision, MAP, MAP@R, MRR, NMI and AMI.

    A subclass adds measures as methods `calculate_NAME(self, **kwargs)`, and names them in `requires_knn` or
    `requires_clustering` where they need neighbours or clusters. Keyword arguments: `query`, `reference`,
    `query_labels`, `reference_labels`, `ref_includes_query`, `label_comparison_fn`; with neighbours `knn_labels`,
    `knn_distances`, `label_counts`, `lone_query_labels`, `not_lone_query_mask`; with clusters `cluster_labels`.

    Args:
        include: Names of measures; all where it is empty.
        exclude: Names of measures to leave out.
        avg_of_avgs: Whether means of classes are averaged.
        return_per_class: Whether measures of retrieval are lists with one entry for each class, in the order of labels.
        k: How many neighbours count: a number, "max_bin_count" (as many as the largest class of references has), or
            all where `None`.
        label_comparison_fn: Whether labels match, by broadcasting; equality where `None`.
        device: Where to compute; CUDA where there is one and it is `None`.
        knn_func: Called as `knn_func(query, k, reference, ref_includes_query)`; exact Euclidean where `None`.
        kmeans_func: Called as `kmeans_func(embeddings, number)`; [`FaissKMeans`][saccade.metric.inference.FaissKMeans]
            where `None`.

    Raises:
        ValueError: Unknown measures, `avg_of_avgs` with `return_per_class`, another k.
        NotImplementedError: Clusters with a `label_comparison_fn`.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [1.0], [1.1], [0.5]])
        >>> AccuracyCalculator(include=("precision_at_1", "r_precision"), device="cpu").get_accuracy(
        ...     points, torch.tensor([0, 0, 1, 1, 1]))
        {'precision_at_1': 0.8, 'r_precision': 0.8}
    """

    function_keyword = "calculate_"

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        avg_of_avgs: bool = False,
        return_per_class: bool = False,
        k: int | Literal["max_bin_count"] | None = None,
        label_comparison_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        device: torch.device | str | None = None,
        knn_func: Any = None,
        kmeans_func: Any = None,
    ) -> None:
        prefix = self.function_keyword
        names = [name.removeprefix(prefix) for name in dir(self) if name.startswith(prefix)]
        self.original_function_dict = {name: getattr(self, prefix + name) for name in names}
        self.check_primary_metrics(include, exclude)
        self.original_function_dict = self.get_function_dict(include, exclude)
        self.curr_function_dict = self.get_function_dict()
        if avg_of_avgs and return_per_class:
            raise ValueError("avg_of_avgs and return_per_class exclude each other")
        if not (k is None or k == "max_bin_count" or (isinstance(k, int) and k > 0)):
            raise ValueError(f"k is {k!r}; a number above 0, 'max_bin_count' or None is accepted")
        self.avg_of_avgs = avg_of_avgs
        self.return_per_class = return_per_class
        self.k = k
        self.device = default_device(device)
        self.knn_func = FaissKNN(index_init_fn=FlatL2) if knn_func is None else knn_func
        self.kmeans_func = FaissKMeans(niter=20, gpu=self.device.type == "cuda") if kmeans_func is None else kmeans_func
        self.label_comparison_fn = label_comparison_fn or EQUALITY
        if label_comparison_fn and set(self.requires_clustering()) & set(self.get_curr_metrics()):
            raise NotImplementedError("clusters cannot be measured with a label_comparison_fn; exclude NMI and AMI")

    def get_function_dict(
        self, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> dict[str, Callable[..., Any]]:
        """Names and methods of the measures that are asked for."""
        functions = self.original_function_dict
        return {name: f for name, f in functions.items() if (not include or name in include) and name not in exclude}

    def check_primary_metrics(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Raise unless all names are measures.

        Raises:
            TypeError: Neither tuple nor list.
            ValueError: An unknown name.
        """
        for names in (include, exclude):
            if not isinstance(names, tuple | list):
                raise TypeError(f"measures came as {type(names).__name__}; a tuple or list of names is accepted")
            unknown = [name for name in names if name not in self.original_function_dict]
            if unknown:
                raise ValueError(f"{unknown[0]!r} is no measure; {', '.join(self.original_function_dict)} are")

    def get_curr_metrics(self) -> list[str]:
        """Names of the measures of the last call."""
        return list(self.curr_function_dict)

    def requires_clustering(self) -> list[str]:
        """Measures that need clusters."""
        return ["NMI", "AMI"]

    def requires_knn(self) -> list[str]:
        """Measures that need neighbours."""
        return [
            "precision_at_1",
            "mean_average_precision",
            "mean_average_precision_at_r",
            "mean_reciprocal_rank",
            "r_precision",
        ]

    def description(self) -> str:
        """What distinguishes its figures, for names of records."""
        return "avg_of_avgs" if self.avg_of_avgs else ""

    def get_cluster_labels(self, query: Tensor, query_labels: Tensor, **kwargs: Any) -> Tensor:
        """As many clusters of the queries as they have labels."""
        return self.kmeans_func(query, len(query_labels.flatten().unique()))

    def calculate_NMI(self, query_labels: Tensor, cluster_labels: Tensor, **kwargs: Any) -> float:  # noqa: N802
        """Normalised mutual information of labels and clusters."""
        from sklearn.metrics import normalized_mutual_info_score

        return float(normalized_mutual_info_score(*_flat(query_labels, cluster_labels)))

    def calculate_AMI(self, query_labels: Tensor, cluster_labels: Tensor, **kwargs: Any) -> float:  # noqa: N802
        """Mutual information of labels and clusters, adjusted for chance."""
        from sklearn.metrics import adjusted_mutual_info_score

        return float(adjusted_mutual_info_score(*_flat(query_labels, cluster_labels)))

    def calculate_precision_at_1(self, **kwargs: Any) -> float | list[float]:
        """Whether the nearest matches."""
        return self._of_neighbours("precision_at_1", **kwargs)

    def calculate_mean_average_precision_at_r(self, **kwargs: Any) -> float | list[float]:
        """Average precision over the first R ranks."""
        return self._of_neighbours("mean_average_precision_at_r", **kwargs)

    def calculate_mean_average_precision(self, **kwargs: Any) -> float | list[float]:
        """Average precision over all k ranks."""
        return self._of_neighbours("mean_average_precision", **kwargs)

    def calculate_mean_reciprocal_rank(self, **kwargs: Any) -> float | list[float]:
        """One over the rank of the first match."""
        return self._of_neighbours("mean_reciprocal_rank", **kwargs)

    def calculate_r_precision(self, **kwargs: Any) -> float | list[float]:
        """The share of the first R ranks that match."""
        return self._of_neighbours("r_precision", **kwargs)

    def _of_neighbours(
        self,
        name: str,
        knn_labels: Tensor,
        query_labels: Tensor,
        not_lone_query_mask: Tensor,
        label_counts: LabelCounts,
        ref_includes_query: bool = False,
        **kwargs: Any,
    ) -> float | list[float]:
        found, own = try_getting_not_lone_labels(knn_labels, query_labels, not_lone_query_mask)
        if found is None or own is None:
            return nan_accuracy(label_counts[0], self.return_per_class)
        ranks = Ranks(matches(self.label_comparison_fn, own[:, None], found))
        relevant = relevant_counts(own, ref_includes_query, label_counts)
        return maybe_get_avg_of_avgs(ranks.scores(name, relevant), own, self.avg_of_avgs, self.return_per_class)

    def get_accuracy(
        self,
        query: Tensor | np.ndarray,
        query_labels: Tensor | np.ndarray,
        reference: Tensor | np.ndarray | None = None,
        reference_labels: Tensor | np.ndarray | None = None,
        ref_includes_query: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> dict[str, Any]:
        """All measures of one set of queries.

        Queries whose label no reference has are left out; where that are all, measures of retrieval are NaN.

        Args:
            query: (b, d).
            query_labels: (b,), or (b, columns) with a `label_comparison_fn`.
            reference: (m, d); the other queries where `None`.
            reference_labels: Their labels.
            ref_includes_query: Whether reference i is query i; it is left out then.
            include: Of the calculator's measures; all where it is empty.
            exclude: Of the calculator's measures.

        Returns:
            Name to measure.

        Raises:
            ValueError: Lengths that differ, or references that do not begin with the queries though they include them.
        """
        if (reference is None) != (reference_labels is None):
            raise ValueError("reference and reference_labels come together, one of them is missing")
        query, query_labels = self._tensor(query).float(), self._labels(query_labels)
        if reference is None or reference_labels is None:
            reference, reference_labels, ref_includes_query = query, query_labels, True
        else:
            reference, reference_labels = self._tensor(reference).float(), self._labels(reference_labels)
        for points, labels, name in ((query, query_labels, "query"), (reference, reference_labels, "reference")):
            if len(points) != len(labels):
                raise ValueError(f"{name} has {len(points)} embeddings and {len(labels)} labels")
        if ref_includes_query and reference is not query:
            count = len(query)
            if len(reference) < count or not (
                torch.allclose(query, reference[:count]) and torch.equal(query_labels, reference_labels[:count])
            ):
                raise ValueError(
                    "ref_includes_query is True, but the first references or their labels are not those of the queries"
                )
        self.curr_function_dict = self.get_function_dict(include, exclude)
        kwargs: dict[str, Any] = {
            "query": query,
            "reference": reference,
            "query_labels": query_labels,
            "reference_labels": reference_labels,
            "ref_includes_query": ref_includes_query,
            "label_comparison_fn": self.label_comparison_fn,
        }
        ready: dict[str, Any] = {}
        if set(self.requires_knn()) & set(self.get_curr_metrics()):
            counts = get_label_match_counts(query_labels, reference_labels, self.label_comparison_fn)
            lone, kept = get_lone_query_labels(query_labels, counts, ref_includes_query, self.label_comparison_fn)
            if not bool(kept.any()):
                LOGGER.warning("None of the query labels are in the reference set.")
            kwargs |= {"label_counts": counts, "lone_query_labels": lone, "not_lone_query_mask": kept}
            k = self.determine_k(counts[1], len(reference), ref_includes_query)
            plain = [name for name in self.get_curr_metrics() if name in RETRIEVAL and self._is_plain(name)]
            if found := self._neighbours(query, reference, k, kept, ref_includes_query):
                ready = self._streamed(plain, found, kwargs)
            if set(self.requires_knn()) & set(self.get_curr_metrics()) - set(ready):
                kwargs["knn_distances"], indices = self.knn_func(query, k, reference, ref_includes_query)
                kwargs["knn_labels"] = reference_labels[indices]
        if set(self.requires_clustering()) & set(self.get_curr_metrics()):
            kwargs["cluster_labels"] = self.get_cluster_labels(**kwargs)
        rest = {name: f for name, f in self.curr_function_dict.items() if name not in ready}
        computed = self._get_accuracy(rest, **kwargs)
        return {name: ready[name] if name in ready else computed[name] for name in self.curr_function_dict}

    def _get_accuracy(self, function_dict: dict[str, Callable[..., Any]], **kwargs: Any) -> dict[str, Any]:
        return {name: function(**kwargs) for name, function in function_dict.items()}

    def determine_k(self, bin_counts: Tensor, num_reference_embeddings: int, ref_includes_query: bool) -> int:
        """How many neighbours to look at; warns where that are fewer than the largest class has.

        Args:
            bin_counts: References of each label.
            num_reference_embeddings: Number of references.
            ref_includes_query: Whether one of them is the query.

        Returns:
            At least 1 and at most the references that there are.
        """
        available = num_reference_embeddings - int(ref_includes_query)
        largest = int(bin_counts.max())
        if self.k == "max_bin_count":
            return max(1, largest - int(ref_includes_query))
        if self.k is None:
            return available
        affected = {"r_precision", "mean_average_precision_at_r"} & set(self.get_curr_metrics())
        if self.k < largest and affected:
            LOGGER.warning(
                "k is %d, but a label has %d references: %s will be too low. Set k='max_bin_count'; for MAP@%d use"
                " mean_average_precision.",
                self.k,
                largest,
                " and ".join(sorted(affected)),
                self.k,
            )
        return min(self.k, available)

    def _is_plain(self, name: str) -> bool:
        """Whether no subclass has changed a measure."""
        method = self.function_keyword + name
        return getattr(type(self), method) is getattr(AccuracyCalculator, method)

    def _neighbours(
        self, query: Tensor, reference: Tensor, k: int, kept: Tensor, ref_includes_query: bool
    ) -> Iterator[Tensor] | None:
        """The nearest references of the kept queries, chunk by chunk, where we know how they are sought."""
        if type(self.knn_func) is CustomKNN:
            rows = self.knn_func.rows(query[kept], reference)
        elif type(self.knn_func) is FaissKNN and self.knn_func.index_init_fn is FlatL2 and self.knn_func.reset_before:
            if tiles_pay(query, reference, k):
                own = torch.arange(len(query)) if ref_includes_query else None
                indices = nearest_in_tiles(query, reference, k, own)[1][kept]
                return iter(indices.split(max(1, CELLS // len(reference))))
            rows = relative_distances(query[kept], reference)
        else:
            return None
        return _in_chunks(rows, kept, len(reference), k, ref_includes_query)

    def _streamed(self, names: Sequence[str], found: Iterator[Tensor], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Measures of retrieval, chunk by chunk of those queries that have something to find."""
        kept, counts, labels = (kwargs[key] for key in ("not_lone_query_mask", "label_counts", "query_labels"))
        own = labels[kept]
        if not len(own):
            return {name: nan_accuracy(counts[0], self.return_per_class) for name in names}
        relevant = relevant_counts(own, kwargs["ref_includes_query"], counts)
        scores: dict[str, list[Tensor]] = {name: [] for name in names}
        for start, hits in self._hits(found, own, kwargs["reference_labels"]):
            ranks = Ranks(hits)
            for name in names:
                scores[name].append(ranks.scores(name, relevant[start : start + len(hits)]))
        return {
            name: maybe_get_avg_of_avgs(torch.cat(parts), own, self.avg_of_avgs, self.return_per_class)
            for name, parts in scores.items()
        }

    def _hits(self, found: Iterator[Tensor], own: Tensor, other: Tensor) -> Iterator[tuple[int, Tensor]]:
        if self.label_comparison_fn is EQUALITY:  # numbers instead of labels, which may have columns
            unique = get_unique_labels(own)
            own, other = label_numbers(own, unique), label_numbers(other, unique)
        start = 0
        for nearest in found:
            end = start + len(nearest)
            yield start, matches(self.label_comparison_fn, own[start:end, None], other[nearest])
            start = end

    def _tensor(self, values: Tensor | np.ndarray) -> Tensor:
        return torch.as_tensor(values).to(self.device)

    def _labels(self, labels: Tensor | np.ndarray) -> Tensor:
        """Labels as they are, so that large numbers stay distinct; as floats for a comparison that computes."""
        tensor = self._tensor(labels)
        return tensor if self.label_comparison_fn is EQUALITY else tensor.double()


def _in_chunks(
    rows: Callable[[int, int], Tensor], kept: Tensor, width: int, k: int, ref_includes_query: bool
) -> Iterator[Tensor]:
    """The nearest of each kept query, from rows of distances."""
    itself = kept.nonzero()
    step = max(1, CELLS // width)
    for start in range(0, len(itself), step):
        distances = rows(start, min(start + step, len(itself)))
        if ref_includes_query:
            distances.scatter_(1, itself[start : start + step], torch.inf)
        yield smallest_of_rows(distances, k)[1]


def _flat(*labels: Tensor) -> list[np.ndarray]:
    return [torch.as_tensor(label).flatten().cpu().numpy() for label in labels]
