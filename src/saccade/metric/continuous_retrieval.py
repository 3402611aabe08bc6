"""How good retrieval is where relevance has degrees: the label distance of what is found, and nDCG."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.metric.inputs import check_embeddings, check_finite
from saccade.metric.nearest import nearest


def mean_label_distance_at_k(
    query_embeddings: Float[Tensor, "q d"],
    db_embeddings: Float[Tensor, "n d"],
    label_distances: Float[Tensor, "q n"],
    ks: Sequence[int],
) -> dict[int, float]:
    """Mean label distance of the K nearest items by Euclidean distance, averaged over queries (arXiv:1904.09626).

    Args:
        query_embeddings: Of any norm.
        db_embeddings: What is searched.
        label_distances: Of every query to every item.
        ks: The values of K.

    Returns:
        K to mean label distance, in the label's units; smaller is better.

    Raises:
        ValueError: Shapes that disagree, values that are not finite, negative distances, or K outside 1 to n.

    Example:
        >>> items, distances = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[4.0, 2.0, 0.0]])
        >>> mean_label_distance_at_k(torch.zeros(1, 1), items, distances, [1, 2])
        {1: 4.0, 2: 3.0}
    """
    found = _label_distances_by_rank(query_embeddings, db_embeddings, label_distances, ks)
    means = found.cumsum(dim=1) / torch.arange(1, found.shape[1] + 1, device=found.device)
    return {k: float(means[:, k - 1].mean()) for k in ks}


def ndcg_continuous(
    query_embeddings: Float[Tensor, "q d"],
    db_embeddings: Float[Tensor, "n d"],
    label_distances: Float[Tensor, "q n"],
    ks: Sequence[int],
) -> dict[int, float]:
    """Normalised discounted cumulative gain with the relevance 1 / (label distance + 1) (arXiv:1904.09626).

    For the label distances g_i of the items by rank: the sum of 1 / ((g_i + 1) log2(i + 1)) over the first K ranks,
    divided by its greatest possible value; averaged over queries.

    Args:
        query_embeddings: Of any norm; compared by Euclidean distance.
        db_embeddings: What is searched.
        label_distances: Of every query to every item.
        ks: The values of K.

    Returns:
        K to nDCG, in (0, 1]; larger is better.

    Raises:
        ValueError: Shapes that disagree, values that are not finite, negative distances, or K outside 1 to n.

    Example:
        >>> items, distances = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0, 1.0, 3.0]])
        >>> ndcg_continuous(torch.zeros(1, 1), items, distances, [3])
        {3: 1.0}
    """
    found = _label_distances_by_rank(query_embeddings, db_embeddings, label_distances, ks)
    best = label_distances.to(found).topk(found.shape[1], dim=1, largest=False, sorted=True).values
    discount = torch.arange(2, found.shape[1] + 2, device=found.device, dtype=found.dtype).log2().reciprocal()
    gains, ideal = ((discount / (g + 1)).cumsum(dim=1) for g in (found, best))
    return {k: float((gains[:, k - 1] / ideal[:, k - 1]).mean()) for k in ks}


def _label_distances_by_rank(queries: Tensor, items: Tensor, distances: Tensor, ks: Sequence[int]) -> Tensor:
    """Label distances of what is found, by rank, (q, max K), float64."""
    check_embeddings(queries, name="query embeddings")
    check_embeddings(items, queries.shape[1], "database embeddings")
    for name, embeddings in (("query embeddings", queries), ("database embeddings", items)):
        check_finite(embeddings, name)
    if distances.shape != (len(queries), len(items)):
        raise ValueError(
            f"label distances have the shape {tuple(distances.shape)}; with {len(queries)} queries and {len(items)} "
            f"items ({len(queries)}, {len(items)}) is accepted"
        )
    if not bool(torch.isfinite(distances).all()) or bool((distances < 0).any()):
        raise ValueError("label distances hold negative numbers, NaN or infinity; 0 and above is accepted")
    outside = [k for k in ks if not 1 <= k <= len(items)]
    if outside or not ks:
        raise ValueError(f"K = {outside[0] if outside else 'nothing'} is outside 1 to {len(items)}, the database")
    _, found = nearest(queries.double(), items.double(), max(ks))
    return distances.double().gather(1, found.to(distances.device))
