"""The timing protocol on a clock that the test moves, aggregates, energy, sweeps, and the queue of tenants."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saccade.efficiency.migperf import (
    Jobs,
    Sampler,
    SimulatedBackend,
    benchmark,
    energy,
    isolated_latency,
    latency_stats,
    poisson_arrivals,
    poisson_jobs,
    shared_latency,
    throughput,
    workload,
)
from saccade.efficiency.migperf.inventory import ENERGY, POWER
from saccade.efficiency.migperf.protocol import Mark, closed_loop, open_loop, training_loop, windowed
from saccade.efficiency.migperf.runs import binding, find_device, out_of_memory


class Clock:
    """Time that passes only where work or sleep says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


# --- aggregates -----------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60))
def test_figures_are_those_of_their_definitions(times: list[float]) -> None:
    found = latency_stats(times)
    mean = sum(times) / len(times)
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.std == pytest.approx((sum((t - mean) ** 2 for t in times) / len(times)) ** 0.5, abs=1e-6)
    ordered = sorted(times)
    for share, value in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        place = share * (len(times) - 1)
        low = int(place)
        high = min(low + 1, len(times) - 1)
        assert value == pytest.approx(ordered[low] + (place - low) * (ordered[high] - ordered[low]), rel=1e-9, abs=1e-9)


def test_arrivals_are_seeded_and_past_the_duration_once() -> None:
    times = poisson_arrivals(50.0, 20.0, seed=4)
    assert (np.diff(times) > 0).all()
    assert times[-1] > 20 >= times[-2]
    assert np.array_equal(times, poisson_arrivals(50.0, 20.0, seed=4))
    assert len(times) == pytest.approx(1000, rel=0.15)


def test_energy_by_trapezoid_counter_and_share() -> None:
    t = [0.0, 1.0, 3.0, 4.0]
    power = {POWER: {"t": t, "v": [100.0, 200.0, None, 200.0]}}
    found = energy(power, 0.5, 3.5, samples=10)
    # a ramp from 150 to 200 W over half a second, then 200 W
    assert found.joules == pytest.approx(0.5 * (150 + 200) / 2 + 2.5 * 200)
    assert found.per_sample == pytest.approx(found.joules / 10)
    assert found.source == "power, by the trapezoid rule"
    both = {**power, ENERGY: {"t": t, "v": [0.0, 1e5, 3e5, 4e5]}}
    counted = energy(both, 0.5, 3.5, samples=10)
    assert (counted.joules, counted.source) == (pytest.approx(300.0), "counter")
    assert energy(both, 0.5, 30.0, 10).source.startswith("power"), "a counter that ended early would miss energy"
    third = energy(both, 0.5, 3.5, 10, share=3 / 7)
    assert third.joules == pytest.approx(300 * 3 / 7)
    assert "by compute slices" in third.source
    assert "other slices included" in energy(both, 0.5, 3.5, 10, whole_gpu=True).source
    nothing = energy({POWER: {"t": [0.0], "v": [None]}}, 0, 1, 5)
    assert (nothing.joules, nothing.per_sample) == (None, None)


# --- the protocol ---------------------------------------------------------------------------------------------------


def test_inference_times_forward_and_waiting_and_not_the_warm_up() -> None:
    clock = Clock()
    work = iter([9.0, 9.0, 0.1, 0.3, 0.2])
    timed = closed_loop([lambda: clock.spend(next(work))], 3, 4, 2, wait=lambda: clock.spend(0.01), clock=clock)
    assert timed.phases["latency"] == pytest.approx([0.11, 0.31, 0.21])
    assert timed.finish - timed.start == pytest.approx(0.63)
    assert timed.samples == 12


def test_every_batch_of_every_thread_is_counted_once() -> None:
    counts = [0, 0, 0]
    barrier = threading.Barrier(3)

    def step(number: int) -> None:
        if counts[number] == 0:
            barrier.wait(5)  # all threads are there at the same time
        counts[number] += 1

    timed = closed_loop([lambda n=n: step(n) for n in range(3)], 50, 2, 0)
    assert counts == [50, 50, 50]
    assert len(timed.phases["latency"]) == 150
    assert timed.samples == 300


