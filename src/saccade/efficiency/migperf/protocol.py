"""How a step is timed: warm-up, synchronisation, the phases of training, and the three ways to load a server.

The clock is read once at each boundary, the lists grow on the thread that fills them, and all figures are computed at
the end: the harness itself costs a microsecond or two a step.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

Clock = Callable[[], float]
Step = Callable[[], object]


class Mark(ABC):
    """A point in the work of a device."""

    @abstractmethod
    def wait(self) -> None:
        """Until the device is there."""

    @abstractmethod
    def since(self, earlier: Mark) -> float:
        """Seconds between two points."""


class HostMark(Mark):
    """On the CPU work is done when the call returns: a point is a time."""

    def __init__(self) -> None:
        self.time = time.perf_counter()

    def wait(self) -> None:
        """Nothing to wait for."""

    def since(self, earlier: Mark) -> float:
        """Seconds between two points."""
        return self.time - earlier.time  # type: ignore[attr-defined]


class CudaMark(Mark):
    """An event in the current stream.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Until the device is there."""
        self.event.synchronize()

    def since(self, earlier: Mark) -> float:
        """Seconds between two points, on the device's clock."""
        return earlier.event.elapsed_time(self.event) / 1000  # type: ignore[attr-defined]


def wait_for(device: torch.device) -> Callable[[], None]:
    """A function that waits until a device has done all of its work."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return _nothing


def mark_on(device: torch.device) -> Callable[[], Mark]:
    """A function that marks the present point in a device's work."""
    return (lambda: CudaMark(device)) if device.type == "cuda" else HostMark


def _nothing() -> None:
    """The CPU has done its work when the call returns."""


@dataclass
class Timed:
    """What was measured, in seconds.

    Args:
        phases: Name to one time a batch: `latency`, or `data`, `forward`, `backward` and `step`.
        start: Of the measured window.
        finish: Of the window; threads have joined.
        samples: That were computed in it.
    """

    phases: dict[str, list[float]]
    start: float
    finish: float
    samples: int
    notes: list[str] = field(default_factory=list)


