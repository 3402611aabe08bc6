"""Distances and similarities between embeddings: the (b, m) matrix on which losses and miners work.

Any of them fits into any loss or miner. Similarities are *inverted*: larger means nearer. `smallest_dist`,
`largest_dist` and `margin` account for that, so that a loss is written once for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from saccade.metric.records import ModuleWithRecords


class BaseDistance(ModuleWithRecords, ABC):
    """A distance matrix, from normalised or raw embeddings; a subclass says in `compute_mat` which.

    Args:
        normalize_embeddings: Whether embeddings are divided by their `p`-norm first.
        p: Of the norm.
        power: Exponent of the entries of the matrix.
        is_inverted: Whether larger means nearer.
        collect_stats: Whether the average norms before and after normalisation are noted.

    Raises:
        ValueError: Embeddings that are not (b, d), or widths that differ.
    """

    def __init__(
        self,
        normalize_embeddings: bool = True,
        p: float = 2,
        power: float = 1,
        is_inverted: bool = False,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(collect_stats)
        self.normalize_embeddings = normalize_embeddings
        self.p = p
        self.power = power
        self.is_inverted = is_inverted
        self.add_to_recordable_attributes(list_of_names=["p", "power"])
        for when in ("initial", "final"):
            self.add_to_recordable_attributes(
                list_of_names=[f"{when}_avg_query_norm", f"{when}_avg_ref_norm"], is_stat=True
            )

    def forward(self, query_emb: Float[Tensor, "b d"], ref_emb: Float[Tensor, "m d"] | None = None) -> Tensor:
        """The distance of each query to each reference.

        Args:
            query_emb: Queries.
            ref_emb: References; the queries themselves where `None`.

        Returns:
            (b, m).
        """
        self.reset_stats()
        for name, embeddings in (("query_emb", query_emb), ("ref_emb", ref_emb)):
            if embeddings is not None and embeddings.ndim != 2:
                raise ValueError(f"{name} has the shape {tuple(embeddings.shape)}; (number, size) is accepted")
        if ref_emb is not None and ref_emb.shape[1] != query_emb.shape[1]:
            raise ValueError(f"query_emb and ref_emb have widths {query_emb.shape[1]} and {ref_emb.shape[1]}")
        query = self.maybe_normalize(query_emb)
        ref = query if ref_emb is None or ref_emb is query_emb else self.maybe_normalize(ref_emb)
        if self.collect_stats:
            with torch.no_grad():
                for when, q, r in (
                    ("initial", query_emb, query_emb if ref_emb is None else ref_emb),
                    ("final", query, ref),
                ):
                    setattr(self, f"{when}_avg_query_norm", self.get_norm(q).mean().item())
                    setattr(self, f"{when}_avg_ref_norm", self.get_norm(r).mean().item())
        return self.compute_powered(query, ref)

    def compute_powered(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """The matrix."""
        mat = self.compute_mat(query_emb, ref_emb)
        return mat if self.power == 1 else mat**self.power

    @abstractmethod
    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """The matrix, before `power`; embeddings are normalised where that was asked for."""

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """The distance of each row of one matrix to the same row of the other, (b,): no normalisation, no power."""
        pairs = zip(query_emb.split(1), ref_emb.split(1), strict=True)
        return torch.cat([query_emb.new_empty(0), *(self.compute_mat(query, ref)[0] for query, ref in pairs)])

    def smallest_dist(self, *args: Any, **kwargs: Any) -> Any:
        """`torch.min`, or `torch.max` for a similarity."""
        return torch.max(*args, **kwargs) if self.is_inverted else torch.min(*args, **kwargs)

    def largest_dist(self, *args: Any, **kwargs: Any) -> Any:
        """`torch.max`, or `torch.min` for a similarity."""
        return torch.min(*args, **kwargs) if self.is_inverted else torch.max(*args, **kwargs)

    def margin(self, x: Any, y: Any) -> Any:
        """By how much x is farther than y: x - y, or y - x for a similarity."""
        return y - x if self.is_inverted else x - y

    def normalize(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        """Divide by the `p`-norm."""
        return F.normalize(embeddings, p=self.p, dim=dim)

    def maybe_normalize(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        """Divide by the `p`-norm where `normalize_embeddings` says so."""
        return self.normalize(embeddings, dim) if self.normalize_embeddings else embeddings

    def get_norm(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        """The `p`-norm."""
        return torch.linalg.vector_norm(embeddings, ord=self.p, dim=dim)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"normalize_embeddings={self.normalize_embeddings}, p={self.p}, power={self.power}"


class LpDistance(BaseDistance):
    """The p-norm of the difference; Euclidean by default.

    Half precision is computed in float32 where torch has no kernel for it, and rounded back.

    Args:
        **kwargs: As for [`BaseDistance`][saccade.metric.distances.BaseDistance]; `p` may be infinite.

    Example:
        >>> LpDistance(normalize_embeddings=False)(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[5.]])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.is_inverted:
            raise ValueError("is_inverted is True; LpDistance is a distance: larger means farther")

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """(b, m)."""
        if query_emb.dtype in (torch.float16, torch.bfloat16):
            return torch.cdist(query_emb.float(), ref_emb.float(), p=self.p).to(query_emb.dtype)
        return torch.cdist(query_emb, ref_emb.to(query_emb.dtype), p=self.p)

    def compute_powered(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """The matrix; squared Euclidean distances take no root, which would have to be differentiated."""
        if self.p != 2 or self.power != 2 or query_emb.dtype in (torch.float16, torch.bfloat16):
            return super().compute_powered(query_emb, ref_emb)
        squares = ref_emb.square().sum(dim=1)
        product = torch.addmm(squares, query_emb, ref_emb.to(query_emb.dtype).T, alpha=-2)
        return (product + query_emb.square().sum(dim=1, keepdim=True)).clamp(min=0)

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """(b,), with torch's 1e-6 added to each difference."""
        return F.pairwise_distance(query_emb, ref_emb, p=self.p)


class DotProductSimilarity(BaseDistance):
    """The dot product. Embeddings are normalised unless `normalize_embeddings=False`.

    Args:
        **kwargs: As for [`BaseDistance`][saccade.metric.distances.BaseDistance].

    Example:
        >>> DotProductSimilarity(normalize_embeddings=False)(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[11.]])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"is_inverted": True, **kwargs})
        if not self.is_inverted:
            raise ValueError(f"is_inverted is False; {type(self).__name__} is a similarity: larger means nearer")

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """(b, m)."""
        return query_emb @ ref_emb.T

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """(b,)."""
        return (query_emb * ref_emb).sum(dim=1)


class CosineSimilarity(DotProductSimilarity):
    """The cosine of the angle: the dot product of normalised embeddings.

    Args:
        **kwargs: As for [`BaseDistance`][saccade.metric.distances.BaseDistance], without `normalize_embeddings`.

    Example:
        >>> CosineSimilarity()(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0]]))
        tensor([[1.]])
    """

    def __init__(self, **kwargs: Any) -> None:
        if not kwargs.get("normalize_embeddings", True):
            raise ValueError("normalize_embeddings is False; a cosine needs it (DotProductSimilarity does not)")
        super().__init__(**kwargs)


class SNRDistance(BaseDistance):
    """Noise over signal: var(query - reference) / var(query), variances over the features (arXiv:1904.02616, eq. 3).

    Args:
        **kwargs: As for [`BaseDistance`][saccade.metric.distances.BaseDistance].

    Example:
        >>> SNRDistance(normalize_embeddings=False)(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 2.0]]))
        tensor([[0.2500]])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.is_inverted:
            raise ValueError("is_inverted is True; SNRDistance is a distance: larger means farther")

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """(b, m): the variance of a difference is the squared distance of the centred vectors over d - 1."""
        query = query_emb - query_emb.mean(dim=1, keepdim=True)
        ref = query if ref_emb is query_emb else ref_emb - ref_emb.mean(dim=1, keepdim=True)
        signal = query.square().sum(dim=1, keepdim=True).clamp(min=torch.finfo(query.dtype).tiny)
        return torch.cdist(query, ref).square() / signal

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """(b,)."""
        return (query_emb - ref_emb).var(dim=1) / query_emb.var(dim=1)


