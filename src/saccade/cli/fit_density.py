"""`saccade fit-density`: where on the Earth things happen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def fit_density(
    events: Annotated[Path, typer.Argument(help="CSV with latitude and longitude in degrees.")],
    out: Annotated[Path, typer.Option(help="Folder of density, map and figures.")] = Path("density"),
    steps: Annotated[int, typer.Option(help="Of training.")] = 500,
    batch_size: Annotated[int, typer.Option(help="Places a step.")] = 256,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-2,
    hidden: Annotated[int, typer.Option(help="Width of the field.")] = 64,
    depth: Annotated[int, typer.Option(help="Its further hidden layers.")] = 1,
    wrap: Annotated[bool, typer.Option("--wrap", help="Accept longitudes from 180 to 360.")] = False,
    seed: Annotated[int, typer.Option(help="Of split, start and batches.")] = 0,
    device: Annotated[str, typer.Option(help="Where to compute.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Fit a density on the globe to places; interrupted, the same command goes on where it stood."""
    from rich.progress import Progress

    from saccade.flows.verbs import fit_density as run

    with Progress(transient=True, disable=as_json) as bar:
        task = bar.add_task("training", total=1.0)
        fitted = run(
            events,
            out,
            steps,
            batch_size,
            lr,
            hidden,
            depth,
            wrap,
            seed,
            device,
            lambda share: bar.update(task, completed=share),
        )
    if as_json:
        typer.echo(json.dumps({**fitted.summary, "skipped": fitted.skipped}, indent=1))
        return
    about = fitted.summary
    for line in fitted.skipped[:5]:
        typer.echo(f"skipped {line}", err=True)
    typer.echo(f"{about['places']} places, {about['skipped_lines']} lines skipped")
    typer.echo(
        f"test NLL {about['nll_test']:.3f} nats; von Mises-Fisher {about['nll_test_von_mises_fisher']:.3f}, uniform "
        f"{about['nll_uniform']:.3f}; the density integrates to {about['integral']:.4f}"
    )
    typer.echo(f"map, grid and flow: {out}")
