"""Pictures of runs: throughput and latency over the batch, distributions, phases, and what devices did meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from saccade.data.figures import to_pixels
from saccade.efficiency.migperf.inventory import ACTIVITY, MEMORY_USED, POWER, UTILISATION
from saccade.efficiency.migperf.records import RunRecord

COLOURS = ("#2f7de1", "#e0701f", "#2a9d6f", "#b4519f", "#8a8f98", "#c9a21b", "#4fb3c9", "#d0505a")
PHASES = {"data": "#8a8f98", "forward": "#2f7de1", "backward": "#e0701f"}


def pictures(records: Sequence[RunRecord]) -> dict[str, np.ndarray]:
    """Everything that can be drawn of some runs.

    Args:
        records: Of runs; those that failed are marked where a batch size has no figure.

    Returns:
        Caption to picture (h, w, 3), uint8.
    """
    ran = [record for record in records if record.status == "ok"]
    if not ran:
        return {}
    drawn = {"throughput and latency over the batch size": sweep_picture(records)}
    inferred = [record for record in ran if record.timing.get("latency", {}).get("raw")]
    if inferred:
        drawn["how the times of single batches are spread"] = spread_picture(inferred)
    trained = [record for record in ran if record.mode == "train"]
    if trained:
        drawn["where the time of a training step goes"] = phases_picture(trained)
    timeline = timeline_picture(ran)
    if timeline is not None:
        drawn["what the device did meanwhile"] = timeline
    return drawn


def sweep_picture(records: Sequence[RunRecord]) -> np.ndarray:
    """Throughput, median and 99th percentile over the batch size, a line for each model, mode and device."""
    figure, (left, right) = _figure(10, 3.8, 2)
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(_series(record), []).append(record)
    for number, (name, own) in enumerate(groups.items()):
        colour = COLOURS[number % len(COLOURS)]
        own = sorted(own, key=lambda record: record.batch_size)
        ran = [record for record in own if record.throughput is not None]
        sizes = [record.batch_size for record in ran]
        left.plot(sizes, [record.throughput or 0.0 for record in ran], "o-", color=colour, label=name)
        for failed in (record for record in own if record.throughput is None):
            left.annotate(
                failed.status, (failed.batch_size, 0.02), xycoords=("data", "axes fraction"), color=colour, ha="center"
            )
        for percentile, style in (("p50", "o-"), ("p99", "^--")):
            times = [1e3 * (record.figure(record.main_phase, percentile) or 0.0) for record in ran]
            right.plot(sizes, times, style, color=colour, label=f"{name}, {percentile}")
    for axes, label in ((left, "samples a second"), (right, "ms a batch")):
        axes.set(xlabel="batch size", ylabel=label, xscale="log", yscale="log")
        sizes = sorted({record.batch_size for record in records})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(color="#00000014")
        axes.legend(frameon=False, fontsize=8)
    return to_pixels(figure)


def spread_picture(records: Sequence[RunRecord]) -> np.ndarray:
    """The share of batches that take at most a time, a curve for each run."""
    figure, (axes,) = _figure(8, 3.6, 1)
    for number, record in enumerate(records[:8]):
        times = 1e3 * np.sort(np.asarray(record.timing["latency"]["raw"]))
        share = 100 * (np.arange(len(times)) + 1) / len(times)
        label = f"{_series(record)}, batch {record.batch_size}"
        axes.step(times, share, where="post", color=COLOURS[number % len(COLOURS)], label=label)
    axes.set(xlabel="ms a batch", ylabel="batches that take at most so long (%)", xscale="log", ylim=(0, 101))
    axes.grid(color="#00000014")
    axes.legend(frameon=False, fontsize=8)
    return to_pixels(figure)


def phases_picture(records: Sequence[RunRecord]) -> np.ndarray:
    """Mean time of data, forward and backward, a bar for each run."""
    figure, (axes,) = _figure(8, 1.2 + 0.45 * len(records), 1)
    names = [f"{_series(record)}, batch {record.batch_size}" for record in records]
    left = np.zeros(len(records))
    for phase, colour in PHASES.items():
        width = np.array([1e3 * float(record.timing[phase]["mean"]) for record in records])
        axes.barh(range(len(records)), width, left=left, color=colour, label=phase)
        left += width
    axes.set_yticks(range(len(records)), names)
    axes.invert_yaxis()
    axes.set(xlabel="ms a step")
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
    return to_pixels(figure)


def timeline_picture(records: Sequence[RunRecord]) -> np.ndarray | None:
    """Power, activity, use and memory over the time of the runs; `None` where nothing was read."""
    wanted = {POWER: "power (W)", ACTIVITY: "activity", UTILISATION: "use (%)", MEMORY_USED: "memory (MiB)"}
    there = [name for name in wanted if any(_values(record, name) for record in records)]
    if not there:
        return None
    figure, everything = _figure(9, 0.8 + 1.5 * len(there), 1, rows=len(there))
    for axes, name in zip(everything, there, strict=True):
        for number, record in enumerate(records[:8]):
            pairs = _values(record, name)
            if pairs:
                label = f"{_series(record)}, batch {record.batch_size}"
                axes.plot(*zip(*pairs, strict=True), ".-", color=COLOURS[number % len(COLOURS)], label=label)
        axes.set(ylabel=wanted[name])
        axes.set_ylim(bottom=0)
        axes.grid(color="#00000014")
    everything[0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    everything[-1].set(xlabel="seconds from the beginning of the measured window")
    return to_pixels(figure)


def sharing_picture(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Throughput, median and the slowest copy's 99th percentile of each arrangement."""
    figure, (left, right) = _figure(10, 1.4 + 0.5 * len(rows), 2)
    names = [f"{row['arrangement']} ({row['copies']})" for row in rows]
    places = np.arange(len(rows))
    left.barh(places, [row["throughput"] or 0.0 for row in rows], color=COLOURS[0])
    left.set(xlabel="samples a second, all copies together")
    right.barh(places - 0.2, [row["p50_ms"] or 0.0 for row in rows], 0.36, color=COLOURS[4], label="median")
    right.barh(
        places + 0.2, [row["worst_p99_ms"] or 0.0 for row in rows], 0.36, color=COLOURS[1], label="slowest copy's p99"
    )
    right.set(xlabel="ms a batch")
    right.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    for axes in (left, right):
        axes.set_yticks(places, names if axes is left else [""] * len(rows))
        axes.invert_yaxis()
    return to_pixels(figure)


