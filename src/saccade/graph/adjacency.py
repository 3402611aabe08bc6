"""Undirected graphs as sparse matrices, and their three normalisations."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Kind = Literal["DAD", "DA", "AD"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@runtime_checkable
class ScipySparse(Protocol):
    """A scipy sparse matrix or array, known by what it can do, so that scipy need not be imported."""

    shape: tuple[int, ...]

    def tocoo(self) -> Any:
        """The same in coordinate form."""


Edges = Tensor | ScipySparse


class Graph:
    """An undirected graph, made once and normalised as often as needed.

    Edges are made undirected, duplicates are merged, and no self-loops are added (those that are given stay).

    Args:
        edges: Edge list (2, e) of integers, each edge in one or both directions; or an (n, n) sparse matrix of weights,
            torch's or scipy's, where the larger weight wins when the directions differ.
        num_nodes: Number of nodes n; for an edge list the largest id plus one where it is not given.

    Raises:
        ValueError: An id is outside 0..n-1, a weight is negative or not finite, or shapes do not fit.
        TypeError: `edges` is none of these.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1, 2, 1], [1, 2, 1, 0]]), num_nodes=4)
        >>> graph.num_nodes, graph.num_edges, graph.isolated.tolist()
        (4, 2, [3])
    """

    def __init__(self, edges: Edges, num_nodes: int | None = None) -> None:
        if isinstance(edges, Tensor) and edges.layout == torch.strided:
            row, col, weight, n = _from_edge_list(edges, num_nodes)
        else:
            row, col, weight, n = _from_matrix(edges, num_nodes)
        # Both directions of every edge, in the order of rows, each once.
        key = torch.cat([row * n + col, col * n + row])
        if weight is None:
            key = key.unique()
            weight = torch.ones(len(key), dtype=torch.float64, device=key.device)
        else:
            key, place = key.unique(return_inverse=True)
            weight = torch.zeros(len(key), dtype=torch.float64, device=key.device).scatter_reduce(
                0, place, weight.repeat(2), "amax"
            )
        self.num_nodes = n
        self._row, self._col, self._weight = key // max(n, 1), key % max(n, 1), weight
        self._crow = torch.zeros(n + 1, dtype=torch.int64, device=key.device)
        torch.cumsum(torch.bincount(self._row, minlength=n), 0, out=self._crow[1:])
        # MKL computes with 32-bit indices: kept so, they need not be converted in every product.
        self._indices = torch.int32 if max(len(key), n) < 2**31 else torch.int64
        self._cache: dict[tuple[str, torch.dtype], Tensor] = {}

    @classmethod
    def of(cls, edges: Edges | Graph, num_nodes: int) -> Graph:
        """The graph itself where it is one already; it must have `num_nodes` nodes."""
        if not isinstance(edges, Graph):
            return cls(edges, num_nodes)
        if edges.num_nodes != num_nodes:
            raise ValueError(f"the graph has {edges.num_nodes} nodes, but there are rows for {num_nodes}")
        return edges

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self._weight.device

    @property
    def num_edges(self) -> int:
        """Undirected edges, each counted once, self-loops too."""
        return int((self._row <= self._col).sum())

    @property
    def edge_index(self) -> Int[Tensor, "2 e"]:
        """Both directions of every edge, in the order of rows."""
        return torch.stack([self._row, self._col])

    @property
    def weight(self) -> Float[Tensor, " e"]:
        """Weight of each of them, float64."""
        return self._weight

    @property
    def degree(self) -> Float[Tensor, " n"]:
        """Sum of the weights of each node's edges, float64."""
        return torch.zeros(self.num_nodes, dtype=torch.float64, device=self.device).index_add_(
            0, self._row, self._weight
        )

    @property
    def isolated(self) -> Int[Tensor, " i"]:
        """Ids of the nodes without an edge."""
        return (self._crow.diff() == 0).nonzero().flatten()

    def matrix(self, weight: Float[Tensor, " e"], dtype: torch.dtype = torch.float64) -> Tensor:
        """The sparse CSR matrix (n, n) with these values on the edges, in the order of `edge_index`."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (CSR tensor support is in beta|invariant checks)")
            return torch.sparse_csr_tensor(
                self._crow.to(self._indices),
                self._col.to(self._indices),
                weight.to(dtype),
                (self.num_nodes, self.num_nodes),
                check_invariants=False,
            )

    def normalized(self, kind: Kind = "DAD", dtype: torch.dtype = torch.float32) -> Tensor:
        """As [`normalized_adjacency`][saccade.graph.normalized_adjacency]; computed once and kept."""
        if kind not in KINDS:
            raise ValueError(f"unknown normalisation {kind!r}: one of {', '.join(KINDS)}")
        if (kind, dtype) not in self._cache:
            power = -0.5 if kind == "DAD" else -1.0
            degree = self.degree
            inverse = torch.where(degree > 0, degree.pow(power), 0.0)
            weight = self._weight
            if kind in ("DAD", "DA"):
                weight = weight * inverse[self._row]
            if kind in ("DAD", "AD"):
                weight = weight * inverse[self._col]
            self._cache[kind, dtype] = self.matrix(weight, dtype)
        return self._cache[kind, dtype]

    def to(self, device: torch.device | str) -> Graph:
        """A copy on that device; itself where it lies there."""
        if torch.device(device) == self.device:
            return self
        moved = object.__new__(Graph)
        moved.num_nodes, moved._indices, moved._cache = self.num_nodes, self._indices, {}
        for name in ("_row", "_col", "_weight", "_crow"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def __repr__(self) -> str:
        return f"Graph(num_nodes={self.num_nodes}, num_edges={self.num_edges})"


def normalized_adjacency(
    edge_index: Edges, num_nodes: int | None = None, kind: Kind = "DAD", dtype: torch.dtype = torch.float32
) -> Tensor:
    """The propagation matrix of an undirected graph, sparse CSR (n, n).

    With A the adjacency and D its degrees: DAD is D^-1/2 A D^-1/2; DA is D^-1 A, whose rows sum to 1; AD is A D^-1,
    whose columns sum to 1. Rows and columns of isolated nodes are 0. No self-loops are added.
    Source: arXiv:2010.13993, section 2.2, and the authors' code.

    Args:
        edge_index: Edge list (2, e), each edge in one or both directions, or a sparse matrix of weights (n, n).
        num_nodes: Number of nodes n; for an edge list the largest id plus one where it is not given.
        kind: Which of the three.
        dtype: Of the values.

    Returns:
        The matrix.

    Raises:
        ValueError: As [`Graph`][saccade.graph.Graph] says, or an unknown kind.
        TypeError: `edge_index` is neither an edge list nor a sparse matrix.

    Example:
        >>> path = torch.tensor([[0, 1], [1, 2]])
        >>> normalized_adjacency(path, 3, kind="DA").to_dense()
        tensor([[0.0000, 1.0000, 0.0000],
                [0.5000, 0.0000, 0.5000],
                [0.0000, 1.0000, 0.0000]])
    """
    return Graph(edge_index, num_nodes).normalized(kind, dtype)


def _from_edge_list(edges: Tensor, num_nodes: int | None) -> tuple[Tensor, Tensor, None, int]:
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise ValueError(f"an edge list has the shape (2, e), but this one has {tuple(edges.shape)}")
    if edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool:
        raise TypeError(f"an edge list holds integer node ids, but this one holds {edges.dtype}")
    edges = edges.long()
    lowest, highest = (int(edges.min()), int(edges.max())) if edges.numel() else (0, -1)
    n = highest + 1 if num_nodes is None else num_nodes
    if n < 0:
        raise ValueError(f"a graph has 0 or more nodes, not {n}")
    if lowest < 0 or highest >= n:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"the edge list names node {wrong}, but the graph has {n} nodes (ids 0 to {n - 1})")
    return edges[0], edges[1], None, n


def _from_matrix(edges: Edges, num_nodes: int | None) -> tuple[Tensor, Tensor, Tensor, int]:
    if isinstance(edges, Tensor):
        coo = edges.to_sparse_coo().coalesce()
        row, col = coo.indices()
        weight, shape = coo.values(), tuple(coo.shape)
    elif isinstance(edges, ScipySparse):
        entries = edges.tocoo().copy()
        entries.sum_duplicates()
        row, col, weight = (torch.as_tensor(values.copy()) for values in (entries.row, entries.col, entries.data))
        shape = tuple(edges.shape)
    else:
        kinds = "an edge list (2, e) or a sparse matrix of torch or scipy"
        raise TypeError(f"a graph is given as {kinds}, not as {type(edges).__name__}")
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"an adjacency matrix is square, but this one has the shape {shape}")
    if num_nodes is not None and shape[0] != num_nodes:
        raise ValueError(f"the adjacency matrix has {shape[0]} nodes, but num_nodes is {num_nodes}")
    weight = weight.to(torch.float64)
    if not bool(torch.isfinite(weight).all()) or bool((weight < 0).any()):
        raise ValueError("weights of edges are finite and not negative, but the matrix holds others")
    there = weight > 0
    return row.long()[there], col.long()[there], weight[there], shape[0]
