"""k nearest neighbours and clusters: through faiss where it is installed, and exact without it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saccade.metric.distances import BaseDistance
from saccade.metric.ordering import smallest_of_rows
from saccade.metric.tiles import nearest_in_tiles, tiles_pay

faiss: Any = importlib.import_module("faiss") if importlib.util.find_spec("faiss") else None  # the extra `search`

CELLS = 2**24
"""Distances held at a time (64 MB in float32)."""


def nearest(
    rows: Callable[[int, int], Tensor], queries: int, width: int, k: int, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k nearest references of each query, from a matrix of distances that is made in chunks of rows.

    Args:
        rows: Gives the distances of the queries from a start to an end, (end - start, width); it may be overwritten.
        queries: Number of queries.
        width: Number of references.
        k: Neighbours a query.
        own: The reference that is the query itself, one for each; it is left out.

    Returns:
        Distances and indices, (queries, k), nearest first; ties are decided by index.

    Raises:
        ValueError: There are not k references to find.
    """
    available = width - (own is not None)
    if not 1 <= k <= available:
        raise ValueError(f"k is {k}; 1 to {available} are accepted, the number of references that can be found")
    found = []
    step = max(1, CELLS // width)
    for start in range(0, queries, step):
        distances = rows(start, min(start + step, queries))
        if own is not None:
            distances.scatter_(1, own[start : start + step, None], torch.inf)
        found.append(smallest_of_rows(distances, k))
    if not found:
        return torch.empty(0, k), torch.empty(0, k, dtype=torch.long)
    values, indices = (torch.cat(part) for part in zip(*found, strict=True))
    return values, indices


def relative_distances(query: Tensor, reference: Tensor) -> Callable[[int, int], Tensor]:
    """Rows of |r|^2 - 2 q.r, which rank references as squared Euclidean distances do: |q|^2 is the same along a row.

    The norms are one more column of the product, so that a row is written once.

    Args:
        query: (b, d).
        reference: (m, d).

    Returns:
        A function of start and end.
    """
    right = torch.cat([reference, reference.square().sum(dim=1, keepdim=True)], dim=1)
    left = torch.cat([-2 * query, query.new_ones(len(query), 1)], dim=1)

    def rows(start: int, end: int) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):  # ranks are not to depend on a training's precision
            return left[start:end] @ right.T

    return rows


