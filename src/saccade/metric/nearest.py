"""Exact nearest neighbours by Euclidean distance, in chunks; equal distances are ordered by index."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 2**24
"""Distances held at a time (64 MB in float32)."""


def nearest(
    queries: Float[Tensor, "q d"], items: Float[Tensor, "n d"], k: int, norms: Float[Tensor, " n"] | None = None
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The k nearest items of each query.

    A matrix product gives distances up to rounding, from which candidates are taken with a safety margin; their
    distances are then computed from differences. So identical items have identical distances wherever they stand, and
    the order of ties does not depend on blocks or threads.

    Args:
        queries: Compared by Euclidean distance.
        items: What is searched.
        k: How many, 1 to n.
        norms: Squared lengths of the items, where they are known already.

    Returns:
        Distances, ascending, and indices of the items.

    Raises:
        ValueError: Shapes that disagree, or k outside 1 to n.

    Example:
        >>> nearest(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0]]), 2)
        (tensor([[1., 1.]]), tensor([[1, 2]]))
    """
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise ValueError(
            f"queries {tuple(queries.shape)} and items {tuple(items.shape)}: (q, d) and (n, d) are accepted"
        )
    if not 1 <= k <= len(items):
        raise ValueError(f"k is {k}; 1 to {len(items)}, the number of items, is accepted")
    norms = items.square().sum(dim=1) if norms is None else norms
    found = []
    for part in queries.split(max(1, CHUNK // len(items))):
        approximate = rough_distances(part, items, norms)
        farthest = approximate.topk(k, dim=1, largest=False).values[:, -1:]
        farthest = farthest + rounding(part, norms)
        candidates = approximate <= farthest
        for query, row in zip(part, candidates, strict=True):
            found.append(refine(query, items, row.nonzero().squeeze(1), k))
    if not found:
        return queries.new_zeros(0, k), torch.zeros(0, k, dtype=torch.int64, device=items.device)
    return torch.stack([distances for distances, _ in found]), torch.stack([indices for _, indices in found])


def rough_distances(
    queries: Float[Tensor, "q d"], items: Float[Tensor, "n d"], norms: Float[Tensor, " n"]
) -> Float[Tensor, "q n"]:
    """|q - x|^2 less |q|^2, which is the same for all items of a query; up to rounding.

    With a few queries and more items than a cache holds, the items come first in the product, and two queries at least:
    then a CPU reads the items once and on all cores.
    """
    if len(queries) >= 64 or items.numel() <= 2**22:
        return torch.addmm(norms, queries, items.T, alpha=-2)
    pair = queries if len(queries) > 1 else queries.repeat(2, 1)
    return torch.add(norms, (items @ pair.T).T[: len(queries)], alpha=-2).contiguous()


def rounding(queries: Float[Tensor, "q d"], norms: Float[Tensor, " n"]) -> Float[Tensor, "q 1"]:
    """How far a squared distance from a matrix product may be off, with room to spare."""
    scale = queries.square().sum(dim=1, keepdim=True) + norms.amax()
    return 16 * torch.finfo(queries.dtype).eps * queries.shape[1] ** 0.5 * scale


def refine(
    query: Float[Tensor, " d"], items: Float[Tensor, "n d"], candidates: Int[Tensor, " c"], k: int
) -> tuple[Float[Tensor, " k"], Int[Tensor, " k"]]:
    """The k nearest among ascending candidates, by distances from differences; ties by index."""
    distances = (items[candidates] - query).square().sum(dim=1).sqrt()
    ordered = distances.sort(stable=True)
    return ordered.values[:k], candidates[ordered.indices[:k]]


class Searcher:
    """Items prepared for many searches: by faiss where it is installed and there are many, else by `nearest`.

    Both give the same answers: faiss finds candidates, and their distances are computed anew; where its list might end
    within a tie, `nearest` decides.

    Args:
        items: What is searched, float32.
        faiss_from: Number of items from which faiss is used, if it is installed.

    Example:
        >>> Searcher(torch.eye(4))(torch.tensor([[0.0, 0.9, 0.1, 0.0]]), 2)[1]
        tensor([[1, 2]])
    """

    def __init__(self, items: Float[Tensor, "n d"], faiss_from: int = 20_000) -> None:
        self.items = items.contiguous()
        self.norms = self.items.square().sum(dim=1)
        self.flat = self._faiss() if len(items) >= faiss_from and find_spec("faiss") else None

    def __call__(self, queries: Float[Tensor, "q d"], k: int) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """The k nearest items of each query: distances, ascending, and indices; ties by index."""
        spare = 32
        if self.flat is None or k + spare > len(self.items):
            return nearest(queries, self.items, k, self.norms)
        squared, places = (
            torch.from_numpy(found) for found in self.flat.search(queries.contiguous().numpy(), k + spare)
        )
        margin = 2 * rounding(queries, self.norms)
        if bool((squared[:, -1:] <= squared[:, k - 1 : k] + margin).any()):
            return nearest(queries, self.items, k, self.norms)
        found = [refine(query, self.items, row.sort().values, k) for query, row in zip(queries, places, strict=True)]
        return torch.stack([distances for distances, _ in found]), torch.stack([indices for _, indices in found])

    def _faiss(self) -> Any:
        faiss: Any = import_module("faiss")
        flat = faiss.IndexFlatL2(self.items.shape[1])
        flat.add(self.items.numpy())
        return flat
