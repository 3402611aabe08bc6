"""A report of runs: JSON records, CSV, Markdown, and one HTML file with tables, findings and pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.efficiency.migperf.records import BenchResult, RunRecord, compare, saturation, shown
from saccade.efficiency.migperf.sharing import SharingResult

STYLE = """body{font:15px/1.5 sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#1d2126}
table{border-collapse:collapse;margin:1em 0;font-size:13px}td,th{padding:.25em .7em;border-bottom:1px solid #ddd;
text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}h2{margin-top:2em}
.left{color:#8a5a00}"""


def write_report(
    folder: str | Path,
    results: Iterable[BenchResult | RunRecord],
    baseline: str = "",
    left_out: Sequence[str] = (),
    sharing: SharingResult | None = None,
    raw: bool = True,
) -> Path:
    """Write everything that is known of some runs.

    Args:
        folder: Gets a JSON file for each run, `comparison.csv`, `comparison.md`, the pictures and `report.html`.
        results: Sweeps or records.
        baseline: Device that ratios refer to.
        left_out: What could not be measured here, and why.
        sharing: A comparison of arrangements, if there is one.
        raw: Whether single times are kept in the JSON files.

    Returns:
        The HTML file.

    Raises:
        ValueError: Nothing to report, or no run on the baseline.
    """
    from saccade.efficiency.migperf.pictures import pictures, sharing_picture

    folder = Path(folder)
    records = [record for result in results for record in (result if isinstance(result, BenchResult) else [result])]
    if not records and sharing is None:
        raise ValueError("there are no runs to report")
    folder.mkdir(parents=True, exist_ok=True)
    body, drawn = ["<h1>What it costs</h1>"], pictures(records)
    reasons = [*left_out, *(sharing.left_out if sharing is not None else ())]
    if records:
        for record in records:
            record.write(folder, raw)
        table = compare(records, baseline)
        (folder / "comparison.csv").write_text(table.csv(), encoding="utf-8")
        (folder / "comparison.md").write_text(table.markdown() + "\n", encoding="utf-8")
        body += [_environment(records[0])]
        body += ["<h2>Findings</h2><ul>", *(f"<li>{html.escape(text)}</li>" for text in findings(records)), "</ul>"]
        body += ["<h2>Runs</h2>", _table(table.columns, [[row[name] for name in table.columns] for row in table.rows])]
    if sharing is not None and sharing.results:
        rows = sharing.rows()
        body += ["<h2>Sharing</h2>", _table(list(rows[0]), [list(row.values()) for row in rows])]
        drawn["copies that share a device, and copies on parts of their own"] = sharing_picture(rows)
    if reasons:
        body += ["<h2>Left out</h2><ul class=left>", *(f"<li>{html.escape(text)}</li>" for text in reasons), "</ul>"]
    for number, (caption, pixels) in enumerate(drawn.items()):
        Image.fromarray(pixels).save(folder / f"picture-{number}.png", optimize=True)
        body += [
            f"<h2>{html.escape(caption.capitalize())}</h2>",
            f'<img alt="{html.escape(caption)}" src="{_data(pixels)}">',
        ]
    path = folder / "report.html"
    head = f"<!doctype html><meta charset=utf-8><title>What it costs</title><style>{STYLE}</style>"
    path.write_text(head + "\n".join(body) + "\n", encoding="utf-8")
    return path


def findings(records: Sequence[RunRecord]) -> list[str]:
    """What the figures say, in sentences.

    Args:
        records: Of runs.

    Returns:
        For each sweep: where throughput saturates, how latency grows, what energy does; failures and notes.
    """
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record.mode, record.model, record.label), []).append(record)
    said = []
    for (mode, model, label), own in groups.items():
        ran = sorted((r for r in own if r.throughput is not None), key=lambda r: r.batch_size)
        what = f"{'Training' if mode == 'train' else 'Inference'} of {model} on {label}"
        if ran:
            best = max(ran, key=lambda r: r.throughput or 0.0)
            said.append(
                f"{what}: at most {best.throughput:.4g} samples a second, at batch size {best.batch_size}; "
                f"from batch size {saturation(ran)} on it is within 5 % of that."
            )
        if len(ran) > 1:
            first, last = ran[0], ran[-1]
            before, after = (r.figure(r.main_phase, "p50") or 0.0 for r in (first, last))
            said.append(
                f"{what}: the median goes from {1e3 * before:.3g} ms at batch size {first.batch_size} to "
                f"{1e3 * after:.3g} ms at {last.batch_size}."
            )
        metered = [r for r in ran if r.energy.get("per_sample") is not None]
        if metered:
            least = min(metered, key=lambda r: r.energy["per_sample"])
            said.append(
                f"{what}: least energy at batch size {least.batch_size}, {least.energy['per_sample']:.3g} J a sample "
                f"({least.energy['source']})."
            )
        elif ran:
            said.append(f"{what}: no energy; {ran[0].energy.get('source', 'nothing was sampled')}.")
        said += [f"{what}, batch size {r.batch_size}: {r.status}: {r.error}" for r in own if r.status != "ok"]
        said += [f"{what}, batch size {r.batch_size}: {note}." for r in own for note in r.notes]
    return said


def _environment(record: RunRecord) -> str:
    about = record.environment
    parts = [f"{name} {about[name]}" for name in ("device", "torch", "cuda", "driver", "python") if about.get(name)]
    return f"<p>{html.escape('; '.join(parts))}; {about.get('threads', '?')} torch thread(s).</p>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = ["<tr>" + "".join(f"<td>{html.escape(shown(value))}</td>" for value in row) + "</tr>" for row in rows]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _data(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
