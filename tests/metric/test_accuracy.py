"""The accuracy calculator: against its definitions, query by query, and against the reference library."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_metric_learning.utils.accuracy_calculator as peer
import pytorch_metric_learning.utils.inference as peer_inference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance as PeerLpDistance
from torch import Tensor

from saccade.bench import peak_memory
from saccade.metric import accuracy, measures, neighbours
from saccade.metric.accuracy import AccuracyCalculator
from saccade.metric.distances import CosineSimilarity, LpDistance
from saccade.metric.inference import CustomKNN, FaissKNN, FlatL2

RETRIEVAL = measures.RETRIEVAL


def points(size: int, classes: int, seed: int = 0, dim: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, dim, generator=generator), torch.randint(classes, (size,), generator=generator)


def by_definition(query: Tensor, y: Tensor, reference: Tensor, z: Tensor, includes: bool, k: int) -> dict[str, float]:
    """One query at a time, in float64; ties by index."""
    sums: dict[str, list[float]] = {name: [] for name in RETRIEVAL}
    for i in range(len(query)):
        others = [j for j in range(len(reference)) if not (includes and j == i)]
        relevant = sum(int(z[j] == y[i]) for j in others)
        if relevant == 0:
            continue
        ranked = sorted(others, key=lambda j: (float((reference[j].double() - query[i].double()).square().sum()), j))[
            :k
        ]
        hits = [int(z[j] == y[i]) for j in ranked]
        precision = [sum(hits[: at + 1]) / (at + 1) for at in range(len(hits))]
        sums["precision_at_1"].append(hits[0])
        sums["r_precision"].append(sum(hits[:relevant]) / min(relevant, k))
        sums["mean_average_precision"].append(sum(p * h for p, h in zip(precision, hits, strict=True)) / relevant)
        at_r = [p * h for p, h in zip(precision, hits, strict=True)][:relevant]
        sums["mean_average_precision_at_r"].append(sum(at_r) / relevant)
        sums["mean_reciprocal_rank"].append(1 / (hits.index(1) + 1) if 1 in hits else 0.0)
    return {name: sum(values) / len(values) if values else math.nan for name, values in sums.items()}


def same(ours: dict[str, Any], theirs: dict[str, Any], rel: float = 1e-9) -> None:
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=rel, nan_ok=True), name


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(2, 30),
    others=st.integers(1, 40),
    classes=st.integers(1, 8),
    k=st.sampled_from([None, 1, 3, "max_bin_count"]),
    mode=st.sampled_from(["self", "ref", "ref_incl"]),
    ties=st.booleans(),
)
def test_every_measure_by_its_definition(
    seed: int, size: int, others: int, classes: int, k: Any, mode: str, ties: bool
) -> None:
    (q, y), (r, z) = points(size, classes, seed), points(others, classes, seed + 1)
    if ties:
        q, r = q.sign(), r.sign()
    if mode == "self":
        r, z, arguments = q, y, (q, y)
    elif mode == "ref":
        arguments = (q, y, r, z)  # type: ignore[assignment]
    else:
        r, z = torch.cat([q, r]), torch.cat([y, z])
        arguments = (q, y, r, z, True)  # type: ignore[assignment]
    includes = mode != "ref"
    largest = max(int((z == label).sum()) for label in y) - includes
    count = {None: len(r) - includes, "max_bin_count": max(1, largest)}.get(k, k)
    calculator = AccuracyCalculator(include=RETRIEVAL, k=k, device="cpu")
    same(calculator.get_accuracy(*arguments), by_definition(q, y, r, z, includes, min(count, len(r) - includes)))


@pytest.mark.parametrize("options", [{}, {"avg_of_avgs": True}, {"return_per_class": True}, {"k": 7}], ids=str)
@pytest.mark.parametrize("mode", ["self", "ref", "ref_incl"])
def test_the_reference_library_agrees(mode: str, options: dict[str, Any]) -> None:
    (q, y), (r, z) = points(60, 9), points(50, 7, 1)
    arguments: tuple[Any, ...] = {
        "self": (q, y), "ref": (q, y, r, z), "ref_incl": (q, y, torch.cat([q, r]), torch.cat([y, z]), True)
    }[mode]  # fmt: skip
    ours = AccuracyCalculator(include=RETRIEVAL, device="cpu", **options)
    theirs = peer.AccuracyCalculator(include=RETRIEVAL, device=torch.device("cpu"), **options)
    same(ours.get_accuracy(*arguments), theirs.get_accuracy(*arguments), rel=1e-6)


def test_the_helpers_agree_with_the_reference_library() -> None:
    (_, y), (_, z) = points(30, 9), points(40, 7, 1)
    counts = measures.get_label_match_counts(y, z, accuracy.EQUALITY)
    theirs = peer.get_label_match_counts(y, z, peer.EQUALITY)
    assert all(torch.equal(one, other) for one, other in zip(counts, theirs, strict=True))
    for includes in (True, False):
        counts = measures.get_label_match_counts(y, y if includes else z, accuracy.EQUALITY)
        for ours, other in (
            (
                measures.get_lone_query_labels(y, counts, includes, accuracy.EQUALITY),
                peer.get_lone_query_labels(y, counts, includes, peer.EQUALITY),
            ),
            (
                measures.get_relevance_mask((30, 8), y, includes, counts),
                peer.get_relevance_mask((30, 8), y, includes, counts),
            ),
        ):
            assert all(torch.equal(one, two) for one, two in zip(ours, other, strict=True))
    y = y % 7  # no lone label: in the reference library its NaN spreads over all classes
    counts = measures.get_label_match_counts(y, z, accuracy.EQUALITY)
    neighbours_labels = z[torch.randint(40, (30, 8))]
    options = {"avg_of_avgs": False, "return_per_class": True}
    rest = (False, counts, *options.values(), torch.eq)
    for name in ("r_precision", "mean_average_precision"):
        assert getattr(measures, name)(neighbours_labels, y[:, None], *rest) == pytest.approx(
            getattr(peer, name)(neighbours_labels, y[:, None], *rest), nan_ok=True
        )
    assert measures.precision_at_k(neighbours_labels, y[:, None], 4, True, False, torch.eq) == pytest.approx(
        peer.precision_at_k(neighbours_labels, y[:, None], 4, True, False, torch.eq)
    )
    assert measures.mean_reciprocal_rank(neighbours_labels, y[:, None], False, False, torch.eq) == pytest.approx(
        peer.mean_reciprocal_rank(neighbours_labels, y[:, None], False, False, torch.eq)
    )


@pytest.mark.parametrize("knn", [FaissKNN(index_init_fn=FlatL2), CustomKNN(CosineSimilarity()), None])
def test_a_measure_of_ones_own_gets_neighbours(knn: Any) -> None:
    class Mine(AccuracyCalculator):
        def calculate_precision_at_2(self, knn_labels: Tensor, query_labels: Tensor, **kwargs: Any) -> Any:
            return accuracy.precision_at_k(
                knn_labels, query_labels[:, None], 2, self.avg_of_avgs, self.return_per_class, self.label_comparison_fn
            )

        def calculate_nothing(self, query: Tensor, **kwargs: Any) -> int:
            assert "knn_labels" in kwargs
            return len(query)

        def requires_knn(self) -> list[str]:
            return [*super().requires_knn(), "precision_at_2"]

    q, y = points(30, 3)
    calculator = Mine(device="cpu", exclude=("NMI", "AMI"), knn_func=knn)
    figures = calculator.get_accuracy(q, y)
    normal = torch.nn.functional.normalize(q) if isinstance(knn, CustomKNN) else q
    nearest = y[torch.cdist(normal, normal).fill_diagonal_(torch.inf).topk(2, largest=False).indices]
    assert figures["precision_at_2"] == pytest.approx(float((nearest == y[:, None]).double().mean()))
    assert figures["nothing"] == 30
    plain = AccuracyCalculator(device="cpu", include=RETRIEVAL, knn_func=knn).get_accuracy(q, y)
    same({name: figures[name] for name in RETRIEVAL}, plain)


def test_a_changed_measure_is_the_one_that_counts() -> None:
    class Mine(AccuracyCalculator):
        def calculate_precision_at_1(self, **kwargs: Any) -> float:
            return 1 - super().calculate_precision_at_1(**kwargs)

    q, y = points(30, 3)
    ours, plain = (kind(device="cpu", include=RETRIEVAL).get_accuracy(q, y) for kind in (Mine, AccuracyCalculator))
    assert ours["precision_at_1"] == pytest.approx(1 - plain["precision_at_1"])
    assert ours["r_precision"] == plain["r_precision"]


def test_labels_are_compared_as_one_says() -> None:
    (q, y), (r, z) = points(25, 6), points(35, 6, 1)
    near = {"label_comparison_fn": lambda a, b: (a - b).abs() <= 1, "include": RETRIEVAL}
    ours = AccuracyCalculator(device="cpu", **near).get_accuracy(q, y, r, z)
    same(ours, peer.AccuracyCalculator(device=torch.device("cpu"), **near).get_accuracy(q, y, r, z), rel=1e-6)
    columns = (torch.stack([y, y % 2], 1), torch.stack([z, z % 2], 1))
    both = {"label_comparison_fn": lambda a, b: (a[..., 0] == b[..., 0]) & (a[..., 1] == b[..., 1])}
    ours = AccuracyCalculator(device="cpu", include=RETRIEVAL, **both).get_accuracy(q, columns[0], r, columns[1])
    same(ours, AccuracyCalculator(device="cpu", include=RETRIEVAL).get_accuracy(q, y, r, z))
    same(ours, AccuracyCalculator(device="cpu", include=RETRIEVAL).get_accuracy(q, columns[0], r, columns[1]))


def test_ranks_do_not_depend_on_autocast() -> None:
    q, y = points(300, 5, dim=16)
    calculator = AccuracyCalculator(include=RETRIEVAL, device="cpu")
    plain = calculator.get_accuracy(q, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert calculator.get_accuracy(q, y) == plain


def test_large_labels_stay_distinct() -> None:
    """The reference library makes labels float32, where 2^24 and 2^24 + 1 are one."""
    q = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    y = 2**24 + torch.tensor([0, 1, 0, 1])
    assert AccuracyCalculator(include=("precision_at_1",), device="cpu").get_accuracy(q, y)["precision_at_1"] == 0
    theirs = peer.AccuracyCalculator(include=("precision_at_1",), device=torch.device("cpu"))
    assert theirs.get_accuracy(q, y)["precision_at_1"] == 1


def test_the_reciprocal_rank_alone_has_its_neighbours() -> None:
    """The reference library forgets that it needs them."""
    q, y = points(20, 3)
    only = ("mean_reciprocal_rank",)
    figures = AccuracyCalculator(include=only, device="cpu").get_accuracy(q, y)
    assert figures["mean_reciprocal_rank"] == pytest.approx(by_definition(q, y, q, y, True, 19)["mean_reciprocal_rank"])
    with pytest.raises(TypeError):
        peer.AccuracyCalculator(include=only, device=torch.device("cpu")).get_accuracy(q, y)


def test_more_neighbours_than_there_are_is_all() -> None:
    """The reference library counts the last reference for each that is missing."""
    q, y, r, z = torch.zeros(1, 2), torch.tensor([1]), torch.eye(2), torch.tensor([0, 1])
    figures = AccuracyCalculator(include=RETRIEVAL, k=9, device="cpu").get_accuracy(q, y, r, z)
    assert figures["mean_average_precision"] == 0.5
    theirs = peer.AccuracyCalculator(include=RETRIEVAL, k=9, device=torch.device("cpu"))
    assert theirs.get_accuracy(q, y, r, z)["mean_average_precision"] > 1


def test_nothing_to_find_is_nan_and_said(caplog: pytest.LogCaptureFixture) -> None:
    q, r = torch.randn(4, 2), torch.randn(5, 2)
    for options in ({}, {"return_per_class": True}):
        calculator = AccuracyCalculator(include=RETRIEVAL, device="cpu", **options)
        figures = calculator.get_accuracy(q, torch.tensor([0, 1, 1, 2]), r, torch.full((5,), 9))
        values = [part for value in figures.values() for part in (value if isinstance(value, list) else [value])]
        assert len(values) == (15 if options else 5)
        assert all(math.isnan(value) for value in values)
    assert "None of the query labels" in caplog.text


def test_too_small_a_k_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    q, y = points(30, 2)
    AccuracyCalculator(include=("mean_average_precision_at_r",), k=3, device="cpu").get_accuracy(q, y)
    assert "max_bin_count" in caplog.text
    caplog.clear()
    AccuracyCalculator(include=("mean_average_precision",), k=3, device="cpu").get_accuracy(q, y)
    assert not caplog.text


@pytest.mark.parametrize("without_faiss", [False, True])
def test_clusters(monkeypatch: pytest.MonkeyPatch, without_faiss: bool) -> None:
    if without_faiss:
        monkeypatch.setattr(neighbours, "faiss", None)
    y = torch.arange(60) % 3
    x = 9 * torch.eye(3)[y] + 0.1 * torch.randn(60, 3)
    figures = AccuracyCalculator(include=("NMI", "AMI"), device="cpu").get_accuracy(x, y)
    same(figures, {"NMI": 1.0, "AMI": 1.0}, rel=1e-6)


def test_measures_are_chosen_at_each_call_and_arrays_are_taken() -> None:
    q, y = points(20, 3)
    calculator = AccuracyCalculator(exclude=("AMI", "NMI"), device="cpu")
    figures = calculator.get_accuracy(
        q.numpy(), y.numpy(), include=("precision_at_1", "r_precision"), exclude=("r_precision",)
    )
    assert list(figures) == ["precision_at_1"]
    assert calculator.get_curr_metrics() == ["precision_at_1"]
    assert AccuracyCalculator(avg_of_avgs=True, device="cpu").description() == "avg_of_avgs"


def test_memory_does_not_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (accuracy, neighbours):
        monkeypatch.setattr(module, "CELLS", 2**16)
    q, y = points(2000, 40)
    calculator = AccuracyCalculator(include=RETRIEVAL, device="cpu")
    held = peak_memory(lambda: calculator.get_accuracy(q, y))
    assert held < 2000 * 2000 * 4 / 2  # all distances would be twice as much, all neighbours eight times


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: AccuracyCalculator(include=("recall",)), ValueError, "'recall' is no measure"),
        (lambda: AccuracyCalculator(include="NMI"), TypeError, "str"),
        (lambda: AccuracyCalculator(avg_of_avgs=True, return_per_class=True), ValueError, "exclude each other"),
        (lambda: AccuracyCalculator(k=0), ValueError, "k is 0"),
        (lambda: AccuracyCalculator(k="all"), ValueError, "k is 'all'"),
        (lambda: AccuracyCalculator(label_comparison_fn=torch.eq), NotImplementedError, "exclude NMI and AMI"),
        (lambda: AccuracyCalculator().get_accuracy(torch.eye(3), torch.zeros(2)), ValueError, "3 embeddings and 2"),
        (lambda: AccuracyCalculator().get_accuracy(torch.eye(3), torch.zeros(3), torch.eye(3)), ValueError, "together"),
        (
            lambda: AccuracyCalculator().get_accuracy(torch.eye(3), torch.zeros(3), torch.ones(4, 3), torch.ones(4), 1),
            ValueError,
            "not those of the queries",
        ),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_custom_neighbours_agree_with_the_reference_library() -> None:
    (q, y), (r, z) = points(30, 4), points(40, 4, 1)
    ours = AccuracyCalculator(include=RETRIEVAL, knn_func=CustomKNN(LpDistance(p=3), batch_size=7), device="cpu")
    theirs = peer.AccuracyCalculator(
        include=RETRIEVAL, knn_func=peer_inference.CustomKNN(PeerLpDistance(p=3)), device=torch.device("cpu")
    )
    same(ours.get_accuracy(q, y, r, z), theirs.get_accuracy(q, y, r, z), rel=1e-6)
