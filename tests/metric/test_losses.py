"""Losses: against float64 references written out here, against the peer, and by what has to hold for any loss."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saccade.bench import peak_memory
from saccade.metric import distances, losses, reducers, regularizers, tuples
from saccade.metric.losses.sums import AllTriplets, HingeTriplets, grouped_logsumexp, masked_logsumexp
from saccade.metric.records import ModuleWithRecords

SIZES: dict[str, dict[str, Any]] = {
    "RankedListLoss": {"margin": 0.4, "Tn": 3},
    "P2SGradLoss": {"descriptors_dim": 8, "num_classes": 5},
    "ManifoldLoss": {"l": 8, "K": 4},
}
WRAPPERS = {"BaseMetricLossFunction", "WeightedLoss", "CrossBatchMemory", "MultipleLosses", "SelfSupervisedLoss"}
NAMES = [name for name in losses.__all__ if name not in WRAPPERS]
OWN_CALL = {"VICRegLoss", "ManifoldLoss"}
LABELLED = [name for name in NAMES if name not in OWN_CALL]
ORDERED = {"NPairsLoss", "InstanceLoss"}  # the order of the batch has a meaning
CLASSES = [name for name in NAMES if "num_classes" in inspect.signature(getattr(losses, name)).parameters]


def build(name: str, **more: Any) -> Any:
    sizes = SIZES.get(name)
    if sizes is None:
        needed = inspect.signature(getattr(losses, name)).parameters
        sizes = {"num_classes": 5, "embedding_size": 8} if "embedding_size" in needed else {}
    return getattr(losses, name)(**sizes, **more).double()


def batch(number: int = 20, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % classes
    return torch.randn(number, 8, generator=generator, dtype=torch.float64), labels[
        torch.randperm(number, generator=generator)
    ]


def peer(name: str) -> Any:
    return getattr(pytest.importorskip("pytorch_metric_learning.losses"), name)


# --- what holds for any loss


@pytest.mark.parametrize("name", [name for name in LABELLED if name not in ORDERED])
def test_the_order_of_a_batch_does_not_matter(name: str) -> None:
    loss = build(name)
    x, labels = batch()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    value = loss(x, labels)
    if name == "DynamicSoftMarginLoss":
        loss.hist_.zero_()  # it has a memory
    torch.testing.assert_close(loss(x[order], labels[order]), value, rtol=1e-9, atol=1e-12)


# float32 inside, a memory, weights without gradient, class vectors that are brought to unit length: see the replays
OTHER_GRADIENT = {"ManifoldLoss", "DynamicSoftMarginLoss", "CircleLoss", "P2SGradLoss"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OTHER_GRADIENT])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    loss = build(name)
    x, labels = batch(10)
    x.requires_grad_()
    view = torch.randn(10, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value(x: Tensor) -> Tensor:
        return loss(x, ref_emb=view) if name == "VICRegLoss" else loss(x, labels)

    assert torch.autograd.gradcheck(value, (x,), eps=1e-7, atol=1e-5, rtol=1e-3)


WEIGHTED = {"SmoothAPLoss", "FastAPLoss", "NCALoss", "NPairsLoss", "DynamicSoftMarginLoss", *CLASSES} - {"MarginLoss"}
PAIRWISE = {  # in triplets a pair comes as often as it has partners
    "IntraPairVarianceLoss",
    "ContrastiveLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "ThresholdConsistentMarginLoss",
    "AngularLoss",
    "NTXentLoss",
    "TupletMarginLoss",
    "LiftedStructureLoss",
}


@pytest.mark.parametrize(
    "name", [name for name in LABELLED if getattr(losses, name).takes_tuples and name not in WEIGHTED]
)
def test_the_tuple_of_all_pairs_or_triplets_is_no_tuple(name: str) -> None:
    x, labels = batch(seed=3)
    for chosen in (tuples.all_pairs(labels), tuples.all_triplets(labels)):
        if len(chosen) == 3 and name in PAIRWISE:
            continue
        torch.testing.assert_close(build(name)(x, labels, chosen), build(name)(x, labels), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LABELLED if getattr(losses, name).takes_ref and name != "NCALoss"])
def test_a_reference_set_that_is_the_batch_differs_by_self_pairs_alone(name: str) -> None:
    x, labels = batch(seed=4)
    same, different = tuples.matches_and_differences(labels)
    chosen = (*torch.where(same), *torch.where(different))
    with_ref = build(name)(x, labels, chosen, x.clone(), labels.clone())
    torch.testing.assert_close(with_ref, build(name)(x, labels, chosen), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", LABELLED)
def test_one_class_or_one_sample_gives_a_finite_loss_with_a_gradient(name: str) -> None:
    for number in (1, 3):
        x = torch.randn(number, 8, dtype=torch.float64, requires_grad=True)
        value = build(name)(x, torch.zeros(number, dtype=torch.long))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", LABELLED)
def test_equal_embeddings_give_finite_gradients(name: str) -> None:
    x = torch.ones(8, 8, dtype=torch.float64, requires_grad=True)
    build(name)(x, torch.arange(8) % 4).backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    "name", ["TripletMarginLoss", "NTXentLoss", "LiftedStructureLoss", "MarginLoss", "ContrastiveLoss"]
)
def test_a_sample_of_its_own_class_far_away_adds_no_positive(name: str) -> None:
    """A row without positives, beyond all margins, changes nothing."""
    x, labels = batch(12, 4, seed=5)
    loss = (
        build(name, distance=distances.LpDistance(normalize_embeddings=False))
        if name != "NTXentLoss"
        else build(name, distance=distances.LpDistance(normalize_embeddings=False), temperature=1.0)
    )
    far = torch.full((1, 8), 1e4, dtype=torch.float64)
    value = loss(torch.cat([x, far]), torch.cat([labels, torch.tensor([99])]))
    torch.testing.assert_close(value, loss(x, labels), rtol=1e-6, atol=1e-9)


def test_bfloat16_and_float32_are_near_float64() -> None:
    x, labels = batch(seed=6)
    for name in ("TripletMarginLoss", "NTXentLoss", "MultiSimilarityLoss", "ArcFaceLoss", "ProxyAnchorLoss"):
        torch.manual_seed(0)
        loss = build(name)
        exact = loss(x, labels)
        torch.testing.assert_close(loss.float()(x.float(), labels).double(), exact, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            rough = loss(x.float(), labels)
        torch.testing.assert_close(rough.double(), exact, rtol=0.15, atol=0.05)


@pytest.mark.parametrize("classes", [2, 12])  # many positives, looked at in the matrix, and few, looked at as a list
@pytest.mark.parametrize(
    "name",
    ["ContrastiveLoss", "IntraPairVarianceLoss", "ThresholdConsistentMarginLoss", "SignalToNoiseRatioContrastiveLoss"],
)
def test_few_positives_and_many_count_as_if_they_were_listed(name: str, classes: int) -> None:
    x, labels = batch(48, classes, seed=7)
    results = []
    for indices in (None, tuples.all_pairs(labels)):
        points = x.clone().requires_grad_()
        value = build(name)(points, labels, indices)
        value.backward()
        results.append((value, points.grad))
    torch.testing.assert_close(*results)


# --- sums without lists


@given(
    number=st.integers(2, 12),
    classes=st.integers(1, 4),
    margin=st.floats(0, 1),
    bounds=st.sampled_from([(-math.inf, math.inf), (0.0, math.inf), (0.1, 0.6), (-math.inf, 0.5)]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_hinges_are_summed_as_if_they_were_listed(
    number: int, classes: int, margin: float, bounds: tuple[float, float], seed: int
) -> None:
    x, labels = batch(number, classes, seed)
    mat = torch.cdist(x, x).requires_grad_()
    terms = HingeTriplets(AllTriplets(mat, *tuples.matches_and_differences(labels)), margin)
    sums, counts = terms.totals(*bounds)
    (gradient,) = torch.autograd.grad(sums.sum(), mat)
    listed, (anchors, *_) = terms.explicit()
    kept = (listed > bounds[0]) & (listed < bounds[1])
    expected = torch.zeros(number, dtype=torch.float64).index_add(0, anchors[kept], listed[kept])
    torch.testing.assert_close(sums, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(counts.double(), anchors[kept].bincount(minlength=number).double())
    torch.testing.assert_close(gradient, torch.autograd.grad(listed[kept].sum(), mat)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "reducer", ["MeanReducer", "SumReducer", "AvgNonZeroReducer", "PerAnchorReducer", "ClassWeightedReducer"]
)
@pytest.mark.parametrize("name", ["TripletMarginLoss", "MarginLoss", "ContrastiveLoss"])
def test_every_reducer_gives_the_same_for_compact_and_listed_terms(name: str, reducer: str) -> None:
    weights = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)
    made = getattr(reducers, reducer)(weights) if reducer == "ClassWeightedReducer" else getattr(reducers, reducer)()
    if reducer == "PerAnchorReducer" and name != "ContrastiveLoss":
        pytest.skip("it does not reduce triplets")
    x, labels = batch(seed=7)
    chosen = tuples.all_pairs(labels) if name == "ContrastiveLoss" else tuples.all_triplets(labels)
    torch.testing.assert_close(build(name, reducer=made)(x, labels), build(name, reducer=made)(x, labels, chosen))


@pytest.mark.parametrize("options", [{"swap": True}, {"smooth_loss": True}, {"swap": True, "smooth_loss": True}])
def test_chunks_of_triplets_add_up(options: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = batch(seed=8)
    whole = x.clone().requires_grad_()
    value = build("TripletMarginLoss", **options)(whole, labels)
    value.backward()
    monkeypatch.setattr("saccade.metric.losses.sums.CELLS", 50)
    parts = x.clone().requires_grad_()
    again = build("TripletMarginLoss", **options)(parts, labels)
    again.backward()
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(parts.grad, whole.grad)


@pytest.mark.parametrize("name", ["AngularLoss", "SmoothAPLoss", "PNPLoss", "DynamicSoftMarginLoss"])
def test_chunks_of_rows_add_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = batch(seed=9)
    results = []
    for cells in (2**22, 50):
        for module in ("sums", "pairs", "ranking"):
            monkeypatch.setattr(f"saccade.metric.losses.{module}.CELLS", cells)
        here = x.clone().requires_grad_()
        value = build(name)(here, labels)
        value.backward()
        results.append((value, here.grad))
    torch.testing.assert_close(results[0], results[1])


def test_logsumexp_of_nothing_is_the_lowest_number_with_no_gradient() -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    value = masked_logsumexp(x, mask)
    torch.testing.assert_close(value[0], x[0, [0, 2]].logsumexp(0))
    torch.nn.functional.softplus(value).sum().backward()
    assert (x.grad[~mask] == 0).all()
    grouped = grouped_logsumexp(x.detach()[mask], torch.tensor([0, 0]), 2)
    torch.testing.assert_close(grouped, value.detach())


# --- what the reference library gets wrong, or leaves open (docs/errata.md)


def smooth_ap(x: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Equation 8, by loops."""
    unit = torch.nn.functional.normalize(x)
    s = unit @ unit.T
    total = x.new_zeros(())
    for i in range(len(x)):
        members = [j for j in range(len(x)) if labels[j] == labels[i]]
        for p in members:
            rank = 1 + sum(torch.sigmoid((s[i, j] - s[i, p]) / temperature) for j in range(len(x)) if j != p)
            among = 1 + sum(torch.sigmoid((s[i, j] - s[i, p]) / temperature) for j in members if j != p)
            total = total + (1 - among / rank) / len(members)
    return total / len(x)


