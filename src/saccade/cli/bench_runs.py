"""`saccade bench infer`, `train`, `share`, `jobs` and `compare`: what a model costs on a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from saccade.efficiency.migperf import BenchResult, RunRecord

MODEL = typer.Argument(help="Of timm, torchvision:NAME, transformers:TYPE, a recipe, a dotted path, or small-cnn.")
ARGUMENTS = typer.Argument(help="key=value for the model.")
SIZES = typer.Option(help="Such as 1,2,4.")
DEVICE = typer.Option(help="cpu, cuda:0, or the UUID of a GPU or slice.")
INPUT = typer.Option("--input", help="Shape of one sample, such as 3,224,224; what the model says by default.")
STEPS = typer.Option(help="Measured batches of each thread.")
WARMUP = typer.Option(help="Batches before them.")
AMP = typer.Option("--amp", help="Autocast to bfloat16.")
PERIOD = typer.Option(help="Seconds between readings of the device; 0: none.")
OUT = typer.Option(help="Folder for the records and the report.")
NO_RAW = typer.Option("--no-raw", help="Records without the times of single batches.")
AS_JSON = typer.Option("--json", help="Print JSON instead of a table.")


def infer(
    model: Annotated[str, MODEL],
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    batch_sizes: Annotated[str, SIZES] = "1",
    device: Annotated[str, DEVICE] = "cpu",
    shape: Annotated[str, INPUT] = "",
    tokens: Annotated[int, typer.Option(help="Length of a text model's input.")] = 0,
    steps: Annotated[int, STEPS] = 100,
    warmup: Annotated[int, WARMUP] = 20,
    threads: Annotated[int, typer.Option(help="That call the model at the same time.")] = 1,
    rate: Annotated[float | None, typer.Option(help="Requests a second of an open loop.")] = None,
    duration: Annotated[float, typer.Option(help="Of the open loop, in seconds.")] = 10.0,
    in_flight: Annotated[int | None, typer.Option(help="Batches that may be queued on the device.")] = None,
    amp: Annotated[bool, AMP] = False,
    period: Annotated[float, PERIOD] = 0.5,
    attribute_power: Annotated[
        bool, typer.Option("--attribute-power", help="A slice gets its share of power.")
    ] = False,
    out: Annotated[Path | None, OUT] = None,
    no_raw: Annotated[bool, NO_RAW] = False,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Latency, throughput, memory and energy of inference."""
    settings: dict[str, Any] = {"threads": threads, "arrival_rate": rate, "duration": duration, "in_flight": in_flight}
    settings |= {"input_spec": _spec(shape, tokens), "attribute_power": attribute_power}
    common = {"device": device, "steps": steps, "warmup": warmup, "arguments": arguments or []}
    _run(model, "infer", batch_sizes, amp, period, {**common, **settings}, out, no_raw, as_json)


