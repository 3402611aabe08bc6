"""`saccade profile`: what a model costs."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def profile(
    model: Annotated[str, typer.Argument(help="A recipe, a dotted path, or a model of timm.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="key=value for a dotted path or timm.")] = None,
    shape: Annotated[
        str, typer.Option("--input", help="Shape such as 1,3,8,224,224; what the model says by default.")
    ] = "",
    insert: Annotated[
        list[str] | None, typer.Option(help="A block: 'LAYER=CLASS_PATH key=value ...'; may be repeated.")
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="Forward and backward in training mode.")] = False,
    depth: Annotated[int, typer.Option(help="How deep the table by module goes; 0: no table.")] = 1,
    runs: Annotated[int, typer.Option(help="Passes that are timed.")] = 10,
    threads: Annotated[int | None, typer.Option(help="Torch threads; torch's own choice by default.")] = None,
    device: Annotated[str, typer.Option(help="Where to run.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Parameters, multiply-adds, peak memory and latency of any backbone and blocks in it."""
    size = _shape(shape) if shape else None
    if threads is not None and threads < 1:
        raise ValueError(f"--threads has to be at least 1, not {threads}")
    import torch

    from saccade.profiling import profile as measure
    from saccade.training.models import build_model, default_input, insert_block

    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = build_model(model, arguments or ()).to(device)
    size = size or default_input(network)
    if size is None:
        raise ValueError(f"{model} does not say what it takes: give --input, such as 1,3,8,224,224")
    example = torch.randn(size, device=device)
    for what in insert or ():
        insert_block(network, what, example)
    result = measure(network, [example], training=train, depth=depth, runs=runs)
    if as_json:
        typer.echo(json.dumps({"name": model, "inserted": insert or [], **result.row()}, indent=1))
        return
    latency, per_clip = result.latency, "x".join(map(str, size))
    typer.echo(f"{model} ({result.model}) on {per_clip}, {result.device}, {result.threads} thread(s)")
    typer.echo(f"parameters    {result.parameters / 1e6:.3f} M ({result.trainable / 1e6:.3f} M to learn)")
    macs = f"{result.macs / 1e9:.3f} G multiply-adds forward"
    if result.training_macs is not None:
        macs += f", {result.training_macs / 1e9:.3f} G forward and backward"
    typer.echo(f"operations    {macs}")
    typer.echo(f"peak memory   {result.peak_bytes / 2**20:.1f} MiB beyond weights and input")
    times = ", ".join(f"{name} {1e3 * getattr(latency, name):.1f} ms" for name in ("median", "p10", "p90", "p99"))
    typer.echo(f"{'a step' if train else 'latency'}".ljust(14) + f"{times} of {latency.runs}")
    if result.modules:
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for column in ("module", "kind", "parameters", "multiply-adds", "share", "output"):
            table.add_column(column, justify="left" if column in ("module", "kind", "output") else "right")
        for row in result.modules:
            share = f"{100 * row.macs / result.macs:.1f} %" if result.macs else ""
            shape_text = "x".join(map(str, row.output))
            table.add_row(row.name, row.kind, f"{row.parameters:,}", f"{row.macs / 1e6:,.1f} M", share, shape_text)
        Console(highlight=False, width=140).print(table)


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.replace("x", ",").split(",")
    if not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise ValueError(f"--input is a shape such as 1,3,8,224,224, not {text!r}")
    return tuple(int(size) for size in sizes)
