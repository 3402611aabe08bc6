"""Sharing in theory: jobs of several tenants on one server that divides itself among them, or each on its own slice.

MPS and time-slicing come near to *processor sharing*: with n jobs present each is served at 1/n of the speed. Slices
are servers of their own at a fixed share of the speed, whatever the neighbours do.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Jobs:
    """Jobs in the order of their arrival.

    Args:
        arrivals: Seconds, ascending.
        work: Seconds of the whole GPU that each takes.
        tenants: Whose each is, from 0.
    """

    arrivals: np.ndarray
    work: np.ndarray
    tenants: np.ndarray

    def __post_init__(self) -> None:
        shapes = {self.arrivals.shape, self.work.shape, self.tenants.shape}
        if len(shapes) > 1 or self.arrivals.ndim != 1:
            raise ValueError(f"arrivals, work and tenants have one number for each job, not shapes {sorted(shapes)}")
        if len(self.arrivals) and ((np.diff(self.arrivals) < 0).any() or (self.work <= 0).any()):
            raise ValueError("arrivals have to ascend, and work has to be above 0")


def poisson_jobs(rates: Sequence[float], work: Sequence[float], duration: float, seed: int) -> Jobs:
    """Jobs of tenants who send independently of each other.

    Args:
        rates: Jobs a second of each tenant.
        work: Mean seconds of the whole GPU of each tenant's jobs, which are spread exponentially.
        duration: Seconds.
        seed: Of the draws.

    Returns:
        All jobs.

    Raises:
        ValueError: Rates and work that do not match or are not above 0.
    """
    if len(rates) != len(work) or not rates or min(*rates, *work, duration) <= 0:
        raise ValueError("each tenant has a rate and a mean work above 0, and the duration is above 0")
    generator = np.random.default_rng(seed)
    arrivals, sizes, owners = [], [], []
    for tenant, (rate, mean) in enumerate(zip(rates, work, strict=True)):
        count = generator.poisson(rate * duration)
        arrivals.append(generator.uniform(0, duration, count))
        sizes.append(generator.exponential(mean, count) + 1e-12)
        owners.append(np.full(count, tenant))
    at, size, owner = np.concatenate(arrivals), np.concatenate(sizes), np.concatenate(owners)
    order = np.argsort(at, kind="stable")
    return Jobs(at[order], size[order], owner[order])


def shared_latency(jobs: Jobs, speed: float = 1.0, switch: float = 0.0) -> np.ndarray:
    """Latencies where all jobs share one server equally.

    Each job's service is counted on a clock that runs at `speed / n` while n jobs are there: a job is done when that
    clock has gone on by its work, so that one heap orders all of them.

    Args:
        jobs: All tenants'.
        speed: Of the server; 1 is the whole GPU.
        switch: Share of the speed that is lost as soon as there are two jobs (the cost of changing between processes).

    Returns:
        Seconds from arrival to completion, in the order of arrival.

    Example:
        >>> jobs = Jobs(np.array([0.0, 0.0]), np.array([1.0, 2.0]), np.array([0, 1]))
        >>> shared_latency(jobs).tolist()
        [2.0, 3.0]
    """
    if not speed > 0 or not 0 <= switch < 1:
        raise ValueError(f"speed has to be above 0 and switch from 0 to below 1, not {speed} and {switch}")
    latency = np.empty(len(jobs.arrivals))
    present: list[tuple[float, int]] = []
    now = service = 0.0

    def pace() -> float:
        return speed * (1 - switch if len(present) > 1 else 1.0) / len(present)

    def until(time: float) -> None:
        nonlocal now, service
        while present:
            rate = pace()
            ends = now + (present[0][0] - service) / rate
            if ends > time:
                service += (time - now) * rate
                break
            service, number = heapq.heappop(present)
            now = ends
            latency[number] = now - jobs.arrivals[number]
        now = time

    for number, (arrival, work) in enumerate(zip(jobs.arrivals.tolist(), jobs.work.tolist(), strict=True)):
        until(arrival)
        heapq.heappush(present, (service + work, number))
    until(math.inf)
    return latency


def isolated_latency(jobs: Jobs, shares: Sequence[float]) -> np.ndarray:
    """Latencies where each tenant has a slice, which does its jobs one after the other.

    Args:
        jobs: All tenants'.
        shares: Speed of each tenant's slice, 1 being the whole GPU.

    Returns:
        Seconds from arrival to completion, in the order of arrival.

    Example:
        >>> jobs = Jobs(np.array([0.0, 0.0]), np.array([1.0, 2.0]), np.array([0, 1]))
        >>> isolated_latency(jobs, [0.5, 0.5]).tolist()
        [2.0, 4.0]
    """
    if len(jobs.tenants) and jobs.tenants.max() >= len(shares):
        raise ValueError(f"{int(jobs.tenants.max()) + 1} tenants need a share each, there are {len(shares)}")
    if min(shares) <= 0:
        raise ValueError(f"shares have to be above 0, not {list(shares)}")
    latency = np.empty(len(jobs.arrivals))
    for tenant, share in enumerate(shares):
        own = np.flatnonzero(jobs.tenants == tenant)
        took = jobs.work[own] / share
        # a job ends its time after it came or after the last one ended: the running maximum of both, all at once
        before = np.cumsum(took) - took
        latency[own] = np.maximum.accumulate(jobs.arrivals[own] - before) + before + took - jobs.arrivals[own]
    return latency
