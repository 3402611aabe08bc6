r"""MIGPerf: what a model costs on a device, on a slice of one, and beside others.

A GPU of the kinds A30, A100, H100 and H200 can be cut into slices with memory and compute of their own ("multi-instance
GPU"). Whether a job runs better on a slice, on the whole GPU, or sharing it with others depends on the model, the
batch and the load; the paper measures it, and so does this part, on whatever the machine has: slices, GPUs, or the
CPU alone.

For a model and a list of batch sizes, `benchmark` runs inference or training after a warm-up, with the device waited
for at every boundary, and gives the mean, deviation, median, 95th and 99th percentile of each phase, the samples a
second of the whole window, and what was read of the device meanwhile: activity, memory, power. The energy of the
window is the difference of the device's counter, or power by the trapezoid rule,

$$E = \sum_i \tfrac{1}{2} (P_i + P_{i+1}) (t_{i+1} - t_i),$$

and the record says which. Requests can also arrive by a Poisson process; latency then counts from the moment when a
request was due, as a user feels it.

Around it: an inventory of GPUs and slices (`DeviceManager`), a planner of layouts that finds places for slices or
says what is in the way (`plan_layout`), a controller that prints the commands that cut a GPU and runs them only when
that is allowed (`PartitionController`), a background `Sampler`, a `PrometheusExporter` under the names of NVIDIA's,
and a comparison of copies of a model that share a device with copies on parts of their own (`compare_sharing`).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saccade.efficiency.migperf.backends import CpuBackend
from saccade.efficiency.migperf.detect import DeviceManager
from saccade.efficiency.migperf.inventory import ACTIVITY, MEMORY_USED, POWER, UTILISATION, Backend, Target
from saccade.efficiency.migperf.latency import energy, latency_stats, poisson_arrivals, series_stats
from saccade.efficiency.migperf.protocol import (
    Timed,
    closed_loop,
    mark_on,
    open_loop,
    training_loop,
    wait_for,
    windowed,
)
from saccade.efficiency.migperf.records import BenchResult, RunRecord
from saccade.efficiency.migperf.sampler import Sampler
from saccade.efficiency.migperf.workloads import InputSpec, Workload, default_loss, to_device, workload

Mode = Literal["infer", "train"]
Precision = Literal["fp32", "amp"]
USAGE = {"activity": ACTIVITY, "utilisation": UTILISATION, "memory_used": MEMORY_USED, "power": POWER}


def benchmark(
    model: str | nn.Module | Callable[..., Any],
    mode: Mode = "infer",
    batch_sizes: Sequence[int] = (1,),
    input_spec: InputSpec | None = None,
    device: str = "cpu",
    threads: int = 1,
    steps: int = 100,
    warmup: int = 20,
    arrival_rate: float | None = None,
    precision: Precision = "fp32",
    sampler: Sampler | float | None = 0.5,
    *,
    duration: float = 10.0,
    in_flight: int | None = None,
    optimizer: Literal["sgd", "adam"] = "sgd",
    loss: Callable[[Any, Any], Tensor] | None = None,
    attribute_power: bool = False,
    arguments: Sequence[str] = (),
    seed: int = 0,
    on_record: Callable[[RunRecord], object] | None = None,
    before_window: Callable[[], object] | None = None,
) -> BenchResult:
    """Measure a model on a device for several batch sizes.

    Args:
        model: By name (see `workload`), a module, or any callable.
        mode: `infer` or `train`.
        batch_sizes: A run each; one that does not fit into memory is recorded as such, and the sweep goes on.
        input_spec: What one sample looks like; what the model says where nothing is said.
        device: `cpu`, `cuda:0`, or the UUID of a GPU or slice, to which this process is then bound.
        threads: That call the model at the same time; of inference.
        steps: Measured batches (of each thread).
        warmup: Batches before them, forward alone.
        arrival_rate: Requests a second of an open loop; `None`: each thread begins a batch when its last is done.
        precision: `fp32`, or `amp` for autocast to bfloat16.
        sampler: A sampler of one's own (its first target then names the device), the period of one for this device, or
            `None` for no readings.
        duration: Of an open loop, in seconds.
        in_flight: Batches that may be queued on the device; `None`: it is waited for after each. Times are then the
            device's own.
        optimizer: Of training.
        loss: Of the model's output and its inputs; cross-entropy or mean square where nothing is said.
        attribute_power: Whether a slice is given its share of the GPU's power, by compute slices; the record says so.
        arguments: `key=value` for a model by name.
        seed: Of arrivals and weights.
        on_record: Called with each record as it is there.
        before_window: Called after the model is built, before the first run.

    Returns:
        A record for each batch size.

    Raises:
        ValueError: Settings that do not go together, or a device that is not there; the message lists those that are.

    Example:
        >>> result = benchmark("small-cnn", batch_sizes=(1, 8), steps=3, warmup=1, sampler=None)
        >>> [(record.batch_size, record.status, record.samples) for record in result]
        [(1, 'ok', 3), (8, 'ok', 24)]
    """
    _check(mode, batch_sizes, threads, steps, warmup, arrival_rate, precision, duration, in_flight, optimizer)
    place, target, own_sampler = _device(device, sampler)
    torch.manual_seed(seed)
    work = workload(model, input_spec, arguments)
    if mode == "train" and not any(p.requires_grad for p in (work.module.parameters() if work.module else ())):
        raise ValueError(f"{work.name} has nothing to learn: measure its inference")
    if work.module is not None:
        work.module.to(place).train(mode == "train")
    if before_window is not None:
        before_window()
    environment = _environment(place)
    records = []
    for batch_size in batch_sizes:
        record = RunRecord(mode, work.name, batch_size, threads, steps, precision)
        record.started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        record.device, record.environment = target.record(), environment
        try:
            if mode == "train":
                run = _training(work, place, batch_size, steps, warmup, precision, optimizer, loss or default_loss)
            else:
                arrivals = None if arrival_rate is None else poisson_arrivals(arrival_rate, duration, seed)
                run = _inference(work, place, batch_size, threads, steps, warmup, precision, arrivals, in_flight)
            sampling: AbstractContextManager[object] = nullcontext()
            if own_sampler is not None:
                own_sampler.reset()
                sampling = own_sampler
            with sampling:
                timed = run()
        except (RuntimeError, MemoryError, ValueError, TypeError, IndexError) as error:
            record.status = "oom" if out_of_memory(error) else "error"
            record.error = " ".join(str(error).split())[:500] or type(error).__name__
            if place.type == "cuda" and record.status == "oom":
                torch.cuda.empty_cache()
        else:
            _fill(record, timed, own_sampler, target, attribute_power)
        records.append(record)
        if on_record is not None:
            on_record(record)
    return BenchResult(tuple(records))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on the GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _check(
    mode: str,
    batch_sizes: Sequence[int],
    threads: int,
    steps: int,
    warmup: int,
    arrival_rate: float | None,
    precision: str,
    duration: float,
    in_flight: int | None,
    optimizer: str,
) -> None:
    if mode not in ("infer", "train"):
        raise ValueError(f"mode is infer or train, not {mode!r}")
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch sizes have to be at least 1, and there has to be one, not {list(batch_sizes)}")
    if steps < 1 or threads < 1 or warmup < 0:
        raise ValueError(
            f"steps and threads have to be at least 1, warmup at least 0, not {steps}, {threads}, {warmup}"
        )
    if precision not in ("fp32", "amp"):
        raise ValueError(f"precision is fp32 or amp, not {precision!r}")
    if optimizer not in ("sgd", "adam"):
        raise ValueError(f"optimizer is sgd or adam, not {optimizer!r}")
    if arrival_rate is not None and (not arrival_rate > 0 or not duration > 0):
        raise ValueError(f"arrival rate and duration have to be above 0, not {arrival_rate} and {duration}")
    if in_flight is not None and in_flight < 1:
        raise ValueError(f"in_flight has to be at least 1, not {in_flight}")
    if mode == "train" and (threads > 1 or arrival_rate is not None or in_flight is not None):
        raise ValueError("threads, an arrival rate and in_flight are of inference, not of training")
    if in_flight is not None and (threads > 1 or arrival_rate is not None):
        raise ValueError("in_flight queues the batches of one thread of a closed loop: no threads, no arrival rate")


def _device(device: str, sampler: Sampler | float | None) -> tuple[torch.device, Target, Sampler | None]:
    if isinstance(sampler, (int, float)) and not sampler > 0:
        raise ValueError(f"a sampler's period has to be above 0 s, not {sampler}")
    place, backend, target = find_device(device)
    if isinstance(sampler, Sampler):
        return place, sampler.targets[0], sampler
    return place, target, None if sampler is None else Sampler(backend, sampler, [target])


def find_device(device: str, backend: Backend | None = None) -> tuple[torch.device, Backend, Target]:
    """Where to compute, and how to read it.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, a UUID or a label; a UUID binds this process to it, before CUDA is initialised.
        backend: What lists the devices; found out where nothing is said.

    Returns:
        Torch's device, the backend, and the device in it.

    Raises:
        ValueError: It is not there, or this process is bound to another already.
    """
    if device == "cpu":
        backend = CpuBackend()
        return torch.device("cpu"), backend, backend.find("cpu")
    if backend is None:
        backend, reasons = DeviceManager.detect()
        if backend.name == "cpu":
            raise ValueError(f"no device {device!r}: this machine has the cpu alone ({'; '.join(reasons)})")
    bound = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ValueError(f"no device {device!r}: torch sees no GPU here")
        place = torch.device(device if ":" in device else "cuda:0")
        index = place.index or 0
        if index >= torch.cuda.device_count():
            raise ValueError(f"no device {device!r}; there is cuda:0 to cuda:{torch.cuda.device_count() - 1}")
        if bound.startswith(("MIG-", "GPU-")) and "," not in bound:
            return place, backend, backend.find(bound)
        uuid = str(torch.cuda.get_device_properties(index).uuid)
        return place, backend, backend.find(f"GPU-{uuid.removeprefix('GPU-')}")
    target = backend.find(device)
    if bound != target.uuid:
        if torch.cuda.is_initialized():
            raise ValueError(
                f"this process uses a GPU already, and one process sees one slice: run {device} in one of its "
                f"own, with CUDA_VISIBLE_DEVICES={target.uuid}"
            )
        os.environ.update(binding(target.uuid))
    if not torch.cuda.is_available():
        raise ValueError(f"torch sees no GPU here, though {backend.name} lists {target.label}")
    return torch.device("cuda:0"), backend, target


def binding(uuid: str) -> dict[str, str]:
    """What binds a process to a GPU or slice, in its environment before CUDA is initialised.

    Args:
        uuid: Of the GPU or slice; empty for none.

    Returns:
        Variables.
    """
    return {"CUDA_VISIBLE_DEVICES": uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _autocast(place: torch.device, precision: str) -> AbstractContextManager[object]:
    return torch.autocast(place.type, torch.bfloat16, enabled=precision == "amp")


def _inference(
    work: Workload,
    place: torch.device,
    batch_size: int,
    threads: int,
    steps: int,
    warmup: int,
    precision: str,
    arrivals: Any,
    in_flight: int | None,
) -> Callable[[], Timed]:
    def step_of_thread() -> Callable[[], object]:
        inputs = to_device(work.inputs(batch_size), place)
        call = (lambda: work(inputs)) if precision == "fp32" else (lambda: _under_autocast(work, inputs, place))

        def step() -> object:
            with torch.inference_mode():  # of the thread that calls
                return call()

        return step

    def run() -> Timed:
        kept = [step_of_thread() for _ in range(threads)]
        wait = wait_for(place)
        if arrivals is not None:
            return open_loop(kept, arrivals, batch_size, warmup, wait)
        if in_flight is not None:
            return windowed(kept[0], steps, batch_size, warmup, in_flight, mark_on(place), wait)
        return closed_loop(kept, steps, batch_size, warmup, wait)

    return run


def _under_autocast(work: Workload, inputs: Any, place: torch.device) -> object:
    with _autocast(place, "amp"):
        return work(inputs)


def _training(
    work: Workload,
    place: torch.device,
    batch_size: int,
    steps: int,
    warmup: int,
    precision: str,
    optimizer: str,
    loss: Callable[[Any, Any], Tensor],
) -> Callable[[], Timed]:
    def run() -> Timed:
        module = work.module
        parameters = [p for p in module.parameters() if p.requires_grad] if module is not None else []
        rule: torch.optim.Optimizer = (
            torch.optim.SGD(parameters, 1e-3, 0.9) if optimizer == "sgd" else torch.optim.Adam(parameters, 1e-4)
        )
        on_host = work.inputs(batch_size)
        here: list[Any] = [None, None]

        def load() -> None:
            here[0] = to_device(on_host, place)

        def forward() -> None:
            with _autocast(place, precision):
                here[1] = loss(work(here[0]), here[0])

        def backward() -> None:
            rule.zero_grad(set_to_none=True)
            here[1].backward()
            rule.step()

        return training_loop(load, forward, backward, steps, batch_size, warmup, wait_for(place))

    return run


def _fill(record: RunRecord, timed: Timed, sampler: Sampler | None, target: Target, attribute: bool) -> None:
    record.samples = timed.samples
    record.throughput = timed.samples / max(timed.finish - timed.start, 1e-12)
    record.timing = {name: {**latency_stats(times).row(), "raw": times} for name, times in timed.phases.items()}
    if sampler is None:
        record.energy = {"joules": None, "per_sample": None, "source": "none: nothing was sampled"}
        return
    key = sampler.targets[0].key
    series = sampler.series[key]
    record.usage = {name: series_stats(series, own) for name, own in USAGE.items() if own in series}
    share = None
    if target.slice is not None and attribute and target.slice.compute_slices:
        from saccade.efficiency.migperf.profiles import gpu_model

        share = target.slice.compute_slices / gpu_model(target.gpu.name).compute_slices
    used = energy(series, timed.start, timed.finish, timed.samples, share, whole_gpu=target.slice is not None)
    record.energy = used.row()
    record.metrics = {
        name: {"t": [t - timed.start for t in column["t"] if t is not None], "v": list(column["v"])}
        for name, column in series.items()
    }
    if key in sampler.gaps:
        at, reason = sampler.gaps[key]
        record.notes.append(f"sampling ended {at - timed.start:.2f} s into the window: {reason}")


def _environment(place: torch.device) -> dict[str, Any]:
    from saccade.bench import hardware

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if place.type == "cuda" else None,
        "driver": _driver() if place.type == "cuda" else None,
        "cpu": hardware("cpu"),
        "threads": torch.get_num_threads(),
        "device": hardware(str(place)),
        "clock_resolution": time.get_clock_info("perf_counter").resolution,
    }


def _driver() -> str | None:
    try:
        import pynvml

        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no binding, or one that was not initialised: the version is not worth an error
        return None
