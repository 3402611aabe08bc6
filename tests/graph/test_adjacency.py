import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saccade.graph import Graph, normalized_adjacency

KINDS = ("DAD", "DA", "AD")


def random_edges(n: int, e: int, seed: int) -> Tensor:
    return torch.randint(n, (2, e), generator=torch.Generator().manual_seed(seed))


def dense(edges: Tensor, n: int, kind: str) -> np.ndarray:
    """The definition, slowly."""
    a = np.zeros((n, n))
    for i, j in edges.T.tolist():
        a[i, j] = a[j, i] = 1
    d = a.sum(1)
    inverse = {"DAD": -0.5}.get(kind, -1.0)
    scale = np.array([x**inverse if x > 0 else 0.0 for x in d])
    left = scale if kind in ("DAD", "DA") else np.ones(n)
    right = scale if kind in ("DAD", "AD") else np.ones(n)
    return left[:, None] * a * right[None]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 30), st.integers(0, 1000), st.sampled_from(KINDS))
def test_the_three_matrices_are_the_definition(n: int, e: int, seed: int, kind: str) -> None:
    edges = random_edges(n, e, seed)
    ours = normalized_adjacency(edges, n, kind, torch.float64)
    assert ours.layout == torch.sparse_csr
    np.testing.assert_allclose(ours.to_dense().numpy(), dense(edges, n, kind), atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_give_a_graph_gives_the_same(kind: str) -> None:
    edges = torch.tensor([[0, 1, 1, 3, 0], [1, 2, 0, 4, 1]])
    matrix = torch.zeros(6, 6)
    matrix[edges[0], edges[1]] = 1
    expected = normalized_adjacency(edges, 6, kind).to_dense()
    both = torch.cat([edges, edges.flip(0)], 1)
    for given_as in (both, matrix.to_sparse(), matrix.to_sparse_csr(), scipy.sparse.csr_matrix(matrix.numpy())):
        torch.testing.assert_close(normalized_adjacency(given_as, 6, kind).to_dense(), expected)
    torch.testing.assert_close(
        normalized_adjacency(scipy.sparse.coo_array(matrix.numpy()), 6, kind).to_dense(), expected
    )


def test_rows_of_da_and_columns_of_ad_sum_to_one_and_isolated_nodes_to_zero() -> None:
    edges = random_edges(30, 40, 3)
    graph = Graph(edges, 33)
    alone = graph.isolated
    assert {30, 31, 32} <= set(alone.tolist())
    expected = torch.ones(33, dtype=torch.float64)
    expected[alone] = 0
    torch.testing.assert_close(graph.normalized("DA", torch.float64).to_dense().sum(1), expected)
    torch.testing.assert_close(graph.normalized("AD", torch.float64).to_dense().sum(0), expected)


def test_weights_count_and_the_larger_direction_wins() -> None:
    matrix = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 4.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    symmetric = torch.tensor([[0.0, 2.0, 0.0], [2.0, 0.0, 4.0], [0.0, 4.0, 0.0]], dtype=torch.float64)
    degree = symmetric.sum(1)
    expected = symmetric / (degree[:, None] * degree[None]).sqrt()
    torch.testing.assert_close(normalized_adjacency(matrix.to_sparse(), 3, "DAD", torch.float64).to_dense(), expected)


def test_no_self_loop_is_added_and_given_ones_stay() -> None:
    assert bool((normalized_adjacency(torch.tensor([[0], [1]]), 2).to_dense().diagonal() == 0).all())
    assert float(normalized_adjacency(torch.tensor([[0, 1], [1, 1]]), 2, "DA").to_dense()[1, 1]) == 0.5


def test_a_graph_counts_its_edges_once() -> None:
    graph = Graph(torch.tensor([[0, 1, 2, 2], [1, 0, 0, 2]]), 5)
    assert (graph.num_nodes, graph.num_edges, graph.isolated.tolist()) == (5, 3, [3, 4])
    assert Graph(torch.zeros(2, 0, dtype=torch.long)).num_nodes == 0
    assert Graph.of(graph, 5) is graph
    assert graph.to("cpu") is graph
    assert graph.normalized("DAD") is graph.normalized("DAD")


BAD = [
    (lambda: Graph(torch.tensor([[0, 9], [1, 0]]), 5), ValueError, r"names node 9, but the graph has 5 nodes"),
    (lambda: Graph(torch.tensor([[0, -1], [1, 0]]), 5), ValueError, r"names node -1"),
    (lambda: Graph(torch.zeros(3, 2, dtype=torch.long), 5), ValueError, r"shape \(2, e\), but this one has \(3, 2\)"),
    (lambda: Graph(torch.rand(2, 4), 5), TypeError, r"integer node ids"),
    (lambda: Graph(torch.zeros(2, 4, dtype=torch.bool), 5), TypeError, r"integer node ids"),
    (lambda: Graph([[0, 1], [1, 0]], 5), TypeError, r"not as list"),
    (lambda: Graph(torch.zeros(2, 1, dtype=torch.long), -1), ValueError, r"0 or more nodes"),
    (lambda: Graph(scipy.sparse.csr_matrix(np.ones((2, 3)))), ValueError, r"square"),
    (lambda: Graph(torch.eye(3).to_sparse(), 4), ValueError, r"3 nodes, but num_nodes is 4"),
    (lambda: Graph((-torch.eye(3)).to_sparse()), ValueError, r"finite and not negative"),
    (lambda: Graph((torch.eye(3) * torch.nan).to_sparse()), ValueError, r"finite and not negative"),
    (lambda: normalized_adjacency(torch.tensor([[0], [1]]), 2, "DDA"), ValueError, r"'DDA': one of DAD, DA, AD"),
    (lambda: Graph.of(Graph(torch.tensor([[0], [1]])), 3), ValueError, r"has 2 nodes, but there are rows for 3"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_graphs(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
