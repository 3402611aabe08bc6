"""Writes what the pages know from elsewhere: catalog, ledger, benchmarks, docstrings. No torch.

python docs/generate.py            write the method pages, the reference pages, and the tables between markers
python docs/generate.py --check    write nothing; exit with 1 where a file is stale
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from saccade.catalog import DOMAINS, METHODS, Method  # noqa: E402

NOTICE = "<!-- written by docs/generate.py: do not edit -->\n"
MARKED = ("README.md", "docs/index.md", "mkdocs.yml")
SECTIONS = {
    "ops": "Operators on tensors",
    "nn": "Layers, backbones and losses that domains share",
    "surgery": "Finding, inserting and hooking modules by name",
    "checkpoints": "Reading and converting checkpoints",
    "bench": "Timing against a peer",
    "data": "Decoding, sampling, loading",
    "worlds": "Procedural data",
    "training": "What Lightning tasks share",
    "claims": "The reproduction engine",
}
"""The floors, in the order of the navigation; domains come before them."""


def main(arguments: list[str] | None = None) -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a file is stale")
    check = parser.parse_args(arguments).check
    pages = render()
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    generated = [*(ROOT / "docs" / "methods").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md")]
    orphans = [path for path in generated if path not in pages]
    for path in [*stale, *orphans]:
        print(f"{'stale' if check else 'written' if path in stale else 'removed'}: {path.relative_to(ROOT)}")
    if check:
        if stale or orphans:
            print("run: make tables")
        return int(bool(stale or orphans))
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[path], encoding="utf-8")
    for path in orphans:
        path.unlink()
    return 0


def render() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    ledger = _json(ROOT / "claims" / "ledger.json")
    speed = _json(ROOT / "benchmarks" / "results.json")
    built = [method for method in METHODS if method.status == "built"]
    pages = {ROOT / "docs" / "methods" / "index.md": index_page(ledger)}
    for method in built:
        pages[ROOT / "docs" / "methods" / f"{method.slug}.md"] = method_page(
            method, ledger.get(method.slug, {}), speed.get(method.slug, {})
        )
    for name in packages():
        pages[ROOT / "docs" / "reference" / f"{name}.md"] = reference_page(name)
    blocks = {
        "count": f"{len(METHODS)} methods, {len(built)} of them built so far",
        "methods": methods_table(built, ledger, "docs/methods/"),
        "methods-site": methods_table(built, ledger, "methods/"),
        "nav-methods": "".join(f"      - {m.name}: methods/{m.slug}.md\n" for m in built),
        "nav-reference": "".join(f"      - saccade.{name}: reference/{name}.md\n" for name in packages()),
    }
    for name in MARKED:
        path = ROOT / name
        pages[path] = fill(path.read_text(encoding="utf-8"), blocks, name)
    return pages


def fill(text: str, blocks: dict[str, str], name: str) -> str:
    """Replace what stands between `begin KEY` and `end KEY`, in comments of Markdown or YAML."""
    for key, content in blocks.items():
        for opening, closing in (("<!-- ", " -->"), ("# ", "")):
            begin, end = (re.escape(f"{opening}{word} {key}{closing}") for word in ("begin", "end"))
            pattern = re.compile(rf"({begin}\n).*?( *{end}(?:\n|$))", re.S)
            text = pattern.sub(lambda m, c=content: m[1] + c.rstrip("\n") + "\n" + m[2], text)
    left = re.findall(r"(?:<!-- |# )begin (\S+)", text)
    if unknown := [key for key in left if key not in blocks]:
        raise SystemExit(f"{name} has markers that nobody fills: {', '.join(unknown)}")
    return text


def methods_table(built: list[Method], ledger: dict[str, Any], folder: str) -> str:
    """One row for each built method and data: what was expected first, what was measured."""
    rows = ["| method | what for | data | expected | measured | verdict |", "|---|---|---|---|---|---|"]
    for method in built:
        name, summary = f"[{method.name}]({folder}{method.slug}.md)", method.summary.split(":")[0].rstrip(".")
        entries = ledger.get(method.slug, {})
        if not entries:
            rows.append(f"| {name} | {summary} | – | – | not measured yet | – |")
        for data, entry in entries.items():
            # the first expectation that decided the verdict: where a claim fails, the row says what failed
            decided = next(row for row in entry["expectations"] if row["verdict"] == entry["verdict"])
            expected, metric = decided["text"].rsplit(": ", 1)
            measured = f"{decided['mean']:.3g} [{decided['low']:.3g}, {decided['high']:.3g}] {metric}"
            rows.append(f"| {name} | {summary} | {data} | {expected} | {measured} | **{entry['verdict']}** |")
            name = summary = ""
    return "\n".join(rows)


def index_page(ledger: dict[str, Any]) -> str:
    """All methods by domain."""
    lines = [NOTICE, "# Methods", ""]
    count = sum(method.status == "built" for method in METHODS)
    lines += [
        f"{len(METHODS)} methods in {len(DOMAINS)} domains; {count} are built, the others are planned: nothing of them "
        "can be imported or run yet.",
        "",
    ]
    for domain, job in DOMAINS.items():
        lines += [f"## {domain}", "", f"{job[0].upper()}{job[1:]}.", ""]
        lines += ["| method | what for | paper | state |", "|---|---|---|---|"]
        for method in (m for m in METHODS if m.domain == domain):
            built = method.status == "built"
            name = f"[{method.name}]({method.slug}.md)" if built else method.name
            verdicts = " / ".join(sorted({e["verdict"] for e in ledger.get(method.slug, {}).values()}))
            state = (verdicts or "built, not measured") if built else "planned"
            paper = f"[{method.arxiv}](https://arxiv.org/abs/{method.arxiv})"
            lines.append(f"| {name} | {method.summary} | {paper} | {state} |")
        lines.append("")
    return "\n".join(lines)


def method_page(method: Method, entries: dict[str, Any], speed: dict[str, Any]) -> str:
    """One built method."""
    official = f"[{method.repository}](https://github.com/{method.repository}) (licence: {method.licence})"
    lines = [NOTICE, f"# {method.name}", "", method.summary, ""]
    lines += [
        f"*{method.title}.* [arXiv:{method.arxiv}](https://arxiv.org/abs/{method.arxiv})",
        "",
        f"Official code: {official if method.repository else 'none published'}."
        + (f" Checkpoints: {method.checkpoints}." if method.checkpoints else ""),
        "",
    ]
    lines += _pictures(method)
    lines += ["## What it is", "", *docstring(method.parts[0]), ""]
    lines += ["## Use it", "", "```python", *_imports(method.parts), "```", ""]
    lines += ["```sh", f"saccade reproduce {method.slug}"]
    lines += list(method.recipe_commands)
    lines += [f"saccade convert {method.slug} official.pth ours.safetensors"] if method.converter else []
    lines += ["```", "", f"Reference: [saccade.{method.domain}](../reference/{method.domain}.md).", ""]
    claim = claim_texts(method.claim)
    lines += ["## The claim", "", claim.get("statement", ""), ""]
    lines += ([f"The paper: {claim['paper']}", ""] if "paper" in claim else []) + (
        [f"Limits: {claim['limits']}", ""] if "limits" in claim else []
    )
    for data, entry in entries.items():
        lines += measured(data, entry)
    if not entries:
        lines += ["Not measured yet.", ""]
    lines += _speed(method.slug, speed)
    if f"\n## {method.name}\n" in (ROOT / "docs" / "errata.md").read_text(encoding="utf-8"):
        anchor = re.sub(r"[^a-z0-9]+", "-", method.name.lower()).strip("-")
        lines += [f"Where the authors' code departs from their paper: [errata](../errata.md#{anchor}).", ""]
    return "\n".join(lines)


def measured(data: str, entry: dict[str, Any]) -> list[str]:
    """The last result on one data set: arms beside the paper's figures, expectations, and how it was measured."""
    lines = [f"### Measured on {data}: {entry['verdict']}", ""]
    if entry.get("title"):
        lines += [f"On {entry['title']}. {entry['note']}".strip(), ""]
    metrics = entry["metrics"]
    paper = any(arm["paper"] is not None for arm in entry["arms"].values())
    lines.append("| | " + " | ".join(metrics.values()) + (" | paper |" if paper else " |"))
    lines.append("|---|" + "---:|" * (len(metrics) + paper))
    for arm in entry["arms"].values():
        figures = [f"{mean:.3g} ± {std:.2g}" for mean, std in (arm["metrics"][key] for key in metrics)]
        own = [("–" if arm["paper"] is None else f"{arm['paper']:g}")] if paper else []
        lines.append(f"| {arm['title']} | " + " | ".join([*figures, *own]) + " |")
    lines += ["", "| expectation | measured | 90 % interval | verdict |", "|---|---:|---:|---|"]
    for row in entry["expectations"]:
        interval = f"{row['low']:.3g} … {row['high']:.3g}"
        lines.append(f"| {row['text']} | {row['mean']:.3g} | {interval} | {row['verdict']} |")
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    lines += [
        "",
        f"Mean ± standard deviation over {entry['seeds']} seeds; {entry['seconds']} s on {entry['hardware']}; "
        f"{entry['date']}; {versions}. Again: `{entry['command']}`",
        "",
    ]
    return lines


