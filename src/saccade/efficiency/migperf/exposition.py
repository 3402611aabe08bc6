"""The text format of Prometheus: reading what NVIDIA's exporter gives, and writing ours under the same names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from saccade.efficiency.migperf.inventory import FIELDS, Key, Reading

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$")
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')


def parse_exposition(text: str) -> dict[Key, dict[str, float]]:
    """Samples by GPU and instance.

    Args:
        text: What an exporter serves.

    Returns:
        (GPU index, GPU instance id or `None`) to field to value; samples without the label `gpu` are no device's and
        are left out.

    Raises:
        ValueError: A line that is no sample; the message gives its number.

    Example:
        >>> parse_exposition('DCGM_FI_DEV_FB_USED{gpu="0",GPU_I_ID="3"} 4263.0')
        {(0, 3): {'DCGM_FI_DEV_FB_USED': 4263.0}}
    """
    found: dict[Key, dict[str, float]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _SAMPLE.match(line.strip())
        try:
            name, inside, value = match.groups() if match else ("", "", "")
            labels = dict(_LABEL.findall(inside or ""))
            if "gpu" in labels or not name:
                key = int(labels["gpu"]), int(labels["GPU_I_ID"]) if labels.get("GPU_I_ID") else None
                found.setdefault(key, {})[name] = float(value)
        except (ValueError, KeyError):
            raise ValueError(f"line {number} is no sample of Prometheus: {line[:80]!r}") from None
    return found


def sample_line(name: str, labels: Mapping[str, str], value: float) -> str:
    """One sample as a line of text."""
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    figure = "NaN" if math.isnan(value) else f"{value:.10g}"
    return f"{name}{{{inside}}} {figure}" if inside else f"{name} {figure}"


def device_lines(readings: Iterable[tuple[Mapping[str, str], Reading]]) -> list[str]:
    """Readings as lines, grouped by field as the format asks, with help and type; fields without a value are left out.

    Args:
        readings: Labels and fields of each device.

    Returns:
        The lines.
    """
    everything = list(readings)
    lines = []
    for name, (kind, about) in FIELDS.items():
        samples = [(labels, fields[name]) for labels, fields in everything if fields.get(name) is not None]
        if samples:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            lines += [sample_line(name, labels, float(value or 0.0)) for labels, value in samples]
    return lines


def summary_lines(
    name: str, about: str, rows: Iterable[tuple[Mapping[str, str], Mapping[float, float], float, int]]
) -> list[str]:
    """A metric of type summary: labels, quantiles, sum and count of each row."""
    lines = [f"# HELP {name} {about}", f"# TYPE {name} summary"]
    for labels, quantiles, total, count in rows:
        lines += [sample_line(name, {**labels, "quantile": f"{q:g}"}, value) for q, value in quantiles.items()]
        lines += [sample_line(f"{name}_sum", labels, total), sample_line(f"{name}_count", labels, count)]
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
