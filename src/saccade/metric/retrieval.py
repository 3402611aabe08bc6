"""Recall@K: does a query have one of its own among its K nearest?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.metric.inputs import check_embeddings, check_finite, check_labels

CHUNK = 2**24
"""Similarities held at a time (64 MB in float32)."""


def recall_at_k(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    ks: Sequence[int],
    gallery: Float[Tensor, "m d"] | None = None,
    gallery_labels: Int[Tensor, " m"] | None = None,
) -> dict[int, float]:
    """Share of queries that have an item of their class among their K nearest by cosine similarity.

    Without a gallery every embedding queries all the others; the query itself is left out by its index, so that exact
    duplicates count. A query counts at K when fewer than K items of other classes are more similar to it than the most
    similar one of its own: ties are decided in its favour, and no neighbour list is built. A query whose class is not
    in the gallery never counts.

    Args:
        embeddings: The queries, of any norm.
        labels: Their classes.
        ks: The values of K.
        gallery: What is searched, as for In-shop; the queries themselves where `None`.
        gallery_labels: Classes of the gallery.

    Returns:
        K to recall, in [0, 1].

    Raises:
        ValueError: Wrong shapes, values that are not finite, K below 1 or above the number of items to find.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> recall_at_k(points, torch.tensor([0, 0, 1]), [1])[1] == 2 / 3
        True
    """
    check_embeddings(embeddings)
    check_labels(labels, len(embeddings))
    check_finite(embeddings)
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels come together, one of them is missing")
    alone = gallery is None or gallery_labels is None
    items, item_labels = (
        (embeddings, labels) if gallery is None or gallery_labels is None else (gallery, gallery_labels)
    )
    if not alone:
        check_embeddings(items, embeddings.shape[1], "gallery embeddings")
        check_labels(item_labels, len(items))
        check_finite(items, "gallery embeddings")
    available = len(items) - alone
    outside = [k for k in ks if not 1 <= k <= available]
    if outside:
        raise ValueError(f"K = {outside[0]} is outside 1 to {available}, the number of items that can be found")
    queries = torch.nn.functional.normalize(embeddings, dim=1)
    items = torch.nn.functional.normalize(items, dim=1)
    nearer = []
    rows = max(1, CHUNK // len(items))
    for start in range(0, len(queries), rows):
        similarity = queries[start : start + rows] @ items.T
        same = labels[start : start + rows, None] == item_labels
        if alone:
            here = torch.arange(len(similarity), device=similarity.device)
            similarity[here, start + here] = -torch.inf
            same[here, start + here] = False
        best = similarity.masked_fill(~same, -torch.inf).amax(dim=1, keepdim=True)
        rank = (similarity.masked_fill(same, -torch.inf) > best).sum(dim=1)
        nearer.append(rank.masked_fill(~same.any(dim=1), len(items)))
    ranks = torch.cat(nearer)
    return {k: float((ranks < k).double().mean()) for k in ks}


def map_at_r(embeddings: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> float:
    """Mean average precision at R (Musgrave et al., arXiv:2003.08505, section 3.2): every embedding queries the others.

    For a query with R others of its class, the mean over ranks i = 1..R of the precision at i where rank i is of its
    class, else 0. Queries without another of their class are left out.

    Args:
        embeddings: Of any norm; compared by cosine.
        labels: Their classes.

    Returns:
        In [0, 1].

    Raises:
        ValueError: Wrong shapes, values that are not finite, or no class with two samples.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> map_at_r(points, torch.tensor([0, 0, 1, 1]))
        1.0
    """
    check_embeddings(embeddings)
    check_labels(labels, len(embeddings))
    check_finite(embeddings)
    _, numbers, counts = labels.unique(return_inverse=True, return_counts=True)
    relevant = counts[numbers] - 1
    most = int(relevant.max())
    if most == 0:
        raise ValueError("no class has two samples: there is nothing to find")
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    ranks = torch.arange(1, most + 1, device=unit.device)
    scores = []
    rows = max(1, CHUNK // len(unit))
    for start in range(0, len(unit), rows):
        similarity = unit[start : start + rows] @ unit.T
        here = torch.arange(len(similarity), device=unit.device)
        similarity[here, start + here] = -torch.inf
        nearest = similarity.topk(most, dim=1).indices
        wanted = relevant[start : start + rows, None]
        hit = (labels[nearest] == labels[start : start + rows, None]) & (ranks <= wanted)
        precision = hit.cumsum(dim=1) / ranks
        scores.append((precision * hit).sum(dim=1) / wanted.squeeze(1))
    return float(torch.cat(scores)[relevant > 0].double().mean())