def tenants_picture(curves: Mapping[str, Sequence[tuple[float, float]]], mark: float, x: str, y: str) -> np.ndarray:
    """Lines over a load, with the load that a comparison takes marked.

    Args:
        curves: Name to (x, y) points.
        mark: Where to draw a vertical line.
        x: Label.
        y: Label.

    Returns:
        The picture.
    """
    figure, (axes,) = _figure(8, 3.8, 1)
    for (name, points), colour in zip(curves.items(), (COLOURS[1], COLOURS[0]), strict=False):
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=name)
    axes.axvline(mark, color="#8a8f98", linewidth=1)
    axes.set(xlabel=x, ylabel=y, yscale="log")
    axes.grid(color="#00000014")
    axes.legend(frameon=False)
    return to_pixels(figure)


def _values(record: RunRecord, name: str) -> list[tuple[float, float]]:
    column = record.metrics.get(name, {"t": [], "v": []})
    return [(t, v) for t, v in zip(column["t"], column["v"], strict=True) if v is not None]


def _series(record: RunRecord) -> str:
    return f"{record.model} on {record.label}" + (" (training)" if record.mode == "train" else "")


def _figure(width: float, height: float, columns: int, rows: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = list(np.asarray(figure.subplots(rows, columns, squeeze=False)).reshape(-1))
    for own in axes:
        own.spines[["top", "right"]].set_visible(False)
    return figure, axes