@pytest.mark.parametrize(("classes", "each"), [(3, 3), (2, 4), (4, 2)])
def test_smooth_ap_is_right_for_any_balanced_batch_in_any_order(classes: int, each: int) -> None:
    x, labels = batch(classes * each, classes, seed=10)
    torch.testing.assert_close(losses.SmoothAPLoss(0.1)(x, labels), smooth_ap(x, labels, 0.1))
    with pytest.raises(ValueError, match="MPerClassSampler"):
        losses.SmoothAPLoss()(x, torch.cat([labels[:-1], labels.max()[None] + 1]))


def test_swap_takes_the_distance_between_references() -> None:
    x, labels = batch(6, 3, seed=11)
    ref, ref_labels = batch(7, 3, seed=12)
    between = torch.cdist(torch.nn.functional.normalize(ref), torch.nn.functional.normalize(ref))
    mat = torch.cdist(torch.nn.functional.normalize(x), torch.nn.functional.normalize(ref))
    a, p, n = tuples.all_triplets(labels, ref_labels)
    hinge = (mat[a, p] - torch.minimum(mat[a, n], between[p, n]) + 0.3).relu()
    for chosen in (None, (a, p, n)):
        value = losses.TripletMarginLoss(0.3, swap=True)(x, labels, chosen, ref, ref_labels)
        torch.testing.assert_close(value, hinge[hinge > 0].mean())


