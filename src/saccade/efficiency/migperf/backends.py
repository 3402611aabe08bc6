"""Further ways to look at a machine: the driver's command, an exporter that runs already, a recorded trace, the CPU."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from saccade.efficiency.migperf import smi_text
from saccade.efficiency.migperf.exposition import parse_exposition
from saccade.efficiency.migperf.inventory import (
    ACTIVITY,
    ENERGY,
    MEMORY_FREE,
    MEMORY_USED,
    POWER,
    UTILISATION,
    Backend,
    BackendUnavailable,
    Gpu,
    GpuLost,
    Key,
    MigDevice,
    Placement,
    Reading,
)
from saccade.efficiency.migperf.simulated import Completed

MEBIBYTE = 2**20

Run = Callable[[Sequence[str]], Completed]


def run_command(command: Sequence[str], timeout: float = 60.0) -> Completed:
    """Run a command without a shell.

    Args:
        command: Its words.
        timeout: Seconds.

    Returns:
        What came of it; a missing program has the exit code 127, one that takes too long 124.
    """
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        return Completed(127, "", f"{command[0]} is not installed")
    except subprocess.TimeoutExpired:
        return Completed(124, "", f"{command[0]} took more than {timeout:g} s")
    except OSError as error:
        return Completed(126, "", str(error))
    return Completed(done.returncode, done.stdout, done.stderr)


class SmiBackend(Backend):
    """GPUs as `nvidia-smi` prints them.

    Args:
        run: Runs a command; this machine's where nothing is said.

    Raises:
        BackendUnavailable: The command does not answer.
    """

    name = "smi"
    QUERY: ClassVar[dict[str, str]] = {
        "power.draw": POWER,
        "memory.used": MEMORY_USED,
        "memory.free": MEMORY_FREE,
        "utilization.gpu": UTILISATION,
        "utilization.memory": "DCGM_FI_DEV_MEM_COPY_UTIL",
        "temperature.gpu": "DCGM_FI_DEV_GPU_TEMP",
        "temperature.memory": "DCGM_FI_DEV_MEMORY_TEMP",
        "clocks.sm": "DCGM_FI_DEV_SM_CLOCK",
        "clocks.mem": "DCGM_FI_DEV_MEM_CLOCK",
    }

    def __init__(self, run: Run = run_command) -> None:
        self.run = run
        self._said(["nvidia-smi", "-L"])

    def gpus(self) -> list[Gpu]:
        """GPUs and their slices, listed anew: the order of slices changes with every partitioning."""
        listed = smi_text.listed_devices(self._said(["nvidia-smi", "-L"]))
        query = ["nvidia-smi", "--query-gpu=mig.mode.current,mig.mode.pending", "--format=csv,noheader"]
        said = [line for line in self._said(query).splitlines() if "," in line]
        modes = smi_text.mig_status("\n".join(said))
        rows: dict[tuple[int, int], Any] = {}
        places: dict[tuple[int, int], Any] = {}
        if any(current for current, _ in modes):
            rows = {(row["gpu_id"], row["index"]): row for row in smi_text.device_rows(self._said(["nvidia-smi"]))}
            instances = smi_text.gpu_instances(self._said(["nvidia-smi", "mig", "-lgi"]))
            places = {(row["gpu_id"], row["gi_id"]): row["placement"] for row in instances}
        found = []
        for number, gpu in enumerate(row for row in listed if row["index"] is None):
            index = gpu["gpu_id"]
            offered = number < len(modes) and "N/A" not in said[number]
            devices = [
                self._slice(row, rows.get((index, row["index"])), places)
                for row in listed
                if row["gpu_id"] == index and row["index"] is not None
            ]
            mode: tuple[bool | None, bool | None] = modes[number] if offered else (None, None)
            found.append(Gpu(index, gpu["name"], gpu["uuid"], "cuda", None, None, *mode, tuple(devices)))
        return found

    def read(self, key: Key) -> Reading:
        """Fields of the whole GPU; of a slice its memory, and the power of its GPU."""
        query = f"--query-gpu={','.join(self.QUERY)}"
        text = self._said(["nvidia-smi", "-i", str(key[0]), query, "--format=csv,noheader,nounits"])
        figures = [smi_text.number(figure) for figure in (text.strip().splitlines() or [""])[0].split(",")]
        fields: Reading = dict(zip(self.QUERY.values(), figures, strict=False))
        if key[1] is not None:
            rows = smi_text.device_rows(self._said(["nvidia-smi"]))
            own = next((row for row in rows if (row["gpu_id"], row["gi_id"]) == key), None)
            used, total = (own["memory_used"], own["memory_total"]) if own else (None, None)
            fields |= {UTILISATION: None, "DCGM_FI_DEV_MEM_COPY_UTIL": None, MEMORY_USED: used}
            fields[MEMORY_FREE] = None if used is None or total is None else total - used
        return fields

    def _said(self, command: Sequence[str]) -> str:
        done = self.run(command)
        if done.returncode:
            message = f"`{' '.join(command)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
            raise GpuLost(message) if "GPU is lost" in message else BackendUnavailable(message)
        return done.stdout

    @staticmethod
    def _slice(listed: dict[str, Any], row: dict[str, Any] | None, places: dict[tuple[int, int], Any]) -> MigDevice:
        profile = listed["name"].removeprefix("MIG ")
        compute = next(
            (int(part[:-1]) for part in profile.split(".") if part.endswith("g") and part[:-1].isdigit()), None
        )
        if row is None:
            return MigDevice(listed["index"], listed["uuid"], profile, compute_slices=compute)
        place = places.get((row["gpu_id"], row["gi_id"]))
        return MigDevice(
            listed["index"],
            listed["uuid"],
            profile,
            row["gi_id"],
            row["ci_id"],
            Placement(**place) if place else None,
            row["memory_total"],
            row["memory_used"],
            compute,
        )


class ExporterBackend(Backend):
    """Readings from an exporter that serves DCGM's fields: activity of slices, too, which NVML does not give.

    Args:
        inventory: Lists what there is.
        fetch: Gives the exporter's text.
    """

    name = "exporter"

    def __init__(self, inventory: Backend, fetch: Callable[[], str]) -> None:
        self.inventory, self.fetch = inventory, fetch

    def gpus(self) -> list[Gpu]:
        """As the inventory lists them."""
        return self.inventory.gpus()

    def read(self, key: Key) -> Reading:
        """What the exporter serves for it; a slice without power of its own gets its GPU's."""
        samples = parse_exposition(self.fetch())
        if key not in samples and (key[0], None) not in samples:
            raise GpuLost(f"the exporter no longer serves {key}")
        whole = samples.get((key[0], None), {})
        return {**{name: whole.get(name) for name in (POWER, ENERGY)}, **samples.get(key, {})}


