"""`saccade predict`: what do these videos show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    videos: Annotated[list[Path], typer.Argument(help="Video files, folders of frames, or folders of videos.")],
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint of `saccade fit`, or weights with --config.")],
    config: Annotated[str | None, typer.Option(help="Recipe of the network, where the checkpoint is weights.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Class names, one a line, in the order of ids.")] = None,
    top_k: Annotated[int, typer.Option(help="How many classes to give.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Write the result there, as JSON.")] = None,
    device: Annotated[str, typer.Option(help="Where to compute, such as cuda.")] = "cpu",
    timeline: Annotated[Path | None, typer.Option(help="Draw what is seen over time, as a PNG.")] = None,
    over_time: Annotated[bool, typer.Option("--over-time", help="Classify clips all along the videos too.")] = False,
    window: Annotated[float | None, typer.Option(help="Length of those clips in seconds.")] = None,
    step: Annotated[float | None, typer.Option(help="From one to the next in seconds; half a window.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Classify videos with a trained action network; those that cannot be read are skipped and counted."""
    from saccade.action.verbs import classify_videos

    found = classify_videos(
        videos,
        checkpoint,
        config=config,
        labels=labels,
        top_k=top_k,
        device=device,
        over_time=over_time,
        timeline=timeline,
        window=window,
        step=step,
    )
    if out is not None:
        out.write_text(found.json())
    if as_json:
        typer.echo(found.json())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("video", "what it shows", "probability")
    for video in found.videos:
        for rank, score in enumerate(video.scores):
            table.add_row("" if rank else Path(video.video).name, score.label, f"{score.probability:.3f}")
        for moment in video.clips:
            first = moment.scores[0]
            table.add_row(f"  {moment.start:.1f} to {moment.end:.1f} s", first.label, f"{first.probability:.3f}")
    Console().print(table)
    for video in found.videos:
        if video.timeline is not None:
            typer.echo(f"timeline: {video.timeline}")
    for path, reason in found.skipped.items():
        typer.echo(f"skipped {path}: {reason}", err=True)
    if found.skipped:
        typer.echo(f"{len(found.skipped)} of {len(found.skipped) + len(found.videos)} videos were skipped", err=True)