def test_lifted_structure_takes_the_negatives_of_the_positive_itself() -> None:
    x, labels = batch(6, 3, seed=13)
    ref, ref_labels = batch(7, 3, seed=14)
    mat = torch.cdist(torch.nn.functional.normalize(x), torch.nn.functional.normalize(ref))
    total = []
    for a in range(6):
        for p in range(7):
            if labels[a] != ref_labels[p]:
                continue
            pushed = [torch.exp(1 - mat[a, n]) for n in range(7) if ref_labels[n] != labels[a]]
            pushed += [torch.exp(1 - mat[q, p]) for q in range(6) if labels[q] != ref_labels[p]]
            total.append((torch.stack(pushed).sum().log() + mat[a, p]).relu() ** 2 / 2)
    value = losses.LiftedStructureLoss()(x, labels, ref_emb=ref, ref_labels=ref_labels)
    torch.testing.assert_close(value, torch.stack(total).mean())


def test_threshold_consistent_margin_compares_with_the_references() -> None:
    x, labels = batch(6, 3, seed=15)
    ref, ref_labels = batch(7, 3, seed=16)
    s = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(ref).T
    same = labels[:, None] == ref_labels
    near, far = 0.9 - s[same & (s <= 0.9)], s[~same & (s >= 0.5)] - 0.5
    expected = (near.mean() if len(near) else 0) + (far.mean() if len(far) else 0)
    torch.testing.assert_close(losses.ThresholdConsistentMarginLoss()(x, labels, None, ref, ref_labels), expected)


