"""Orders of evaluation."""

import numpy as np
import pytest
from scipy.stats import norm

from saccade.efficiency import log_expected_improvement, rank


def test_expected_improvement_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    for mean, std in ((0.3, 1.0), (-1.0, 0.5), (2.0, 0.1), (-2.0, 1.0)):
        draws = np.maximum(rng.normal(mean, std, 2_000_000), 0).mean()
        assert np.exp(log_expected_improvement(np.array(mean), np.array(std))) == pytest.approx(draws, rel=0.03)


def test_expected_improvement_agrees_with_its_formula_where_that_does_not_underflow() -> None:
    gain, std = np.linspace(-5, 5, 200), np.linspace(0.2, 3, 200)
    ratio = gain / std
    wanted = std * (ratio * norm.cdf(ratio) + norm.pdf(ratio))
    kept = wanted > 1e-12
    np.testing.assert_allclose(log_expected_improvement(gain, std)[kept], np.log(wanted[kept]), rtol=1e-6, atol=1e-6)


def test_hopeless_improvements_are_still_ordered() -> None:
    gain = -np.array([10.0, 100.0, 1e3, 1e4, 1e6])
    found = log_expected_improvement(gain, np.ones(5))
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()
    members = np.array([[-50.0, -90.0, -70.0], [-51.0, -91.0, -71.0]])
    assert rank("ei", members, np.array([5.0])).tolist() == [0, 2, 1]


def test_without_doubt_the_improvement_is_the_gain() -> None:
    assert np.exp(log_expected_improvement(np.array([2.0, -1.0]), np.zeros(2))).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("rule", "score"),
    [
        ("mean", lambda m, s, p: m),
        ("ucb", lambda m, s, p: m + 0.5 * s),
        ("confidence", lambda m, s, p: m - 2 * s),
        ("percentile", lambda m, s, p: p.max(0)),
        ("pi", lambda m, s, p: (m - 0.7) / s),
    ],
)
def test_rules_order_by_their_score(rule: str, score: object) -> None:
    predictions = np.random.default_rng(1).normal(size=(5, 40))
    wanted = np.argsort(-score(predictions.mean(0), predictions.std(0), predictions), kind="stable")  # type: ignore[operator]
    assert (rank(rule, predictions, np.array([0.1, 0.7])) == wanted).all()  # type: ignore[arg-type]


def test_equal_architectures_stay_in_their_order() -> None:
    for rule in ("mean", "ucb", "ei", "pi", "percentile", "confidence"):
        assert rank(rule, np.ones((3, 6)), np.array([1.0])).tolist() == list(range(6))  # type: ignore[arg-type]


def test_thompson_sampling_takes_one_member_and_a_draw_for_each() -> None:
    predictions = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    orders = {tuple(rank("ts", predictions, rng=np.random.default_rng(seed)).tolist()) for seed in range(20)}
    assert orders == {(2, 1, 0), (0, 1, 2)}
    assert len({tuple(rank("its", predictions, rng=np.random.default_rng(seed)).tolist()) for seed in range(50)}) > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("best", np.ones((1, 2))), "one of mean, ucb, ei"),
        (("mean", np.ones(3)), r"\(members, n\)"),
        (("ei", np.ones((1, 2))), "nothing was"),
        (("ts", np.ones((1, 2))), "needs a generator"),
    ],
)
def test_bad_input(unchecked: None, arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank(*arguments)  # type: ignore[arg-type]
