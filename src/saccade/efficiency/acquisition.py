"""In which order to evaluate architectures of which an ensemble thinks something."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from scipy.special import erfcx, log_ndtr

Acquisition = Literal["mean", "ucb", "ei", "pi", "percentile", "confidence", "ts", "its"]


def rank(
    rule: Acquisition,
    predictions: np.ndarray,
    observed: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
    ucb_factor: float = 0.5,
    ei_calibration: float = 5.0,
    confidence_factor: float = 2.0,
) -> np.ndarray:
    """Architectures from the most to the least promising; equal ones in the order of their rows.

    With mean μ and population deviation σ over the members, and y* the best value that was observed: `mean` μ; `ucb`
    μ + 0.5 σ; `ei` the expected improvement on y* with σ / 5; `pi` the probability of one; `percentile` the most
    hopeful member; `confidence` μ - 2 σ, what can be relied on; `ts` one member at random; `its` a draw from the
    normal distribution of each architecture.

    Args:
        rule: Which.
        predictions: (members, n), higher is better.
        observed: Values so far, for `ei` and `pi`.
        rng: For `ts` and `its`.
        ucb_factor: Of σ in `ucb`.
        ei_calibration: By which σ is divided in `ei`.
        confidence_factor: Of σ in `confidence`.

    Returns:
        (n,) row numbers.

    Raises:
        ValueError: Another rule, other shapes, or what the rule needs is not there.

    Note:
        Source: arXiv:2102.10490, section 3 and appendix. Improvements that underflow to 0 are still ordered, by their
        logarithm (arXiv:2310.20708).

    Example:
        >>> rank("ucb", np.array([[1.0, 2.0, 0.0], [1.0, 0.0, 9.0]])).tolist()
        [2, 1, 0]
    """
    predictions = np.asarray(predictions, dtype=np.float64)
    if rule not in get_args(Acquisition):
        raise ValueError(f"an acquisition is one of {', '.join(get_args(Acquisition))}, not {rule!r}")
    if predictions.ndim != 2 or not len(predictions):
        raise ValueError(f"predictions have the shape {predictions.shape}; (members, n) is accepted")
    if rule in ("ei", "pi") and (observed is None or not len(observed)):
        raise ValueError(f"{rule!r} improves on what was observed, and nothing was")
    if rule in ("ts", "its") and rng is None:
        raise ValueError(f"{rule!r} draws at random: it needs a generator")
    mean, std = predictions.mean(axis=0), predictions.std(axis=0)
    if rule == "mean":
        score = mean
    elif rule == "ucb":
        score = mean + ucb_factor * std
    elif rule == "confidence":
        score = mean - confidence_factor * std
    elif rule == "percentile":
        score = predictions.max(axis=0)
    elif rule == "ts":
        score = predictions[rng.integers(len(predictions))]  # type: ignore[union-attr]
    elif rule == "its":
        score = rng.normal(mean, std)  # type: ignore[union-attr]
    else:
        gain = mean - np.max(observed)  # type: ignore[arg-type]
        score = log_ndtr(_over(gain, std)) if rule == "pi" else log_expected_improvement(gain, std / ei_calibration)
    return np.argsort(-score, kind="stable")


def log_expected_improvement(gain: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Log E[max(0, x)] of normal x.

    Args:
        gain: Means.
        std: Deviations; where 0, the improvement is the gain itself, or none.

    Returns:
        Of the same shape.

    Example:
        >>> bool(np.isclose(log_expected_improvement(np.array(0.0), np.array(1.0)), np.log(1 / np.sqrt(2 * np.pi))))
        True
    """
    gain, std = np.broadcast_arrays(np.asarray(gain, dtype=np.float64), np.asarray(std, dtype=np.float64))
    ratio = _over(gain, std)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        density = -0.5 * ratio**2 - 0.5 * np.log(2 * np.pi)
        # E = σ φ (1 + r Φ/φ), where Φ/φ is a scaled complementary error function; far left it tends to 1/r²
        mills = np.sqrt(np.pi / 2) * erfcx(-np.clip(ratio, -1e3, 0) / np.sqrt(2))
        left = density + np.where(ratio > -1e3, np.log1p(np.clip(ratio, -1e3, 0) * mills), -2 * np.log(np.abs(ratio)))
        right = np.log(np.exp(density) + ratio * np.exp(log_ndtr(ratio)))
        whole = np.log(std) + np.where(ratio > -1, right, left)
        return np.where(std > 0, whole, np.log(np.maximum(gain, 0)))


def _over(gain: np.ndarray, std: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(std > 0, gain / np.where(std > 0, std, 1), np.sign(gain) * np.inf)
