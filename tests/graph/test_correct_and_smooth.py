import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saccade.graph import (
    CorrectAndSmooth,
    Graph,
    LabelPropagation,
    correct_and_smooth_all,
    draw_settings,
    normalized_adjacency,
    propagate,
    tune,
)

N, K = 17, 4


def problem(seed: int = 0, n: int = N, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Probabilities, labels, labelled ids and edges; the last node is isolated."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(n - 1, (2, 2 * n), generator=generator)
    edges = edges[:, edges[0] != edges[1]]
    prob = torch.randn(n, K, generator=generator, dtype=torch.float64).mul(2).softmax(1).to(dtype)
    labels = torch.randint(K, (n,), generator=generator)
    return prob, labels, torch.randperm(n, generator=generator)[: n // 2], edges


def slow(setting: CorrectAndSmooth, prob: Tensor, labels: Tensor, labelled: Tensor, edges: Tensor) -> Tensor:
    """The card's equations in loops over dense float64 arrays."""
    z, n = prob.numpy().astype(np.float64), len(prob)
    known = np.eye(K)[labels[labelled].numpy()]
    rows = labelled.numpy()

    def spread(kind, g, alpha, steps, low=None, high=None, hold=None):
        s = normalized_adjacency(edges, n, kind, torch.float64).to_dense().numpy()
        r = g.copy()
        for _ in range(steps):
            r = alpha * s @ r + (1 - alpha) * g
            if low is not None:
                r = np.clip(r, low, high)
            if hold is not None:
                r[rows] = hold
        return r

    if setting.stages != "smooth":
        e = np.zeros_like(z)
        e[rows] = known - z[rows]
        if setting.mode == "fixed":
            r = spread(setting.correct_adj, e, setting.correct_alpha, setting.num_correct_steps, hold=e[rows])
            z = z + setting.scale * r
        else:
            r = spread(setting.correct_adj, e, setting.correct_alpha, setting.num_correct_steps, -1, 1)
            sigma = np.mean([np.abs(e[i]).sum() for i in rows])
            for i in range(n):
                size = np.abs(r[i]).sum()
                scale = math.inf if size < 1e-300 else sigma / size
                z[i] += (1.0 if scale > 1000 else scale) * r[i]
    if setting.stages != "correct":
        z[rows] = known
        z = spread(setting.smooth_adj, z, setting.smooth_alpha, setting.num_smooth_steps, 0, 1)
    return torch.from_numpy(z)


settings_of_all_kinds = st.builds(
    CorrectAndSmooth,
    correct_alpha=st.floats(0, 1),
    smooth_alpha=st.floats(0, 1),
    correct_adj=st.sampled_from(["DAD", "DA", "AD"]),
    smooth_adj=st.sampled_from(["DAD", "DA", "AD"]),
    num_correct_steps=st.integers(0, 12),
    num_smooth_steps=st.integers(0, 12),
    mode=st.sampled_from(["autoscale", "fixed"]),
    scale=st.floats(0, 20),
    stages=st.sampled_from(["both", "correct", "smooth"]),
)


@settings(max_examples=60, deadline=None)
@given(settings_of_all_kinds, st.integers(0, 100))
def test_it_is_the_papers_equations(setting: CorrectAndSmooth, seed: int) -> None:
    given_ = problem(seed)
    torch.testing.assert_close(setting(*given_), slow(setting, *given_), atol=1e-9, rtol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.lists(settings_of_all_kinds, min_size=2, max_size=5), st.integers(0, 100))
def test_settings_computed_together_are_those_computed_alone(group: list[CorrectAndSmooth], seed: int) -> None:
    given_ = problem(seed)
    group = [setting for setting in group if setting.stages == group[0].stages]
    together = correct_and_smooth_all(group, *given_)
    for setting, result in zip(group, together, strict=True):
        torch.testing.assert_close(result, setting(*given_), atol=1e-10, rtol=1e-10)


@settings(max_examples=20, deadline=None)
@given(settings_of_all_kinds, st.integers(0, 100))
def test_names_of_nodes_and_of_classes_do_not_matter(setting: CorrectAndSmooth, seed: int) -> None:
    prob, labels, labelled, edges = problem(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    nodes, classes = torch.randperm(N, generator=generator), torch.randperm(K, generator=generator)
    expected = setting(prob, labels, labelled, edges)
    moved = setting(prob[nodes.argsort()], labels[nodes.argsort()], nodes[labelled], nodes[edges])
    torch.testing.assert_close(moved, expected[nodes.argsort()], atol=1e-10, rtol=1e-10)
    renamed = setting(prob[:, classes.argsort()], classes[labels], labelled, edges)
    torch.testing.assert_close(renamed, expected[:, classes.argsort()], atol=1e-10, rtol=1e-10)


def test_separate_graphs_do_not_touch_each_other_without_autoscale() -> None:
    first, second = problem(1), problem(2)
    joint = (
        torch.cat([first[0], second[0]]),
        torch.cat([first[1], second[1]]),
        torch.cat([first[2], second[2] + N]),
        torch.cat([first[3], second[3] + N], 1),
    )
    setting = CorrectAndSmooth(mode="fixed", scale=2.0)
    torch.testing.assert_close(setting(*joint), torch.cat([setting(*first), setting(*second)]))


def test_where_no_error_arrives_the_prediction_stays() -> None:
    prob, labels, labelled, edges = problem()
    labelled = labelled[labelled != N - 1]
    corrected = CorrectAndSmooth().correct(prob, labels, labelled, edges)
    torch.testing.assert_close(corrected[N - 1], prob[N - 1])


@pytest.mark.parametrize("mode", ["autoscale", "fixed"])
def test_a_perfect_predictor_is_left_alone(mode: str) -> None:
    _, labels, labelled, edges = problem()
    perfect = torch.eye(K, dtype=torch.float64)[labels]
    corrected = CorrectAndSmooth(mode=mode, scale=3.0).correct(perfect, labels, labelled, edges)
    torch.testing.assert_close(corrected, perfect)


def test_labels_of_unlabelled_nodes_are_never_read() -> None:
    prob, labels, labelled, edges = problem()
    hidden = torch.full_like(labels, -1)
    hidden[labelled] = labels[labelled]
    setting = CorrectAndSmooth()
    torch.testing.assert_close(setting(prob, hidden, labelled, edges), setting(prob, labels, labelled, edges))


def test_a_mask_is_as_good_as_ids_and_a_graph_as_edges() -> None:
    prob, labels, labelled, edges = problem()
    mask = torch.zeros(N, dtype=torch.bool)
    mask[labelled] = True
    expected = CorrectAndSmooth()(prob, labels, labelled, edges)
    torch.testing.assert_close(CorrectAndSmooth()(prob, labels, mask, Graph(edges, N)), expected)


def test_smooth_alone_with_nothing_known_of_the_rest_is_label_propagation() -> None:
    prob, labels, labelled, edges = problem()
    smoothed = CorrectAndSmooth(smooth_alpha=0.7, smooth_adj="AD", num_smooth_steps=20).smooth(
        torch.zeros_like(prob), labels, labelled, edges
    )
    spread = LabelPropagation(0.7, 20, "AD")(labels, labelled, edges, K, torch.float64)
    torch.testing.assert_close(smoothed, spread)
    assert float(spread.min()) >= 0
    assert float(spread.max()) <= 1


def test_pure_diffusion_keeps_the_mass_of_columns_and_the_reset_rows() -> None:
    _, _, labelled, edges = problem()
    adj = normalized_adjacency(edges, N - 1, "AD", torch.float64)
    connected = Graph(edges, N - 1).isolated.numel() == 0
    assert connected
    signal = torch.rand(N - 1, 3, dtype=torch.float64)
    spread = propagate(adj, signal, alpha=1.0, num_steps=30)
    torch.testing.assert_close(spread.sum(0), signal.sum(0))
    index = labelled[labelled < N - 1]
    held = propagate(adj, signal, 1.0, 30, reset_index=index, reset_value=signal[index])
    torch.testing.assert_close(held[index], signal[index])


def test_early_stop_ends_at_the_fixed_point_and_no_steps_change_nothing() -> None:
    _, _, _, edges = problem()
    adj, signal = normalized_adjacency(edges, N, "DAD", torch.float64), torch.rand(N, 2, dtype=torch.float64)
    whole = propagate(adj, signal, 0.6, 500)
    for alpha in (0.6, torch.tensor([0.6, 0.6], dtype=torch.float64)):
        stopped = propagate(adj, signal, alpha, 500, tolerance=1e-9)
        torch.testing.assert_close(stopped, whole, atol=1e-8, rtol=0)
        assert not torch.equal(stopped, whole), "it did not stop early"
    fixed = 0.4 * torch.linalg.solve(torch.eye(N, dtype=torch.float64) - 0.6 * adj.to_dense(), signal)
    torch.testing.assert_close(whole, fixed)
    torch.testing.assert_close(propagate(adj, signal, 0.6, 0), signal)


def test_inputs_stay_as_they_were() -> None:
    given_ = problem()
    copies = [tensor.clone() for tensor in given_]
    CorrectAndSmooth()(*given_)
    CorrectAndSmooth(mode="fixed")(*given_)
    assert all(torch.equal(a, b) for a, b in zip(given_, copies, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    prob, labels, labelled, edges = problem(dtype=dtype)
    result = CorrectAndSmooth()(prob, labels, labelled, edges)
    assert result.dtype == dtype
    exact = CorrectAndSmooth()(prob.double(), labels, labelled, edges)
    torch.testing.assert_close(
        result.double(), exact, atol={torch.float32: 1e-5}.get(dtype, 2e-2), rtol=0, check_dtype=False
    )


def test_autocast_does_not_touch_it() -> None:
    given_ = problem(dtype=torch.float32)
    expected = CorrectAndSmooth()(*given_)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(CorrectAndSmooth()(*given_), expected)


def test_inference_mode_gives_the_same() -> None:
    given_ = problem()
    graph = Graph(given_[3], N)
    expected = CorrectAndSmooth()(*given_)
    with torch.inference_mode():
        assert torch.equal(CorrectAndSmooth()(*given_[:3], graph), expected)
    assert torch.equal(CorrectAndSmooth()(*given_[:3], graph), expected), "what was cached serves outside too"


COMPILED = """
import torch
from saccade.graph import CorrectAndSmooth, normalized_adjacency, propagate
edges, prob = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.rand(4, 3).softmax(1)
labels, labelled, adj = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 2]), normalized_adjacency(edges, 4)
compiled = torch.compile(lambda prob: CorrectAndSmooth()(prob, labels, labelled, edges), backend="eager")
torch.testing.assert_close(compiled(prob), CorrectAndSmooth()(prob, labels, labelled, edges))
try:
    torch.compile(lambda prob: propagate(adj, prob, 0.5), backend="eager", fullgraph=True)(prob)
except Exception as error:
    assert "sparse" in str(error)
"""


def test_compiled_code_may_call_it_though_torch_compiles_no_sparse_tensors() -> None:
    """In a process without the run-time type checks, which torch.compile cannot trace."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True, capture_output=True, text=True)


def test_it_equals_torch_geometric() -> None:
    peer = pytest.importorskip("torch_geometric.nn")
    prob, labels, labelled, edges = problem(dtype=torch.float32)
    graph = Graph(edges, N)
    mask = torch.zeros(N, dtype=torch.bool)
    mask[labelled] = True
    for autoscale, scale in ((True, 1.0), (False, 1.7)):
        theirs = peer.CorrectAndSmooth(20, 0.8, 30, 0.6, autoscale=autoscale, scale=scale)
        corrected = theirs.correct(prob, labels[mask], mask, graph.edge_index)
        smoothed = theirs.smooth(corrected, labels[mask], mask, graph.edge_index)
        setting = CorrectAndSmooth(
            0.8, 0.6, "DAD", "DAD", 20, 30, mode="autoscale" if autoscale else "fixed", scale=scale
        )
        torch.testing.assert_close(setting.correct(prob, labels, mask, graph), corrected, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(setting(prob, labels, mask, graph), smoothed, atol=2e-6, rtol=1e-5)


def test_the_sign_of_the_error_is_the_codes_and_the_papers_at_once() -> None:
    """The code adds the spread Y - Z, the paper subtracts the spread Z - Y: the same, as it is linear."""
    prob, labels, labelled, edges = problem()
    corrected = CorrectAndSmooth(mode="fixed", scale=2.0).correct(prob, labels, labelled, edges)
    error = torch.zeros_like(prob)
    error[labelled] = prob[labelled] - torch.eye(K, dtype=torch.float64)[labels[labelled]]
    adj = normalized_adjacency(edges, N, "DAD", torch.float64)
    spread = propagate(adj, error, 0.9, 50, reset_index=labelled, reset_value=error[labelled])
    torch.testing.assert_close(corrected, prob - 2.0 * spread)


def test_a_tiny_error_is_not_blown_up() -> None:
    """A chain: next to nothing of the error reaches its far end, so that the factor there would be beyond 1000."""
    chain = torch.stack([torch.arange(14), torch.arange(1, 15)])
    prob = torch.full((15, 2), 0.5, dtype=torch.float64)
    corrected = CorrectAndSmooth(correct_alpha=0.5).correct(prob, torch.zeros(15).long(), torch.tensor([0]), chain)
    moved = (corrected - prob).abs().sum(1)
    assert float(moved[3]) == pytest.approx(1.0), "brought to the size of the known error"
    assert 0 < float(moved[14]) < 1e-5, "added as it is"


def test_autoscale_does_not_restore_labels_and_fixed_does() -> None:
    prob, labels, labelled, edges = problem()
    truth = torch.eye(K, dtype=torch.float64)[labels[labelled]]
    scaled = CorrectAndSmooth(mode="autoscale")
    assert float((scaled.correct(prob, labels, labelled, edges)[labelled] - truth).abs().max()) > 0.01
    fixed = CorrectAndSmooth(mode="fixed", scale=1.0).correct(prob, labels, labelled, edges)
    torch.testing.assert_close(fixed[labelled], truth)
    smoothed = CorrectAndSmooth(num_smooth_steps=0)(prob, labels, labelled, edges)
    torch.testing.assert_close(smoothed[labelled], truth)


def test_scores_are_not_renormalised() -> None:
    """Rows of the result may sum to anything from 0 on: a node whose row is clamped to 0 says nothing."""
    prob, labels, labelled, edges = problem()
    alone = CorrectAndSmooth(smooth_alpha=0.9)(prob, labels, labelled[labelled != N - 1], edges)[N - 1]
    torch.testing.assert_close(alone, prob[N - 1] * 0.1, atol=1e-12, rtol=0)


def test_tuning_finds_the_best_of_what_it_is_given() -> None:
    prob, labels, labelled, edges = problem(5)
    rest = torch.tensor([node for node in range(N) if node not in labelled.tolist()])
    candidates = draw_settings(20, seed=3, modes=["autoscale", "fixed"])
    found = tune(prob, labels, labelled, rest, edges, candidates)
    accuracies = [
        float((setting(prob, labels, labelled, edges).argmax(1)[rest] == labels[rest]).double().mean())
        for setting in candidates
    ]
    assert [accuracy for _, accuracy in found.trials] == pytest.approx(accuracies)
    assert found.best == candidates[int(np.argmax(accuracies))]
    assert found.accuracy == max(accuracies)


def test_tuning_in_small_portions_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    prob, labels, labelled, edges = problem(5)
    rest = torch.tensor([node for node in range(N) if node not in labelled.tolist()])
    whole = tune(prob, labels, labelled, rest, edges)
    monkeypatch.setattr("saccade.graph.tuning.MAX_ENTRIES", 3 * N * K)
    assert tune(prob, labels, labelled, rest, edges) == whole


P, Y, L, E = problem()
CS = CorrectAndSmooth()


def with_label(value: int) -> Tensor:
    labels = Y.clone()
    labels[L[0]] = value
    return labels


def none() -> Tensor:
    return torch.zeros(0, dtype=torch.long)


BAD = [
    (lambda: CorrectAndSmooth(correct_alpha=1.1), ValueError, r"correct_alpha lies in \[0, 1\], but it is 1.1"),
    (lambda: CorrectAndSmooth(smooth_alpha=-0.1), ValueError, r"smooth_alpha lies in"),
    (lambda: CorrectAndSmooth(smooth_alpha=math.nan), ValueError, r"smooth_alpha lies in"),
    (lambda: CorrectAndSmooth(num_correct_steps=-1), ValueError, r"num_correct_steps is 0 or more"),
    (lambda: CorrectAndSmooth(correct_adj="A"), ValueError, r"unknown correct_adj 'A': one of DAD, DA, AD"),
    (lambda: CorrectAndSmooth(mode="auto"), ValueError, r"unknown mode 'auto': one of autoscale, fixed"),
    (lambda: CorrectAndSmooth(stages="all"), ValueError, r"unknown stages 'all': one of both, correct, smooth"),
    (lambda: CorrectAndSmooth(scale=math.inf), ValueError, r"scale is finite"),
    (lambda: LabelPropagation(alpha=2.0), ValueError, r"alpha lies in"),
    (lambda: CS(P.log(), Y, L, E), ValueError, r"did you forget exp/softmax"),
    (lambda: CS(P * 1.3, Y, L, E), ValueError, r"sums to 1.3"),
    (lambda: CorrectAndSmooth(stages="smooth")(P * 3, Y, L, E), ValueError, r"did you forget exp/softmax"),
    (lambda: CS(P * torch.nan, Y, L, E), ValueError, r"NaN or infinite"),
    (lambda: CS.smooth(P / 0, Y, L, E), ValueError, r"NaN or infinite"),
    (lambda: CS(P[0], Y, L, E), ValueError, r"shape \(n, k\)"),
    (lambda: CS(P, Y[:-1], L, E), ValueError, r"labels are 17 integers"),
    (lambda: CS(P, Y.double(), L, E), ValueError, r"labels are 17 integers"),
    (lambda: CS(P, with_label(K), L, E), ValueError, r"has label 4, but the predictions have 4 classes"),
    (lambda: CS(P, with_label(-1), L, E), ValueError, r"has label -1"),
    (lambda: CS(P, Y, none(), E), ValueError, r"no node is labelled"),
    (lambda: CS(P, Y, torch.zeros(N, dtype=torch.bool), E), ValueError, r"no node is labelled"),
    (lambda: CS(P, Y, torch.ones(N + 1, dtype=torch.bool), E), ValueError, r"18 entries for 17 nodes"),
    (lambda: CS(P, Y, torch.tensor([0, N]), E), ValueError, r"names node 17, but there are 17 nodes"),
    (lambda: CS(P, Y, torch.tensor([0, -1]), E), ValueError, r"names node -1"),
    (lambda: CS(P, Y, torch.tensor([3, 3]), E), ValueError, r"node 3 more than once"),
    (lambda: CS(P, Y, torch.tensor([0.5]), E), TypeError, r"ids or a mask"),
    (lambda: CS(P, Y, L, E + 8), ValueError, r"but the graph has 17 nodes"),
    (lambda: CS(P, Y, L, Graph(E, N + 1)), ValueError, r"has 18 nodes, but there are rows for 17"),
    (lambda: propagate(torch.eye(3).to_sparse_csr(), torch.ones(3, 1), 1.5), ValueError, r"alpha lies in"),
    (lambda: propagate(torch.eye(3).to_sparse_csr(), torch.ones(3, 1), 0.5, -1), ValueError, r"0 or more"),
    (
        lambda: propagate(torch.eye(3).to_sparse_csr(), torch.ones(3, 1), 0.5, reset_index=torch.tensor([0])),
        ValueError,
        r"given together",
    ),
    (lambda: correct_and_smooth_all([], P, Y, L, E), ValueError, r"stages agree"),
    (
        lambda: correct_and_smooth_all([CS, CorrectAndSmooth(stages="smooth")], P, Y, L, E),
        ValueError,
        r"stages agree",
    ),
    (lambda: tune(P, Y, L, L[:2], E), ValueError, r"training and validation nodes at once"),
    (lambda: tune(P, Y, L[:4], L[4:], E, []), ValueError, r"no settings"),
    (lambda: tune(None, Y, L[:4], L[4:], E, [CS]), ValueError, r'stages="smooth"'),
    (lambda: draw_settings(0), ValueError, r"a search needs trials"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()
