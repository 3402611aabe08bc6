"""Extra node features that know the graph: diffusion and spectral embedding.

Source: arXiv:2010.13993, section 2.1, and the authors' code.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saccade.graph.adjacency import Edges, Graph

DENSE_NODES = 512
"""Up to here all eigenvectors are computed densely: quicker, and needed where nearly all are wanted."""


@torch.no_grad()
def diffusion_features(
    adj: Edges | Graph, x: Float[Tensor, "n f"], steps: int = 10, alpha: float = 0.5
) -> Float[Tensor, "n f"]:
    """Features averaged over neighbourhoods: `X <- (1 - alpha) X + alpha S X`, S symmetric with self-loops.

    Args:
        adj: The graph, not normalised and without self-loops.
        x: Features, float32 or float64.
        steps: How often.
        alpha: Share of the neighbours, 0 to 1.

    Returns:
        Smoothed features.

    Raises:
        ValueError: alpha outside [0, 1], a negative number of steps, or another number of nodes.

    Example:
        >>> diffusion_features(torch.tensor([[0], [1]]), torch.tensor([[1.0], [0.0]]), steps=1).flatten()
        tensor([0.7500, 0.2500])
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha lies in [0, 1], but it is {alpha}")
    if steps < 0:
        raise ValueError(f"the number of steps is 0 or more, not {steps}")
    graph = Graph.of(adj, len(x)).to(x.device)
    loops = torch.arange(len(x), device=x.device).expand(2, -1)
    spread = Graph(torch.cat([graph.edge_index, loops], 1), len(x)).normalized("DAD", x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        current, following = x.clone(), torch.empty_like(x)
        for _ in range(steps):
            torch.addmm(current, spread, current, beta=1 - alpha, alpha=alpha, out=following)
            current, following = following, current
    return current


@torch.no_grad()
def spectral_features(
    adj: Edges | Graph,
    k: int = 128,
    tau: float | None = None,
    num_nodes: int | None = None,
    rotate: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n k"]:
    """Leading eigenvectors of the regularised normalised adjacency, turned towards the clusters.

    The k leading eigenvectors V of `I + D_t^-1/2 (A + (tau / n) 1 1^T) D_t^-1/2` with `D_t = D + tau`. A column-pivoted
    QR of V^T picks k nodes far apart; the polar factor of their rows rotates the basis so that its columns look like
    clusters. The rotation does not change what a linear model can express. Computed in float64 by scipy on the CPU.

    Args:
        adj: The graph, not normalised.
        k: Number of eigenvectors.
        tau: Regularisation; the mean degree where not given.
        num_nodes: Number of nodes, where an edge list leaves the last ones out.
        rotate: Whether to turn the basis.
        dtype: Of the result.

    Returns:
        Orthonormal columns; not rotated, in the order of descending eigenvalues, with signs as scipy gives them.

    Raises:
        ValueError: k outside 1..n, or a negative tau.

    Example:
        >>> two_triangles = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]])
        >>> features = spectral_features(two_triangles, k=2)
        >>> bool(((features[:3] - features[0]).abs() < 1e-5).all()), features.shape
        (True, torch.Size([6, 2]))
    """
    import scipy.linalg

    graph = adj if isinstance(adj, Graph) else Graph(adj, num_nodes)
    if not 1 <= k <= graph.num_nodes:
        raise ValueError(f"k lies in 1..{graph.num_nodes}, the number of nodes, but it is {k}")
    vectors = spectral_basis(graph, k, tau)[1].cpu().numpy()
    if rotate:
        _, _, picked = scipy.linalg.qr(vectors.T, mode="economic", pivoting=True)
        left, _, right = scipy.linalg.svd(vectors[picked[:k]].T)
        vectors = vectors @ (left @ right)
    return torch.from_numpy(np.ascontiguousarray(vectors)).to(graph.device, dtype)


def spectral_basis(graph: Graph, k: int, tau: float | None = None) -> tuple[Float[Tensor, " k"], Float[Tensor, "n k"]]:
    """The k largest eigenvalues (descending) and eigenvectors of the regularised matrix, float64."""
    import scipy.linalg
    import scipy.sparse.linalg

    n, degree = graph.num_nodes, graph.degree.cpu().numpy()
    tau = float(degree.mean()) if tau is None else tau
    if tau < 0:
        raise ValueError(f"tau is 0 or more, not {tau}")
    total = degree + tau
    root = np.divide(1.0, np.sqrt(total), out=np.zeros(n), where=total > 0)
    row, col = graph.edge_index.cpu().numpy()
    weight = graph.weight.cpu().numpy()
    spread = scipy.sparse.csr_matrix((weight * root[row] * root[col], (row, col)), shape=(n, n))
    if n <= DENSE_NODES or 3 * k > n:
        dense = np.eye(n) + spread.toarray() + (tau / n) * np.outer(root, root)
        values, vectors = scipy.linalg.eigh(dense, subset_by_index=(n - k, n - 1))
    else:
        operator = scipy.sparse.linalg.LinearOperator(
            (n, n), matvec=lambda v: v + spread @ v + (tau / n) * root * (root @ v), dtype=np.float64
        )
        # A fixed start makes it deterministic.
        values, vectors = scipy.sparse.linalg.eigsh(operator, k=k, which="LA", v0=np.random.RandomState(0).rand(n))
    order = np.argsort(-values)
    return torch.from_numpy(values[order].copy()), torch.from_numpy(np.ascontiguousarray(vectors[:, order]))