def _speed(slug: str, speed: dict[str, Any]) -> list[str]:
    if not speed:
        return []
    lines = ["## Speed", "", "| what | peer | times faster | memory ratio | on |", "|---|---|---:|---:|---|"]
    for hardware, about in speed.items():
        for row in about["rows"]:
            memory = "–" if row["memory_ratio"] is None else f"{row['memory_ratio']:.1f}"
            lines.append(f"| {row['name']} | {row['peer_name']} | {row['ratio']:.1f} | {memory} | {hardware} |")
    lines.append("")
    if (ROOT / "docs" / "assets" / f"{slug}-scaling.png").exists():
        lines += [f"![Time and memory over the length of a clip](../assets/{slug}-scaling.png)", ""]
    return lines


def _pictures(method: Method) -> list[str]:
    """What the last recorded run drew."""
    folder = ROOT / "docs" / "assets"
    figures = [f"![The figures of the last run, a dot a seed](../assets/{method.slug}-figures.png)", ""]
    drawn = sorted(folder.glob(f"{method.slug}-[0-9]*.png"))
    pictures = [line for path in drawn for line in (f"![From the report](../assets/{path.name})", "")]
    if not (folder / f"{method.slug}-figures.png").exists():
        figures = []
    more = ["<details markdown><summary>More pictures from the report</summary>", "", *pictures[2:], "</details>", ""]
    return [*pictures[:2], *figures, *(more if len(pictures) > 2 else [])]


