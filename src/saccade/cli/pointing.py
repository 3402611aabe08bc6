"""`saccade pointing`: the pointing game on VOC 2007 or COCO 2014, method by method."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def pointing(
    recipe: Annotated[str, typer.Argument(help="Such as explain/pointing-voc07-vgg16, or a YAML file.")],
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    weights: Annotated[str, typer.Option(help="The classifier's checkpoint; none: random, to try the recipe out.")],
    methods: Annotated[str, typer.Option(help="Which methods, separated by commas; all where not given.")] = "",
    difficult: Annotated[Path | None, typer.Option(help="JSON of difficult classes by image name.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use the first images alone.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Score attribution methods by whether their maps peak on the object; prints ours beside the paper's figures."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from saccade.explain.verbs import pointing as run
    from saccade.training.recipes import find_recipe

    _, path = find_recipe(recipe)
    chosen = tuple(name.strip().replace("-", "_") for name in methods.split(",") if name.strip())
    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def progress(method: str, share: float) -> None:
            if method not in tasks:
                tasks[method] = bar.add_task(method, total=1.0)
            bar.update(tasks[method], completed=share)

        rows = run(
            path, root, weights, methods=chosen, difficult=difficult, limit=limit, device=device, progress=progress
        )
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = Table("method", "all (%)", "difficult (%)", "paper, all / difficult", "pairs", "unreadable")
    for row in rows:
        paper = " / ".join(f"{figure:.1f}" for figure in row.paper) or "-"
        table.add_row(row.method, f"{row.all:.1f}", f"{row.difficult:.1f}", paper, str(row.pairs), str(row.skipped))
    Console().print(table)
