"""Writing a run into the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saccade import ledger
from saccade.claims.charts import arms_chart, png
from saccade.claims.claim import Claim
from saccade.claims.engine import Result


def entry(claim: Claim, result: Result) -> dict[str, Any]:
    """What the ledger keeps of a run."""
    metric = claim.metric
    paper = claim.data[result.data].paper
    arms = {}
    for arm, about in claim.arms.items():
        figures = {key: result.summary(arm, key) for key in claim.metrics}
        arms[arm] = {
            "title": about.title,
            "mean": round(figures[metric][0], 4),
            "std": round(figures[metric][1], 4),
            "paper": paper.get(arm),
            "metrics": {key: [round(mean, 4), round(std, 4)] for key, (mean, std) in figures.items()},
        }
    return {
        "title": claim.data[result.data].title,
        "note": claim.data[result.data].note,
        "verdict": result.verdict,
        "date": result.date,
        "budget": result.budget,
        "seeds": result.seeds,
        "metric": claim.metrics[metric].title,
        "metrics": {key: about.title for key, about in claim.metrics.items()},
        "arms": arms,
        "expectations": [
            {"text": row.text, "verdict": row.verdict}
            | {"mean": round(row.mean, 4), "low": round(row.low, 4), "high": round(row.high, 4)}
            for row in result.judged
        ],
        "versions": result.versions,
        "hardware": result.hardware,
        "seconds": round(result.seconds),
        "command": result.command,
    }


def record(claim: Claim, result: Result) -> Path:
    """Write a run into the checkout's ledger, and its chart and pictures into the pages' assets.

    The pictures are those of the arm that the first expectation names, of the embedded data.

    Args:
        claim: What was run.
        result: What came out.

    Returns:
        The ledger.

    Raises:
        ValueError: A smoke run, or no checkout to write into.
    """
    if result.budget == "smoke":
        raise ValueError("a smoke run has no verdict to record")
    if not ledger.CHECKOUT.exists():
        raise ValueError("--record writes into the ledger of a checkout, and this is an installed package")
    entries = ledger.read_ledger()
    key = result.data if result.budget == "small" else f"{result.data}/{result.budget}"
    entries.setdefault(result.slug, {})[key] = entry(claim, result)
    ledger.CHECKOUT.write_text(
        json.dumps(dict(sorted(entries.items())), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if key == claim.default_data:
        _illustrate(claim, result, ledger.CHECKOUT.parents[1] / "docs" / "assets")
    return ledger.CHECKOUT


def _illustrate(claim: Claim, result: Result, folder: Path) -> None:
    """`SLUG-figures.png`, and `SLUG-1.png`, ... for the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    png(arms_chart(claim, result, claim.metric), folder / f"{claim.slug}-figures.png")
    arm = claim.expectations[0].arm if claim.expectations else next(iter(claim.arms))
    shown = [name for cell in result.cells if (cell.arm, cell.seed) == (arm, 0) for name in cell.pictures.values()]
    for number, name in enumerate(shown, start=1):
        (folder / f"{claim.slug}-{number}.png").write_bytes((result.folder / name).read_bytes())
