import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.metric import mean_label_distance_at_k, ndcg_continuous
from saccade.metric import nearest as module
from saccade.metric.nearest import nearest


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(2, 20), k=st.integers(1, 2))
def test_the_measures_are_what_sorting_gives(seed: int, n: int, k: int) -> None:
    torch.manual_seed(seed)
    queries, items, g = torch.randn(3, 4), torch.randn(n, 4), torch.rand(3, n) * 3
    means, gains = [], []
    for query, row in zip(queries.double(), g.double(), strict=True):
        order = sorted(range(n), key=lambda i: float((query - items[i]).norm()))
        means.append(sum(float(row[i]) for i in order[:k]) / k)
        gained = sum(2 ** -math.log2(float(row[i]) + 1) / math.log2(rank + 2) for rank, i in enumerate(order[:k]))
        ideal = sum(1 / (v + 1) / math.log2(rank + 2) for rank, v in enumerate(sorted(row.tolist())[:k]))
        gains.append(gained / ideal)
    assert mean_label_distance_at_k(queries, items, g, [k])[k] == pytest.approx(sum(means) / 3)
    assert ndcg_continuous(queries, items, g, [k])[k] == pytest.approx(sum(gains) / 3)


def test_a_perfect_ranking_has_one_and_a_reversed_one_less() -> None:
    items, g = torch.arange(6.0)[:, None], torch.arange(6.0)[None]
    assert ndcg_continuous(torch.zeros(1, 1), items, g, [1, 6]) == {1: 1.0, 6: 1.0}
    assert ndcg_continuous(torch.full((1, 1), 9.0), items, g, [6])[6] < 0.8


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(1, 40), copies=st.integers(1, 5))
def test_nearest_is_exact_and_ties_are_by_index(seed: int, n: int, copies: int) -> None:
    torch.manual_seed(seed)
    items = (100 + torch.randn(n, 7)).repeat(copies, 1)[torch.randperm(n * copies)]
    queries, k = 100 + torch.randn(4, 7), torch.randint(1, n * copies + 1, ()).item()
    distances, found = nearest(queries, items, int(k))
    for query, row, places in zip(queries, distances, found, strict=True):
        exact = (items - query).square().sum(1).sqrt()
        expected = sorted(range(len(items)), key=lambda i: (float(exact[i]), i))[: int(k)]
        assert places.tolist() == expected
        assert row.tolist() == exact[expected].tolist()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, items = torch.randn(20, 5), torch.randn(50, 5)
    whole = nearest(queries, items, 7)
    monkeypatch.setattr(module, "CHUNK", 170)
    for one, other in zip(nearest(queries, items, 7), whole, strict=True):
        assert torch.equal(one, other)


def test_without_queries_there_is_nothing() -> None:
    distances, found = nearest(torch.zeros(0, 3), torch.zeros(5, 3), 2)
    assert distances.shape == found.shape == (0, 2)


Q, X, G = torch.randn(3, 4), torch.randn(6, 4), torch.rand(3, 6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("measure", [mean_label_distance_at_k, ndcg_continuous])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Q, X, G.T, [1]), r"shape \(6, 3\); with 3 queries and 6 items \(3, 6\)"),
        ((Q, X[:, :2], G, [1]), r"database embeddings have the shape \(6, 2\)"),
        ((Q * torch.nan, X, G, [1]), "3 of 3 query embeddings hold NaN"),
        ((Q, X, -G, [1]), "negative numbers, NaN or infinity"),
        ((Q, X, G * torch.nan, [1]), "negative numbers, NaN or infinity"),
        ((Q, X, G, [7]), "K = 7 is outside 1 to 6"),
        ((Q, X, G, [0]), "K = 0 is outside"),
        ((Q, X, G, []), "K = nothing"),
    ],
)
def test_bad_input_is_named(measure, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(*arguments)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("items", "k"), [(X, 7), (X, 0), (X[:, :2], 1)])
def test_nearest_names_bad_input(items: torch.Tensor, k: int) -> None:
    with pytest.raises(ValueError, match=r"(is|are) accepted"):
        nearest(Q, items, k)