def test_an_error_in_a_thread_is_raised() -> None:
    def broken() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        closed_loop([broken, lambda: None], 2, 1, 0)
    with pytest.raises(RuntimeError, match="no"):
        open_loop([broken, lambda: None], np.array([0.0, 0.0]), 1, 0)


def test_phases_of_training_fill_the_step_and_loading_counts() -> None:
    clock = Clock()
    timed = training_loop(
        load=lambda: clock.spend(0.5),
        forward=lambda: clock.spend(0.1),
        backward=lambda: clock.spend(0.2),
        steps=4,
        batch_size=8,
        warmup=3,
        wait=lambda: clock.spend(0.01),
        clock=clock,
    )
    assert timed.phases["data"] == pytest.approx([0.5] * 4)
    assert timed.phases["forward"] == pytest.approx([0.11] * 4)
    assert timed.phases["backward"] == pytest.approx([0.21] * 4)
    assert timed.phases["step"] == pytest.approx([0.82] * 4)
    assert timed.finish - timed.start == pytest.approx(4 * 0.82)
    assert throughput(4, 8, timed.finish - timed.start) == pytest.approx(timed.samples / (4 * 0.82))


def test_a_late_server_shows_in_latency_and_not_from_the_moment_of_sending() -> None:
    clock = Clock()
    arrivals = np.array([0.0, 0.1, 0.2, 0.3])
    timed = open_loop([lambda: clock.spend(1.0)], arrivals, 1, 0, clock=clock, sleep=clock.spend)
    assert timed.phases["latency"] == pytest.approx([1.0, 1.9, 2.8, 3.7])
    assert timed.phases["from_send"] == pytest.approx([1.0] * 4)


def test_a_batch_waits_for_its_last_request() -> None:
    clock = Clock()
    arrivals = np.array([0.0, 2.0, 5.0, 6.0, 9.0])
    timed = open_loop([lambda: clock.spend(0.5)], arrivals, 2, 0, clock=clock, sleep=clock.spend)
    assert timed.phases["latency"] == pytest.approx([2.5, 0.5, 1.5, 0.5])
    assert timed.samples == 4, "cut to whole batches"
    with pytest.raises(ValueError, match="5 requests do not fill a batch of 8"):
        open_loop([lambda: None], arrivals, 8, 0)


def test_no_more_batches_are_queued_than_allowed() -> None:
    queued = [0, 0]

    class Point(Mark):
        def __init__(self) -> None:
            self.at = time.perf_counter()

        def wait(self) -> None:
            queued[0] -= 1

        def since(self, earlier: Mark) -> float:
            return self.at - earlier.at  # type: ignore[attr-defined]

    def step() -> None:
        queued[0] += 1
        queued[1] = max(queued)

    timed = windowed(step, 10, 4, 0, in_flight=3, mark=Point)
    assert queued[1] == 3
    assert len(timed.phases["latency"]) == 10
    assert timed.samples == 40


def test_the_harness_reads_the_clock_twice_a_batch() -> None:
    """Its own cost: what it does between two batches is bounded by what it calls."""
    reads = [0]

    def clock() -> float:
        reads[0] += 1
        return float(reads[0])

    closed_loop([lambda: None], 100, 1, 10, clock=clock)
    assert reads[0] == 2 * 100 + 2
    reads[0] = 0
    training_loop(lambda: None, lambda: None, lambda: None, 100, 1, 0, clock=clock)
    assert reads[0] == 3 * 100 + 1


# --- runs -----------------------------------------------------------------------------------------------------------


