"""MIGPerf's own cost: a timed step, a training step, a reading of a device, and its loop beside torch's timer.

Limit: two readings of the clock a step; synchronisation of the device is the workload's.
"""

import time
from collections.abc import Iterator

import torch
from torch.utils.benchmark import Timer

from saccade.bench import Comparison
from saccade.efficiency.migperf import Sampler, SimulatedBackend, SmallCNN, latency_stats
from saccade.efficiency.migperf.protocol import closed_loop, training_loop

STEPS, ALLOWED = 1000, 50e-6


def nothing() -> None:
    """What is timed where the harness's own cost is asked for."""


def comparisons() -> Iterator[Comparison]:
    yield Comparison(
        name=f"{STEPS:,} inference steps of an empty model, with percentiles",
        ours=lambda: latency_stats(closed_loop([nothing], STEPS, 1, 0).phases["latency"]),
        peer=lambda: time.sleep(STEPS * ALLOWED),
        peer_name="50 microseconds a step",
        target=1.0,
        limit="two readings of the clock",
    )
    yield Comparison(
        name=f"{STEPS:,} training steps of an empty model, with percentiles",
        ours=lambda: latency_stats(training_loop(nothing, nothing, nothing, STEPS, 1, 0).phases["step"]),
        peer=lambda: time.sleep(STEPS * ALLOWED),
        peer_name="50 microseconds a step",
        target=1.0,
        limit="three readings of the clock",
    )
    sampler = Sampler(SimulatedBackend(["a100-80gb"]), period=0.5)

    def readings() -> None:
        sampler.reset()
        for _ in range(100):
            sampler.take()

    yield Comparison(
        name="100 readings of a device, without the driver's part",
        ours=readings,
        peer=lambda: time.sleep(100 * 0.01 * 0.5),
        peer_name="1 % of a core at two readings a second",
        target=1.0,
        limit="a dictionary of fields",
    )
    model, images = SmallCNN(width=32).eval(), torch.randn(32, 3, 32, 32)

    def step() -> object:
        with torch.inference_mode():
            return model(images)

    timer = Timer("step()", globals={"step": step}, num_threads=1)

    def ours() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        closed_loop([step], 48, 32, 2)
        torch.set_num_threads(threads)

    yield Comparison(
        name="50 batches of 32 through a small network on a thread, each timed",
        ours=ours,
        peer=lambda: timer.timeit(48),
        peer_name="torch.utils.benchmark, which times all of them together",
        target=0.95,
        limit="the network",
    )