def test_angular_loss_does_not_depend_on_the_length_of_embeddings() -> None:
    x, labels = batch(8, 4, seed=17)
    lengths = torch.linspace(0.5, 3, 8, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(losses.AngularLoss()(lengths * x, labels), losses.AngularLoss()(x, labels))
    old = losses.AngularLoss(normalize_negatives=False)
    assert not torch.allclose(old(lengths * x, labels), old(x, labels))


def test_a_single_triplet_has_a_loss() -> None:
    x, labels = torch.randn(3, 8, dtype=torch.float64), torch.tensor([0, 0, 1])
    chosen = tuple(torch.tensor([i]) for i in (0, 1, 2))
    assert losses.NTXentLoss()(x, labels, chosen) > 0


def test_outliers_of_absent_classes_have_no_center_and_the_flag_is_honoured() -> None:
    loss = losses.SubCenterArcFaceLoss(num_classes=3, embedding_size=8).double()
    x, labels = batch(8, 2, seed=18)
    outliers, centers = loss.get_outliers(x, labels)
    assert torch.isnan(centers[:, 2]).all()
    assert torch.isfinite(centers[:, :2]).all()
    assert torch.equal(loss.get_outliers(x, labels, return_dominant_centers=False), outliers)


def test_a_pair_that_is_both_positive_and_negative_is_an_error() -> None:
    x, labels = batch(4, 2)
    chosen = tuple(torch.tensor([i]) for i in (0, 1, 0, 1))
    for kind in (ValueError, AssertionError):
        with pytest.raises(kind, match="both"):
            losses.MultiSimilarityLoss()(x, labels, chosen)


def test_threshold_reducer_counts_what_its_statistics_say() -> None:
    reducer = reducers.ThresholdReducer(low=0.1, high=0.5, collect_stats=True)
    values = torch.tensor([0.0, 0.2, 0.3, 0.9])
    entry = {"losses": values, "indices": torch.arange(4), "reduction_type": "element"}
    assert reducer({"loss": entry}, torch.zeros(4, 2), torch.arange(4)) == pytest.approx(0.25)
    assert (reducer.num_past_filter, reducer.num_above_low, reducer.num_below_high) == (2, 3, 3)


def test_per_class_beta_and_class_weights_say_that_they_need_labels() -> None:
    x, labels = batch(6, 3)
    triplets = tuples.all_triplets(labels)
    with pytest.raises(ValueError, match="labels are None"):
        losses.MarginLoss(num_classes=3)(x, None, triplets)
    weighted = losses.TripletMarginLoss(reducer=reducers.ClassWeightedReducer(torch.ones(3)))
    with pytest.raises(TypeError, match="labels are None"):
        weighted(x, None, triplets)


def test_dot_product_normalises_unless_told_not_to_and_power_two_squares() -> None:
    x, _ = batch(4)
    unit = torch.nn.functional.normalize(x)
    torch.testing.assert_close(distances.DotProductSimilarity()(x), unit @ unit.T)
    torch.testing.assert_close(distances.DotProductSimilarity(normalize_embeddings=False)(x), x @ x.T)
    squared = distances.LpDistance(power=2)(x)
    torch.testing.assert_close(squared, torch.cdist(unit, unit) ** 2, atol=1e-12, rtol=1e-9)
    pairwise = distances.LpDistance(power=2).pairwise_distance(x, x.flip(0))
    torch.testing.assert_close(pairwise, (x - x.flip(0)).norm(dim=1), atol=1e-5, rtol=1e-5)


# --- cross-batch memory


def test_tuples_within_the_batch_are_found_where_the_batch_stands_on_request() -> None:
    x, labels = batch(8, 4, seed=19)
    chosen = tuples.all_triplets(labels)
    memory = losses.CrossBatchMemory(losses.TripletMarginLoss(0.3), 8, 32, locate_tuples=True).double()
    memory(torch.randn_like(x), labels.flip(0))
    memory(x, labels, chosen)
    rows = memory.curr_batch_idx
    assert torch.equal(memory.label_memory[rows[chosen[1]]], labels[chosen[0]])
    plain = losses.CrossBatchMemory(losses.TripletMarginLoss(0.3), 8, 32).double()
    plain(torch.randn_like(x), labels.flip(0))
    assert not torch.equal(plain.label_memory[chosen[1]], labels[chosen[0]])


def test_a_memory_resumes_from_its_state() -> None:
    first = losses.CrossBatchMemory(losses.ContrastiveLoss(), 8, 12).double()
    for seed in range(3):
        first(*batch(8, 4, seed))
    second = losses.CrossBatchMemory(losses.ContrastiveLoss(), 8, 12).double()
    second.load_state_dict(first.state_dict())
    assert (second.queue_idx, second.has_been_filled) == (first.queue_idx, first.has_been_filled)
    torch.testing.assert_close(second(*batch(8, 4, 9)), first(*batch(8, 4, 9)))


# --- bad input


def rows() -> list[Any]:
    x, labels = batch(6, 3)
    return [
        pytest.param(lambda: losses.TripletMarginLoss()(x, labels[:5]), ValueError, "each of the 6", id="count"),
        pytest.param(lambda: losses.TripletMarginLoss()(x, labels[:, None]), ValueError, r"\(6,\)", id="2-d labels"),
        pytest.param(lambda: losses.TripletMarginLoss()(x[0], labels), ValueError, "number, size", id="1-d embeddings"),
        pytest.param(lambda: losses.TripletMarginLoss()(x.long(), labels), TypeError, "floating", id="integers"),
        pytest.param(lambda: losses.TripletMarginLoss()(x), ValueError, "one of them is needed", id="nothing"),
        pytest.param(lambda: losses.NTXentLoss()(x, labels, (labels, labels)), ValueError, "3 .* or 4", id="arity"),
        pytest.param(lambda: losses.NPairsLoss()(x, labels, None, x, labels), ValueError, "NPairsLoss", id="no ref"),
        pytest.param(lambda: losses.PNPLoss()(x, labels, (labels,) * 3), ValueError, "PNPLoss", id="no tuple"),
        pytest.param(lambda: losses.VICRegLoss()(x, labels, ref_emb=x), ValueError, "VICRegLoss", id="no labels"),
        pytest.param(lambda: losses.ArcFaceLoss(2, 8)(x, labels), ValueError, r"label 2 .*2 classes", id="class"),
        pytest.param(lambda: losses.ArcFaceLoss(3, 8)(x, labels.double()), TypeError, "integer", id="float class"),
        pytest.param(lambda: losses.PNPLoss(variant="X"), ValueError, "'X'; Ds, Dq, Iu, Ib, O", id="variant"),
        pytest.param(lambda: losses.CircleLoss(distance=distances.LpDistance()), AssertionError, "Cos", id="distance"),
        pytest.param(lambda: losses.HistogramLoss(n_bins=10, delta=0.1), ValueError, "2 / n_bins", id="bins"),
        pytest.param(lambda: losses.CrossBatchMemory(losses.NPairsLoss(), 8), ValueError, "NPairsLoss", id="memory"),
        pytest.param(lambda: losses.SelfSupervisedLoss(losses.MarginLoss()), ValueError, "MarginLoss", id="views"),
        pytest.param(
            lambda: losses.MultipleLosses([losses.NTXentLoss()], weights=[1, 2]), ValueError, "weights", id="weights"
        ),
        pytest.param(lambda: reducers.ThresholdReducer(), ValueError, "at least one", id="threshold"),
        pytest.param(lambda: regularizers.SparseCentersRegularizer(3, 1), ValueError, "at least 2", id="centers"),
        pytest.param(lambda: distances.CosineSimilarity(normalize_embeddings=False), ValueError, "cosine", id="cosine"),
        pytest.param(lambda: distances.LpDistance()(x[None]), ValueError, "number, size", id="3-d"),
    ]


@pytest.mark.parametrize(("call", "kind", "message"), rows())
def test_bad_input(call: Any, kind: type[Exception], message: str, unchecked: None) -> None:
    with pytest.raises(kind, match=message):
        call()


# --- contract


def test_recorded_figures_follow_the_switch() -> None:
    quiet, loud = (ModuleWithRecords(collect_stats=on) for on in (False, True))
    for module in (quiet, loud):
        module.add_to_recordable_attributes(name="figure", is_stat=True)
    assert not hasattr(quiet, "figure")
    loud.figure = 3
    loud.reset_stats()
    assert loud.figure == 0
    loss = losses.TripletMarginLoss(collect_stats=True)
    assert "margin" in loss._record_these


def test_do_nothing_reducer_lists_all_terms() -> None:
    x, labels = batch(6, 3)
    listed = losses.TripletMarginLoss(reducer=reducers.DoNothingReducer())(x, labels)["loss"]
    anchors, positives, negatives = listed["indices"]
    assert len(listed["losses"]) == len(anchors) == len(tuples.all_triplets(labels)[0])
    assert (labels[anchors] == labels[positives]).all()
    assert (labels[anchors] != labels[negatives]).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"SmoothAPLoss", "AngularLoss"}])
