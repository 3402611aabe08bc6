"""`saccade bench`: ours against the peers, as ratios."""

from __future__ import annotations

import importlib.util
import json
import sys
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from saccade.bench import Measured

FOLDERS = (Path(__file__).parents[3] / "benchmarks", Path(__file__).parents[1] / "benchmarks")
"""The checkout's, or the copy that the wheel holds."""


def bench(
    slug: Annotated[str, typer.Argument(help="Which method; all where not given.")] = "",
    match: Annotated[str, typer.Option(help="Only comparisons whose name holds this text.")] = "",
    threads: Annotated[int | None, typer.Option(help="Torch threads; torch's own choice by default.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Keep the ratios in the checkout's results.json.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Time every part against its peer in one process, alternating, as a ratio of medians."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise FileNotFoundError("the benchmarks are not in this installation; run it from a checkout")
    files = {path.stem.replace("_", "-"): path for path in sorted(folder.glob("[!_]*.py"))}
    if slug and slug not in files:
        raise ValueError(f"no benchmark of {slug!r}; there is {', '.join(files)}")
    import torch
    from rich.console import Console
    from rich.table import Table

    if threads is not None:
        torch.set_num_threads(threads)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    rows: list[dict[str, Any]] = []
    for name in [slug] if slug else files:
        table = Table(title=f"{name}: times of the peer / times of ours", title_justify="left")
        for column in ("what", "peer", "ours", "theirs", "ratio", "memory ratio", "target"):
            table.add_column(column, justify="left" if column in ("what", "peer") else "right")
        module = _load(files[name])
        for measured in _measured(module, match):
            rows.append({"slug": name} | measured.row())
            if record:
                _record(folder / "results.json", name, measured.row())
            memory = "" if measured.memory_ratio is None else f"{measured.memory_ratio:.1f}"
            wanted = f"{measured.target:.2g}" + (f" / {measured.memory_target:.2g}" if measured.memory_target else "")
            style = "" if measured.met else "red"
            times = (f"{1e3 * seconds:.3g} ms" for seconds in (measured.ours_s, measured.peer_s))
            table.add_row(
                measured.name, measured.peer_name, *times, f"{measured.ratio:.2f}", memory, wanted, style=style
            )
        if record and not match:
            _forget_others(folder / "results.json", name, [row["name"] for row in rows if row["slug"] == name])
        if not as_json and table.row_count:
            console.print(table)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))


def _measured(module: ModuleType, match: str) -> Iterator[Measured]:
    """Each comparison, and after all of them the geometric mean of each group that the file names in `GROUPS`."""
    from saccade.bench import compare, geometric_mean

    groups: dict[str, list[Measured]] = {}
    for comparison in module.comparisons():
        if match in comparison.name:
            measured = compare(comparison)
            groups.setdefault(comparison.group, []).append(measured)
            yield measured
    for group, target in getattr(module, "GROUPS", {}).items():
        if not match and len(groups.get(group, ())) > 1:
            yield geometric_mean(group, groups[group], target)


def _record(path: Path, slug: str, row: dict[str, Any]) -> None:
    """Slug -> hardware -> what was measured there last, by name: kept as soon as it is measured."""
    import torch

    from saccade.bench import hardware

    results = json.loads(path.read_text()) if path.exists() else {}
    device = hardware("cuda" if torch.cuda.is_available() else "cpu")
    kept = results.setdefault(slug, {}).get(device, {}).get("rows", [])
    rows = [row if old["name"] == row["name"] else old for old in kept]
    if row not in rows:
        rows.append(row)
    results[slug][device] = {"date": date.today().isoformat(), "torch": torch.__version__, "rows": rows}
    path.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


def _forget_others(path: Path, slug: str, names: list[str]) -> None:
    """After a complete run: comparisons that the file no longer makes are dropped."""
    results = json.loads(path.read_text())
    for about in results.get(slug, {}).values():
        about["rows"] = [row for row in about["rows"] if row["name"] in names]
    path.write_text(json.dumps(results, indent=1) + "\n")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"saccade_benchmarks_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
