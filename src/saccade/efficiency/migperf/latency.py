"""From lists of times to figures: percentiles, throughput, energy, and the arrivals of an open loop."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from saccade.efficiency.migperf.inventory import ENERGY, POWER


@dataclass(frozen=True)
class LatencyStats:
    """Times in seconds.

    Args:
        mean: Their mean.
        std: Of the population (no correction by one).
        p50: Median; percentiles are interpolated linearly.
        p95: 95th percentile.
        p99: 99th percentile.
    """

    mean: float
    std: float
    p50: float
    p95: float
    p99: float

    def row(self) -> dict[str, float]:
        """As a JSON row."""
        return asdict(self)


def latency_stats(seconds: Sequence[float] | np.ndarray) -> LatencyStats:
    """Summarise times.

    Args:
        seconds: At least one.

    Returns:
        Mean, deviation and percentiles.

    Raises:
        ValueError: None, or some that are no finite numbers.

    Example:
        >>> round(latency_stats([1.0, 2.0, 3.0, 4.0]).p95, 6)
        3.85
    """
    times = np.asarray(seconds, dtype=np.float64).reshape(-1)
    if times.size == 0 or not np.isfinite(times).all():
        raise ValueError(f"latencies have to be finite numbers, at least one; got {times.size}")
    p50, p95, p99 = np.percentile(times, (50, 95, 99)).tolist()
    return LatencyStats(float(times.mean()), float(times.std()), p50, p95, p99)


def throughput(batches: int, batch_size: int, seconds: float, threads: int = 1) -> float:
    """Samples a second over the whole measured window.

    Args:
        batches: Of one thread.
        batch_size: Samples of a batch.
        seconds: The window: start and joining of the threads included.
        threads: That each ran so many batches; 1 for training.

    Returns:
        Samples a second.

    Raises:
        ValueError: An empty window.
    """
    if seconds <= 0:
        raise ValueError(f"a window has to last longer than 0 s, not {seconds}")
    return batches * batch_size * threads / seconds


def poisson_arrivals(rate: float, duration: float, seed: int = 0) -> np.ndarray:
    """Times at which requests arrive, independent of how fast they are answered.

    Args:
        rate: Requests a second.
        duration: Seconds.
        seed: Of Python's generator, whose draws are the same on every machine.

    Returns:
        Cumulative sums of exponential intervals, float64; the first sum past the duration is the last entry.

    Raises:
        ValueError: A rate or duration that is not above 0.

    Example:
        >>> poisson_arrivals(2.0, 1.0, seed=1).round(3).tolist()
        [0.072, 1.012]
    """
    if not rate > 0 or not duration > 0 or not np.isfinite([rate, duration]).all():
        raise ValueError(f"rate and duration have to be above 0 and finite, not {rate} and {duration}")
    generator, times, now = random.Random(seed), [], 0.0
    while now <= duration:
        now += generator.expovariate(rate)
        times.append(now)
    return np.array(times)


Series = Mapping[str, Mapping[str, Sequence[float | None]]]
"""Field to `t` (seconds) and `v` (values, `None` where there was none)."""


@dataclass(frozen=True)
class Energy:
    """What a window cost.

    Args:
        joules: In all; `None` where nothing could be read.
        per_sample: Joules for one sample.
        source: Where the figure comes from.
    """

    joules: float | None
    per_sample: float | None
    source: str

    def row(self) -> dict[str, object]:
        """As a JSON row."""
        return asdict(self)


def energy(
    series: Series, start: float, end: float, samples: int, share: float | None = None, whole_gpu: bool = False
) -> Energy:
    """The energy of a window: from the counter where there is one, else from power by the trapezoid rule.

    Args:
        series: What was sampled.
        start: Of the window, on the clock of `t`.
        end: Of the window.
        samples: That were computed in it.
        share: Part of the GPU's figure that is put on a slice (its compute slices over all); `None`: none of that.
        whole_gpu: Whether the figure is of a whole GPU of which a slice was measured: the source then says so.

    Returns:
        Joules and their source; between samples values are interpolated linearly, so that the window's ends count as
        they should.
    """
    joules, source = None, "none: neither a counter nor power could be read"
    counter, power = _known(series, ENERGY), _known(series, POWER)
    if counter is not None and counter[1][-1] >= counter[1][0] and _covers(counter[0], start, end):
        first, last = np.interp([start, end], *counter)
        joules, source = float(last - first) / 1000, "counter"
    elif power is not None and len(power[0]) > 0:
        inside = (power[0] > start) & (power[0] < end)
        times = np.concatenate([[start], power[0][inside], [end]])
        watts = np.interp(times, *power)
        joules, source = float(np.trapezoid(watts, times)), "power, by the trapezoid rule"
    if joules is not None and share is not None:
        joules, source = joules * share, f"{source}; {share:.3f} of the GPU's, by compute slices"
    elif joules is not None and whole_gpu:
        source += "; of the whole GPU, other slices included"
    return Energy(joules, joules / samples if joules is not None and samples else None, source)


def series_stats(series: Series, name: str) -> dict[str, float] | None:
    """Mean and greatest value of a field; `None` where it was never read."""
    known = _known(series, name)
    return None if known is None else {"mean": float(known[1].mean()), "max": float(known[1].max())}


def _known(series: Series, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    if name not in series:
        return None
    pairs = [(t, v) for t, v in zip(series[name]["t"], series[name]["v"], strict=True) if v is not None]
    return (np.array([t for t, _ in pairs]), np.array([v for _, v in pairs], dtype=float)) if pairs else None


def _covers(times: np.ndarray, start: float, end: float) -> bool:
    """Two readings at least, about the window: a counter that stopped early would miss energy."""
    slack = max(0.05 * (end - start), 1e-3)
    return len(times) > 1 and bool(times[0] <= start + slack and times[-1] >= end - slack)
