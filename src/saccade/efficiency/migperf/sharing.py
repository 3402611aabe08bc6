"""Copies of a model that share a device, against copies on parts of their own, on what the machine has.

On a GPU: time-slicing (processes without MPS), MPS where its daemon runs, slices where it is cut. On a CPU: processes
that share all cores, and processes bound to cores of their own. Nothing is changed to make an arrangement possible:
what is not there is left out, and named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import saccade
from saccade.efficiency.migperf.backends import CpuBackend
from saccade.efficiency.migperf.inventory import Backend, Target
from saccade.efficiency.migperf.latency import latency_stats
from saccade.efficiency.migperf.partition import mps_running
from saccade.efficiency.migperf.records import RunRecord
from saccade.efficiency.migperf.runs import binding


@dataclass(frozen=True)
class Copy:
    """Where one copy runs.

    Args:
        device: For `benchmark`.
        environment: Variables of its process.
        cores: It is bound to; empty: all.
        torch_threads: 0: torch's own choice.
    """

    device: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    torch_threads: int = 0


@dataclass(frozen=True)
class Arrangement:
    """One way to share.

    Args:
        name: `alone`, `time-slicing`, `mps`, `mig`, `shared cores` or `own cores`.
        copies: Where each runs.
    """

    name: str
    copies: tuple[Copy, ...]


@dataclass(frozen=True)
class Shared:
    """What an arrangement gave.

    Args:
        name: Of the arrangement.
        records: Of the copies.
    """

    name: str
    records: tuple[RunRecord, ...]

    def row(self) -> dict[str, Any]:
        """Throughput of all copies together, latency of all their batches, and the slowest copy's p99 (ms)."""
        ran = [record for record in self.records if record.status == "ok"]
        row: dict[str, Any] = {
            "arrangement": self.name,
            "copies": len(self.records),
            "failed": len(self.records) - len(ran),
        }
        phases = [record.timing[record.main_phase] for record in ran]
        pooled = latency_stats([t for phase in phases for t in phase["raw"]]) if ran else None
        row["throughput"] = sum(record.throughput or 0.0 for record in ran) if ran else None
        for name in ("mean", "p50", "p99"):
            row[f"{name}_ms"] = None if pooled is None else 1e3 * getattr(pooled, name)
        row["worst_p99_ms"] = 1e3 * max(phase["p99"] for phase in phases) if ran else None
        joules = [float(one) for record in ran if (one := record.energy.get("per_sample")) is not None]
        row["joules_per_sample"] = sum(joules) / len(joules) if joules and len(joules) == len(ran) else None
        return row


