"""`saccade smooth`: better predictions on a person's own graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def smooth(
    edges: Annotated[Path, typer.Argument(help="CSV of node pairs (and weights), or an npz that holds everything.")],
    labels: Annotated[Path | None, typer.Option(help="CSV: node,label[,split]; split: train, valid, test.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="CSV or npz of base probabilities, a row a node.")] = None,
    out: Annotated[Path, typer.Option(help="Where the predictions go, a CSV.")] = Path("smoothed.csv"),
    mode: Annotated[str, typer.Option(help="autoscale or fixed.")] = "autoscale",
    scale: Annotated[float, typer.Option(help="Factor of mode fixed.")] = 1.0,
    correct_alpha: Annotated[float, typer.Option(help="How far errors spread, 0 to 1.")] = 0.9,
    smooth_alpha: Annotated[float, typer.Option(help="How far predictions spread, 0 to 1.")] = 0.8,
    correct_adj: Annotated[str, typer.Option(help="Normalisation of the first step: DAD, DA or AD.")] = "DAD",
    smooth_adj: Annotated[str, typer.Option(help="Normalisation of the second step.")] = "DAD",
    stages: Annotated[str, typer.Option(help="both, correct or smooth.")] = "both",
    tune: Annotated[int, typer.Option(help="Choose from so many random settings on the valid nodes; 0: none.")] = 0,
    keep_valid: Annotated[bool, typer.Option("--keep-valid", help="Do not use valid labels in the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Correct and smooth base predictions on your own graph; writes a CSV and, beside it, a JSON summary."""
    from saccade.graph.correct_and_smooth import CorrectAndSmooth
    from saccade.graph.verbs import read_graph, write_predictions
    from saccade.graph.verbs import smooth as run

    chosen: Any = {"correct_adj": correct_adj, "smooth_adj": smooth_adj, "mode": mode, "stages": stages}
    setting = CorrectAndSmooth(correct_alpha, smooth_alpha, scale=scale, **chosen)
    if tune < 0:
        raise ValueError(f"--tune is the number of settings to try, 0 or more, not {tune}")
    files = read_graph(edges, labels, predictions)
    result = run(files, setting, tune, keep_valid)
    write_predictions(out, files, result)
    summary = out.with_suffix(".json")
    summary.write_text(json.dumps(result.summary, indent=1) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(result.summary, indent=1))
        return
    about = result.summary
    typer.echo(
        f"{about['nodes']} nodes, {about['edges']} edges, {about['classes']} classes; {about['labelled_nodes']} labels "
        f"used, {about['changed_predictions']} of {about['predicted_nodes']} other predictions changed"
    )
    if about["isolated_nodes"]:
        typer.echo(f"{about['isolated_nodes']} isolated nodes keep their base prediction, as nothing reaches them")
    for part, figures in about["accuracy"].items():
        typer.echo(f"{part} accuracy: {100 * figures['base']:.1f} % before, {100 * figures['smoothed']:.1f} % after")
    if tune:
        typer.echo("chosen: " + ", ".join(f"{name}={value}" for name, value in about["settings"].items()))
    typer.echo(f"predictions: {out}   summary: {summary}")