class CpuBackend(Backend):
    """The CPU as a pseudo device: the memory of this process, its share of the cores, and energy where Linux gives it.

    Args:
        powercap: Folder of Linux' energy counters (readable by root alone on most machines).
    """

    name = "cpu"

    def __init__(self, powercap: Path = Path("/sys/class/powercap")) -> None:
        self.counters = sorted(powercap.glob("intel-rapl:[0-9]/energy_uj")) if powercap.is_dir() else []
        self.counters = [path for path in self.counters if os.access(path, os.R_OK)]
        self._before: tuple[float, float] | None = None
        self._wrapped: dict[Path, tuple[int, int]] = {}

    def gpus(self) -> list[Gpu]:
        """One device, `cpu:0`."""
        from saccade.bench import hardware

        name, (used, total) = hardware("cpu"), _memory()
        return [Gpu(0, name, f"cpu:{platform.node()}", "cpu", total, used)]

    def read(self, key: Key) -> Reading:
        """Memory of this process (MiB), cores that it keeps busy (% of all), energy of the packages (mJ)."""
        used, total = _memory()
        now, spent = time.perf_counter(), time.process_time()
        busy = None
        if self._before is not None and now > self._before[0]:
            busy = min(1.0, (spent - self._before[1]) / (now - self._before[0]) / (os.cpu_count() or 1))
        self._before = now, spent
        fields: Reading = {MEMORY_USED: used, UTILISATION: None if busy is None else 100 * busy, POWER: None}
        fields[MEMORY_FREE] = None if used is None or total is None else total - used
        fields[ENERGY] = self._energy()
        fields[ACTIVITY] = None
        return fields

    def _energy(self) -> float | None:
        try:
            counts = [self._unwrapped(path) for path in self.counters]
        except (OSError, ValueError):
            return None
        return sum(counts) / 1000 if counts else None

    def _unwrapped(self, path: Path) -> int:
        """Counters begin again at 0 when they are full."""
        count = int(path.read_text())
        before, added = self._wrapped.get(path, (count, 0))
        if count < before:
            added += int((path.parent / "max_energy_range_uj").read_text())
        self._wrapped[path] = count, added
        return count + added


