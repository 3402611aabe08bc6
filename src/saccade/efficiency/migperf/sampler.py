"""Reading devices in the background while something else runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from saccade.efficiency.migperf.inventory import Backend, Key, Target

Column = dict[str, list[float | None]]


class Sampler:
    """Reads devices every `period` seconds on a thread of its own, and at the beginning and the end.

    A device that fails is no longer read, the gap is marked in `gaps`, and what runs beside goes on.

    Args:
        backend: Reads.
        period: Seconds between readings.
        targets: What to read; everything that there is where nothing is said.
        clock: Seconds.

    Raises:
        ValueError: A period that is not above 0, or nothing to read.

    Example:
        >>> from saccade.efficiency.migperf.simulated import SimulatedBackend
        >>> backend = SimulatedBackend(["a30"])
        >>> with Sampler(backend, period=60, clock=lambda: backend.now) as sampler:
        ...     backend.load((0, None), activity=1.0)
        ...     backend.advance(2.0)
        >>> sampler.series[0, None]["DCGM_FI_DEV_POWER_USAGE"]
        {'t': [0.0, 2.0], 'v': [30.0, 165.0]}
    """

    def __init__(
        self,
        backend: Backend,
        period: float = 0.5,
        targets: Sequence[Target] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not period > 0:
            raise ValueError(f"a sampler's period has to be above 0 s, not {period}")
        self.backend, self.period, self.clock = backend, period, clock
        self.targets = list(backend.targets() if targets is None else targets)
        if not self.targets:
            raise ValueError(f"the backend {backend.name!r} has nothing to sample")
        self.series: dict[Key, dict[str, Column]] = {}
        self.gaps: dict[Key, tuple[float, str]] = {}
        self.reset()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Forget what was read."""
        self.series = {target.key: {} for target in self.targets}
        self.gaps = {}

    def take(self) -> None:
        """Read every device once, now."""
        with self._lock:
            for target in self.targets:
                if target.key not in self.gaps:
                    self._take(target.key)

    def _take(self, key: Key) -> None:
        try:
            fields = self.backend.read(key)
        except Exception as error:  # whatever a driver raises, what is measured must not end by it
            self.gaps[key] = (self.clock(), f"{type(error).__name__}: {error}")
            return
        now, columns = self.clock(), self.series[key]
        for name, value in fields.items():
            column = columns.setdefault(name, {"t": [], "v": []})
            column["t"].append(now)
            column["v"].append(value)

    def _sample(self) -> None:
        while not self._stop.wait(self.period):
            self.take()

    def __enter__(self) -> Sampler:
        if self._thread is not None:
            raise RuntimeError("this sampler runs already")
        self._stop.clear()
        self.take()
        self._thread = threading.Thread(target=self._sample, daemon=True, name="sampler")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.take()
