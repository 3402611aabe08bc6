"""Reading NVIDIA GPUs through NVML, with the binding `nvidia-ml-py` (extra `gpu-bench`). Reads only."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from saccade.efficiency.migperf.inventory import (
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

LOST = {1, 15}
"""NVML's numbers for: uninitialized, GPU is lost."""

MEBIBYTE = 2**20


class NvmlBackend(Backend):
    """GPUs as NVML sees them. What a device does not support is `None`, and is not asked for again.

    Args:
        binding: The module; `pynvml` where `None`.
        clock: Seconds; PCIe bytes are the integral of the throughput that NVML gives.

    Raises:
        BackendUnavailable: No binding, or no driver that answers.
    """

    name = "nvml"

    def __init__(self, binding: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        if binding is None:
            try:
                binding = importlib.import_module("pynvml")
            except ImportError:
                raise BackendUnavailable(
                    "NVML cannot be read: its binding is not installed (pip install 'saccade[gpu-bench]')"
                ) from None
        self.nvml, self.clock = binding, clock
        try:
            binding.nvmlInit()
        except Exception as error:  # the binding's own class, and OSError where the library is missing
            raise BackendUnavailable(f"NVML cannot be read: {error}") from None
        self._handles: dict[Key, Any] = {}
        self._unsupported: set[tuple[Key, str]] = set()
        self._bytes: dict[tuple[Key, str], tuple[float, float]] = {}

    def close(self) -> None:
        """Shut NVML down."""
        self.nvml.nvmlShutdown()

    def gpus(self) -> list[Gpu]:
        """GPUs and their slices, listed anew."""
        self._handles.clear()
        found = []
        for index in range(self.nvml.nvmlDeviceGetCount()):
            handle = self.nvml.nvmlDeviceGetHandleByIndex(index)
            key = (index, None)
            self._handles[key] = handle
            modes = self._ask(key, "nvmlDeviceGetMigMode", handle)
            memory = self._ask(key, "nvmlDeviceGetMemoryInfo", handle)
            found.append(
                Gpu(
                    index,
                    _text(self.nvml.nvmlDeviceGetName(handle)),
                    _text(self.nvml.nvmlDeviceGetUUID(handle)),
                    "cuda",
                    None if memory is None else memory.total / MEBIBYTE,
                    None if memory is None else memory.used / MEBIBYTE,
                    None if modes is None else bool(modes[0]),
                    None if modes is None else bool(modes[1]),
                    self._slices(index, handle) if modes is not None and modes[0] else (),
                )
            )
        return found

    def read(self, key: Key) -> Reading:
        """Fields of a GPU or slice; power and energy of a slice are those of its GPU, its utilisation nobody knows."""
        whole = (key[0], None)
        if key not in self._handles:
            self.gpus()
        if key not in self._handles:
            raise ValueError(f"no device {key}; there is {', '.join(map(str, self._handles))}")
        handle, parent, nvml = self._handles[key], self._handles[whole], self.nvml
        memory = self._ask(key, "nvmlDeviceGetMemoryInfo", handle)
        power = self._ask(whole, "nvmlDeviceGetPowerUsage", parent)
        used = None if key[1] is not None else self._ask(key, "nvmlDeviceGetUtilizationRates", handle)
        fields: Reading = {
            POWER: None if power is None else power / 1000,
            ENERGY: self._ask(whole, "nvmlDeviceGetTotalEnergyConsumption", parent),
            MEMORY_USED: None if memory is None else memory.used / MEBIBYTE,
            MEMORY_FREE: None if memory is None else memory.free / MEBIBYTE,
            UTILISATION: None if used is None else float(used.gpu),
            "DCGM_FI_DEV_MEM_COPY_UTIL": None if used is None else float(used.memory),
            "DCGM_FI_DEV_GPU_TEMP": self._ask(whole, "nvmlDeviceGetTemperature", parent, 0),
            "DCGM_FI_DEV_SM_CLOCK": self._ask(whole, "nvmlDeviceGetClockInfo", parent, 1),
            "DCGM_FI_DEV_MEM_CLOCK": self._ask(whole, "nvmlDeviceGetClockInfo", parent, 2),
        }
        for name, call in (
            ("DCGM_FI_DEV_ENC_UTIL", "nvmlDeviceGetEncoderUtilization"),
            ("DCGM_FI_DEV_DEC_UTIL", "nvmlDeviceGetDecoderUtilization"),
        ):
            pair = None if key[1] is not None or not hasattr(nvml, call) else self._ask(key, call, handle)
            fields[name] = None if pair is None else float(pair[0])
        for name, number in (("DCGM_FI_PROF_PCIE_TX_BYTES", 0), ("DCGM_FI_PROF_PCIE_RX_BYTES", 1)):
            fields[name] = self._pcie(whole, name, parent, number)
        return {name: None if value is None else float(value) for name, value in fields.items()}

    def _slices(self, index: int, handle: Any) -> tuple[MigDevice, ...]:
        found = []
        for number in range(self.nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                own = self.nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            except self.nvml.NVMLError as error:
                self._lost(error)
                continue  # no slice of that number
            gi = int(self.nvml.nvmlDeviceGetGpuInstanceId(own))
            key = (index, gi)
            self._handles[key] = own
            about = self._ask(key, "nvmlDeviceGetAttributes", own)
            memory = self._ask(key, "nvmlDeviceGetMemoryInfo", own)
            name = _text(self.nvml.nvmlDeviceGetName(own))
            found.append(
                MigDevice(
                    number,
                    _text(self.nvml.nvmlDeviceGetUUID(own)),
                    name.rpartition("MIG ")[2],
                    gi,
                    self._ask(key, "nvmlDeviceGetComputeInstanceId", own),
                    self._placement(index, handle, gi),
                    None if memory is None else memory.total / MEBIBYTE,
                    None if memory is None else memory.used / MEBIBYTE,
                    None if about is None else int(about.gpuInstanceSliceCount),
                )
            )
        return tuple(found)

    def _placement(self, index: int, handle: Any, gi: int) -> Placement | None:
        """Newer bindings alone give it."""
        calls = ("nvmlDeviceGetGpuInstanceById", "nvmlGpuInstanceGetInfo")
        if not all(hasattr(self.nvml, call) for call in calls):
            return None
        key = (index, gi)
        instance = self._ask(key, calls[0], handle, gi)
        about = None if instance is None else self._ask(key, calls[1], instance)
        return None if about is None else Placement(int(about.placement.start), int(about.placement.size))

    def _pcie(self, key: Key, name: str, handle: Any, number: int) -> float | None:
        """NVML gives KB/s over the last 20 ms: their integral since the first reading."""
        rate = self._ask(key, "nvmlDeviceGetPcieThroughput", handle, number)
        if rate is None:
            return None
        now = self.clock()
        before, total = self._bytes.get((key, name), (now, 0.0))
        total += 1024 * rate * (now - before)
        self._bytes[key, name] = now, total
        return total

    def _ask(self, key: Key, call: str, *arguments: Any) -> Any:
        """What a getter gives; `None` where it is not supported, which is remembered."""
        what = f"{call}{arguments[1:]}"
        if (key, what) in self._unsupported:
            return None
        try:
            return getattr(self.nvml, call)(*arguments)
        except (self.nvml.NVMLError, AttributeError) as error:
            self._lost(error)
            self._unsupported.add((key, what))
            return None

    def _lost(self, error: Exception) -> None:
        if getattr(error, "value", None) in LOST:
            raise GpuLost(str(error)) from error


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