def test_signatures_and_values_are_those_of_the_peer(name: str) -> None:
    ours, theirs = getattr(losses, name), peer(name)
    for key, parameter in inspect.signature(theirs).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        assert inspect.signature(ours).parameters[key].default == parameter.default, key
    if name in OWN_CALL:
        return
    x, labels = batch(24, 5, seed=20)
    mine = build(name)
    sizes = SIZES.get(name) or (
        {"num_classes": 5, "embedding_size": 8} if "embedding_size" in inspect.signature(ours).parameters else {}
    )
    other = theirs(**sizes).double()
    other.load_state_dict(mine.state_dict())
    values, gradients = [], []
    for loss in (mine, other):
        here = x.clone().requires_grad_()
        value = loss(here, labels).reshape(())
        value.backward()
        values.append(value)
        gradients.append(here.grad)
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "name", ["TripletMarginLoss", "MarginLoss", "NTXentLoss", "LiftedStructureLoss", "AngularLoss"]
)
def test_memory_is_that_of_a_few_distance_matrices(name: str) -> None:
    """Against a set of references 16 times the batch: no (b, m, m), and no pairs x pairs."""
    x = torch.randn(128, 16, requires_grad=True)
    references, labels = torch.randn(2048, 16), torch.arange(128) % 32
    loss = getattr(losses, name)()

    def step() -> None:
        loss(x, labels, ref_emb=references, ref_labels=torch.arange(2048) % 32).backward()

    step()
    matrix = 128 * 2048 * 4
    chunk = 5 * 4 * 2**22  # what the chunked losses hold at a time
    assert peak_memory(step) < 20 * matrix + chunk