def closed_loop(
    steps: Sequence[Step],
    batches: int,
    batch_size: int,
    warmup: int,
    wait: Callable[[], None] = _nothing,
    clock: Clock = time.perf_counter,
) -> Timed:
    """Blocking inference: each thread begins a batch when its last one is done.

    Args:
        steps: A thread each: runs one batch.
        batches: Of each thread.
        batch_size: Samples of a batch.
        warmup: Batches of each thread that are not counted.
        wait: Until the device is done.
        clock: Seconds.

    Returns:
        `latency` of all threads' batches, each thread's together; the window holds start and joining of the threads.
    """
    for step in steps:
        for _ in range(warmup):
            step()
    wait()
    collected: list[list[float]] = [[] for _ in steps]
    errors: list[BaseException] = []

    def run(step: Step, times: list[float]) -> None:
        try:
            for _ in range(batches):
                before = clock()
                step()
                wait()
                times.append(clock() - before)
        except BaseException as error:
            errors.append(error)

    start = clock()
    if len(steps) == 1:
        run(steps[0], collected[0])
    else:
        threads = [threading.Thread(target=run, args=pair) for pair in zip(steps, collected, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finish = clock()
    if errors:
        raise errors[0]
    times = [seconds for own in collected for seconds in own]
    return Timed({"latency": times}, start, finish, len(times) * batch_size)


def windowed(
    step: Step,
    batches: int,
    batch_size: int,
    warmup: int,
    in_flight: int,
    mark: Callable[[], Mark] = HostMark,
    wait: Callable[[], None] = _nothing,
    clock: Clock = time.perf_counter,
) -> Timed:
    """Asynchronous inference: up to `in_flight` batches are queued on the device; their times are the device's own.

    Args:
        step: Queues one batch.
        batches: How many.
        batch_size: Samples of a batch.
        warmup: Batches that are not counted.
        in_flight: The most that are queued and not done; 1 times single batches by the device's clock.
        mark: Marks a point in the device's work.
        wait: Until the device is done.
        clock: Seconds.

    Returns:
        `latency` from the point where a batch was queued to where it was done.
    """
    for _ in range(warmup):
        step()
    wait()
    pairs: list[tuple[Mark, Mark]] = []
    queued: deque[Mark] = deque()
    start = clock()
    for _ in range(batches):
        while len(queued) >= in_flight:
            queued.popleft().wait()
        before = mark()
        step()
        after = mark()
        queued.append(after)
        pairs.append((before, after))
    wait()
    finish = clock()
    return Timed({"latency": [after.since(before) for before, after in pairs]}, start, finish, batches * batch_size)


def open_loop(
    steps: Sequence[Step],
    arrivals: np.ndarray,
    batch_size: int,
    warmup: int,
    wait: Callable[[], None] = _nothing,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Timed:
    """Requests that come when they come: latency counts from the scheduled arrival, also while the server is late.

    A client that waits for an answer before it sends the next request hides the queue ("coordinated omission"); its
    figure, from the moment of sending, is kept as `from_send`.

    Args:
        steps: A thread each: runs one batch.
        arrivals: Scheduled times from 0; cut to a multiple of the batch size.
        batch_size: Requests that are computed together, when the last of them is there.
        warmup: Batches of each thread that are not counted.
        wait: Until the device is done.
        clock: Seconds.
        sleep: Waits.

    Returns:
        `latency` and `from_send`, one time a request.

    Raises:
        ValueError: Fewer requests than one batch.
    """
    count = len(arrivals) // batch_size
    if not count:
        raise ValueError(
            f"{len(arrivals)} requests do not fill a batch of {batch_size}: raise the rate or the duration"
        )
    for step in steps:
        for _ in range(warmup):
            step()
    wait()
    due = arrivals[: count * batch_size].reshape(count, batch_size)
    sent, done = np.zeros(count), np.zeros(count)
    numbers, lock, errors = iter(range(count)), threading.Lock(), []
    start = clock()

    def serve(step: Step) -> None:
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                ahead = start + due[number, -1] - clock()
                if ahead > 0:
                    sleep(ahead)
                sent[number] = clock() - start
                step()
                wait()
                done[number] = clock() - start
        except BaseException as error:
            errors.append(error)

    if len(steps) == 1:
        serve(steps[0])
    else:
        threads = [threading.Thread(target=serve, args=(step,)) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    latency = (done[:, None] - due).reshape(-1)
    from_send = np.repeat(done - sent, batch_size)
    phases = {"latency": latency.tolist(), "from_send": from_send.tolist()}
    return Timed(phases, start, clock(), count * batch_size)


def training_loop(
    load: Step,
    forward: Step,
    backward: Step,
    steps: int,
    batch_size: int,
    warmup: int,
    wait: Callable[[], None] = _nothing,
    clock: Clock = time.perf_counter,
) -> Timed:
    """Training: data to the device, forward with the loss, backward with the optimiser's step.

    Args:
        load: Brings the next batch to the device.
        forward: Computes the loss.
        backward: Clears gradients, goes back, takes the step.
        steps: How many.
        batch_size: Samples of a batch.
        warmup: Forward passes that are not counted.
        wait: Until the device is done.
        clock: Seconds.

    Returns:
        `data`, `forward`, `backward` and `step`; a step begins where the last one ended, so that they fill the window.
    """
    load()
    for _ in range(warmup):
        forward()
    wait()
    data: list[float] = []
    ahead: list[float] = []
    back: list[float] = []
    whole: list[float] = []
    start = t0 = clock()
    for _ in range(steps):
        load()
        t1 = clock()
        forward()
        wait()
        t2 = clock()
        backward()
        wait()
        t3 = clock()
        data.append(t1 - t0)
        ahead.append(t2 - t1)
        back.append(t3 - t2)
        whole.append(t3 - t0)
        t0 = t3
    phases = {"data": data, "forward": ahead, "backward": back, "step": whole}
    return Timed(phases, start, t0, steps * batch_size)
