import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saccade.metric import map_at_r, recall_at_k, retrieval


def recall_by_sorting(x: Tensor, y: Tensor, k: int) -> float:
    x = torch.nn.functional.normalize(x.double(), dim=1)
    hits = 0
    for i in range(len(x)):
        order = sorted((j for j in range(len(x)) if j != i), key=lambda j: -float(x[i] @ x[j]))
        hits += any(y[j] == y[i] for j in order[:k])
    return hits / len(x)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(3, 25), classes=st.integers(1, 8), k=st.integers(1, 2))
def test_recall_is_what_sorting_gives(seed: int, n: int, classes: int, k: int) -> None:
    torch.manual_seed(seed)
    x, y = torch.randn(n, 5, dtype=torch.float64), torch.randint(classes, (n,))
    assert recall_at_k(x, y, [k])[k] == pytest.approx(recall_by_sorting(x, y, k))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(50, 4), torch.randint(9, (50,))
    whole = recall_at_k(x, y, [1, 3]), map_at_r(x, y)
    monkeypatch.setattr(retrieval, "CHUNK", 170)
    assert (recall_at_k(x, y, [1, 3]), map_at_r(x, y)) == whole


def test_a_duplicate_is_found_and_the_query_itself_is_not() -> None:
    """Errata: dropping the first neighbour unseen drops the duplicate instead of the query."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert recall_at_k(x, torch.tensor([0, 0, 1]), [1])[1] == pytest.approx(2 / 3)
    assert recall_at_k(x, torch.tensor([0, 1, 2]), [1, 2]) == {1: 0.0, 2: 0.0}


def test_a_query_without_anything_to_find_never_counts() -> None:
    x = torch.eye(3)
    assert recall_at_k(x, torch.tensor([0, 1, 2]), [2], x, torch.tensor([0, 1, 9]))[2] == pytest.approx(2 / 3)


def test_map_at_r_by_hand() -> None:
    angles = torch.tensor([0.0, 0.1, 0.25, 0.5])
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    y = torch.tensor([0, 1, 0, 0])  # the first query ranks 1, 2, 3: wrong, right -> (0 + 1/2) / 2
    ranks = {0: (0 + 1 / 2) / 2, 2: (0 + 1 / 2) / 2, 3: (1 + 0) / 2}
    assert map_at_r(x, y) == pytest.approx(sum(ranks.values()) / 3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: recall_at_k(x, y, [4]), "K = 4 is outside 1 to 3"),
        (lambda x, y: recall_at_k(x, y, [0]), "K = 0 is outside"),
        (lambda x, y: recall_at_k(x, y, [1], x), "come together"),
        (lambda x, y: recall_at_k(x * torch.nan, y, [1]), "4 of 4 embeddings hold NaN or infinity"),
        (lambda x, y: recall_at_k(x, y, [1], x[:, :2], y), r"gallery embeddings have the shape \(4, 2\)"),
        (lambda x, y: map_at_r(x, torch.arange(4)), "no class has two samples"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]))
