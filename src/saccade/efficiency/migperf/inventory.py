"""What a machine has: GPUs, their slices, and the narrow interface through which everything else looks at them.

Readings carry the field names of NVIDIA's DCGM, so that dashboards made for its exporter also read ours. A field that a
device does not give is `None`, never 0: NVML knows no utilisation of a slice, and a CPU has no encoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any

POWER = "DCGM_FI_DEV_POWER_USAGE"
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
MEMORY_USED = "DCGM_FI_DEV_FB_USED"
MEMORY_FREE = "DCGM_FI_DEV_FB_FREE"
ACTIVITY = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
UTILISATION = "DCGM_FI_DEV_GPU_UTIL"

FIELDS: dict[str, tuple[str, str]] = {
    "DCGM_FI_DEV_SM_CLOCK": ("gauge", "clock of the multiprocessors (MHz)"),
    "DCGM_FI_DEV_MEM_CLOCK": ("gauge", "clock of the memory (MHz)"),
    "DCGM_FI_DEV_MEMORY_TEMP": ("gauge", "temperature of the memory (C)"),
    "DCGM_FI_DEV_GPU_TEMP": ("gauge", "temperature of the GPU (C)"),
    POWER: ("gauge", "power (W)"),
    ENERGY: ("counter", "energy since the driver was loaded (mJ)"),
    UTILISATION: ("gauge", "time in which a kernel ran (%)"),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("gauge", "time in which memory was read or written (%)"),
    "DCGM_FI_DEV_ENC_UTIL": ("gauge", "use of the encoder (%)"),
    "DCGM_FI_DEV_DEC_UTIL": ("gauge", "use of the decoder (%)"),
    MEMORY_FREE: ("gauge", "free memory (MiB)"),
    MEMORY_USED: ("gauge", "used memory (MiB)"),
    ACTIVITY: ("gauge", "time in which the graphics engine was active (0 to 1)"),
    "DCGM_FI_PROF_PCIE_TX_BYTES": ("counter", "bytes sent over PCIe"),
    "DCGM_FI_PROF_PCIE_RX_BYTES": ("counter", "bytes received over PCIe"),
}
"""Name of a field: its Prometheus type, and what it says."""

Key = tuple[int, int | None]
"""GPU index, and id of the GPU instance or `None` for the whole GPU."""

Reading = dict[str, float | None]
"""Field name to value."""


class BackendUnavailable(RuntimeError):  # noqa: N818
    """The machine has not what a backend reads from."""


class GpuLost(RuntimeError):  # noqa: N818
    """The driver no longer reaches a GPU: sampling ends with a marked gap, the benchmark goes on."""


@dataclass(frozen=True)
class Placement:
    """Memory slices of an instance.

    Args:
        start: The first.
        size: How many.
    """

    start: int
    size: int


@dataclass(frozen=True)
class MigDevice:
    """A slice that a process can be bound to.

    Args:
        index: As the driver lists it; changes with every re-partitioning, as it is no id.
        uuid: What `CUDA_VISIBLE_DEVICES` takes.
        profile: Such as `1g.10gb`.
        gi_id: Of the GPU instance; not in the order of devices.
        ci_id: Of the compute instance.
        placement: Memory slices, where it is known.
        memory_total: MiB.
        memory_used: MiB.
        compute_slices: How many of the GPU's.
    """

    index: int
    uuid: str
    profile: str
    gi_id: int | None = None
    ci_id: int | None = None
    placement: Placement | None = None
    memory_total: float | None = None
    memory_used: float | None = None
    compute_slices: int | None = None


@dataclass(frozen=True)
class Gpu:
    """A GPU, or the CPU as a pseudo device.

    Args:
        index: As the driver lists it.
        name: Of the product.
        uuid: What `CUDA_VISIBLE_DEVICES` takes.
        kind: `cuda`, `cpu` or `simulated`.
        memory_total: MiB.
        memory_used: MiB.
        mig: Whether it is partitioned; `None` where it cannot be.
        mig_pending: Whether it will be after the next reset.
        devices: Its slices.
    """

    index: int
    name: str
    uuid: str
    kind: str = "cuda"
    memory_total: float | None = None
    memory_used: float | None = None
    mig: bool | None = None
    mig_pending: bool | None = None
    devices: tuple[MigDevice, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Gpu:
        """Read what `as_dict` gave.

        Raises:
            ValueError: Fields that a GPU does not have, or that are missing.
        """
        try:
            devices = [
                MigDevice(**{**device, "placement": Placement(**device["placement"]) if device["placement"] else None})
                for device in content.get("devices", ())
            ]
            return replace(Gpu(**{**content, "devices": ()}), devices=tuple(devices))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a GPU: {error}") from None


@dataclass(frozen=True)
class Target:
    """What is measured: a whole GPU, one of its slices, or the CPU.

    Args:
        gpu: The GPU.
        slice: The slice, or `None` for the whole.
    """

    gpu: Gpu
    slice: MigDevice | None = None

    @property
    def key(self) -> Key:
        """GPU index and GPU instance id."""
        return self.gpu.index, None if self.slice is None else self.slice.gi_id

    @property
    def uuid(self) -> str:
        """What `CUDA_VISIBLE_DEVICES` takes."""
        return self.gpu.uuid if self.slice is None else self.slice.uuid

    @property
    def label(self) -> str:
        """For tables and file names: `cpu`, `gpu0`, `gpu0-1g.10gb-gi3`."""
        if self.gpu.kind == "cpu":
            return "cpu"
        if self.slice is None:
            return f"gpu{self.gpu.index}"
        instance = f"gi{self.slice.gi_id}" if self.slice.gi_id is not None else f"device{self.slice.index}"
        return f"gpu{self.gpu.index}-{self.slice.profile}-{instance}"

    def labels(self, host: str) -> dict[str, str]:
        """Labels of a Prometheus sample, as NVIDIA's exporter names them."""
        labels = {
            "gpu": str(self.gpu.index),
            "UUID": self.gpu.uuid,
            "device": "cpu" if self.gpu.kind == "cpu" else f"nvidia{self.gpu.index}",
            "modelName": self.gpu.name,
        }
        if self.slice is not None:
            instance = "" if self.slice.gi_id is None else str(self.slice.gi_id)
            labels |= {"GPU_I_PROFILE": self.slice.profile, "GPU_I_ID": instance}
        return labels | {"Hostname": host}

    def record(self) -> dict[str, Any]:
        """For the JSON record of a run."""
        here = self.slice
        return {
            "kind": self.gpu.kind,
            "label": self.label,
            "name": self.gpu.name,
            "uuid": self.uuid,
            "gi_id": None if here is None else here.gi_id,
            "ci_id": None if here is None else here.ci_id,
            "profile": None if here is None else here.profile,
            "siblings": [device.profile for device in self.gpu.devices if device != here] if here else [],
        }


