"""`saccade reproduce`: re-check claims."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.catalog import METHODS, Method, find

if TYPE_CHECKING:
    from saccade.claims.claim import Claim
    from saccade.claims.engine import Result


def reproduce(
    slug: Annotated[str, typer.Argument(help="Which method, as in `saccade list`.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every built method.")] = False,
    on: Annotated[str, typer.Option(help="The data; the embedded default where not given.")] = "",
    budget: Annotated[str, typer.Option(help="smoke, small or full.")] = "small",
    seeds: Annotated[int | None, typer.Option(help="Number of seeds.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes at a time; one a core by default, 0: this one.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("runs"),
    data_root: Annotated[Path | None, typer.Option(help="Root of real data; SACCADE_DATA by default.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Write the figures into the checkout's ledger.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> int:
    """Re-check a paper's claim in small: baseline against method over seeds.

    An interrupted run resumes with the same command. Exit code 1: the claim fails.
    """
    if everything == bool(slug):
        raise ValueError("name one method, or give --all")
    methods = [m for m in METHODS if m.claim] if everything else [find(slug)]
    for method in methods:
        if not method.claim:
            raise ValueError(f"{method.slug} is planned: there is no claim to re-check yet")
    outcomes = []
    for method in methods:
        claim, result, report = _one(method, on, budget, seeds, jobs, device, out, data_root, quiet=as_json)
        outcomes.append(result)
        if record:
            from saccade.claims.record import record as write

            write(claim, result)
        if as_json:
            continue
        _print(claim, result)
        typer.echo(f"report: {report}")
    if as_json:
        typer.echo(json.dumps([r.json() for r in outcomes] if everything else outcomes[0].json(), indent=1))
    return int(any(result.verdict == "fails" for result in outcomes))


def _one(
    method: Method,
    on: str,
    budget: str,
    seeds: int | None,
    jobs: int | None,
    device: str,
    out: Path,
    data_root: Path | None,
    *,
    quiet: bool,
) -> tuple[Claim, Result, Path]:
    from saccade.claims import engine
    from saccade.claims.cells import load_claim
    from saccade.claims.report import write_report
    from saccade.data.root import default_root

    claim = load_claim(method.claim)
    with _Progress(method.name, quiet=quiet) as progress:
        result = engine.reproduce(
            method.claim,
            on=on,
            budget=budget,  # type: ignore[arg-type]  # the engine names what is accepted
            seeds=seeds,
            jobs=jobs,
            device=device,
            out=out,
            data_root=data_root or default_root(),
            progress=progress.update,
            announce=progress.say,
        )
    claim = claim.for_data(result.data)
    return claim, result, write_report(claim, result, method)


class _Progress:
    """One bar for the run: the cells' shares added up, with an estimate of what is left."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn(title),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[cell]}"),
            console=self.console,
            disable=quiet or bool(os.environ.get("CI")),
            transient=True,
        )
        self.quiet = quiet
        self.shares: dict[str, float] = {}
        self.task = self.bar.add_task("", total=None, cell="")

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, cell: str, share: float) -> None:
        self.shares[cell] = share
        self.bar.update(self.task, completed=sum(self.shares.values()), total=len(self.shares), cell=cell)

    def say(self, line: str) -> None:
        if not self.quiet:
            self.console.print(line, highlight=False)


def _print(claim: Claim, result: Result) -> None:
    from rich.console import Console
    from rich.table import Table

    paper: Any = claim.data[result.data].paper
    table = Table(title=f"{claim.slug} on {result.data}: mean ± std over {result.seeds} seed(s)", title_justify="left")
    table.add_column("arm")
    for metric in claim.metrics.values():
        table.add_column(metric.title, justify="right")
    if paper:
        table.add_column("paper", justify="right")
    for arm, about in claim.arms.items():
        cells = []
        for key, metric in claim.metrics.items():
            mean, std = result.summary(arm, key)
            cells.append(f"{mean:.{metric.digits}f} ± {std:.{metric.digits}f}")
        table.add_row(about.title, *cells, *([f"{paper[arm]:g}" if arm in paper else "–"] if paper else []))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for row in result.judged:
        console.print(f"  {row.verdict:<13} {row.text}: {row.mean:.3g}  [{row.low:.3g}, {row.high:.3g}]", markup=False)
    verdict = "no verdict (smoke run)" if result.verdict == "not judged" else f"the claim {_said(result.verdict)}"
    console.print(f"[bold]{verdict}[/bold]  ({result.seconds:.0f} s on {result.hardware})")
    if claim.limits:
        console.print(f"limits: {claim.limits}", markup=False)


def _said(verdict: str) -> str:
    return "is inconclusive" if verdict == "inconclusive" else verdict
