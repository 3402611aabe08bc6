import math

import pytest
from scipy import stats

from saccade.claims import Beats, Within
from saccade.claims.verdict import interval, judge, overall
from tests.claims.toy import TOY


def test_the_interval_is_the_textbooks_t_interval() -> None:
    values = [3.1, 2.7, 4.4, 3.9]
    mean, low, high = interval(values)
    expected = stats.t.interval(0.90, 3, loc=mean, scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)


def test_one_seed_says_nothing_about_the_spread() -> None:
    assert interval([5.0]) == (5.0, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [([3.0, 3.1, 2.9], "holds"), ([0.0, 0.1, -0.1], "fails"), ([0.0, 3.0, 1.5], "inconclusive")],
)
def test_a_difference_is_judged_by_its_whole_interval(differences: list[float], verdict: str) -> None:
    figures = {
        "base": {seed: {"score": 10.0 * seed, "error": 0.0} for seed in range(3)},
        "method": {seed: {"score": 10.0 * seed + d, "error": 0.0} for seed, d in enumerate(differences)},
    }
    assert judge(TOY, figures, "embedded")[0].verdict == verdict


def test_lower_is_better_turns_the_sign() -> None:
    claim = type(TOY)(**{**TOY.__dict__, "expectations": [Beats("method", "base", by=1.0, metric="error")]})
    figures = {
        "base": {seed: {"score": 0.0, "error": 5.0} for seed in range(3)},
        "method": {seed: {"score": 0.0, "error": 2.0 + 0.01 * seed} for seed in range(3)},
    }
    assert judge(claim, figures, "embedded")[0].verdict == "holds"


def test_expectations_apply_to_the_data_they_name() -> None:
    claim = type(TOY)(**{**TOY.__dict__, "expectations": [Within("method", "error", at_most=1.0, on=("real",))]})
    assert judge(claim, {"method": {0: {"error": 0.0}}}, "embedded") == []


def test_one_failure_fails_the_claim() -> None:
    assert overall([]) == "inconclusive"
    figures = {a: {s: {"score": 0.0, "error": 0.0} for s in range(3)} for a in TOY.arms}
    assert overall(judge(TOY, figures, "embedded")) == "fails"


def test_an_expectation_has_one_bound() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Within("method", "error")