class RecordedBackend(Backend):
    """A machine as it was: replays a trace that `record_trace` wrote.

    Args:
        trace: The content, or the file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a trace.
    """

    name = "recorded"

    def __init__(self, trace: dict[str, Any] | str | Path) -> None:
        content = trace if isinstance(trace, dict) else _load(Path(trace))
        if not {"schema", "gpus", "readings"} <= set(content) or content["schema"] != 1:
            raise ValueError("a trace holds `schema` 1, `gpus` and `readings`")
        self._gpus = [Gpu.from_dict(gpu) for gpu in content["gpus"]]
        self._readings: dict[Key, list[dict[str, Any]]] = {}
        for row in content["readings"]:
            try:
                self._readings.setdefault((row["gpu"], row["gi"]), []).append(row)
            except (KeyError, TypeError):
                raise ValueError("each reading of a trace holds `gpu`, `gi`, `t`, and `fields` or `lost`") from None
        self._next = dict.fromkeys(self._readings, 0)

    def gpus(self) -> list[Gpu]:
        """As they were."""
        return self._gpus

    def read(self, key: Key) -> Reading:
        """The next reading of the device; the last one again and again at the end."""
        rows = self._readings.get(key)
        if not rows:
            there = ", ".join(map(str, self._readings)) or "none"
            raise ValueError(f"the trace has no reading of {key}; it has {there}")
        row = rows[min(self._next[key], len(rows) - 1)]
        self._next[key] += 1
        if row.get("lost"):
            raise GpuLost(f"GPU {key[0]} was lost when this was recorded")
        return dict(row["fields"])


def record_trace(
    backend: Backend,
    readings: int,
    period: float = 0.5,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Record what a machine says, for `RecordedBackend`.

    Args:
        backend: The machine.
        readings: How many of each device.
        period: Seconds between them.
        sleep: Waits.
        clock: Seconds.

    Returns:
        The trace, to be written as JSON.

    Raises:
        ValueError: No readings, or a period that is not above 0.
    """
    if readings < 1 or not period > 0:
        raise ValueError(f"readings have to be at least 1 and the period above 0, not {readings} and {period}")
    start, targets = clock(), backend.targets()
    rows: list[dict[str, Any]] = []
    for number in range(readings):
        if number:
            sleep(period)
        for target in targets:
            row: dict[str, Any] = {"t": clock() - start, "gpu": target.key[0], "gi": target.key[1]}
            try:
                row["fields"] = backend.read(target.key)
            except GpuLost:
                row["lost"] = True
            rows.append(row)
    return {"schema": 1, "gpus": [gpu.as_dict() for gpu in backend.gpus()], "readings": rows}


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no trace {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def _memory() -> tuple[float | None, float | None]:
    """Resident memory of this process and all memory of the machine, MiB; `None` where the system does not say."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        used = int(Path("/proc/self/statm").read_text().split()[1]) * page / MEBIBYTE
        return used, os.sysconf("SC_PHYS_PAGES") * page / MEBIBYTE
    except (OSError, ValueError, AttributeError):
        return None, None
