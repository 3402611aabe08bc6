"""The report of a run: one HTML file that holds all it shows, readable in light and in dark."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from saccade.catalog import Method
from saccade.claims.charts import arms_chart, curves_chart, svg
from saccade.claims.claim import Claim
from saccade.claims.engine import Result
from saccade.claims.verdict import Judged

STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5d6470; --paper: #ffffff; --panel: #f5f6f8; --line: #dfe2e7;
  --holds: #1d7f4f; --fails: #b3383f; --inconclusive: #94690b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ee; --soft: #a2a9b5; --paper: #14171c; --panel: #1d2128;
  --line: #333943; --holds: #52c48c; --fails: #f0808a; --inconclusive: #e3b341; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p { margin: .5rem 0; } .soft { color: var(--soft); } small, .small { font-size: .86rem; }
.verdict { display: inline-block; margin: 1rem 0 .2rem; padding: .3rem .9rem; border-radius: 2rem; font-weight: 650;
  color: var(--paper); background: var(--soft); }
.holds { background: var(--holds); } .fails { background: var(--fails); }
.inconclusive { background: var(--inconclusive); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .42rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
thead th { color: var(--soft); font-weight: 600; }
td.word { font-weight: 650; } td.word.holds { background: none; color: var(--holds); }
td.word.fails { background: none; color: var(--fails); }
td.word.inconclusive { background: none; color: var(--inconclusive); }
figure { margin: 1rem 0; background: var(--panel); border-radius: .6rem; padding: 1rem; }
figure svg { display: block; height: auto; max-width: 46rem; margin: 0 auto; }
figcaption { color: var(--soft); font-size: .9rem; margin-bottom: .6rem; }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.pictures figure { margin: 0; } .pictures .wide { grid-column: 1 / -1; }
.pictures img { display: block; width: 100%; border-radius: .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .92em; }
"""


def write_report(claim: Claim, result: Result, method: Method) -> Path:
    """Write `report.html` beside the results.

    Args:
        claim: What was run.
        result: What came out.
        method: The catalog's entry.

    Returns:
        Where the report lies.
    """
    path = result.folder / "report.html"
    path.write_text(render(claim, result, method), encoding="utf-8")
    return path


def render(claim: Claim, result: Result, method: Method) -> str:
    """The report as HTML."""
    data = claim.data[result.data]
    curve_names = list(dict.fromkeys(name for cell in result.cells for name in cell.curves))
    sections = [
        f"<h1>{escape(method.name)}</h1>",
        f'<p class="soft">{escape(method.title)} · arXiv:{escape(method.arxiv)}</p>',
        f'<p class="verdict {result.verdict}">{escape(verdict_words(result))}</p>',
        f"<p>{escape(claim.statement)}</p>",
        f'<p class="soft small">The paper: {escape(claim.paper)}</p>',
        "<h2>Figures</h2>",
        _table(claim, result),
        f'<p class="soft small">Mean and standard deviation over {result.seeds} seed(s) on {escape(data.title)}. '
        f"{escape(data.note)}</p>",
        *(
            _figure(
                f"{claim.metrics[m].title}: a dot a seed, the bar their mean"
                + ("; the paper's figure as a diamond" if m == claim.metric and data.paper else ""),
                svg(arms_chart(claim, result, m)),
            )
            for m in claim.metrics
        ),
    ]
    if result.judged:
        sections += ["<h2>What was expected, and what came</h2>", _expectations(result.judged)]
    if curve_names:
        sections += [
            "<h2>Curves</h2>",
            *(
                _figure(f"{name}: mean over seeds, the band is their range", svg(curves_chart(claim, result, name)))
                for name in curve_names
            ),
        ]
    pictures = _pictures(claim, result)
    if pictures:
        sections += ["<h2>Pictures</h2>", '<div class="pictures">', *pictures, "</div>"]
    if claim.limits:
        sections += ["<h2>Limits</h2>", f"<p>{escape(claim.limits)}</p>"]
    sections += ["<h2>How this was measured</h2>", _provenance(result)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(method.name)} re-checked · Saccade</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(sections)}\n</main></body></html>\n"
    )


def verdict_words(result: Result) -> str:
    """The verdict as a short sentence."""
    return {
        "holds": "The claim holds",
        "fails": "The claim fails",
        "inconclusive": "Inconclusive",
    }.get(result.verdict, "Smoke run: no verdict")


def _table(claim: Claim, result: Result) -> str:
    paper = claim.data[result.data].paper
    head = ["", *(metric.title for metric in claim.metrics.values()), *(["paper"] if paper else [])]
    rows = []
    for arm, about in claim.arms.items():
        cells = [escape(about.title) + (' <span class="soft small">baseline</span>' if about.baseline else "")]
        for key, metric in claim.metrics.items():
            mean, std = result.summary(arm, key)
            spread = f' <span class="soft">± {std:.{metric.digits}f}</span>' if result.seeds > 1 else ""
            cells.append(f"{mean:.{metric.digits}f}{spread}")
        if paper:
            cells.append(f"{paper[arm]:g}" if arm in paper else "–")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _expectations(judged: list[Judged]) -> str:
    rows = "".join(
        f"<tr><td>{escape(row.text)}</td><td>{row.mean:.3g}</td><td>{row.low:.3g} … {row.high:.3g}</td>"
        f'<td class="word {row.verdict}">{row.verdict}</td></tr>'
        for row in judged
    )
    return (
        '<div class="scroll"><table><thead><tr><th>expectation</th><th>measured</th><th>90 % interval</th>'
        f"<th>verdict</th></tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="soft small">Differences are paired: both arms of a seed see the same data and start. An expectation '
        "holds where the whole interval lies on its good side, fails where it lies on the other.</p>"
    )


def _pictures(claim: Claim, result: Result) -> list[str]:
    """Those of the first seed: the seeds differ in detail, not in kind."""
    figures = []
    for cell in result.cells:
        if cell.seed != 0:
            continue
        for caption, name in cell.pictures.items():
            content = (result.folder / name).read_bytes()
            data = base64.b64encode(content).decode()
            width, height = Image.open(io.BytesIO(content)).size
            title = f"{claim.arms[cell.arm].title}: {caption}"
            image = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
            figures.append(_figure(title, image, wide=width > 1.2 * height))
    return figures


def _figure(caption: str, content: str, wide: bool = False) -> str:
    return f"<figure{' class=wide' if wide else ''}><figcaption>{escape(caption)}</figcaption>{content}</figure>"


def _provenance(result: Result) -> str:
    rows = {
        "Command": f"<code>{escape(result.command)}</code>",
        "Date": result.date,
        "Hardware": escape(result.hardware),
        "Time": f"{result.seconds:.0f} s",
        "Versions": escape(", ".join(f"{name} {version}" for name, version in result.versions.items())),
    }
    return "<dl>" + "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in rows.items()) + "</dl>"
