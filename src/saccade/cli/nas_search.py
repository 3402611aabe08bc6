"""`saccade nas-search`: good architectures with few evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def nas_search(
    source: Annotated[Path, typer.Argument(help="A table (JSON), or a space of your own: YAML of choices, command.")],
    recipe: Annotated[str, typer.Option(help="Settings from a recipe, such as efficiency/weaknas-nasbench101.")] = "",
    method: Annotated[str, typer.Option(help="weaknas, strong, evolution, local or random.")] = "weaknas",
    budget: Annotated[int | None, typer.Option(help="Evaluations; 100 where no recipe says.")] = None,
    repeat: Annotated[int, typer.Option(help="Searches with other seeds.")] = 1,
    seed: Annotated[int, typer.Option(help="The first.")] = 0,
    predictor: Annotated[str | None, typer.Option(help="mlp, forest, boosting or ridge.")] = None,
    init: Annotated[int | None, typer.Option(help="Uniform samples to begin with.")] = None,
    per_round: Annotated[int | None, typer.Option(help="Evaluations between two fits.")] = None,
    pool: Annotated[int | None, typer.Option(help="Top ranks that are drawn from.")] = None,
    draw: Annotated[str | None, typer.Option(help="uniform or greedy.")] = None,
    acquisition: Annotated[str | None, typer.Option(help="none, mean, ucb, ei, pi, percentile, ts, its...")] = None,
    metric: Annotated[str, typer.Option(help="Of a table; valid or test where nothing is said.")] = "",
    noise: Annotated[bool, typer.Option("--noise", help="Show one training run of each architecture.")] = False,
    workers: Annotated[int, typer.Option(help="Evaluations at a time.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of states, results and the picture.")] = Path("nas-search"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Search a table or a space of your own; interrupted, the same command goes on where it stood."""
    from rich.progress import Progress

    from saccade.efficiency.nas_search import SEARCHES, acquisition_of
    from saccade.efficiency.nas_search import nas_search as run

    settings: dict[str, Any] = {}
    if recipe:
        import yaml

        from saccade.training.recipes import find_recipe

        settings = yaml.safe_load(find_recipe(recipe)[1].read_text(encoding="utf-8"))
        method = settings.pop("method", method)
    given = {"budget": budget, "predictor": predictor, "init": init, "per_round": per_round, "pool": pool, "draw": draw}
    settings |= {name: value for name, value in given.items() if value is not None}
    if acquisition is not None:
        settings["acquisition"] = acquisition_of(acquisition)
    if isinstance(settings.get("pool"), list):
        settings["pool"] = tuple(settings["pool"])
    if method in SEARCHES and not as_json:
        typer.echo(f"{method} on {source}", err=True)
    with Progress(transient=True, disable=as_json) as progress:
        tasks: dict[int, Any] = {}

        def told(own: int, done: int, whole: int) -> None:
            if own not in tasks:
                tasks[own] = progress.add_task(f"seed {own}", total=whole)
            progress.update(tasks[own], completed=done)

        common: dict[str, Any] = {"metric": metric, "noise": noise, "repeat": repeat, "seed": seed, "workers": workers}
        searched = run(source, out, method, on_evaluated=told, **common, **settings)
    about = searched.summary
    if as_json:
        typer.echo(json.dumps(about, indent=1))
        return
    typer.echo(
        f"best {about['best']:.4g} of {about['architectures']} after {about['evaluations']} evaluations: "
        f"{json.dumps(about['best_choice'])}"
    )
    if about["seeds"] > 1:
        typer.echo(f"over {about['seeds']} seeds: {about['mean']:.4g} +- {about['std']:.2g}")
    if "optimum" in about:
        typer.echo(
            f"the optimum is {about['optimum']:.4g}: regret {about['regret']:.3g}, reached by "
            f"{about['reached_optimum']} of {about['seeds']}"
        )
    typer.echo(f"results, states and picture: {out}")
