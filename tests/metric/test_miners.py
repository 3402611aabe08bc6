"""Miners: against the definition, one tuple at a time, and against the reference library."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_metric_learning.distances as peer_distances
import pytorch_metric_learning.miners as peer_miners
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saccade.bench import peak_memory
from saccade.metric import distances, miners
from saccade.metric.inputs import ArgumentError
from saccade.metric.miners import base as miners_base
from saccade.metric.ordering import kth_smallest, order_of_rows, smallest_of_rows
from saccade.metric.tuples import all_triplets

STRATEGIES = [
    (pos, neg)
    for pos in ("hard", "semihard", "easy", "all")
    for neg in ("hard", "semihard", "easy", "all")
    if {pos, neg} not in ({"semihard"}, {"semihard", "all"})
]
CASES: list[tuple[str, dict[str, Any]]] = [
    *[
        ("TripletMarginMiner", {"margin": 0.3, "type_of_triplets": kind})
        for kind in ("all", "hard", "semihard", "easy")
    ],
    ("TripletMarginMiner", {"margin": 0.1, "distance": "CosineSimilarity"}),
    ("PairMarginMiner", {"pos_margin": 0.4, "neg_margin": 1.2}),
    ("PairMarginMiner", {"pos_margin": 0.8, "neg_margin": 0.1, "distance": "CosineSimilarity"}),
    ("MultiSimilarityMiner", {}),
    ("MultiSimilarityMiner", {"epsilon": 0.3, "distance": "LpDistance"}),
    ("BatchHardMiner", {}),
    ("BatchHardMiner", {"distance": "CosineSimilarity"}),
    *[("BatchEasyHardMiner", {"pos_strategy": pos, "neg_strategy": neg}) for pos, neg in STRATEGIES],
    ("BatchEasyHardMiner", {"allowed_pos_range": (0.2, 1.1), "allowed_neg_range": (0.6, 1.5)}),
    ("BatchEasyHardMiner", {"neg_strategy": "hard", "distance": "CosineSimilarity"}),
    ("AngularMiner", {"angle": 30}),
    ("HDCMiner", {"filter_percentage": 0.3}),
    ("HDCMiner", {"distance": "CosineSimilarity"}),
]
IDS = ["-".join([name, *map(str, kwargs.values())]) for name, kwargs in CASES]
EVERY = [getattr(miners, name) for name in miners.__all__ if name != "BaseMiner"]


def built(home: Any, distance_home: Any, name: str, kwargs: dict[str, Any], **more: Any) -> Any:
    kwargs = dict(kwargs)
    if "distance" in kwargs:
        kwargs["distance"] = getattr(distance_home, kwargs["distance"])()
    return getattr(home, name)(**kwargs, **more)


def batch(size: int = 24, classes: int = 5, seed: int = 0, dim: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, dim, dtype=torch.float64, generator=generator)
    return x, torch.randint(classes, (size,), generator=generator)


def as_sets(mined: tuple[Tensor, ...]) -> list[set[tuple[int, ...]]]:
    sides = [mined] if len(mined) == 3 else [mined[:2], mined[2:]]
    return [set(zip(*(index.tolist() for index in side), strict=True)) for side in sides]


@pytest.mark.parametrize("with_ref", [False, True])
@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=IDS)
def test_the_choice_is_that_of_the_reference_library(name: str, kwargs: dict[str, Any], with_ref: bool) -> None:
    ours, peer = built(miners, distances, name, kwargs), built(peer_miners, peer_distances, name, kwargs)
    arguments = (*batch(), *batch(17, seed=1)) if with_ref else batch()
    mined, theirs = as_sets(ours(*arguments)), as_sets(peer(*arguments))
    if name == "HDCMiner" and not with_ref:  # d_ij = d_ji: which of the last pair stays is chance there
        assert all(len(own ^ other) <= 2 for own, other in zip(mined, theirs, strict=True))
    else:
        assert mined == theirs
    assert any(mined)


@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=IDS)
def test_so_are_the_order_and_the_statistics(name: str, kwargs: dict[str, Any]) -> None:
    ours = built(miners, distances, name, kwargs, collect_stats=True)
    peer = built(peer_miners, peer_distances, name, kwargs, collect_stats=True)
    mined, theirs = ours(*batch()), peer(*batch())
    if name != "HDCMiner":
        assert all(torch.equal(own, other) for own, other in zip(mined, theirs, strict=True))
    assert set(ours._record_these_stats) == set(peer._record_these_stats)
    for stat in peer._record_these_stats:
        assert getattr(ours, stat) == pytest.approx(getattr(peer, stat), rel=1e-6), stat


def test_triplets_by_margin_one_at_a_time() -> None:
    x, y = batch(12, 3)
    d = torch.cdist(torch.nn.functional.normalize(x), torch.nn.functional.normalize(x))
    wanted: dict[str, set[tuple[int, ...]]] = {kind: set() for kind in miners.TripletMarginMiner.TYPES}
    for a, p, n in zip(*(index.tolist() for index in all_triplets(y)), strict=True):
        t = float(d[a, n] - d[a, p])
        wanted["easy" if t > 0.2 else "all"].add((a, p, n))
        if t <= 0.2:
            wanted["hard" if t <= 0 else "semihard"].add((a, p, n))
    for kind, triplets in wanted.items():
        assert as_sets(miners.TripletMarginMiner(0.2, kind)(x, y)) == [triplets]


def test_multi_similarity_by_its_inequalities() -> None:
    x, y = batch(14, 4)
    s, eps = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(x).T, 0.1
    positive, negative = set(), set()
    for i in range(14):
        own = [j for j in range(14) if y[j] == y[i] and j != i]
        other = [j for j in range(14) if y[j] != y[i]]
        if own and other:
            positive |= {(i, j) for j in own if s[i, j] - eps < max(s[i, k] for k in other)}
            negative |= {(i, j) for j in other if s[i, j] + eps > min(s[i, k] for k in own)}
    assert as_sets(miners.MultiSimilarityMiner(eps)(x, y)) == [positive, negative]


def test_the_angle_one_triplet_at_a_time() -> None:
    x, y = batch(10, 3)
    wanted = set()
    for a, p, n in zip(*(index.tolist() for index in all_triplets(y)), strict=True):
        height = float((x[n] - (x[a] + x[p]) / 2).norm())
        if math.atan(float((x[a] - x[p]).norm()) / (2 * height)) > math.radians(35):
            wanted.add((a, p, n))
    assert as_sets(miners.AngularMiner(35)(x, y)) == [wanted]
    assert len(miners.AngularMiner(90)(x, y)[0]) == 0
    assert len(miners.AngularMiner(0)(x, y)[0]) == len(all_triplets(y)[0])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch(20, 4)
    for miner in (miners.TripletMarginMiner(), miners.AngularMiner(collect_stats=True)):
        whole = miner(x, y)
        with monkeypatch.context() as patched:
            patched.setattr(miners_base, "CELLS", 50)
            parts = miner(x, y)
        assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize("miner", [miners.TripletMarginMiner(0.01, "semihard"), miners.AngularMiner(75)])
def test_no_cube_of_the_batch_is_held(miner: Any) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(600, 16) + 3 * torch.eye(300, 16).repeat(2, 1), torch.arange(600) % 150
    triplets = len(miner(x, y)[0])
    assert peak_memory(lambda: miner(x, y)) < 600**3 / 4 + 100 * triplets


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 15),
    classes=st.integers(1, 5),
    which=st.sampled_from(EVERY),
    with_ref=st.booleans(),
)
def test_no_tuple_is_of_a_wrong_class(seed: int, size: int, classes: int, which: Any, with_ref: bool) -> None:
    x, y = batch(size, classes, seed)
    r, z = batch(9, classes, seed + 1) if with_ref else (x, y)
    if which is miners.EmbeddingsAlreadyPackagedAsTriplets:
        return
    mined = which()(x, y, r, z) if with_ref else which()(x, y)
    anchors, positives, negative_anchors, negatives = mined if len(mined) == 4 else (*mined[:2], mined[0], mined[2])
    assert bool((y[anchors] == z[positives]).all())
    assert bool((y[negative_anchors] != z[negatives]).all())
    assert with_ref or bool((anchors != positives).all())
    assert all(index.dtype == torch.int64 for index in mined)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), case=st.sampled_from([case for case in CASES if case[0] != "HDCMiner"]))
def test_a_permuted_batch_gives_the_permuted_tuples(seed: int, case: tuple[str, dict[str, Any]]) -> None:
    x, y = batch(16, 4, seed)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    miner = built(miners, distances, *case)
    permuted = tuple(order[index] for index in miner(x[order], y[order]))
    assert as_sets(permuted) == as_sets(miner(x, y))


@pytest.mark.parametrize("which", EVERY)
def test_a_batch_of_one_class_or_of_all_different_is_no_error(which: Any) -> None:
    x = torch.randn(6, 4)
    for labels in (torch.zeros(6, dtype=torch.long), torch.arange(6)):
        mined = which()(x, labels)
        assert all(bool(index.lt(6).all()) for index in mined)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("which", EVERY)
def test_every_precision_is_mined_without_gradient(which: Any, dtype: torch.dtype) -> None:
    x, y = batch(12, 3)
    embeddings = x.to(dtype).requires_grad_()
    assert all(not index.requires_grad for index in which()(embeddings, y))


def test_far_points_in_many_dimensions_are_not_lost_to_underflow() -> None:
    torch.manual_seed(0)
    # one pair is very near, so that the largest weight of the batch dwarfs those of all other anchors
    x = torch.nn.functional.normalize(torch.randn(40, 2048))
    x[1] = x[0] + 1e-4 * torch.randn(2048)
    y = torch.arange(40) // 2
    y[1], y[2] = 1, 0
    ours = miners.DistanceWeightedMiner(nonzero_loss_cutoff=1.5)
    theirs = peer_miners.DistanceWeightedMiner(nonzero_loss_cutoff=1.5)
    assert len(ours(x, y)[0].unique()) == 40
    assert len(theirs(x, y)[0].unique()) < 40
    assert not ours.probabilities(x, y).isnan().any()


def test_negatives_are_drawn_as_the_weights_say() -> None:
    x, y = batch(8, 2, dim=4)
    miner = miners.DistanceWeightedMiner()
    wanted = miner.probabilities(x, y)
    counts = torch.zeros(8, 8)
    for _ in range(2000):
        anchors, _, negatives = miner(x, y)
        counts.index_put_((anchors, negatives), torch.ones(len(anchors)), accumulate=True)
    torch.testing.assert_close(counts / counts.sum(dim=1, keepdim=True).clamp(min=1), wanted.float(), atol=0.03, rtol=0)


def test_bins_give_as_many_pairs_each() -> None:
    x, y = batch(40, 4)
    miner = miners.UniformHistogramMiner(num_bins=7, pos_per_bin=3, neg_per_bin=5)
    mined = miner(x, y)
    d = torch.cdist(torch.nn.functional.normalize(x), torch.nn.functional.normalize(x))
    for (anchors, others), mask, count in (
        (mined[:2], (y[:, None] == y) & ~torch.eye(40, dtype=torch.bool), 3),
        (mined[2:], y[:, None] != y, 5),
    ):
        edges = torch.linspace(float(d[mask].min()), float(d[mask].max()), 8, dtype=torch.float64)
        place = (torch.bucketize(d[anchors, others], edges[1:-1], right=True)).bincount(minlength=7)
        exists = torch.bucketize(d[mask], edges[1:-1], right=True).bincount(minlength=7) > 0
        assert place.tolist() == (exists * count).tolist()
    assert all(len(index) == 0 for index in miner(torch.randn(1, 3), torch.zeros(1).long()))


def test_a_cascade_narrows_what_it_is_given() -> None:
    x, y = batch(12, 3)
    miner = miners.HDCMiner(0.5)
    given_pairs = miner(x, y)
    miner.set_idx_externally(given_pairs, y)
    narrower = miner(x, y)
    assert all(inner <= outer for inner, outer in zip(as_sets(narrower), as_sets(given_pairs), strict=True))
    assert len(narrower[0]) == math.ceil(len(given_pairs[0]) / 2)
    miner.reset_idx()
    assert as_sets(miner(x, y)) == as_sets(given_pairs)


def test_a_miner_of_ones_own_needs_mine_alone() -> None:
    class Nothing(miners.BaseMiner):
        def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Any:
            assert ref_emb is embeddings
            assert ref_labels is labels
            return self.chosen

    miner = Nothing(collect_stats=True)
    empty = torch.empty(0, dtype=torch.long)
    miner.chosen = (empty, empty, torch.zeros(2).long(), torch.zeros(2).long())
    miner(torch.eye(2), torch.arange(2))
    assert (miner.num_pos_pairs, miner.num_neg_pairs, miner.num_triplets) == (0, 2, 0)
    miner.chosen = (empty, empty)
    with pytest.raises(TypeError, match="2 index vectors"):
        miner(torch.eye(2), torch.arange(2))
    miner.chosen = (empty, empty, torch.zeros(2).long())
    with pytest.raises(ValueError, match=r"\[0, 0, 2\]"):
        miner(torch.eye(2), torch.arange(2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: miners.TripletMarginMiner(type_of_triplets="harder"), ValueError, "'harder'"),
        (lambda: miners.BatchEasyHardMiner("hardest"), ValueError, "pos_strategy is 'hardest'"),
        (lambda: miners.BatchEasyHardMiner("semihard", "semihard"), ValueError, "semihard is relative"),
        (lambda: miners.BatchEasyHardMiner("all", "semihard"), ValueError, "semihard is relative"),
        (lambda: miners.HDCMiner(0.0), ValueError, "filter_percentage is 0.0"),
        (lambda: miners.UniformHistogramMiner(num_bins=0), ValueError, "num_bins is 0"),
        (lambda: miners.AngularMiner(distance=distances.CosineSimilarity()), ArgumentError, "CosineSimilarity"),
        (lambda: miners.DistanceWeightedMiner(distance=distances.LpDistance(power=2)), AssertionError, "power"),
        (lambda: miners.PairMarginMiner()(torch.eye(3), torch.zeros(2)), ValueError, r"\(2,\); one for each of the 3"),
        (lambda: miners.PairMarginMiner()(torch.eye(3), torch.zeros(3, 1)), ValueError, "one for each of the 3"),
        (lambda: miners.PairMarginMiner()(torch.zeros(3, 4, 5), torch.zeros(3)), ValueError, "number, size"),
        (lambda: miners.PairMarginMiner()(torch.eye(3), torch.zeros(3), torch.eye(3)[:2]), ValueError, "without ref_l"),
        (lambda: miners.PairMarginMiner()(torch.eye(3), torch.zeros(3), None, torch.ones(3)), ValueError, "ref_emb"),
        (lambda: miners.EmbeddingsAlreadyPackagedAsTriplets()(torch.eye(4), torch.arange(4)), ValueError, "of 3"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 900),
    k=st.integers(1, 40),
    steps=st.sampled_from([3, 50, 10**6]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_smallest_come_first_and_ties_by_index(
    seed: int, width: int, k: int, steps: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randint(-steps, steps, (5, width), generator=generator) / steps).to(dtype)
    wanted = values.argsort(dim=1, stable=True)
    assert torch.equal(order_of_rows(values), wanted)
    k = min(k, width)
    found, columns = smallest_of_rows(values, k)
    assert torch.equal(columns, wanted[:, :k])
    assert torch.equal(found, values.gather(1, columns))
    assert kth_smallest(values[0], k) == values[0].sort().values[k - 1]


@pytest.mark.parametrize("width", [33, 512, 1024, 1025])
@pytest.mark.parametrize("kind", ["plain", "tied", "infinite", "outlier", "equal", "tiny"])
def test_rows_are_ordered_whatever_is_in_them(kind: str, width: int) -> None:
    """Wide enough for the sort of rounded values, and with what rounding could get wrong."""
    generator = torch.Generator().manual_seed(width)
    values = torch.randn(1 + 2**14 // width, width, generator=generator)
    if kind == "tied":
        values = values.round(decimals=1)
    elif kind == "infinite":
        drawn = torch.rand(values.shape, generator=generator)
        values = values.masked_fill(drawn < 0.3, torch.inf).masked_fill(drawn > 0.8, -torch.inf)
    elif kind == "outlier":
        values[0, 0] = 1e30
    elif kind == "equal":
        values = torch.where(values > 0, 0.0, -0.0)
    elif kind == "tiny":
        values = values * 1e-39  # below what float32 holds in full
    assert torch.equal(order_of_rows(values), values.argsort(dim=1, stable=True))