def test_a_sweep_records_what_does_not_fit_and_goes_on() -> None:
    seen = []

    def model(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if x.shape[0] == 3:
            raise RuntimeError("shapes do not match")
        return x

    result = benchmark(
        model, batch_sizes=(1, 2, 3, 4), input_spec=(5,), steps=2, warmup=0, sampler=None, on_record=seen.append
    )
    assert [record.status for record in result] == ["ok", "oom", "error", "ok"]
    assert result[1].throughput is None
    assert result[2].error == "shapes do not match"
    assert [record.batch_size for record in seen] == [1, 2, 3, 4]
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not out_of_memory(ValueError("out of memory"))


def test_inference_changes_nothing_and_training_learns() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = benchmark(model, batch_sizes=(6,), input_spec=(4,), steps=3, warmup=1, threads=2, sampler=None)
    assert result[0].samples == 36
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    trained = benchmark(model, "train", (6,), (4,), steps=3, warmup=1, optimizer="adam", precision="amp", sampler=None)
    assert trained[0].status == "ok", trained[0].error
    assert not torch.equal(model[0].weight, before["0.weight"])
    phases = trained[0].timing
    parts = sum(np.array(phases[name]["raw"]) for name in ("data", "forward", "backward"))
    assert parts == pytest.approx(np.array(phases["step"]["raw"]))


def test_a_run_beside_a_sampler_has_its_energy_and_use() -> None:
    backend = SimulatedBackend(["a100-80gb"])
    backend.set_mig(0, True)
    backend.create(0, "3g.40gb")
    backend.load((0, 1), 0.5, 700.0)
    clock = SimpleNamespace(now=time.perf_counter)
    sampler = Sampler(backend, period=30, clock=clock.now)

    def model(x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.002)
        backend.advance(0.002)
        return x

    for attribute, factor in ((False, 1.0), (True, 3 / 7)):
        (record,) = benchmark(
            model, batch_sizes=(4,), input_spec=(2,), steps=20, warmup=1, sampler=sampler, attribute_power=attribute
        )
        watts = (60 + 340 * 0.5 * 3 / 7) * factor
        assert record.label == "gpu0-3g.40gb-gi1"
        assert record.usage["activity"] == {"mean": 0.5, "max": 0.5}
        assert record.usage["memory_used"] == {"mean": 700.0, "max": 700.0}
        assert record.energy["source"].startswith("counter")
        assert record.energy["joules"] == pytest.approx(20 * 0.002 * watts, rel=0.2)
        assert record.metrics[POWER]["t"][0] <= 0
    backend.lose(0)
    (record,) = benchmark(model, batch_sizes=(4,), input_spec=(2,), steps=2, warmup=0, sampler=sampler)
    assert record.status == "ok"
    assert "GpuLost" in record.notes[0]


def test_open_loop_in_flight_and_built_in_models() -> None:
    (record,) = benchmark(
        "small-cnn", batch_sizes=(2,), arrival_rate=200, duration=0.2, threads=2, warmup=1, sampler=0.05
    )
    assert {"latency", "from_send"} == set(record.timing)
    assert record.device["kind"] == "cpu"
    (record,) = benchmark("empty", batch_sizes=(2,), steps=5, in_flight=2, sampler=None)
    assert record.samples == 10
    assert record.energy["source"] == "none: nothing was sampled"


def test_models_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words, shape in (
        ("torchvision:squeezenet1_1", ["num_classes=3"], (2, 3, 224, 224)),
        ("test_vit", ["num_classes=3"], (2, 3, 160, 160)),
        ("saccade.efficiency.migperf.workloads.SmallCNN", ["width=8"], (2, 3, 32, 32)),
    ):
        work = workload(name, None, words)
        assert tuple(work.inputs(2).shape) == shape
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match="needs the package transformers"):
        workload("transformers:bert")
    library = SimpleNamespace(
        AutoConfig=SimpleNamespace(for_model=lambda name: SimpleNamespace(vocab_size=11)),
        AutoModel=SimpleNamespace(from_config=Text),
    )
    monkeypatch.setitem(__import__("sys").modules, "transformers", library)
    (record,) = benchmark("transformers:bert", "train", (2,), steps=2, warmup=0, sampler=None)
    assert (record.status, record.samples) == ("ok", 4), record.error


