"""Finding out how a machine can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.request import urlopen

from saccade.efficiency.migperf.backends import CpuBackend, ExporterBackend, RecordedBackend, SmiBackend
from saccade.efficiency.migperf.inventory import Backend, BackendUnavailable, GpuLost
from saccade.efficiency.migperf.nvml import NvmlBackend
from saccade.efficiency.migperf.simulated import SimulatedBackend


class DeviceManager:
    """Finds out how this machine can be read."""

    @staticmethod
    def detect(sources: Iterable[Callable[[], Backend]] | None = None) -> tuple[Backend, list[str]]:
        """The first backend that answers: NVML, `nvidia-smi`, else the CPU.

        Args:
            sources: What to try, in this order.

        Returns:
            The backend, and why those before it did not answer.

        Example:
            >>> backend, reasons = DeviceManager.detect([CpuBackend])
            >>> backend.name, reasons
            ('cpu', [])
        """
        reasons: list[str] = []
        for source in (NvmlBackend, SmiBackend) if sources is None else sources:
            try:
                backend = source()
                if backend.gpus():
                    return backend, reasons
                reasons.append(f"{backend.name} lists no GPU")
            except (BackendUnavailable, GpuLost) as error:
                reasons.append(str(error))
        return CpuBackend(), reasons


def open_backend(simulate: str = "", trace: str = "", exporter: str = "") -> tuple[Backend, list[str]]:
    """A backend by what a person names.

    Args:
        simulate: Models of simulated GPUs, separated by commas.
        trace: File of a recorded trace.
        exporter: Address of an exporter with DCGM's fields, such as `http://localhost:9400/metrics`.

    Returns:
        The backend (this machine's where nothing is named), and why better ones did not answer.

    Raises:
        ValueError: More than one source of devices, an unknown model, or an address that is none.
        FileNotFoundError: No such trace.
    """
    if simulate and trace:
        raise ValueError("devices are simulated or read from a trace, not both")
    reasons: list[str] = []
    backend: Backend
    if simulate:
        backend = SimulatedBackend([name.strip() for name in simulate.split(",")])
    elif trace:
        backend = RecordedBackend(trace)
    else:
        backend, reasons = DeviceManager.detect()
    if exporter:
        if not exporter.startswith(("http://", "https://")):
            raise ValueError(f"an exporter has an address that begins with http, not {exporter!r}")
        backend = ExporterBackend(backend, lambda: urlopen(exporter, timeout=5).read().decode())
    return backend, reasons
