"""Spaces of architectures, their costs, and distributions over them."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.nn.architectures import ArchitectureSpace, CategoricalArchitectureDistribution, CostTables

SPACE = ArchitectureSpace({"a": "xyz", "b": (1, 2), "c": range(4)})
ALL = torch.tensor(list(itertools.product(*(range(size) for size in SPACE.sizes))))


def drawn(groups: list[list[str]] | None = None, seed: int = 0) -> CategoricalArchitectureDistribution:
    distribution = CategoricalArchitectureDistribution(SPACE, groups).double()
    with torch.no_grad():
        distribution.logits.normal_(generator=torch.Generator().manual_seed(seed))
    return distribution


def tables(seed: int = 0) -> CostTables:
    draw = torch.Generator().manual_seed(seed)
    named = {("a",): (3,), ("c", "a"): (4, 3), ("a", "b", "c"): (3, 2, 4)}
    found = {names: torch.rand(shape, generator=draw, dtype=torch.float64) for names, shape in named.items()}
    return CostTables(SPACE, found, constant=0.5)


GROUPS = [None, [["a", "b"], ["c"]], [["c", "a"], ["b"]], [["c", "b", "a"]]]


@pytest.mark.parametrize("groups", GROUPS)
def test_probabilities_sum_to_one_and_everything_follows_from_them(groups: list[list[str]] | None) -> None:
    distribution, cost = drawn(groups), tables()
    logs = distribution.log_prob(ALL)
    p = logs.exp()
    torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(distribution.entropy(), -(p * logs).sum())
    torch.testing.assert_close(distribution.expected_cost(cost), (p * cost(ALL)).sum())
    assert torch.equal(distribution.mode(), ALL[p.argmax()])


def test_factorised_probabilities_are_products_of_softmaxes() -> None:
    distribution = drawn()
    rows = [distribution.logits[i, :size].softmax(0) for i, size in enumerate(SPACE.sizes)]
    product = torch.stack([rows[i][ALL[:, i]] for i in range(3)]).prod(0)
    torch.testing.assert_close(distribution.log_prob(ALL).exp(), product)


def test_the_gradient_of_a_log_probability_is_onehot_less_p() -> None:
    distribution = drawn()
    distribution.log_prob(ALL[7:8]).sum().backward()
    expected = torch.zeros_like(distribution.logits)
    for i, size in enumerate(SPACE.sizes):
        expected[i, :size] = -distribution.logits[i, :size].softmax(0)
        expected[i, ALL[7, i]] += 1
    torch.testing.assert_close(distribution.logits.grad, expected.detach())


@pytest.mark.parametrize("groups", [[["a", "b"]], [["c", "a"]], [["b", "c", "a"]]])
def test_joining_changes_no_probability(groups: list[list[str]]) -> None:
    distribution = drawn()
    joint = distribution.to_joint(groups)
    torch.testing.assert_close(joint.log_prob(ALL), distribution.log_prob(ALL))
    assert len(joint.groups) == 3 - len(groups[0]) + 1
    torch.testing.assert_close(joint.to_joint([["a", "b", "c"]]).log_prob(ALL), distribution.log_prob(ALL))
    with pytest.raises(ValueError, match="parts one of"):
        joint.to_joint([[groups[0][0]], [name for name in "abc" if name != groups[0][0]]])


@pytest.mark.parametrize("groups", GROUPS)
def test_samples_come_as_often_as_they_should(groups: list[list[str]] | None) -> None:
    distribution = drawn(groups)
    sample = distribution.sample(40_000, torch.Generator().manual_seed(1))
    code = (ALL[:, None] == sample).all(2)
    share, p = code.double().mean(1), distribution.log_prob(ALL).exp().detach()
    assert float(((share - p).abs() / (p * (1 - p) / 40_000).sqrt()).max()) < 5
    assert torch.equal(sample, distribution.sample(40_000, torch.Generator().manual_seed(1)))


def test_a_new_distribution_is_uniform() -> None:
    distribution = CategoricalArchitectureDistribution(SPACE)
    torch.testing.assert_close(distribution.entropy(), torch.tensor(math.log(SPACE.count)))
    assert SPACE.count == len(ALL) == 24


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_decoding_undoes_encoding(seed: int) -> None:
    row = SPACE.sample(1, torch.Generator().manual_seed(seed))[0]
    assert torch.equal(SPACE.encode(SPACE.decode(row)), row)


def test_costs_are_looked_up() -> None:
    cost = tables()
    a, ca, abc = cost.tables.values()
    expected = [0.5 + a[i] + ca[k, i] + abc[i, j, k] for i, j, k in ALL.tolist()]
    torch.testing.assert_close(cost(ALL), torch.stack(expected))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 1.0))
def test_within_keeps_to_the_bound_and_gives_up_little(seed: int, share: float) -> None:
    distribution, draw = drawn(seed=seed), torch.Generator().manual_seed(seed)
    parts = [torch.rand(size, generator=draw, dtype=torch.float64) + 0.1 for size in SPACE.sizes]
    cost = CostTables(SPACE, parts)
    every = cost(ALL)
    most = float(every.min() + share * (every.max() - every.min()))
    found = distribution.within(cost, most)
    logs = distribution.log_prob(ALL).detach()
    assert float(cost(found[None])[0]) <= most
    if float(cost(distribution.mode()[None])[0]) <= most:
        assert torch.equal(found, distribution.mode())
    assert float(distribution.log_prob(found[None])[0].detach()) <= float(logs[every <= most].max()) + 1e-9


def test_what_comes_within_is_best_where_one_change_suffices() -> None:
    space = ArchitectureSpace({"a": range(3)})
    distribution = CategoricalArchitectureDistribution(space)
    with torch.no_grad():
        distribution.logits[0] = torch.tensor([0.0, 1.0, 2.0])
    cost = CostTables(space, [torch.tensor([1.0, 1.5, 3.0])])
    assert distribution.within(cost, 3.0).tolist() == [2]
    assert distribution.within(cost, 2.0).tolist() == [1]
    assert distribution.within(cost, 1.0).tolist() == [0]
    with pytest.raises(ValueError, match="no change of one decision"):
        distribution.within(cost, 0.5)


def test_it_is_saved_and_read_back_and_moves_to_another_type() -> None:
    one, two = drawn(seed=1), drawn(seed=2)
    two.load_state_dict(one.state_dict())
    assert list(one.state_dict()) == ["logits"]
    torch.testing.assert_close(two.log_prob(ALL), one.log_prob(ALL))
    assert one.float().log_prob(ALL).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ArchitectureSpace({}), "at least one decision"),
        (lambda: ArchitectureSpace({"a": []}), "'a' has no choices"),
        (lambda: ArchitectureSpace({"a": [1, 1]}), "lists a choice twice"),
        (lambda: SPACE.sample(0), "at least 1 architecture"),
        (lambda: drawn().sample(0), "at least 1 architecture"),
        (lambda: SPACE.encode({"a": "x", "b": 1}), r"missing \['c'\]"),
        (lambda: SPACE.encode({"a": "w", "b": 1, "c": 0}), r"'a' is one of \['x', 'y', 'z'\], not 'w'"),
        (lambda: SPACE.decode(torch.tensor([0, 2, 0])), "choice 2 for 'b', which has 0 to 1"),
        (lambda: SPACE.decode(torch.tensor([0, -1, 0])), "choice -1 for 'b'"),
        (lambda: drawn().log_prob(torch.zeros(2, 2).long()), r"\(k, 3\), not \(2, 2\)"),
        (lambda: drawn().log_prob(torch.zeros(2, 3)), "whole numbers"),
        (lambda: CategoricalArchitectureDistribution(SPACE, [["a"], ["b"]]), "belongs to one group"),
        (lambda: CostTables(SPACE, {("d",): torch.zeros(1)}), "no decision 'd'"),
        (lambda: CostTables(SPACE, {("a",): torch.zeros(2)}), r"have to be \(3,\), not \(2,\)"),
        (lambda: CostTables(SPACE, [torch.zeros(3)]), "one table a decision"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
