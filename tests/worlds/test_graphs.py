import pytest
import torch

from saccade.graph import Graph
from saccade.worlds.graphs import citation_graph


def test_it_is_a_function_of_its_arguments_alone() -> None:
    first, second, other = citation_graph(3, 400), citation_graph(3, 400), citation_graph(4, 400)
    assert torch.equal(first.edge_index, second.edge_index)
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.labels, second.labels)
    assert not torch.equal(first.labels, other.labels)


def test_it_looks_like_a_citation_graph() -> None:
    world = citation_graph(0)
    graph = Graph(world.edge_index, 2000)
    a, b = world.edge_index
    assert graph.num_edges == world.edge_index.shape[1] == 4000, "an edge is there once"
    assert not bool((a == b).any())
    same = float((world.labels[a] == world.labels[b]).double().mean())
    assert same == pytest.approx(0.82, abs=0.03)
    near = float((world.communities[a] == world.communities[b]).double().mean())
    assert 0.4 < near < same
    assert float(graph.degree.max()) > 8 * float(graph.degree.mean()), "there are hubs"
    assert 0 < len(graph.isolated) < 200
    sizes = torch.bincount(world.labels)
    assert 2 < float(sizes.max() / sizes.min()) < 8
    assert float(world.features.sum(1).mean()) == pytest.approx(17, abs=2)
    assert set(world.features.unique().tolist()) == {0.0, 1.0}


def test_difficulty_is_a_parameter() -> None:
    def separation(field_words: float) -> float:
        world = citation_graph(0, 600, field_words=field_words)
        means = torch.stack([world.features[world.labels == k].mean(0) for k in range(7)])
        return float(((world.features @ means.T).argmax(1) == world.labels).double().mean())

    assert separation(0.5) > separation(0.05) + 0.2
    mixed = citation_graph(0, 600, homophily=0.0)
    assert float((mixed.labels[mixed.edge_index[0]] == mixed.labels[mixed.edge_index[1]]).double().mean()) < 0.35


@pytest.mark.parametrize(
    "wrong", [{"num_nodes": 20}, {"num_classes": 1}, {"homophily": 1.2}, {"field_words": 0.8, "topic_words": 0.4}]
)
def test_bad_sizes(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"too few|lie in \[0, 1\]"):
        citation_graph(0, **wrong)
