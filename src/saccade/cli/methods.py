"""`saccade list` and `saccade show`: from the catalog and the ledger, without torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from saccade.catalog import METHODS, Method, find
from saccade.ledger import read_ledger

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def list_methods(
    domain: Annotated[str, typer.Option(help="Only this domain.")] = "",
    built: Annotated[bool, typer.Option("--built", help="Only what is built.")] = False,
    as_json: Json = False,
) -> None:
    """List the methods: built ones with their verdict, the others marked planned."""
    domains = sorted({method.domain for method in METHODS})
    if domain and domain not in domains:
        raise ValueError(f"no domain {domain!r}; there is {', '.join(domains)}")
    chosen = [m for m in METHODS if (not domain or m.domain == domain) and (not built or m.status == "built")]
    ledger = read_ledger()
    if as_json:
        rows = [{"slug": m.slug, "name": m.name, "domain": m.domain, "status": m.status} for m in chosen]
        typer.echo(json.dumps([row | {"verdict": _verdict(ledger, str(row["slug"]))} for row in rows], indent=1))
        return
    width = max((len(m.slug) for m in chosen), default=0)
    for name in domains:
        members = [m for m in chosen if m.domain == name]
        if members:
            typer.echo(f"\n{name}")
        for m in members:
            state = _verdict(ledger, m.slug) if m.status == "built" else "planned"
            typer.echo(f"  {m.slug:<{width}}  {state:<14}{m.summary}")
    count = sum(m.status == "built" for m in chosen)
    typer.echo(f"\n{len(chosen)} methods, {count} built. One of them: saccade show SLUG")


def show(slug: Annotated[str, typer.Argument(help="As in `saccade list`.")], as_json: Json = False) -> None:
    """Show one method: what it is, its part, recipe, claim, measured figures."""
    method = find(slug)
    entries = read_ledger().get(slug, {})
    if as_json:
        typer.echo(json.dumps(asdict(method) | {"status": method.status, "measured": entries}, indent=1))
        return
    typer.echo("\n".join(_page(method, entries)))


def _page(method: Method, entries: dict[str, dict[str, Any]]) -> list[str]:
    official = method.repository or "none published"
    lines = [
        f"{method.name}  ({method.slug}, {method.domain}, {method.status})",
        f"  {method.title}. arXiv:{method.arxiv}",
        f"  {method.summary}",
        "",
        f"  official code  {official}" + (f" ({method.licence})" if method.repository and method.licence else ""),
    ]
    if method.checkpoints:
        lines.append(f"  checkpoints    {method.checkpoints}")
    if method.status == "planned":
        return [*lines, "", "  planned: nothing of it can be imported or run yet"]
    imports = [f"from {part.partition(':')[0]} import {part.partition(':')[2]}" for part in method.parts]
    lines += [f"  {label:<13}  {text}" for label, text in zip(["part", *[""] * len(imports)], imports, strict=False)]
    lines += [f"  recipe         {command}" for command in method.recipe_commands]
    if method.converter:
        lines.append(f"  converter      saccade convert {method.slug} official.pth ours.safetensors")
    if method.claim:
        lines.append(f"  claim          saccade reproduce {method.slug}")
    for data, entry in entries.items():
        lines += ["", f"  measured on {data} ({entry['seeds']} seeds, {entry['date']}): {entry['verdict']}", ""]
        width = max(len(arm["title"]) for arm in entry["arms"].values())
        lines.append(f"    {'':<{width}}  {entry['metric']}")
        for arm in entry["arms"].values():
            paper = f"   paper {arm['paper']:g}" if arm["paper"] is not None else ""
            lines.append(f"    {arm['title']:<{width}}  {arm['mean']:.2f} ± {arm['std']:.2f}{paper}")
    return lines


def _verdict(ledger: dict[str, dict[str, Any]], slug: str) -> str:
    verdicts = {entry["verdict"] for entry in ledger.get(slug, {}).values()}
    return " / ".join(sorted(verdicts)) or "not measured"
