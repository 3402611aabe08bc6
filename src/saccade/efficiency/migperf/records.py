"""One JSON record a run, and the table that sets runs side by side."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

SCHEMA = 1
STATUSES = ("ok", "oom", "error")


@dataclass
class RunRecord:
    """What one run gave; `timing` in seconds, memory in MiB.

    Args:
        mode: `infer` or `train`.
        model: Its name.
        batch_size: Samples of a batch.
        threads: Of inference.
        steps: Measured batches of each thread.
        precision: `fp32` or `amp`.
        started_at: ISO time.
        device: Kind, name, uuid, gi_id, ci_id, profile, siblings.
        environment: Versions and hardware.
        timing: Phase to mean, std, p50, p95, p99, and raw times unless they were dropped.
        throughput: Samples a second; `None` where the run failed.
        samples: In the measured window.
        metrics: Field to `t` (seconds from the window's start) and `v`.
        usage: Mean and greatest value of activity, used memory and power, where they were read.
        energy: Joules, joules a sample, and the source.
        status: `ok`, `oom` or `error`.
        error: What went wrong.
        notes: What has to be known beside the figures, such as a gap in sampling.
        schema: Of this format.
    """

    mode: str
    model: str
    batch_size: int
    threads: int = 1
    steps: int = 0
    precision: str = "fp32"
    started_at: str = ""
    device: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, dict[str, Any]] = field(default_factory=dict)
    throughput: float | None = None
    samples: int = 0
    metrics: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    usage: dict[str, dict[str, float] | None] = field(default_factory=dict)
    energy: dict[str, Any] = field(default_factory=dict)
    status: str = "ok"
    error: str = ""
    notes: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    @property
    def label(self) -> str:
        """The device's label."""
        return str(self.device.get("label", "unknown"))

    @property
    def main_phase(self) -> str:
        """`latency` of inference, `step` of training."""
        return "step" if self.mode == "train" else "latency"

    @property
    def filename(self) -> str:
        """`device_model_bsN_threads.json`; training says so."""
        plain = re.sub(r"[^\w.-]+", "-", f"{self.label}_{self.model}").strip("-")
        return f"{plain}_bs{self.batch_size}_{'train' if self.mode == 'train' else self.threads}.json"

    def figure(self, phase: str, name: str) -> float | None:
        """A figure of a phase, such as `p99` of `latency`; `None` where the run failed."""
        return self.timing.get(phase, {}).get(name)

    def as_dict(self, raw: bool = True) -> dict[str, Any]:
        """For JSON.

        Args:
            raw: Whether single times are kept.
        """
        content = asdict(self)
        if not raw:
            for phase in content["timing"].values():
                phase.pop("raw", None)
        return content

    def write(self, folder: Path, raw: bool = True) -> Path:
        """Write it under its own name.

        Args:
            folder: Made where it is not there.
            raw: Whether single times are kept.

        Returns:
            The file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.filename
        path.write_text(json.dumps(self.as_dict(raw), indent=1) + "\n", encoding="utf-8")
        return path

    @staticmethod
    def from_dict(content: Any, source: str = "record") -> RunRecord:
        """Read what `as_dict` gave.

        Args:
            content: Of a JSON file.
            source: For the message.

        Returns:
            The record.

        Raises:
            ValueError: Not a record of this schema.
        """
        known = {own.name for own in fields(RunRecord)}
        if not isinstance(content, dict) or not {"schema", "mode", "model", "batch_size"} <= set(content):
            raise ValueError(f"{source} is no record of a run: it has to hold schema, mode, model and batch_size")
        if content["schema"] != SCHEMA or set(content) - known:
            strange = ", ".join(sorted(set(content) - known))
            raise ValueError(
                f"{source} has schema {content['schema']}, read is {SCHEMA}; unknown keys: {strange or 'none'}"
            )
        record = RunRecord(**content)
        if record.status not in STATUSES:
            raise ValueError(f"{source}: a status is one of {', '.join(STATUSES)}, not {record.status!r}")
        return record


def read_record(path: Path) -> RunRecord:
    """Read a record's file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a record.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no record {path}")
    try:
        return RunRecord.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


@dataclass(frozen=True)
class BenchResult:
    """The runs of a sweep, a record for each batch size.

    Args:
        records: In the order of the sweep.
    """

    records: tuple[RunRecord, ...]

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: int) -> RunRecord:
        return self.records[number]

    def write(self, folder: str | Path, raw: bool = True) -> list[Path]:
        """A JSON file for each record.

        Args:
            folder: Made where it is not there.
            raw: Whether single times are kept.

        Returns:
            The files.
        """
        return [record.write(Path(folder), raw) for record in self.records]


