"""The search: weights of samples, both gradients, and what it finds."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saccade.nn.architectures import ArchitectureSpace, CategoricalArchitectureDistribution, CostTables
from saccade.nn.probabilistic_search import (
    ProbabilisticSearch,
    architecture_gradient,
    cost_penalty,
    importance_weights,
    num_samples,
)

SPACE = ArchitectureSpace({"a": range(3), "b": range(2)})
COST = CostTables(SPACE, [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.5])])


class Choosing(nn.Module):
    """A linear model of a few, chosen by the architecture."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, 4, dtype=torch.float64))
        self.seen: list[tuple[int, ...]] = []

    def log_likelihood(self, batch: Tensor, architecture: Tensor) -> Tensor:
        a, b = architecture.tolist()
        self.seen.append((a, b))
        return -((batch @ self.weight[a, b]) - 1).square().mean()


def a_search(**options: object) -> tuple[Choosing, ProbabilisticSearch]:
    model, distribution = Choosing(), CategoricalArchitectureDistribution(SPACE).double()
    with torch.no_grad():
        distribution.logits.normal_()
    given = {"parameters": list(model.parameters()), "generator": torch.Generator().manual_seed(0), **options}
    return model, ProbabilisticSearch(model.log_likelihood, distribution, COST, 2.0, **given)


@pytest.mark.parametrize("sharpness", [1.0, 30.0])
@pytest.mark.parametrize("uniform", [False, True])
def test_the_weights_gradient_is_that_of_the_weighted_mean(sharpness: float, uniform: bool) -> None:
    model, search = a_search(sharpness=sharpness, min_samples=9, max_samples=9)
    batch = torch.randn(5, 4, dtype=torch.float64)
    sampled = search.weight_gradients(batch, uniform)
    likelihoods = torch.stack([model.log_likelihood(batch, row) for row in sampled.architectures])
    weights = torch.full((9,), 1 / 9, dtype=torch.float64)
    if not uniform:
        weights = (sharpness * likelihoods.detach() - 10 * (COST(sampled.architectures) / 2 - 1).clamp(min=0)).softmax(
            0
        )
    (expected,) = torch.autograd.grad(-(weights * likelihoods).sum(), [model.weight])
    torch.testing.assert_close(model.weight.grad, expected, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(sampled.weights, weights)
    torch.testing.assert_close(sampled.log_likelihood, likelihoods.detach())
    assert sampled.loss == pytest.approx(float(-(weights * likelihoods.detach()).sum()))


def test_a_second_call_replaces_the_gradient() -> None:
    model, search = a_search()
    batch = torch.randn(5, 4, dtype=torch.float64)
    search.generator.manual_seed(1)
    search.weight_gradients(batch)
    once = model.weight.grad.clone()
    search.generator.manual_seed(1)
    search.weight_gradients(batch)
    torch.testing.assert_close(model.weight.grad, once)


def test_equal_architectures_are_computed_once() -> None:
    model, search = a_search(min_samples=14, max_samples=14)
    sampled = search.weight_gradients(torch.randn(5, 4, dtype=torch.float64))
    assert sampled.distinct == len(model.seen) == len(set(model.seen)) < 14


def test_the_architectures_gradient_is_the_closed_form() -> None:
    model, search = a_search(min_samples=6, max_samples=6)
    batch = torch.randn(5, 4, dtype=torch.float64)
    sampled = search.architecture_gradients(batch)
    p = search.distribution.log_probs().exp().detach()
    expected = torch.zeros_like(p)
    for weight, row in zip(sampled.weights, sampled.architectures, strict=True):
        onehot = torch.zeros_like(p)
        onehot[torch.arange(2), row] = 1
        expected -= weight * (onehot - p)
    torch.testing.assert_close(search.distribution.logits.grad, expected)
    assert model.weight.grad is None


def test_with_equal_weights_the_expected_update_is_zero() -> None:
    distribution = CategoricalArchitectureDistribution(SPACE).double()
    with torch.no_grad():
        distribution.logits.normal_()
    draw = torch.Generator().manual_seed(0)
    drawn = distribution.sample(200_000, draw)
    gradient = architecture_gradient(distribution, drawn, torch.full((200_000,), 1 / 200_000).double())
    assert float(gradient.abs().max()) < 5 * 0.5 / math.sqrt(200_000)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(-100, 100))