class FlatL2:
    """An index without compression: exact squared Euclidean distances by chunked matrix products, on any device.

    It stands where `faiss.IndexFlatL2` stands; ties are decided by index.

    Args:
        d: Width of the embeddings.

    Example:
        >>> index = FlatL2(1)
        >>> index.add(torch.tensor([[0.0], [2.0], [5.0]]))
        >>> index.search(torch.tensor([[3.0]]), 2)
        (tensor([[1., 4.]]), tensor([[1, 2]]))
    """

    def __init__(self, d: int) -> None:
        self.d = d
        self.embeddings = torch.empty(0, d)

    @property
    def ntotal(self) -> int:
        """How many embeddings it holds."""
        return len(self.embeddings)

    def add(self, embeddings: Tensor | np.ndarray) -> None:
        """Append embeddings.

        Raises:
            ValueError: Of another width.
        """
        embeddings = torch.as_tensor(embeddings).float()
        if embeddings.ndim != 2 or embeddings.shape[1] != self.d:
            raise ValueError(f"embeddings have the shape {tuple(embeddings.shape)}; (number, {self.d}) is accepted")
        held = self.embeddings.to(embeddings.device)
        self.embeddings = torch.cat([held, embeddings]) if len(held) else embeddings

    def search(self, query: Tensor | np.ndarray, k: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The k nearest of each query.

        Args:
            query: (b, d).
            k: How many.
            own: For each query the index to leave out.

        Returns:
            Squared distances and indices, (b, k).
        """
        query = torch.as_tensor(query).float()
        reference = self.embeddings.to(query.device)
        if tiles_pay(query, reference, k):
            return nearest_in_tiles(query, reference, k, own)
        values, indices = nearest(relative_distances(query, reference), len(query), len(reference), k, own)
        return values.add_(query.square().sum(dim=1, keepdim=True)).clamp_(min=0), indices


def without_self(distances: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out of k + 1 neighbours the query itself, or the farthest where it is not among them.

    Args:
        distances: (b, k + 1); query i is reference i.
        indices: The same.

    Returns:
        Both, (b, k).
    """
    itself = indices == torch.arange(len(indices), device=indices.device).unsqueeze(1)
    itself[:, -1] |= ~itself.any(dim=1)
    return tuple(part[~itself].view(len(part), -1) for part in (distances, indices))  # type: ignore[return-value]


class FaissKNN:
    """k nearest neighbours through an index: faiss's flat L2 where faiss is installed, else the same in torch.

    Args:
        reset_before: Make a new index at each call.
        reset_after: Drop the index after each call.
        index_init_fn: From the width to an index with `add` and `search`: any of faiss, or
            [`FlatL2`][saccade.metric.inference.FlatL2].
        gpus: Numbers of the GPUs for faiss.

    Raises:
        TypeError: `gpus` is no list.
        ValueError: `gpus` is empty.

    Example:
        >>> points = torch.tensor([[0.0], [2.0], [3.0]])
        >>> FaissKNN()(points, 1, points, ref_includes_query=True)
        (tensor([[4.],
                [1.],
                [1.]]), tensor([[1],
                [2],
                [1]]))
    """

    def __init__(
        self,
        reset_before: bool = True,
        reset_after: bool = True,
        index_init_fn: Callable[[int], Any] | None = None,
        gpus: Sequence[int] | None = None,
    ) -> None:
        self.reset_before = reset_before
        self.reset_after = reset_after
        self.index_init_fn = index_init_fn or (FlatL2 if faiss is None else faiss.IndexFlatL2)
        if gpus is not None and not isinstance(gpus, list | tuple):
            raise TypeError(f"gpus is {gpus!r}; a list of numbers is accepted")
        if gpus is not None and len(gpus) < 1:
            raise ValueError("gpus is empty; at least one number is needed")
        self.gpus = gpus
        self.index: Any = None

    def __call__(
        self, query: Tensor, k: int, reference: Tensor | None = None, ref_includes_query: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The k nearest references of each query.

        Args:
            query: (b, d).
            k: How many.
            reference: (m, d), added to the index; what the index holds where `None`.
            ref_includes_query: Whether reference i is query i; it is left out then.

        Returns:
            Distances and indices, (b, k), on the device of the query.

        Raises:
            ValueError: There is no index, or not k references.
        """
        if self.reset_before:
            self.index = self.index_init_fn(query.shape[1])
        if self.index is None:
            raise ValueError("there is no index; call train, or set reset_before")
        if isinstance(self.index, FlatL2):
            if reference is not None:
                self.index.add(reference)
            own = torch.arange(len(query), device=query.device) if ref_includes_query else None
            result = self.index.search(query, k, own)
        else:
            index = self.index
            if faiss is not None and (query.is_cuda or self.gpus is not None) and faiss.get_num_gpus() > 0:
                index = faiss.index_cpu_to_gpus_list(index, gpus=self.gpus) if k < 2048 else index
            if reference is not None:
                index.add(_as_numpy(reference))
            distances, indices = index.search(_as_numpy(query), k + int(ref_includes_query))
            if (indices < 0).any():
                raise ValueError(f"k is {k}, and the index found fewer of its {index.ntotal} embeddings")
            result = torch.from_numpy(distances).to(query.device), torch.from_numpy(indices).to(query.device)
            if ref_includes_query:
                result = without_self(*result)
        if self.reset_after:
            self.reset()
        return result

    def train(self, embeddings: Tensor | np.ndarray) -> None:
        """Make a new index of these embeddings."""
        self.index = self.index_init_fn(embeddings.shape[1])
        self.add(embeddings)

    def add(self, embeddings: Tensor | np.ndarray) -> None:
        """Append embeddings to the index."""
        if self.index is None:
            raise ValueError("there is no index; call train first")
        self.index.add(embeddings if isinstance(self.index, FlatL2) else _as_numpy(embeddings))

    def save(self, filename: str | Path) -> None:
        """Write the index to a file: faiss's format for its indices, a tensor for ours."""
        if isinstance(self.index, FlatL2):
            torch.save(self.index.embeddings, filename)
        else:
            faiss.write_index(self.index, str(filename))

    def load(self, filename: str | Path) -> None:
        """Read an index that `save` wrote."""
        try:
            embeddings = torch.load(filename, weights_only=True, map_location="cpu")
        except FileNotFoundError:
            raise
        except Exception:
            if faiss is None:
                raise ValueError(f"{filename} is an index of faiss, which is not installed (extra `search`)") from None
            self.index = faiss.read_index(str(filename))
            return
        self.index = FlatL2(embeddings.shape[1])
        self.index.add(embeddings)

    def reset(self) -> None:
        """Drop the index."""
        self.index = None


class CustomKNN:
    """k nearest neighbours by any distance of [`saccade.metric.distances`][saccade.metric.distances], in chunks.

    Args:
        distance: Which.
        batch_size: Queries a chunk; by memory where `None`.

    Example:
        >>> from saccade.metric.distances import CosineSimilarity
        >>> CustomKNN(CosineSimilarity())(torch.tensor([[1.0, 0.1]]), 1, torch.eye(2))[1]
        tensor([[0]])
    """

    def __init__(self, distance: BaseDistance, batch_size: int | None = None) -> None:
        self.distance = distance
        self.batch_size = batch_size

    def rows(self, query: Tensor, reference: Tensor) -> Callable[[int, int], Tensor]:
        """Rows of the matrix of distances (of similarities, negated)."""
        sign = -1 if self.distance.is_inverted else 1

        def rows(start: int, end: int) -> Tensor:
            step = self.batch_size or end - start
            parts = [self.distance(query[at : min(at + step, end)], reference) for at in range(start, end, step)]
            return sign * torch.cat(parts)

        return rows

    def __call__(
        self, query: Tensor, k: int, reference: Tensor, ref_includes_query: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As [`FaissKNN`][saccade.metric.inference.FaissKNN]; the values are those of the distance."""
        own = torch.arange(len(query), device=query.device) if ref_includes_query else None
        values, indices = nearest(self.rows(query, reference), len(query), len(reference), k, own)
        return (-values if self.distance.is_inverted else values), indices


class FaissKMeans:
    """k-means clusters: faiss where it is installed, else scikit-learn.

    Args:
        **kwargs: As for `faiss.Kmeans`: `niter`, `nredo`, `seed`, `verbose`, `gpu`; scikit-learn takes the first three.

    Example:
        >>> clusters = FaissKMeans(niter=5)(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), 2)
        >>> bool(clusters[0] == clusters[1]), bool(clusters[0] == clusters[2])
        (True, False)
    """

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs

    def __call__(self, x: Tensor | np.ndarray, nmb_clusters: int) -> Tensor:
        """Cluster numbers of rows.

        Args:
            x: (b, d).
            nmb_clusters: At most b.

        Returns:
            (b,).

        Raises:
            ValueError: More clusters than rows.
        """
        device = x.device if isinstance(x, Tensor) else torch.device("cpu")
        if not 1 <= nmb_clusters <= len(x):
            raise ValueError(f"{nmb_clusters} clusters of {len(x)} embeddings were asked for")
        points = _as_numpy(x)
        if faiss is None:
            from sklearn.cluster import KMeans

            chosen = KMeans(
                nmb_clusters,
                max_iter=self.kwargs.get("niter", 25),
                n_init=self.kwargs.get("nredo", 1),
                random_state=self.kwargs.get("seed", 1234),
            ).fit_predict(points)
        else:
            kmeans = faiss.Kmeans(points.shape[1], nmb_clusters, **{"min_points_per_centroid": 1, **self.kwargs})
            kmeans.train(points)
            chosen = kmeans.index.search(points, 1)[1][:, 0]
        return torch.as_tensor(chosen, dtype=torch.long, device=device)


def default_device(device: torch.device | str | None = None) -> torch.device:
    """The device that is named; CUDA where there is one and none is."""
    return torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")


def principal_components(x: Float[Tensor, "b d"], size: int) -> Float[Tensor, "b k"]:
    """The projections on the directions of largest variance, of the centred rows.

    Args:
        x: Rows.
        size: At most d.

    Returns:
        (b, size).
    """
    if not 1 <= size <= min(x.shape):
        raise ValueError(f"{size} components of {tuple(x.shape)} were asked for")
    centred = x.float() - x.float().mean(dim=0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    return centred @ directions[:, -size:].flip(1)


def _as_numpy(embeddings: Tensor | np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(torch.as_tensor(embeddings).detach().float().cpu().numpy())
