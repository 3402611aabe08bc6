"""From figures over seeds to a verdict: paired differences, a one-sided 95 % bound, three possible words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from saccade.claims.claim import Beats, Claim, Expectation

Verdict = Literal["holds", "fails", "inconclusive"]
Figures = Mapping[str, Mapping[int, Mapping[str, float]]]
"""arm -> seed -> metric -> value"""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Judged:
    """One expectation beside what was measured.

    Args:
        text: The expectation as a sentence.
        mean: Mean over seeds of the paired difference, or of the figure itself; positive is better for a difference.
        low: Lower end of the interval whose each side is a one-sided 95 % bound (a two-sided 90 % interval).
        high: Upper end.
        bound: What `mean` is compared with.
        verdict: `holds` where the whole interval is on the good side of the bound, `fails` where it is on the other.
        metric: Title of the metric.
    """

    text: str
    mean: float
    low: float
    high: float
    bound: float
    verdict: Verdict
    metric: str


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 90 % t-interval (each side a one-sided 95 % bound).

    Args:
        values: One number a seed.

    Returns:
        Mean, lower and upper end; with a single value the ends are infinite, as nothing is known about the spread.

    Example:
        >>> mean, low, high = interval([1.0, 2.0, 3.0])
        >>> mean, round(low, 2), round(high, 2)
        (2.0, 0.31, 3.69)
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = float(stats.t.ppf(CONFIDENCE, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def describe(claim: Claim, expected: Expectation) -> str:
    """An expectation as a sentence."""
    metric = claim.metrics[expected.metric or claim.metric]
    arm = claim.arms[expected.arm].title
    if isinstance(expected, Beats):
        margin = f"by at least {expected.by:g}" if expected.by else "or equals it"
        return f"{arm} beats {claim.arms[expected.than].title} {margin}: {metric.title}"
    if expected.at_least is not None:
        return f"{arm} reaches at least {expected.at_least:g}: {metric.title}"
    return f"{arm} stays at or below {expected.at_most:g}: {metric.title}"


def judge(claim: Claim, figures: Figures, data: str) -> list[Judged]:
    """Compare every expectation that applies to `data` with the figures.

    Args:
        claim: The claim.
        figures: What the cells gave.
        data: Name of the data that they were run on.

    Returns:
        One row an expectation.
    """
    return [
        _judge(claim, figures, expected) for expected in claim.expectations if not expected.on or data in expected.on
    ]


def overall(judged: Sequence[Judged]) -> Verdict:
    """`fails` if one expectation fails, `holds` if all hold, else `inconclusive`."""
    verdicts = {row.verdict for row in judged}
    if "fails" in verdicts:
        return "fails"
    return "holds" if verdicts == {"holds"} else "inconclusive"


def _judge(claim: Claim, figures: Figures, expected: Expectation) -> Judged:
    key = expected.metric or claim.metric
    metric = claim.metrics[key]
    arm = figures[expected.arm]
    if isinstance(expected, Beats):
        sign = 1.0 if metric.higher_is_better else -1.0
        than = figures[expected.than]
        values = [sign * (arm[seed][key] - than[seed][key]) for seed in sorted(arm) if seed in than]
        bound, upward = expected.by, True
    else:
        values = [arm[seed][key] for seed in sorted(arm)]
        upward = expected.at_least is not None
        bound = expected.at_least if expected.at_least is not None else float(expected.at_most or 0.0)
    mean, low, high = interval(values)
    if upward:
        verdict: Verdict = "holds" if low >= bound else "fails" if high < bound else "inconclusive"
    else:
        verdict = "holds" if high <= bound else "fails" if low > bound else "inconclusive"
    return Judged(describe(claim, expected), mean, low, high, bound, verdict, metric.title)