class BatchedDistance(nn.Module):
    """Hands a distance matrix over in chunks of queries, so that it never stands in memory as a whole.

    Args:
        distance: Any distance; its attributes can be read from this one.
        iter_fn: Called as `iter_fn(matrix, start, end)` with the rows of the queries from `start` to `end`.
        batch_size: Queries a chunk.

    Example:
        >>> BatchedDistance(LpDistance(), lambda mat, start, end: print(tuple(mat.shape), start, end), 2)(torch.eye(3))
        (2, 3) 0 2
        (1, 3) 2 3
    """

    def __init__(
        self, distance: BaseDistance, iter_fn: Callable[[Tensor, int, int], Any] | None = None, batch_size: int = 32
    ) -> None:
        super().__init__()
        self.distance = distance
        self.iter_fn = iter_fn
        self.batch_size = batch_size

    def forward(self, query_emb: Float[Tensor, "b d"], ref_emb: Float[Tensor, "m d"] | None = None) -> None:
        """Hand over chunk after chunk."""
        ref_emb = query_emb if ref_emb is None else ref_emb
        for start in range(0, len(query_emb), self.batch_size):
            end = min(start + self.batch_size, len(query_emb))
            mat = self.distance(query_emb[start:end], ref_emb)
            if self.iter_fn is not None:
                self.iter_fn(mat, start, end)

    def __getattr__(self, name: str) -> Any:
        """What this module does not have, the distance has."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("distance"), name)