COLUMNS = (
    "mode",
    "model",
    "batch_size",
    "device",
    "threads",
    "precision",
    "status",
    "throughput",
    "mean_ms",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "activity_mean",
    "activity_max",
    "memory_max_mib",
    "joules_per_sample",
    "throughput_ratio",
    "p50_ratio",
    "p99_ratio",
    "energy_ratio",
)


@dataclass(frozen=True)
class Table:
    """Runs side by side.

    Args:
        rows: Column to value; `None` where there is none.
        baseline: Label of the device that ratios refer to; empty: no ratios.
    """

    rows: tuple[dict[str, Any], ...]
    baseline: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that hold anything."""
        return tuple(name for name in COLUMNS if any(row[name] not in (None, "") for row in self.rows))

    def csv(self) -> str:
        """As CSV, all columns."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if row[name] is None else row[name] for name in COLUMNS} for row in self.rows)
        return buffer.getvalue()

    def markdown(self) -> str:
        """As Markdown, without empty columns."""
        columns = self.columns
        head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        return "\n".join(
            [*head, *("| " + " | ".join(shown(row[name]) for name in columns) + " |" for row in self.rows)]
        )


def shown(value: Any) -> str:
    """A value of a table as text."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def compare(results: Iterable[BenchResult | RunRecord], baseline: str = "") -> Table:
    """Join runs on mode, model and batch size.

    Args:
        results: Sweeps or single records.
        baseline: Label of a device (`cpu`, `gpu0-1g.10gb-gi7`) or a profile's name; ratios are value over its value.

    Returns:
        A row for each run, those of a model and batch size together.

    Raises:
        ValueError: Nothing to compare, or no run on the baseline.

    Example:
        >>> one = RunRecord("infer", "m", 1, device={"label": "a"}, throughput=2.0)
        >>> other = RunRecord("infer", "m", 1, device={"label": "b"}, throughput=6.0)
        >>> [row["throughput_ratio"] for row in compare([one, other], baseline="a").rows]
        [1.0, 3.0]
    """
    records = [record for result in results for record in (result if isinstance(result, BenchResult) else [result])]
    if not records:
        raise ValueError("there are no runs to compare")
    labels = sorted({record.label for record in records})
    of_baseline: dict[tuple[str, str, int], RunRecord] = {}
    for record in records:
        if baseline and baseline in (record.label, record.device.get("profile")):
            of_baseline.setdefault((record.mode, record.model, record.batch_size), record)
    if baseline and not of_baseline:
        raise ValueError(f"no run on {baseline!r}; there are runs on {', '.join(labels)}")
    records.sort(key=lambda r: (r.mode, r.model, r.batch_size))
    rows = []
    for record in records:
        row = _row(record)
        base = of_baseline.get((record.mode, record.model, record.batch_size))
        if base is not None:
            other = _row(base)
            for name, column in (
                ("throughput_ratio", "throughput"),
                ("p50_ratio", "p50_ms"),
                ("p99_ratio", "p99_ms"),
                ("energy_ratio", "joules_per_sample"),
            ):
                if row[column] is not None and other[column]:
                    row[name] = row[column] / other[column]
        rows.append(row)
    return Table(tuple(rows), baseline)


def _row(record: RunRecord) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    for name in ("mode", "model", "batch_size", "threads", "precision", "status", "throughput"):
        row[name] = getattr(record, name)
    row["device"] = record.label
    for name in ("mean", "p50", "p95", "p99"):
        seconds = record.figure(record.main_phase, name)
        row[f"{name}_ms"] = None if seconds is None else 1e3 * seconds
    activity, memory = record.usage.get("activity"), record.usage.get("memory_used")
    if activity:
        row["activity_mean"], row["activity_max"] = activity["mean"], activity["max"]
    if memory:
        row["memory_max_mib"] = memory["max"]
    row["joules_per_sample"] = record.energy.get("per_sample")
    return row


def saturation(records: Sequence[RunRecord], share: float = 0.95) -> int | None:
    """The smallest batch size that gives at least `share` of the best throughput of a sweep; `None` where none ran."""
    ran = [record for record in records if record.throughput is not None]
    if not ran:
        return None
    best = max(record.throughput or 0.0 for record in ran)
    return min(record.batch_size for record in ran if (record.throughput or 0.0) >= share * best)