def train(
    model: Annotated[str, MODEL],
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    batch_sizes: Annotated[str, SIZES] = "1",
    device: Annotated[str, DEVICE] = "cpu",
    shape: Annotated[str, INPUT] = "",
    tokens: Annotated[int, typer.Option(help="Length of a text model's input.")] = 0,
    steps: Annotated[int, STEPS] = 100,
    warmup: Annotated[int, WARMUP] = 20,
    optimizer: Annotated[Literal["sgd", "adam"], typer.Option(help="sgd or adam.")] = "sgd",
    amp: Annotated[bool, AMP] = False,
    period: Annotated[float, PERIOD] = 0.5,
    out: Annotated[Path | None, OUT] = None,
    no_raw: Annotated[bool, NO_RAW] = False,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Times of data, forward and backward of a training step, throughput, memory and energy."""
    settings: dict[str, Any] = {"input_spec": _spec(shape, tokens), "optimizer": optimizer, "device": device}
    settings |= {"steps": steps, "warmup": warmup, "arguments": arguments or []}
    _run(model, "train", batch_sizes, amp, period, settings, out, no_raw, as_json)


def share(
    model: Annotated[str, typer.Argument(help="By name: each copy builds it in a process of its own.")],
    copies: Annotated[int, typer.Option(help="That run at a time.")] = 4,
    batch_size: Annotated[int, typer.Option(help="Of each copy.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, or a GPU by index or UUID.")] = "cpu",
    shape: Annotated[str, INPUT] = "",
    steps: Annotated[int, STEPS] = 100,
    warmup: Annotated[int, WARMUP] = 20,
    out: Annotated[Path | None, OUT] = None,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Copies that share a device (time-slicing, MPS) against copies on slices or cores of their own."""
    from saccade.efficiency.migperf import compare_sharing, open_backend, write_report
    from saccade.efficiency.migperf.records import shown

    backend = None if device == "cpu" else open_backend()[0]
    settings = {"steps": steps, "warmup": warmup, "input_spec": _spec(shape, 0)}
    told = None if as_json else (lambda name: typer.echo(f"{name} ...", err=True))
    result = compare_sharing(model, backend, device, copies, batch_size, told, **settings)
    if out is not None:
        write_report(out, [], sharing=result)
    rows = result.rows()
    if as_json:
        typer.echo(json.dumps({"model": model, "rows": rows, "left_out": result.left_out}, indent=1))
        return
    _print_table(list(rows[0]) if rows else [], [[shown(value) for value in row.values()] for row in rows])
    for reason in result.left_out:
        typer.echo(f"left out: {reason}")
    if out is not None:
        typer.echo(f"report: {out / 'report.html'}")


def jobs(
    file: Annotated[str, typer.Argument(help="YAML of GPUs and jobs, or a recipe such as efficiency/migperf-infer.")],
    out: Annotated[Path, OUT] = Path("bench-jobs"),
    steps: Annotated[int | None, typer.Option(help="Instead of what the file says, for a try.")] = None,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Run a file of jobs on the slices it names; what the machine has not is left out, and named."""
    from dataclasses import replace

    from saccade.efficiency.migperf import mps_running, open_backend, read_jobs, run_jobs, write_report
    from saccade.training.recipes import find_recipe

    assignments = read_jobs(find_recipe(file)[1])
    if steps is not None:
        kept = {one.job.name: replace(one.job, settings={**one.job.settings, "steps": steps}) for one in assignments}
        assignments = [replace(one, job=kept[one.job.name]) for one in assignments]
    backend, reasons = open_backend()
    told = None if as_json else (lambda line: typer.echo(f"{line} ...", err=True))
    done = run_jobs(assignments, backend, mps_running(), told)
    left_out = [*done.left_out, *reasons]
    if done.records:
        write_report(out, done.records, left_out=left_out)
    _show(done.records, left_out, as_json)
    if not as_json and done.records:
        typer.echo(f"report: {out / 'report.html'}")


def compare(
    records: Annotated[list[Path], typer.Argument(help="JSON records of runs.")],
    baseline: Annotated[str, typer.Option(help="Device or profile that ratios refer to.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for a report.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Runs side by side, joined on model and batch size."""
    from saccade.efficiency.migperf import compare as join
    from saccade.efficiency.migperf import read_record, write_report

    read = [read_record(path) for path in records]
    table = join(read, baseline)
    if out is not None:
        write_report(out, read, baseline)
    if as_json:
        typer.echo(json.dumps(table.rows, indent=1))
    elif as_csv:
        typer.echo(table.csv(), nl=False)
    else:
        typer.echo(table.markdown())


def _run(
    model: str,
    mode: str,
    batch_sizes: str,
    amp: bool,
    period: float,
    settings: dict[str, Any],
    out: Path | None,
    no_raw: bool,
    as_json: bool,
) -> None:
    sizes = _sizes(batch_sizes)
    if period < 0:
        raise ValueError(f"--period has to be at least 0, not {period}")
    from saccade.efficiency.migperf import benchmark, write_report

    told = None if as_json else (lambda record: typer.echo(_line(record), err=True))
    settings |= {"precision": "amp" if amp else "fp32", "sampler": period or None}
    result: BenchResult = benchmark(model, mode, sizes, on_record=told, **settings)  # type: ignore[arg-type]
    left_out = ["GPU and slices: it ran on the CPU"] if settings["device"] == "cpu" else []
    if out is not None:
        write_report(out, [result], left_out=left_out, raw=not no_raw)
    _show(list(result), left_out, as_json, raw=not no_raw)
    if out is not None and not as_json:
        typer.echo(f"report: {out / 'report.html'}")
    if any(record.status == "error" for record in result):
        raise typer.Exit(1)


def _show(records: list[RunRecord], left_out: list[str], as_json: bool, raw: bool = False) -> None:
    from saccade.efficiency.migperf import compare as join
    from saccade.efficiency.migperf.records import shown
    from saccade.efficiency.migperf.report import findings

    if as_json:
        rows = [record.as_dict(raw) for record in records]
        typer.echo(json.dumps({"records": rows, "left_out": left_out}, indent=1))
        return
    if records:
        table = join(records)
        _print_table(list(table.columns), [[shown(row[name]) for name in table.columns] for row in table.rows])
    for text in findings(records):
        typer.echo(text)
    for reason in left_out:
        typer.echo(f"left out: {reason}")


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, width=160).print(table)


def _line(record: RunRecord) -> str:
    if record.status != "ok":
        return f"batch size {record.batch_size}: {record.status}: {record.error}"
    return f"batch size {record.batch_size}: {record.throughput:.4g} samples a second"


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"--batch-sizes are whole numbers above 0, such as 1,2,4, not {text!r}")
    return [int(part) for part in parts]


def _spec(shape: str, tokens: int) -> Any:
    if tokens:
        if shape or tokens < 1:
            raise ValueError("--tokens is a length above 0, and takes the place of --input")
        return {"input_ids": {"tokens": tokens}}
    if not shape:
        return None
    sizes = shape.replace("x", ",").split(",")
    if not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise ValueError(f"--input is the shape of one sample such as 3,224,224, not {shape!r}")
    return tuple(int(size) for size in sizes)