@dataclass(frozen=True)
class SharingResult:
    """A comparison of arrangements.

    Args:
        results: Of each that was possible.
        left_out: What was not, and why.
    """

    results: tuple[Shared, ...]
    left_out: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each arrangement."""
        return [result.row() for result in self.results]


def arrangements(
    backend: Backend, device: str, copies: int, mps: bool | None = None, cores: Sequence[int] | None = None
) -> tuple[list[Arrangement], list[str]]:
    """What is possible here.

    Args:
        backend: Lists the devices.
        device: `cpu`, or a GPU by index or UUID.
        copies: How many run at a time.
        mps: Whether its daemon runs; looked up where nothing is said.
        cores: Of the CPU that may be used; this process's where nothing is said.

    Returns:
        Arrangements, and what is left out, with reasons.

    Raises:
        ValueError: Fewer than two copies, or no such device.
    """
    if copies < 2:
        raise ValueError(f"a comparison of sharing needs at least 2 copies, not {copies}")
    if device == "cpu":
        return _on_cpu(copies, sorted(os.sched_getaffinity(0)) if cores is None else list(cores))
    target = backend.find(device)
    gpu = target.gpu
    mps = mps_running() if mps is None else mps
    whole = Copy("cuda:0", binding(gpu.uuid))
    found, left_out = [], []
    if gpu.mig:
        reason = f"GPU {gpu.index} is cut into slices, so that it cannot be shared as a whole"
        left_out += [f"{name}: {reason}" for name in ("alone", "time-slicing", "mps")]
    else:
        found.append(Arrangement("alone", (whole,)))
        other, why = ("mps", "the daemon of MPS runs") if mps else ("time-slicing", "the daemon of MPS does not run")
        found.append(Arrangement(other, (whole,) * copies))
        left_out.append(f"{'time-slicing' if mps else 'mps'}: {why}")
    if len(gpu.devices) >= copies:
        slices = [Target(gpu, own) for own in gpu.devices[:copies]]
        found.append(Arrangement("mig", tuple(Copy("cuda:0", binding(own.uuid)) for own in slices)))
    else:
        left_out.append(f"mig: {copies} slices would be needed, GPU {gpu.index} has {len(gpu.devices)}")
    return found, left_out


def _on_cpu(copies: int, cores: list[int]) -> tuple[list[Arrangement], list[str]]:
    threads = max(1, len(cores) // copies)
    found = [
        Arrangement("alone", (Copy("cpu", torch_threads=len(cores)),)),
        Arrangement("shared cores", (Copy("cpu", torch_threads=threads),) * copies),
    ]
    left_out = [f"{name}: there is no GPU" for name in ("time-slicing", "mps", "mig")]
    if len(cores) < copies or not hasattr(os, "sched_setaffinity"):
        left_out.append(f"own cores: {copies} cores would be needed, there are {len(cores)}")
        return found, left_out
    own = [tuple(cores[number * threads : (number + 1) * threads]) for number in range(copies)]
    found.append(Arrangement("own cores", tuple(Copy("cpu", cores=mine, torch_threads=threads) for mine in own)))
    return found, left_out


def run_copies(
    copies: Sequence[Copy], settings: Mapping[str, Any] | Sequence[Mapping[str, Any]], timeout: float = 600.0
) -> list[RunRecord]:
    """Run copies at the same time, a process each; they begin together when all have built their model.

    Args:
        copies: Where each runs.
        settings: Of `benchmark`, as JSON knows them, with one batch size; the same for all, or those of each.
        timeout: Seconds, after which they are ended.

    Returns:
        A record of each.

    Raises:
        RuntimeError: A copy could not be measured.
    """
    source = str(Path(saccade.__file__).parents[1])
    of_each = [settings] * len(copies) if isinstance(settings, Mapping) else settings
    started: list[subprocess.Popen[str]] = []
    try:
        for copy, its in zip(copies, of_each, strict=True):
            paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **copy.environment}
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "saccade.efficiency.migperf.copies"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
            own = {**its, "device": copy.device, "cores": copy.cores, "torch_threads": copy.torch_threads}
            _tell(started[-1], json.dumps(own))
        waiting = [_line(process) for process in started]
        for process, line in zip(started, waiting, strict=True):
            if line != "ready":
                raise RuntimeError(_complaint(process, line))
        for process in started:
            _tell(process, "go")
        records = []
        for process in started:
            said, errors = process.communicate(timeout=timeout)
            content = json.loads(said.strip().splitlines()[-1]) if said.strip() else {"error": errors.strip()[-300:]}
            if set(content) == {"error"}:
                raise RuntimeError(f"a copy could not be measured: {content['error']}")
            records.append(RunRecord.from_dict(content, "a copy's answer"))
        return records
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"copies took more than {timeout:g} s") from None
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def compare_sharing(
    model: str,
    backend: Backend | None = None,
    device: str = "cpu",
    copies: int = 4,
    batch_size: int = 1,
    on_arrangement: Callable[[str], object] | None = None,
    **settings: Any,
) -> SharingResult:
    """Measure each arrangement that the machine allows.

    Args:
        model: By name, as a process of its own has to build it.
        backend: Lists the devices; the CPU where nothing is said.
        device: `cpu`, or a GPU by index or UUID.
        copies: That run at a time.
        batch_size: Of each.
        on_arrangement: Called with the name of each before it runs.
        **settings: Of `benchmark`: mode, steps, warmup, threads, arrival_rate, precision, input_spec...

    Returns:
        Figures of each arrangement, and what was left out.

    Raises:
        ValueError: Fewer than two copies, or no such device.
        RuntimeError: A copy could not be measured.
    """
    possible, left_out = arrangements(backend or CpuBackend(), device, copies)
    results = []
    for arrangement in possible:
        if on_arrangement is not None:
            on_arrangement(arrangement.name)
        about = {"model": model, "batch_sizes": [batch_size], **settings}
        results.append(Shared(arrangement.name, tuple(run_copies(arrangement.copies, about))))
    return SharingResult(tuple(results), tuple(left_out))


def _tell(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is not None:
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:  # it has ended; its own words say why
            return


def _line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip() if process.stdout is not None else ""


def _complaint(process: subprocess.Popen[str], line: str) -> str:
    if line.startswith("{"):
        return f"a copy could not be measured: {json.loads(line)['error']}"
    process.kill()
    errors = process.stderr.read().strip().splitlines() if process.stderr is not None else []
    return f"a copy did not start: {errors[-1] if errors else 'it said nothing'}"
