"""`saccade search index | query`: find images by image in a person's own folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

search = typer.Typer(help="Index a folder of images, then search it by image.", no_args_is_help=True)
Device = Annotated[str, typer.Option(help="Where to compute, such as cuda.")]
Download = Annotated[bool, typer.Option("--download", help="Let published weights be downloaded.")]


@search.command("index")
def index(
    folder: Annotated[Path, typer.Argument(help="All images below it are indexed.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The index, a folder; made, resumed or brought up to date.")],
    model: Annotated[
        str | None, typer.Option(help="timm name, or a checkpoint; the index's own where it is there already.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Of a timm model: default, none (random), or a file.")] = None,
    config: Annotated[str | None, typer.Option(help="Recipe of a checkpoint that holds weights alone.")] = None,
    measure: Annotated[str | None, typer.Option(help="cosine (by default) or euclidean.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    workers: Annotated[int, typer.Option(help="Processes that read images.")] = 0,
    download: Download = False,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Index a folder of images; the same command resumes after a kill, and takes up what changed."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from saccade.metric.verbs import index_folder

    chosen: Any = measure
    words = TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*words, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)) as bar:

        def show(done: int, total: int) -> None:
            task = bar.task_ids[0] if bar.task_ids else bar.add_task("embedding", total=total)
            bar.update(task, completed=done)

        report = index_folder(
            folder, out, model, weights=weights, config=config, measure=chosen, batch_size=batch_size,
            workers=workers, download=download, device=device, progress=show,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=1))
        return
    typer.echo(
        f"{report.images} images in {report.index}: {report.added} added, {report.changed} changed, "
        f"{report.removed} removed, {report.unchanged} as before ({report.seconds:.1f} s)"
    )
    for file, reason in report.skipped.items():
        typer.echo(f"skipped {file}: {reason}", err=True)
    if report.skipped:
        typer.echo(f"{len(report.skipped)} file(s) cannot be read and were skipped", err=True)


@search.command("query")
def query(
    images: Annotated[list[Path], typer.Argument(help="What to search with: files, or folders of them.")],
    index: Annotated[Path, typer.Option("--index", "-i", help="What `saccade search index` made.")],
    top: Annotated[int, typer.Option(help="How many images to find for each.")] = 10,
    html: Annotated[Path | None, typer.Option(help="Write a contact sheet there, one HTML file.")] = None,
    keep_itself: Annotated[bool, typer.Option("--keep-itself", help="A file of the folder may find itself.")] = False,
    download: Download = False,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find the images of an index that are nearest to yours."""
    from saccade.metric.verbs import search_images

    found = search_images(images, index, top=top, keep_itself=keep_itself, download=download, device=device)
    if html is not None:
        html.write_text(found.html(), encoding="utf-8")
    if as_json:
        typer.echo(found.json())
        return
    from rich.console import Console
    from rich.table import Table

    cosine = found.measure == "cosine"
    table = Table("query", "rank", "image", "similarity" if cosine else "distance")
    for answer in found.answers:
        for hit in answer.hits:
            name = "" if hit.rank > 1 else Path(answer.query).name
            table.add_row(name, str(hit.rank), hit.file, f"{hit.similarity if cosine else hit.distance:.3f}")
    Console().print(table)
    typer.echo(f"{found.images} images of {found.folder}; {found.model}" + (f"; sheet: {html}" if html else ""))
    for path, reason in found.skipped.items():
        typer.echo(f"skipped {path}: {reason}", err=True)