class Text(nn.Module):
    """As `transformers` has them: a config, named inputs, an output that is no tensor."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config, self.words = config, nn.Embedding(config.vocab_size, 4)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.words(input_ids))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "test"}, "mode is infer or train"),
        ({"batch_sizes": [0]}, "batch sizes have to be at least 1"),
        ({"batch_sizes": []}, "batch sizes have to be at least 1"),
        ({"steps": 0}, "steps and threads have to be at least 1"),
        ({"threads": 0}, "steps and threads have to be at least 1"),
        ({"arrival_rate": 0.0}, "arrival rate and duration have to be above 0"),
        ({"precision": "int4"}, "precision is fp32 or amp"),
        ({"optimizer": "lion"}, "optimizer is sgd or adam"),
        ({"sampler": 0.0}, "period has to be above 0"),
        ({"in_flight": 0}, "in_flight has to be at least 1"),
        ({"in_flight": 2, "threads": 2}, "in_flight queues the batches of one thread"),
        ({"mode": "train", "threads": 2}, "are of inference"),
        ({"device": "cuda:7"}, "no device 'cuda:7'"),
        ({"device": "MIG-12345678"}, "no device 'MIG-12345678'"),
        ({"model": "resnet1x8"}, "no model 'resnet1x8'"),
        ({"model": nn.ReLU()}, "does not say what it takes"),
        ({"model": nn.ReLU(), "mode": "train", "input_spec": (3,)}, "has nothing to learn"),
        ({"input_spec": (0, 3)}, "whole numbers above 0"),
        ({"input_spec": {"x": {"length": 3}}}, "token ids are"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark(**{"model": "small-cnn", "steps": 1, "warmup": 0, **settings})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: latency_stats([]), "at least one"),
        (lambda: latency_stats([float("nan")]), "finite"),
        (lambda: throughput(1, 1, 0.0), "longer than 0 s"),
        (lambda: poisson_arrivals(0.0, 1.0), "above 0"),
        (lambda: poisson_arrivals(1.0, float("inf")), "finite"),
        (lambda: poisson_jobs([1.0], [1.0, 2.0], 1.0, 0), "each tenant"),
        (lambda: Jobs(np.array([1.0, 0.0]), np.ones(2), np.zeros(2, int)), "ascend"),
        (lambda: Jobs(np.array([1.0]), np.ones(2), np.zeros(2, int)), "one number for each job"),
        (lambda: shared_latency(poisson_jobs([1.0], [1.0], 5.0, 0), speed=0.0), "speed has to be above 0"),
        (lambda: isolated_latency(poisson_jobs([9.0, 9.0], [1.0, 1.0], 5.0, 0), [0.5]), "2 tenants need a share each"),
    ],
)
def test_bad_numbers(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_a_slice_is_bound_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = SimulatedBackend(["a30"])
    backend.set_mig(0, True)
    backend.create(0, "1g.6gb")
    uuid = backend.gpus()[0].devices[0].uuid
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match="one process sees one slice"):
        find_device(uuid, backend)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    place, _, target = find_device(uuid, backend)
    assert (str(place), target.uuid) == ("cuda:0", uuid)
    assert __import__("os").environ["CUDA_VISIBLE_DEVICES"] == uuid == binding(uuid)["CUDA_VISIBLE_DEVICES"]


# --- tenants --------------------------------------------------------------------------------------------------------


def by_small_steps(jobs: Jobs, step: float) -> np.ndarray:
    """Processor sharing, simulated in small steps of time."""
    left, done, now = jobs.work.copy(), np.zeros(len(jobs.work)), 0.0
    while (left > 0).any():
        present = (left > 0) & (jobs.arrivals <= now)
        if present.any():
            left[present] -= step / present.sum()
            done[present & (left <= 0)] = now + step
        now += step
    return done - jobs.arrivals


def test_processor_sharing_is_that_of_small_steps() -> None:
    jobs = poisson_jobs([2.0, 1.0], [0.2, 0.4], 6.0, seed=1)
    assert shared_latency(jobs) == pytest.approx(by_small_steps(jobs, 1e-3), abs=0.03)
    assert (shared_latency(jobs, switch=0.2) >= shared_latency(jobs)).all()


def test_slices_do_jobs_one_after_the_other() -> None:
    jobs = poisson_jobs([2.0, 1.0, 1.0], [0.2, 0.4, 0.1], 30.0, seed=2)
    shares, free, wanted = [0.5, 0.25, 0.25], [0.0] * 3, []
    for arrival, work, tenant in zip(jobs.arrivals, jobs.work, jobs.tenants, strict=True):
        free[tenant] = max(free[tenant], arrival) + work / shares[tenant]
        wanted.append(free[tenant] - arrival)
    assert isolated_latency(jobs, shares) == pytest.approx(np.array(wanted))