class Backend(ABC):
    """Reads a machine; changes nothing."""

    name = ""

    @abstractmethod
    def gpus(self) -> list[Gpu]:
        """What there is at this moment; listed anew at each call, as slices come and go."""

    @abstractmethod
    def read(self, key: Key) -> Reading:
        """The fields of a GPU or of a slice.

        Args:
            key: GPU index, and GPU instance id or `None`.

        Returns:
            A value or `None` for each field that is known.

        Raises:
            GpuLost: The driver no longer reaches it.
        """

    def close(self) -> None:  # noqa: B027
        """Give back what was opened."""

    def targets(self) -> list[Target]:
        """Every GPU that is whole, and every slice of those that are not."""
        found: list[Target] = []
        for gpu in self.gpus():
            found += [Target(gpu, device) for device in gpu.devices] if gpu.mig and gpu.devices else [Target(gpu)]
        return found

    def find(self, name: str) -> Target:
        """A device by name.

        Args:
            name: `cpu`, an index such as `0`, `cuda:0`, a UUID of a GPU or slice (or how it begins), or a label.

        Returns:
            It.

        Raises:
            ValueError: There is none, or there are several; the message lists what there is.
        """
        gpus = self.gpus()
        everything = [Target(gpu) for gpu in gpus]
        everything += [Target(gpu, device) for gpu in gpus for device in gpu.devices]
        wanted = {"cuda": "0"}.get(name, name.removeprefix("cuda:"))
        exact = [
            target
            for target in everything
            if name in (target.uuid, target.label)
            or (target.slice is None and target.gpu.kind != "cpu" and wanted == str(target.gpu.index))
        ]
        begins = [target for target in everything if len(name) >= 8 and target.uuid.startswith(name)]
        found = exact or begins
        if len(found) == 1:
            return found[0]
        there = ", ".join(f"{target.label} ({target.uuid})" for target in everything) or "nothing"
        raise ValueError(f"{'several devices' if found else 'no device'} {name!r}; there is {there}")
