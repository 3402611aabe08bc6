"""The claim of MIGPerf, as far as it can be shown without a GPU: batching, isolation, layouts, the harness itself."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from functools import lru_cache

import numpy as np
import torch

from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome, Within
from saccade.efficiency.migperf.layouts import LayoutImpossible, first_fit, maximal_layouts, plan_layout
from saccade.efficiency.migperf.pictures import phases_picture, sweep_picture, tenants_picture
from saccade.efficiency.migperf.profiles import gpu_model
from saccade.efficiency.migperf.protocol import closed_loop
from saccade.efficiency.migperf.runs import benchmark
from saccade.efficiency.migperf.tenants import isolated_latency, poisson_jobs, shared_latency
from saccade.efficiency.migperf.workloads import SmallCNN

TENANTS, WORK = 7, 0.01
"""Tenants, each with a slice of 1/7; mean seconds of the whole GPU of a quiet tenant's job."""

NOISY_WORK = 0.2
"""Of a job of the noisy neighbour: twenty times as long."""


def run_migperf(cell: Cell) -> Outcome:
    """One batch size, one way to share, or one way to place slices."""
    return {"cpu": _batch, "tenants": _tenants, "layouts": _layouts}[cell.data](cell)


def _batch(cell: Cell) -> Outcome:
    size, steps = int(cell.options["batch_size"]), int(cell.settings["steps"])
    device, warmup = str(cell.device), max(3, steps // 5)
    inference = benchmark("small-cnn", "infer", [size], device=device, steps=steps, warmup=warmup, sampler=None)[0]
    empty = benchmark("empty", "infer", [1], device=device, steps=10 * steps, warmup=warmup, sampler=None)[0]
    cell.progress(0.5)
    metrics = {
        "rate": float(np.log2(inference.throughput or 1e-9)),
        "p50": 1e3 * float(inference.timing["latency"]["p50"]),
        "overhead": 1e6 / float(empty.throughput or 1e-9),
        "agreement": _agreement(cell, size),
    }
    outcome = Outcome(metrics)
    if cell.seed == 0 and size > 1:
        sizes = [2**power for power in range(size.bit_length())]
        common = {"device": device, "steps": steps, "warmup": warmup, "sampler": None}
        swept = benchmark("small-cnn", "infer", sizes, **common)  # type: ignore[arg-type]
        trained = benchmark("small-cnn", "train", sizes[::2], **common)  # type: ignore[arg-type]
        outcome.pictures = {
            "throughput and latency of a small network over the batch size": sweep_picture(list(swept)),
            "where the time of a training step goes": phases_picture(list(trained)),
        }
    return outcome


def _agreement(cell: Cell, size: int) -> float:
    """How far the harness's medians are from those of torch.utils.benchmark (%).

    Both take turns, five batches each; what counts is the median of the ratios batch by batch, which other work on the
    machine moves little, as it meets both alike: medians of each side apart jump where half of all batches are
    interrupted.
    """
    from torch.utils.benchmark import Timer  # on import it looks for a CUDA toolkit, and says so where there is none

    model, images = SmallCNN(width=32).to(cell.device).eval(), torch.randn(max(size, 8), 3, 32, 32, device=cell.device)

    def wait() -> None:
        if cell.device.type == "cuda":
            torch.cuda.synchronize(cell.device)

    def step() -> object:
        with torch.inference_mode():
            return model(images)

    timer = Timer("step()", globals={"step": step})
    ratios: list[float] = []
    for number in range(int(cell.settings["rounds"])):
        ours = closed_loop([step], 5, size, 3, wait).phases["latency"]
        ratios += [seconds / timer.timeit(1).median for seconds in ours]
        if number % 20 == 0:
            cell.progress(0.5 + 0.5 * number / cell.settings["rounds"])
    return 100 * abs(statistics.median(ratios) - 1)


def _tenants(cell: Cell) -> Outcome:
    duration = float(cell.settings["duration"])
    noise = [1.0, 2.0, 2.5, 3.0, 3.5] if cell.settings["curve"] else [3.0]
    tails = [(slices, 1e3 * float(np.percentile(_latency(cell, 0.8, slices, duration), 99))) for slices in noise]
    cell.progress(0.8)
    calm = 1e3 * float(_latency(cell, 0.1, 0.1, duration).mean())
    outcome = Outcome({"noisy": dict(tails)[3.0], "calm": calm}, {"p99": tails} if len(tails) > 1 else {})
    if cell.seed == 0 and cell.options["isolated"] and len(tails) > 1:
        shared = [(s, 1e3 * float(np.percentile(_latency(cell, 0.8, s, duration, False), 99))) for s in noise]
        caption = "99th percentile of six quiet tenants over what their neighbour asks for"
        picture = tenants_picture(
            {"one GPU that all share": shared, "a slice for each": tails},
            3.0,
            "slices that one neighbour asks for",
            "p99 (ms)",
        )
        outcome.pictures = {caption: picture}
    return outcome


def _latency(cell: Cell, quiet: float, noisy: float, duration: float, isolated: bool | None = None) -> np.ndarray:
    """Latencies of the quiet tenants; loads are in slices, the same jobs for both ways."""
    rates = [quiet / TENANTS / WORK] * (TENANTS - 1) + [noisy / TENANTS / NOISY_WORK]
    jobs = poisson_jobs(rates, [WORK] * (TENANTS - 1) + [NOISY_WORK], duration, cell.seed)
    own = cell.options["isolated"] if isolated is None else isolated
    latency = isolated_latency(jobs, [1 / TENANTS] * TENANTS) if own else shared_latency(jobs)
    return latency[jobs.tenants < TENANTS - 1]


@lru_cache
def _multisets(model: str) -> list[Counter[str]]:
    return [Counter(instance.profile.name for instance in layout) for layout in maximal_layouts(model)]


def _layouts(cell: Cell) -> Outcome:
    """Random wishes: whether they are placed, beside what the list of all maximal layouts says."""
    generator, planned = random.Random(cell.seed), bool(cell.options["plan"])
    placed = possible = agree = 0
    wishes = int(cell.settings["wishes"])
    for _ in range(wishes):
        model = gpu_model(generator.choice(["a30", "a100-80gb", "h200"]))
        names = [name for name, profile in model.profiles.items() if not profile.media]
        wish = [generator.choice(names) for _ in range(generator.randint(1, model.compute_slices))]
        counted = Counter(wish)
        feasible = any(counted <= layout for layout in _multisets(model.name))
        try:
            done = bool(plan_layout(model, wish) if planned else first_fit(model, wish))
        except LayoutImpossible:
            done = False
        possible += feasible
        placed += done
        agree += done == feasible
    return Outcome({"placed": 100 * placed / max(possible, 1), "agree": 100 * agree / wishes})


MIGPERF = Claim(
    slug="migperf",
    statement=(
        "On the CPU, a batch of 32 gives at least 1.3 times the samples a second of single images while its median "
        "latency grows; the harness costs less than 50 microseconds a step, "
        "and its medians are within 5 % of torch.utils.benchmark's."
    ),
    paper=(
        "On slices of an A100 and an A30: throughput rises with the size of the slice, and saturates with the batch "
        "size earlier on small slices; latency of a small slice grows fastest with the batch; sharing by MPS has an "
        "equal or better mean latency at small batches, while slices keep the 99th percentile stable."
    ),
    metrics={
        "rate": Metric("throughput (log2 of samples a second)", digits=2, on=("cpu",)),
        "p50": Metric("median latency, which is expected to grow (ms)", digits=3, on=("cpu",)),
        "overhead": Metric("own overhead (microseconds a step)", higher_is_better=False, digits=2, on=("cpu",)),
        "agreement": Metric("median against torch.utils.benchmark (%)", higher_is_better=False, digits=2, on=("cpu",)),
        "noisy": Metric("p99 of quiet tenants, noisy neighbour (ms)", higher_is_better=False, on=("tenants",)),
        "calm": Metric("mean of quiet tenants, low load (ms)", higher_is_better=False, on=("tenants",)),
        "placed": Metric("wishes placed, of those possible (%)", on=("layouts",)),
        "agree": Metric("verdicts as by exhaustive listing (%)", digits=2, on=("layouts",)),
    },
    arms={
        "batch-1": Arm("single images", {"batch_size": 1}, baseline=True, on=("cpu",)),
        "batch-32": Arm("batches of 32", {"batch_size": 32}, on=("cpu",)),
        "shared": Arm("one GPU that all share", {"isolated": False}, baseline=True, on=("tenants",)),
        "isolated": Arm("a slice for each", {"isolated": True}, on=("tenants",)),
        "first-fit": Arm("one after the other", {"plan": False}, baseline=True, on=("layouts",)),
        "planner": Arm("planned together", {"plan": True}, on=("layouts",)),
    },
    expectations=[
        Beats("batch-32", "batch-1", by=0.3785, metric="rate", on=("cpu",)),
        Beats("batch-32", "batch-1", metric="p50", on=("cpu",)),
        Within("batch-1", "overhead", at_most=50, on=("cpu",)),
        Within("batch-1", "agreement", at_most=5, on=("cpu",)),
        Within("batch-32", "agreement", at_most=5, on=("cpu",)),
        Beats("isolated", "shared", by=500, metric="noisy", on=("tenants",)),
        Beats("shared", "isolated", by=40, metric="calm", on=("tenants",)),
        Within("planner", "agree", at_least=100, on=("layouts",)),
        Beats("planner", "first-fit", by=3, metric="placed", on=("layouts",)),
    ],
    data={
        "cpu": Data("a network of three convolutions on images of 32 x 32, timed on this machine's CPU"),
        "tenants": Data(
            "a queue in memory: six quiet tenants and one neighbour on a GPU of seven slices",
            note=(
                "Processor sharing stands for MPS, servers at a seventh of the speed for slices. Noisy: quiet tenants "
                "load their slices by 80 %, the neighbour asks for three, its jobs twenty times as long; low: 10 %."
            ),
        ),
        "layouts": Data("random wishes for slices of an A30, A100 or H200, against the list of all maximal layouts"),
    },
    budgets={
        "smoke": Budget(1, {"steps": 10, "rounds": 3, "duration": 60, "curve": False, "wishes": 20}),
        "small": Budget(5, {"steps": 200, "rounds": 80, "duration": 600, "curve": True, "wishes": 300}),
        "full": Budget(10, {"steps": 1000, "rounds": 400, "duration": 3600, "curve": True, "wishes": 3000}),
    },
    run=run_migperf,
    axes={"p99": Axis("slices that one neighbour asks for", "p99 of quiet tenants (ms)")},
    limits=(
        "No GPU was cut for this: what depends on real slices (throughput over their size, activity, energy, MPS "
        "against slices on hardware) is left out, and the queue shows the reason for isolation, not its size on a GPU. "
        "Isolation wins the 99th percentile once a neighbour asks for more than is left; with a neighbour of one slice "
        "sharing wins that, too, as the curve shows. Times are of a machine that may do other work: medians "
        "of all batches differed there from torch.utils.benchmark's by 11 % on average, medians of turns by 7 %, "
        "single batches in turn by 8 %, before ratios batch by batch in turns of five were taken."
    ),
)
