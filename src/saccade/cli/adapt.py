"""`saccade adapt`: a classifier for a person's own images that nobody has labelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def adapt(
    source: Annotated[Path, typer.Argument(help="Labelled images: a folder of CLASS/*.")],
    target: Annotated[Path, typer.Argument(help="Images without labels: a folder, at any depth.")],
    method: Annotated[str, typer.Option(help="dsbn, cmss, dann, cdan, source-only, or with --labelled mico.")] = "dsbn",
    also: Annotated[list[Path] | None, typer.Option(help="A further source; may be given again.")] = None,
    labelled: Annotated[Path | None, typer.Option(help="Some labelled images of the target: CLASS/*.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("adapted"),
    model: Annotated[str, typer.Option(help="A name of timm's, or small, for small pictures.")] = "resnet18",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from timm's weights.")] = False,
    size: Annotated[int, typer.Option(help="Side of the images.")] = 224,
    augment: Annotated[str, typer.Option(help="resized-crop, crop or none.")] = "resized-crop",
    iterations: Annotated[int, typer.Option(help="Of training.")] = 1000,
    batch: Annotated[int, typer.Option(help="Images of each domain an iteration.")] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-4,
    holdout: Annotated[float, typer.Option(help="Share of the sources kept to measure on.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that read images.")] = 0,
    device: Annotated[str, typer.Option(help="Where to compute, such as cuda.")] = "cpu",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew, whatever the folder holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Carry a classifier over to your own images that have no labels; writes their classes with confidences."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeRemainingColumn

    from saccade.adaptation.verbs import AdaptSettings
    from saccade.adaptation.verbs import adapt as run

    settings = AdaptSettings(method, model, pretrained, size, augment, iterations, batch, lr, holdout, seed)
    columns = (TextColumn("training"), *Progress.get_default_columns()[1:3], TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=1.0)
        result = run(
            [source, *(also or [])], target, out, settings, labelled=labelled, device=device, num_workers=workers,
            fresh=fresh, progress=lambda share: bar.update(task, completed=share),
        )  # fmt: skip
    about = result.summary
    if as_json:
        typer.echo(json.dumps(about, indent=1))
        return
    typer.echo(f"{len(result.files)} images, mean confidence {about['mean_confidence']:.2f}")
    for name, count in sorted(about["answers"].items(), key=lambda item: -item[1]):
        typer.echo(f"  {name}: {count}")
    if "held_out_source_accuracy" in about:
        typer.echo(f"accuracy on held-out images of the sources: {100 * about['held_out_source_accuracy']:.1f} %")
    if about["unreadable"]:
        typer.echo(f"{about['unreadable']} images could not be read and are left out")
    typer.echo(f"answers: {out / 'predictions.csv'}   picture: {out / 'embeddings.png'}")