def docstring(part: str) -> list[str]:
    """The docstring of the module that defines a part, read without importing it."""
    module, _, name = part.partition(":")
    path = _source(module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:  # where a package re-exports the part, follow it
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names) and node.module:
            return docstring(f"{node.module}:{name}")
    return (ast.get_docstring(tree) or "").splitlines()


def claim_texts(claim: str) -> dict[str, str]:
    """The texts of a claim that are written out in its source: statement, paper, limits."""
    module, _, name = claim.partition(":")
    files = [_source(module)]
    if files[0].name == "__init__.py":
        files += sorted(files[0].parent.glob("*.py"))
    for path in files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(value, ast.Call) and any(getattr(target, "id", "") == name for target in targets):
                constants = {k.arg: k.value.value for k in value.keywords if isinstance(k.value, ast.Constant)}
                return {key: constants[key] for key in ("statement", "paper", "limits") if constants.get(key)}
    return {}


def packages() -> list[str]:
    """Domains that have parts, then the floors, as far as they are there."""
    there = [name for name in DOMAINS if any(m.domain == name and m.parts for m in METHODS)]
    source = ROOT / "src" / "saccade"
    return there + [name for name in SECTIONS if (source / name).is_dir() or (source / f"{name}.py").exists()]


def reference_page(name: str) -> str:
    """The docstrings of a package and of its modules, rendered by mkdocstrings."""
    package = ROOT / "src" / "saccade" / name
    modules = [f"saccade.{name}"]
    if package.is_dir():
        files = sorted(package.rglob("*.py"))
        inner = [path.relative_to(package).with_suffix("").parts for path in files if path.stem != "__init__"]
        modules += [".".join([f"saccade.{name}", *parts]) for parts in inner if not parts[-1].startswith("_")]
    title = f"saccade.{name}"
    about = DOMAINS.get(name) or SECTIONS[name]
    lines = [NOTICE, f"# {title}", "", f"{about[0].upper()}{about[1:]}.", ""]
    for module in modules:
        heading = [] if module == title else [f"## {module.removeprefix(title + '.')}", ""]
        lines += [*heading, f"::: {module}", "    options:", "      show_root_heading: false", ""]
    return "\n".join(lines)


def _imports(parts: tuple[str, ...]) -> list[str]:
    by_module: dict[str, list[str]] = {}
    for part in parts:
        module, _, name = part.partition(":")
        by_module.setdefault(module, []).append(name)
    lines = []
    for module, names in by_module.items():
        line = f"from {module} import {', '.join(names)}"
        # As ruff formats it, which looks into Markdown too.
        wrapped = [f"from {module} import (", *(f"    {name}," for name in names), ")"]
        lines += [line] if len(line) <= 120 else wrapped
    return lines


def _source(module: str) -> Path:
    path = ROOT / "src" / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    raise SystemExit(main())
