import numpy as np
import pytest
import torch

from saccade.graph import Graph, diffusion_features, spectral_features
from saccade.graph.features import spectral_basis
from saccade.worlds.graphs import citation_graph


def test_diffusion_is_the_definition_and_keeps_a_constant_where_degrees_agree() -> None:
    edges = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])
    x = torch.rand(5, 3, dtype=torch.float64)
    a = torch.zeros(5, 5, dtype=torch.float64)
    a[edges[0], edges[1]] = a[edges[1], edges[0]] = 1
    a += torch.eye(5)
    s = a / (a.sum(1)[:, None] * a.sum(1)[None]).sqrt()
    expected = x
    for _ in range(4):
        expected = expected - 0.3 * (expected - s @ expected)
    torch.testing.assert_close(diffusion_features(edges, x, steps=4, alpha=0.3), expected)
    ones = torch.ones(5, 1)
    torch.testing.assert_close(diffusion_features(edges, ones), ones)


def test_the_sparse_solver_finds_what_the_dense_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    world = citation_graph(0, num_nodes=200)
    graph = Graph(world.edge_index, 200)
    values, vectors = spectral_basis(graph, 6)
    monkeypatch.setattr("saccade.graph.features.DENSE_NODES", 0)
    sparse_values, sparse_vectors = spectral_basis(graph, 6)
    torch.testing.assert_close(sparse_values, values)
    torch.testing.assert_close(sparse_vectors @ sparse_vectors.T, vectors @ vectors.T, atol=1e-7, rtol=0)
    assert values[0] > values[-1]


def test_rotation_keeps_the_space_and_the_columns_orthonormal() -> None:
    world = citation_graph(1, num_nodes=150)
    turned = spectral_features(world.edge_index, 8, num_nodes=150, dtype=torch.float64)
    plain = spectral_features(world.edge_index, 8, num_nodes=150, rotate=False, dtype=torch.float64)
    torch.testing.assert_close(turned.T @ turned, torch.eye(8, dtype=torch.float64), atol=1e-10, rtol=0)
    torch.testing.assert_close(turned @ turned.T, plain @ plain.T, atol=1e-10, rtol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: diffusion_features(e, torch.ones(3, 1), alpha=2), r"alpha lies in"),
        (lambda e: diffusion_features(e, torch.ones(3, 1), steps=-1), r"0 or more"),
        (lambda e: diffusion_features(e, torch.ones(2, 1)), r"names node 2"),
        (lambda e: spectral_features(e, k=4), r"k lies in 1..3"),
        (lambda e: spectral_features(e, k=0), r"k lies in 1..3"),
        (lambda e: spectral_features(e, k=1, tau=-1.0), r"tau is 0 or more"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.tensor([[0, 1], [1, 2]]))


def test_isolated_nodes_are_finite() -> None:
    features = spectral_features(torch.tensor([[0, 1], [1, 2]]), k=2, tau=0.0, num_nodes=5)
    assert bool(torch.isfinite(features).all())
    assert np.isfinite(diffusion_features(torch.tensor([[0], [1]]), torch.ones(4, 1)).numpy()).all()
