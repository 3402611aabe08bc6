"""`saccade export`: a trained network for programs without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of `saccade fit`.")],
    out: Annotated[Path, typer.Option(help="The ONNX file.")] = Path("model.onnx"),
    shape: Annotated[str, typer.Option(help="Of an input without the batch, such as 3,8,224,224.")] = "",
    tolerance: Annotated[float, typer.Option(help="Largest difference that is accepted.")] = 1e-4,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write the network of a checkpoint as ONNX, run the file, and compare."""
    import torch

    from saccade.training.cli import load_task
    from saccade.training.export import export_onnx, network_of
    from saccade.training.models import default_input

    network = network_of(load_task(checkpoint))
    try:
        sizes = tuple(int(size) for size in shape.split(",")) if shape else (default_input(network) or ())[1:]
    except ValueError:
        raise ValueError(f"--shape is numbers with commas, such as 3,8,224,224, not {shape!r}") from None
    if not sizes or min(sizes) < 1:
        raise ValueError("the network does not say what it is fed: give --shape, such as 3,8,224,224")
    written = export_onnx(network, torch.randn(1, *sizes), out, tolerance)
    if as_json:
        about = {"path": str(written.path), "inputs": written.inputs, "outputs": written.outputs}
        typer.echo(json.dumps({**about, "difference": written.difference}))
        return
    shapes = " -> ".join(f"({', '.join(map(str, sizes))})" for sizes in (written.inputs, written.outputs))
    typer.echo(f"{written.path}: {shapes}; differs from the network by {written.difference:.1e} at most")
