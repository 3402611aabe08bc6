"""One timing core: ours against the peer, alternating in one process, as a ratio of medians.

A file `benchmarks/SLUG.py` has a function `comparisons()` that yields [`Comparison`][saccade.bench.Comparison]s, one at
a time, so that what one needs is freed before the next is built.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Comparison:
    """Two ways to compute the same thing.

    Args:
        name: What is computed, with its sizes.
        ours: Called without arguments.
        peer: Called without arguments; gives the same result.
        peer_name: What the peer is: a package, or the formulation of the paper.
        target: The ratio of times (peer / ours) that we mean to reach.
        memory_target: The ratio of peak memory (peer / ours) that we mean to reach; `None`: memory is not measured.
        limit: What bounds the speed: operations, bytes.
        group: Comparisons of a group are also summed up by their geometric mean.
    """

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    peer_name: str
    target: float = 1.0
    memory_target: float | None = None
    limit: str = ""
    group: str = ""


@dataclass(frozen=True)
class Measured:
    """The result of one comparison; times are medians in seconds, memory in bytes."""

    name: str
    peer_name: str
    ours_s: float
    peer_s: float
    ratio: float
    target: float
    ours_bytes: int | None
    peer_bytes: int | None
    memory_ratio: float | None
    memory_target: float | None
    limit: str

    @property
    def met(self) -> bool:
        """Whether both targets are reached."""
        memory = self.memory_ratio is None or self.memory_target is None or self.memory_ratio >= self.memory_target
        return self.ratio >= self.target and memory

    def row(self) -> dict[str, object]:
        """As a JSON row."""
        return {**asdict(self), "met": self.met}


def geometric_mean(group: str, measured: Sequence[Measured], target: float) -> Measured:
    """The geometric mean of the times of both sides over a group, and so of the ratios.

    Args:
        group: What to call it.
        measured: Its comparisons.
        target: The mean ratio that we mean to reach.

    Returns:
        As one more comparison.
    """
    ours, peer = (statistics.geometric_mean(getattr(m, side) for m in measured) for side in ("ours_s", "peer_s"))
    return Measured(
        name=f"geometric mean of {len(measured)} {group}",
        peer_name=measured[0].peer_name,
        ours_s=ours,
        peer_s=peer,
        ratio=peer / ours,
        target=target,
        ours_bytes=None,
        peer_bytes=None,
        memory_ratio=None,
        memory_target=None,
        limit="",
    )


def compare(
    comparison: Comparison, *, rounds: int = 21, min_seconds: float = 0.1, most_seconds: float = 30.0
) -> Measured:
    """Time both sides, alternating, so that a drift of the machine meets both alike.

    Args:
        comparison: What to time.
        rounds: How often each side is timed; the medians are compared.
        min_seconds: The least time of one round of one side.
        most_seconds: Slow sides get fewer rounds, at least one, to stay about within this time.

    Returns:
        Medians and ratios; a ratio above 1 says that ours is ahead.
    """
    from torch.utils.benchmark import Timer  # on import it looks for a CUDA toolkit, and says so where there is none

    sides = {"ours": comparison.ours, "peer": comparison.peer}
    timers = {side: Timer("f()", globals={"f": f}, num_threads=torch.get_num_threads()) for side, f in sides.items()}
    loops: dict[str, int] = {}
    once = 0.0
    for side, function in sides.items():
        start = time.perf_counter()
        function()
        if time.perf_counter() - start < most_seconds / 10:  # else the first call tells well enough
            start = time.perf_counter()
            timers[side].timeit(1)
        took = max(time.perf_counter() - start, 1e-7)
        loops[side] = max(1, round(min_seconds / took))
        once += loops[side] * took
    rounds = max(1, min(rounds, int(most_seconds / once)))
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, timer in timers.items():
            seconds[side].append(timer.timeit(loops[side]).median)
    ours, peer = (statistics.median(seconds[side]) for side in ("ours", "peer"))
    memory: tuple[int, int] | None = None
    if comparison.memory_target is not None:
        memory = peak_memory(comparison.ours), peak_memory(comparison.peer)
    return Measured(
        name=comparison.name,
        peer_name=comparison.peer_name,
        ours_s=ours,
        peer_s=peer,
        ratio=peer / ours,
        target=comparison.target,
        ours_bytes=memory[0] if memory else None,
        peer_bytes=memory[1] if memory else None,
        memory_ratio=memory[1] / max(memory[0], 1) if memory else None,
        memory_target=comparison.memory_target,
        limit=comparison.limit,
    )


def peak_memory(function: Callable[[], object]) -> int:
    """The most bytes that a call holds in torch's allocators beyond what was held before.

    On CUDA the allocator's own counter is read; on the CPU every allocation and release is followed by the profiler,
    so that the figure is exact and the same on each run.

    Args:
        function: Called without arguments.

    Returns:
        Bytes.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        if torch.cuda.max_memory_allocated() > before:
            return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        function()
    held = peak = 0
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def hardware(device: str) -> str:
    """The processor, or the GPU, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = named[0] if named else model
    return f"{model}, {os.cpu_count()} cores"
