"""Serving readings to Prometheus, under the names that NVIDIA's exporter uses, with our own figures beside them."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from saccade.efficiency.migperf.exposition import device_lines, sample_line, summary_lines
from saccade.efficiency.migperf.inventory import Backend, Reading
from saccade.efficiency.migperf.records import BenchResult, RunRecord

QUANTILES = {0.5: "p50", 0.95: "p95", 0.99: "p99"}


def exposition(backend: Backend | None, records: Iterable[RunRecord] = (), host: str = "") -> str:
    """What is served: a reading of every device, and the figures of runs.

    Args:
        backend: Is read now; `None`: no devices.
        records: Of runs.
        host: For the label `Hostname`; this machine where empty.

    Returns:
        Text in Prometheus' format. A device that cannot be read is not in it.
    """
    host = host or platform.node()
    readings: list[tuple[dict[str, str], Reading]] = []
    for target in backend.targets() if backend is not None else ():
        try:
            readings.append((target.labels(host), backend.read(target.key) if backend is not None else {}))
        except (RuntimeError, OSError, ValueError):
            continue
    lines = device_lines(readings)
    ran = [record for record in records if record.status == "ok"]
    if ran:
        labels = [
            {"model": r.model, "mode": r.mode, "batch_size": str(r.batch_size), "device": r.label, "Hostname": host}
            for r in ran
        ]
        rows = []
        for record, own in zip(ran, labels, strict=True):
            about = record.timing[record.main_phase]
            count = len(about["raw"]) if "raw" in about else record.steps
            rows.append((own, {q: about[name] for q, name in QUANTILES.items()}, about["mean"] * count, count))
        lines += summary_lines("saccade_bench_latency_seconds", "time of a batch or step", rows)
        lines += ["# HELP saccade_bench_samples_total samples computed", "# TYPE saccade_bench_samples_total counter"]
        lines += [
            sample_line("saccade_bench_samples_total", own, record.samples)
            for record, own in zip(ran, labels, strict=True)
        ]
        lines += ["# HELP saccade_bench_throughput samples a second", "# TYPE saccade_bench_throughput gauge"]
        lines += [
            sample_line("saccade_bench_throughput", own, record.throughput or 0.0)
            for record, own in zip(ran, labels, strict=True)
        ]
    return "\n".join(lines) + "\n"


class PrometheusExporter:
    """An HTTP server with one page, `/metrics`; devices are read when it is asked for.

    Args:
        port: To listen on; 0 for any that is free.
        bind: Address; this machine alone by default.
        backend: What is read; `None`: no devices.

    Raises:
        ValueError: A port outside of 0 to 65535.
        OSError: At the start: the address is taken.

    Example:
        >>> from urllib.request import urlopen
        >>> from saccade.efficiency.migperf.simulated import SimulatedBackend
        >>> with PrometheusExporter(port=0, backend=SimulatedBackend(["a30"])) as exporter:
        ...     print(urlopen(exporter.url).readline().decode().strip())
        # HELP DCGM_FI_DEV_POWER_USAGE power (W)
    """

    def __init__(self, port: int = 9400, bind: str = "127.0.0.1", backend: Backend | None = None) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"a port is a number from 0 to 65535, not {port}")
        self.port, self.bind, self.backend = port, bind, backend
        self.records: dict[str, RunRecord] = {}
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        port = self._server.server_address[1] if self._server is not None else self.port
        return f"http://{self.bind}:{port}/metrics"

    def add(self, result: BenchResult | RunRecord) -> None:
        """Serve the figures of runs; a run of the same model, batch size and device takes the place of the last."""
        for record in result if isinstance(result, BenchResult) else [result]:
            self.records[record.filename] = record

    def text(self) -> str:
        """What the page says now."""
        return exposition(self.backend, list(self.records.values()))

    def start(self) -> PrometheusExporter:
        """Begin to serve, on threads of its own."""
        exporter = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path.split("?")[0] in ("/metrics", "/")
                body = (exporter.text() if known else "the page is /metrics\n").encode()
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Requests are not written out."""

        self._server = ThreadingHTTPServer((self.bind, self.port), Page)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._thread is not None:
            self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> PrometheusExporter:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
