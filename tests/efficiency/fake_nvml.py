"""A binding of NVML that answers from a table: what a real one says, recorded in its own terms."""

# ruff: noqa: N802

from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__({1: "Uninitialized", 3: "Not Supported", 6: "Not Found", 15: "GPU is lost"}[value])
        self.value = value


class FakeNvml:
    """An A30 with slices at device numbers 0 and 2, whose instance ids run the other way; and a GPU that is whole."""

    NVMLError = NVMLError
    slices = {0: (5, 0, "1g.6gb", 1), 2: (1, 0, "2g.12gb", 2)}  # noqa: RUF012

    def __init__(self, lost_after: int | None = None, driver: bool = True) -> None:
        self.calls: list[str] = []
        self.lost_after, self.driver, self.millijoules = lost_after, driver, 1_000_000

    def _called(self, name: str) -> None:
        self.calls.append(name)

    def nvmlInit(self) -> None:
        if not self.driver:
            raise NVMLError(1)

    def nvmlShutdown(self) -> None:
        self._called("shutdown")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> tuple:
        self._called("handle")
        return ("gpu", index)

    def nvmlDeviceGetName(self, handle: tuple) -> Any:
        if handle[0] == "mig":
            return f"NVIDIA A30 MIG {self.slices[handle[2]][2]}"
        return b"NVIDIA A30" if handle[1] == 0 else "NVIDIA T4"

    def nvmlDeviceGetUUID(self, handle: tuple) -> str:
        return f"MIG-0000000{handle[2]}-x" if handle[0] == "mig" else f"GPU-0000000{handle[1]}-x"

    def nvmlDeviceGetMigMode(self, handle: tuple) -> list[int]:
        if handle[1] == 1:
            raise NVMLError(3)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: tuple) -> int:
        return 4

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: tuple, number: int) -> tuple:
        if number not in self.slices:
            raise NVMLError(6)
        return ("mig", handle[1], number)

    def nvmlDeviceGetGpuInstanceId(self, handle: tuple) -> int:
        return self.slices[handle[2]][0]

    def nvmlDeviceGetComputeInstanceId(self, handle: tuple) -> int:
        return self.slices[handle[2]][1]

    def nvmlDeviceGetAttributes(self, handle: tuple) -> SimpleNamespace:
        return SimpleNamespace(gpuInstanceSliceCount=self.slices[handle[2]][3], memorySizeMB=6000)

    def nvmlDeviceGetMemoryInfo(self, handle: tuple) -> SimpleNamespace:
        total = 6 * 2**30 if handle[0] == "mig" else 24 * 2**30
        return SimpleNamespace(total=total, used=2**30, free=total - 2**30)

    def nvmlDeviceGetPowerUsage(self, handle: tuple) -> int:
        self._called("power")
        if self.lost_after is not None and self.calls.count("power") > self.lost_after:
            raise NVMLError(15)
        return 61_500

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: tuple) -> int:
        self._called("energy")
        if handle[1] == 1:
            raise NVMLError(3)
        self.millijoules += 2000
        return self.millijoules

    def nvmlDeviceGetUtilizationRates(self, handle: tuple) -> SimpleNamespace:
        self._called("utilisation")
        if handle[1] == 0:  # as of any GPU that is cut
            raise NVMLError(3)
        return SimpleNamespace(gpu=42, memory=7)

    def nvmlDeviceGetTemperature(self, handle: tuple, sensor: int) -> int:
        return 55

    def nvmlDeviceGetClockInfo(self, handle: tuple, kind: int) -> int:
        return {1: 1440, 2: 1215}[kind]

    def nvmlDeviceGetPcieThroughput(self, handle: tuple, kind: int) -> int:
        return {0: 10, 1: 20}[kind]
