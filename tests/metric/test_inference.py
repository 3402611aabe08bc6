"""Neighbours, matches, clusters, and the network around them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_metric_learning.utils.inference as peer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import distances as peer_distances
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from saccade.metric import neighbours, tiles
from saccade.metric.accuracy import AccuracyCalculator
from saccade.metric.distances import CosineSimilarity, LpDistance, SNRDistance
from saccade.metric.inference import (
    CustomKNN,
    FaissKMeans,
    FaissKNN,
    FlatL2,
    InferenceModel,
    MatchFinder,
    principal_components,
)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(2, 60),
    k=st.integers(1, 20),
    includes=st.booleans(),
    cells=st.sampled_from([1, 100, 2**24]),
)
def test_neighbours_are_the_nearest_and_ties_go_by_index(
    seed: int, size: int, k: int, includes: bool, cells: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randint(3, (size, 3), generator=generator).float()  # many ties, exact arithmetic
    query = reference[: max(1, size // 2)]
    k = min(k, size - includes)
    kept, neighbours.CELLS = neighbours.CELLS, cells
    try:
        distances, indices = FaissKNN(index_init_fn=FlatL2)(query, k, reference, includes)
    finally:
        neighbours.CELLS = kept
    for i, own in enumerate(query):
        others = [j for j in range(size) if not (includes and j == i)]
        wanted = sorted(others, key=lambda j: (float((reference[j] - own).square().sum()), j))[:k]
        assert indices[i].tolist() == wanted
        torch.testing.assert_close(distances[i], (reference[wanted] - own).square().sum(dim=1))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(2, 60),
    k=st.integers(1, 20),
    tile=st.integers(1, 70),
    own=st.sampled_from(["none", "itself", "another"]),
    alike=st.booleans(),
)
def test_tiles_find_what_whole_rows_find(seed: int, size: int, k: int, tile: int, own: str, alike: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randint(3, (size, 3), generator=generator).float()  # many ties, exact arithmetic
    query = reference if alike else reference[: max(1, size // 2)].clone()
    left_out = {
        "none": None,
        "itself": torch.arange(len(query)),
        "another": torch.randint(size, (len(query),), generator=generator),
    }[own]
    k = min(k, size - (left_out is not None))
    distances = (query[:, None] - reference).square().sum(dim=2)
    if left_out is not None:
        distances.scatter_(1, left_out[:, None], torch.inf)
    kept, tiles.TILE = tiles.TILE, tile
    try:
        values, indices = tiles.nearest_in_tiles(query, reference, k, left_out)
    finally:
        tiles.TILE = kept
    wanted = distances.sort(dim=1, stable=True)
    assert torch.equal(indices, wanted.indices[:, :k])
    assert torch.equal(values, wanted.values[:, :k])


def test_accuracy_by_tiles_is_that_of_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels = torch.randn(300, 8), torch.arange(300) % 70
    cases = [(points, labels), (points[:90], labels[:90], points, labels)]
    calculator = AccuracyCalculator(k="max_bin_count", exclude=("NMI", "AMI"), device="cpu")
    wanted = [calculator.get_accuracy(*case) for case in cases]
    monkeypatch.setattr(tiles, "TILE", 7)
    assert tiles.tiles_pay(points, points, 5)
    assert [calculator.get_accuracy(*case) for case in cases] == wanted


@pytest.mark.parametrize("includes", [False, True])
def test_faiss_finds_the_same(includes: bool) -> None:
    pytest.importorskip("faiss")
    reference = torch.randn(500, 16)
    query = reference[:40] if includes else torch.randn(40, 16)
    found = [FaissKNN(index_init_fn=make)(query, 7, reference, includes) for make in (None, FlatL2)]
    found.append(peer.FaissKNN()(query, 7, reference, includes))
    for distances, indices in found[1:]:
        assert torch.equal(indices, found[0][1])
        torch.testing.assert_close(distances, found[0][0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["LpDistance", "CosineSimilarity", "SNRDistance"])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_any_distance_finds_what_the_reference_library_finds(name: str, batch_size: int | None) -> None:
    ours = {"LpDistance": LpDistance(p=1), "CosineSimilarity": CosineSimilarity(), "SNRDistance": SNRDistance()}[name]
    theirs = getattr(peer_distances, name)(**({"p": 1} if name == "LpDistance" else {}))
    reference = torch.randn(50, 8, dtype=torch.float64)
    for query, includes in ((reference[:20], True), (torch.randn(9, 8, dtype=torch.float64), False)):
        found = CustomKNN(ours, batch_size)(query, 5, reference, includes)
        wanted = peer.CustomKNN(theirs)(query, 5, reference, includes)
        torch.testing.assert_close(found[0], wanted[0])
        assert torch.equal(found[1], wanted[1])


@pytest.mark.parametrize("without_faiss", [False, True])
def test_an_index_is_trained_extended_saved_and_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, without_faiss: bool
) -> None:
    if without_faiss:
        monkeypatch.setattr(neighbours, "faiss", None)
    network = nn.Linear(6, 4)
    model = InferenceModel(network, data_device="cpu")
    images = torch.randn(20, 6)
    model.train_knn(images[:12], batch_size=5)
    model.add_to_knn(TensorDataset(images[12:], torch.zeros(8)), batch_size=3)
    assert model.get_nearest_neighbors(images, k=1)[1].flatten().tolist() == list(range(20))
    model.save_knn_func(tmp_path / "index")
    other = InferenceModel(network, data_device="cpu")
    other.load_knn_func(tmp_path / "index")
    for one, two in zip(
        model.get_nearest_neighbors(images, k=3), other.get_nearest_neighbors(images, k=3), strict=True
    ):
        torch.testing.assert_close(one, two)
    assert isinstance(other.knn_func.index, FlatL2) == without_faiss


def test_matches_agree_with_the_reference_library() -> None:
    network, images, others = nn.Linear(6, 2), torch.randn(9, 6), torch.randn(5, 6)
    ours = InferenceModel(network, match_finder=MatchFinder(CosineSimilarity(), 0.6), data_device="cpu")
    theirs = peer.InferenceModel(
        network,
        match_finder=peer.MatchFinder(peer_distances.CosineSimilarity(), 0.6),
        data_device=torch.device("cpu"),
        knn_func=object(),
    )
    for arguments in ((images,), (images, others), (images, others, 0.1)):
        assert np.array_equal(ours.get_matches(*arguments), theirs.get_matches(*arguments))
        assert ours.get_matches(*arguments, return_tuples=True) == theirs.get_matches(*arguments, return_tuples=True)
    assert np.array_equal(ours.is_match(images[:5], others), theirs.is_match(images[:5], others))
    assert ours.is_match(images[:1], images[:1]) is True
    assert ours.is_match(list(images[:1]), list(-images[:1] - 2 * network.bias.detach().sum()), threshold=2.0) is False
    far = MatchFinder(LpDistance(), 0.5)
    assert far.is_match(torch.eye(2), torch.eye(2).flip(0)).tolist() == [False, False]


@pytest.mark.parametrize("without_faiss", [False, True])
def test_clusters_part_what_is_apart(monkeypatch: pytest.MonkeyPatch, without_faiss: bool) -> None:
    if without_faiss:
        monkeypatch.setattr(neighbours, "faiss", None)
    x = torch.cat([torch.randn(30, 4) * 0.01 + at for at in (0, 5, 10)])
    clusters = FaissKMeans(niter=20, seed=0, nredo=5)(x, 3)
    assert clusters.dtype == torch.int64
    assert len(clusters.unique()) == 3
    assert all(len(part.unique()) == 1 for part in clusters.split(30))
    assert FaissKMeans()(x.numpy(), 1).tolist() == [0] * 90


def test_components_keep_the_variance() -> None:
    x = torch.randn(200, 3) @ torch.diag(torch.tensor([5.0, 1.0, 0.01])) @ torch.linalg.qr(torch.randn(3, 3))[0]
    kept = principal_components(x, 2)
    singular = torch.linalg.svdvals(x - x.mean(dim=0))
    torch.testing.assert_close(kept.square().sum(dim=0).sqrt(), singular[:2], rtol=1e-4, atol=1e-4)


def test_embeddings_come_from_lists_and_any_input() -> None:
    class Trunk(nn.Module):
        def forward(self, words: list[str] | Tensor) -> Tensor:
            return torch.tensor([[float(len(word)), 1.0] for word in words]) if isinstance(words, list) else words

    model = InferenceModel(Trunk(), normalize_embeddings=False, data_device="cpu")
    assert model.get_embeddings(["a", "bcd"]).tolist() == [[1.0, 1.0], [3.0, 1.0]]
    assert model.get_embeddings([torch.ones(2), torch.zeros(2)]).tolist() == [[1.0, 1.0], [0.0, 0.0]]
    model.train_knn(["a", "bcd", "efghij"], batch_size=2)
    assert model.get_nearest_neighbors(["xyz"], 1)[1].tolist() == [[1]]


def untrained() -> Any:
    return FaissKNN(reset_before=False, index_init_fn=FlatL2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FaissKNN(gpus=0), TypeError, "gpus is 0"),
        (lambda: FaissKNN(gpus=[]), ValueError, "gpus is empty"),
        (lambda: untrained()(torch.eye(2), 1), ValueError, "no index"),
        (lambda: untrained().add(torch.eye(2)), ValueError, "no index"),
        (lambda: FaissKNN(index_init_fn=FlatL2)(torch.eye(2), 3, torch.eye(2)), ValueError, "k is 3; 1 to 2"),
        (lambda: FaissKNN()(torch.eye(2), 3, torch.eye(2)), ValueError, "k is 3"),
        (lambda: CustomKNN(LpDistance())(torch.eye(2), 2, torch.eye(2), True), ValueError, "k is 2; 1 to 1"),
        (lambda: FlatL2(3).add(torch.eye(2)), ValueError, r"\(number, 3\)"),
        (lambda: FaissKMeans()(torch.eye(2), 3), ValueError, "3 clusters of 2"),
        (lambda: MatchFinder(LpDistance()).is_match(torch.eye(2), torch.eye(2)), ValueError, "threshold is None"),
        (lambda: InferenceModel(nn.Identity()).train_knn(3), TypeError, "int came"),
        (lambda: principal_components(torch.eye(3), 4), ValueError, "4 components"),
        (lambda: FaissKNN().load("no such file"), FileNotFoundError, "no such file"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