def test_weights_sum_to_one_and_do_not_feel_a_shift(values: list[float], shift: float) -> None:
    likelihood = torch.tensor(values, dtype=torch.float64)
    weights = importance_weights(likelihood)
    assert float(weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(importance_weights(likelihood + shift), weights, atol=1e-9, rtol=1e-6)


def test_a_cost_within_the_target_changes_nothing_and_one_above_takes_away() -> None:
    likelihood, cost = torch.zeros(3), torch.tensor([0.5, 1.0, 1.5])
    assert cost_penalty(cost, 1.0).tolist() == [0, 0, 0.5]
    weights = importance_weights(likelihood, cost, 1.0, 2.0)
    assert float(weights[0]) == float(weights[1])
    assert float(weights[0] / weights[2]) == pytest.approx(math.e)
    torch.testing.assert_close(importance_weights(likelihood, cost, 2.0, 2.0), importance_weights(likelihood))


def test_a_sum_over_the_batch_makes_one_sample_take_all() -> None:
    mean = torch.tensor([-1.0, -1.1, -1.3], dtype=torch.float64)  # of 192 clips: the first is a little better
    assert float(importance_weights(192 * mean).max()) > 0.999
    assert float(importance_weights(mean).max()) < 0.4
    model, search = a_search(sharpness=5.0)
    batch = torch.randn(5, 4, dtype=torch.float64)
    sampled = search.architecture_gradients(batch)  # five samples: their sum is five times their mean
    sums = [-((batch @ model.weight[a, b]) - 1).square().sum() for a, b in sampled.architectures.tolist()]
    expected = importance_weights(torch.stack(sums).detach(), COST(sampled.architectures), 2.0, 10.0)
    torch.testing.assert_close(sampled.weights, expected)


def test_fewer_are_drawn_as_the_distribution_settles() -> None:
    _, search = a_search(sample_factor=3.0, min_samples=1, max_samples=14)
    search.distribution.logits.data.zero_()
    assert len(search.draw()[0]) == math.ceil(3 * math.log(6))
    search.distribution.logits.data[:, 0] = 50
    assert len(search.draw()[0]) == 1
    assert [num_samples(torch.tensor(value), 1.5, 2, 24) for value in (0.0, 4.456, 100.0)] == [2, 7, 24]


def searching(steps: int, saved_at: int | None = None) -> tuple[dict, list[float]]:
    """Weights, distribution and losses; where asked, everything is built anew in between and goes on from its state."""
    torch.manual_seed(0)
    batches = torch.randn(40, 8, 4, dtype=torch.float64)

    def make() -> tuple[Choosing, ProbabilisticSearch]:
        torch.manual_seed(1)
        model, search = a_search(sharpness=5.0)
        search.weight_optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
        search.architecture_optimizer = torch.optim.Adam(search.distribution.parameters(), 0.05)
        return model, search

    model, search = make()
    losses = []
    for step in range(steps):
        if step == saved_at:
            kept = copy.deepcopy((model.state_dict(), search.state_dict()))
            model, search = make()
            model.load_state_dict(kept[0])
            search.load_state_dict(kept[1])
        batch = batches[step % 40]
        losses.append((search.warmup(batch) if step < 5 else search.step(batch, batches[-1 - step % 40])).loss)
    return {
        **model.state_dict(),
        **search.distribution.state_dict(),
        "drawn": torch.tensor(search.samples_drawn),
    }, losses


def test_a_search_goes_on_from_its_state_as_if_nothing_had_been() -> None:
    whole, broken = searching(30), searching(30, saved_at=17)
    assert whole[1] == broken[1]
    for key, value in whole[0].items():
        assert torch.equal(broken[0][key], value), key


def test_it_finds_the_best_that_the_budget_allows() -> None:
    utility = torch.tensor([[0.0, 0.2], [1.0, 1.2], [3.0, 3.2]])
    distribution = CategoricalArchitectureDistribution(SPACE)
    optimizer = torch.optim.Adam(distribution.parameters(), 0.1)
    search = ProbabilisticSearch(
        lambda _, row: utility[row[0], row[1]],
        distribution,
        COST,
        target=2.6,
        cost_weight=20.0,
        architecture_optimizer=optimizer,
        generator=torch.Generator().manual_seed(0),
    )
    for _ in range(150):
        search.step(None, None)
    assert search.derive().tolist() == [1, 0]  # the dearer choices would be better
    assert search.derive(within=1.6).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: importance_weights(torch.tensor([0.0, float("nan")])), "log-likelihood of sample 1 is nan"),
        (lambda: importance_weights(torch.zeros(0)), "at least 1 sample"),
        (lambda: importance_weights(torch.zeros(2), torch.ones(2)), "needs a target"),
        (lambda: importance_weights(torch.zeros(2), torch.ones(3), 1.0), r"\(2,\), not \(3,\)"),
        (lambda: cost_penalty(torch.ones(2), 0.0), "target has to be positive"),
        (lambda: cost_penalty(torch.tensor([0.0, 1.0]), 1.0), "costs have to be positive"),
        (lambda: num_samples(-1.0), "not negative"),
        (lambda: num_samples(1.0, minimum=0), "1 <= minimum"),
        (lambda: num_samples(1.0, minimum=5, maximum=4), "1 <= minimum"),
        (lambda: a_search(sharpness=0.0), "sharpness has to be positive"),
        (lambda: a_search()[1].step(torch.zeros(1, 4).double(), None), "needs the weight_optimizer"),
        (
            lambda: a_search()[1].weight_gradients(torch.full((1, 4), math.inf).double()),
            "log-likelihood of sample 0 is",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_cost_without_a_target_and_a_bound_without_tables_are_refused() -> None:
    model, search = a_search()
    with pytest.raises(ValueError, match="go together"):
        ProbabilisticSearch(model.log_likelihood, search.distribution, COST)
    search.cost = lambda rows: torch.ones(len(rows))
    with pytest.raises(ValueError, match="given as CostTables"):
        search.derive(within=1.0)
