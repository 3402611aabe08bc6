"""`saccade compress` and `saccade decompress`: a network in few bits, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def compress(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of `saccade fit`, or weights with --model.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="key=value for a dotted path or timm.")] = None,
    clusters: Annotated[str, typer.Option(help="Rows a layer: 16, or conv1=16,..., or a YAML file.")] = "16",
    out: Annotated[Path, typer.Option("--out", "-o", help="The compressed file; a report beside it.")] = Path(
        "out.skm"
    ),
    core_ratio: Annotated[str, typer.Option(help="Share of rows in one dense core: 0.5, or conv1=0.5,...")] = "0",
    layers: Annotated[str | None, typer.Option(help="Names of convolutions; all by default.")] = None,
    model: Annotated[str | None, typer.Option(help="Of weights: a recipe, a dotted path, or a timm name.")] = None,
    retrain: Annotated[
        str | None,
        typer.Option(help="Train before, on a folder of train/CLASS/* and val/CLASS/*, or digits, mnist..."),
    ] = None,
    validate: Annotated[str | None, typer.Option(help="Measure the accuracy on such data, without training.")] = None,
    epochs: Annotated[int, typer.Option(help="Of re-training.")] = 10,
    lr: Annotated[float, typer.Option(help="Of re-training.")] = 0.01,
    lam: Annotated[float, typer.Option(help="Strength of the regulariser.")] = 1.0,
    ramp: Annotated[bool, typer.Option("--ramp", help="Raise the strength from 0 over the run.")] = False,
    size: Annotated[int | None, typer.Option(help="Side of the images.")] = None,
    grey: Annotated[bool | None, typer.Option("--grey", help="Images of one channel.")] = None,
    mean: Annotated[str | None, typer.Option(help="Of the normalisation, such as 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Of the normalisation.")] = None,
    augment: Annotated[str | None, typer.Option(help="none, shift-flip or crop-flip.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images.")] = None,
    shape: Annotated[str, typer.Option("--input", help="c,h,w for the energy; the images' by default.")] = "",
    code: Annotated[str, typer.Option(help="Of indices: smallest, fixed or huffman.")] = "smallest",
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    device: Annotated[str, typer.Option(help="Where to compute, such as cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Share the rows of a network's filters and pack it; with --retrain, pull them into clusters first."""
    norm = {name: _numbers(text, f"--{name}") for name, text in (("mean", mean), ("std", std)) if text is not None}
    size_of_input = [int(number) for number in _numbers(shape, "--input")] if shape else None
    if retrain is not None and validate is not None:
        raise ValueError("--retrain validates on the val part of its own data: give it or --validate")
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeRemainingColumn

    from saccade.efficiency.verbs import Retraining, open_images, parse_clusters
    from saccade.efficiency.verbs import compress as run

    chosen: Any = code
    given = {
        "size": size,
        "grey": grey,
        "augment": augment,
        "batch_size": batch_size,
        "num_workers": workers,
        **norm,
    }
    data = retrain or validate
    columns = (TextColumn("re-training"), *Progress.get_default_columns()[1:3], TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("re-training", total=1.0, visible=retrain is not None)
        result = run(
            checkpoint, out, parse_clusters(clusters), parse_clusters(core_ratio, float), model=model,
            arguments=arguments or (), layers=layers.split(",") if layers else None,
            data=None if data is None else lambda known: open_images(data, known, **given),
            retraining=Retraining(epochs, lr, lam, ramp) if retrain is not None else None, code=chosen,
            input_size=size_of_input, seed=seed, device=device,
            progress=lambda share: bar.update(task, completed=share),
        )  # fmt: skip
    if as_json:
        typer.echo(result.json())
        return
    typer.echo(
        f"{result.float32_bytes:,} bytes before, {result.compressed_bytes:,} after: {result.ratio:.2f} times smaller"
    )
    ways = {"entropy": "entropy, as the paper counts", "huffman": "Huffman code", "fixed": "fixed width"}
    counted = ", ".join(f"{result.accounted[key]:.2f} ({title})" for key, title in ways.items())
    typer.echo(f"convolutions and linear layers: {counted}")
    for title, value in result.accuracy.items():
        typer.echo(f"accuracy {title}: {100 * value:.2f} %")
    if result.energy:
        before, after = result.energy["before"], result.energy["after"]
        typer.echo(f"energy of one input, estimated: {before:.3g} uJ before, {after:.3g} uJ after")
    from rich.table import Table

    table = Table("layer", "clusters", "rows", "error / variance", "bits an index")
    for line in result.layers:
        figures = f"{line.rows:,}", f"{line.relative_error:.2g}", f"{line.entropy:.2f}"
        table.add_row(line.name, str(line.clusters), *figures)
    Console(highlight=False, width=110).print(table)
    for note in result.notes:
        typer.echo(note)
    typer.echo(f"network: {result.file}   report: {out.with_suffix('.json')}")


def decompress(
    file: Annotated[Path, typer.Argument(help="What `saccade compress` wrote.")],
    target: Annotated[Path, typer.Argument(help="Where the weights go, a .safetensors file.")],
) -> None:
    """Write the weights of a compressed network as an ordinary state dict."""
    from saccade.efficiency.verbs import decompress as run

    typer.echo(f"{run(file, target)} tensors written to {target}")


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} is a list of numbers such as 3,32,32, not {text!r}") from None
