"""`saccade explain`: where a classifier looks, on a person's own image."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def explain(
    image: Annotated[Path, typer.Argument(help="The image.")],
    model: Annotated[str, typer.Option(help="torchvision or timm name, torchray_vgg16, torchray_resnet50, or mod:fn.")],
    weights: Annotated[str, typer.Option(help="default (published), none (random), or a checkpoint file.")] = "default",
    method: Annotated[
        str,
        typer.Option(
            help="grad-cam, gradient, guided-backprop, deconvnet, linear-approx, excitation-backprop, "
            "contrastive-excitation-backprop, rise, or extremal-perturbation."
        ),
    ] = "grad-cam",
    target: Annotated[int | None, typer.Option(help="Class to explain; what the model says where not given.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer to read; the method's usual one where not given.")] = None,
    contrast_layer: Annotated[str | None, typer.Option(help="Of contrastive excitation backprop.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for heat maps and summary.")] = Path("explained"),
    size: Annotated[int, typer.Option(help="Shorter side of what the model sees, in pixels.")] = 224,
    areas: Annotated[str, typer.Option(help="Shares that extremal perturbations keep.")] = "0.05,0.1,0.2",
    steps: Annotated[int, typer.Option(help="Steps of extremal perturbations; the paper takes 800.")] = 300,
    masks: Annotated[int, typer.Option(help="Masks of RISE; the paper takes 8000.")] = 2000,
    download: Annotated[bool, typer.Option("--download", help="Let published weights be downloaded.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write a heat map of where a classifier looks on an image, an overlay, and a JSON summary."""
    try:
        shares = tuple(float(share) for share in areas.split(","))
    except ValueError:
        raise ValueError(f"--areas is a list of shares such as 0.05,0.1,0.2, not {areas!r}") from None
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeRemainingColumn

    from saccade.explain.verbs import explain as run

    columns = (TextColumn("{task.description}"), *Progress.get_default_columns()[1:3], TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(method, total=1.0)
        result = run(
            image, model, weights=weights, method=method, target=target, layer=layer, contrast_layer=contrast_layer,
            out=out, size=size, areas=shares, steps=steps, masks=masks, download=download, device=device,
            progress=lambda share: bar.update(task, completed=share),
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(asdict(result), indent=1))
        return
    name = f" ({result.target_name})" if result.target_name else ""
    where = f"layer {result.layer}" if result.layer else "the input"
    typer.echo(f"{result.model}, weights {result.weights}")
    typer.echo(f"class {result.target}{name}: logit {result.score:.2f}, probability {result.probability:.3f}")
    typer.echo(f"{method} at {where}; the map peaks at x={result.peak[0]}, y={result.peak[1]}")
    if "optimal_area" in result.details:
        area = result.details["optimal_area"]
        enough = f"{100 * area:g}% of the mask is enough" if area else "none of the areas is enough"
        typer.echo(f"{enough} for nine tenths of the score")
    for kind, path in result.files.items():
        typer.echo(f"  {kind:8} {path}")
