"""Charts of a report as inline SVG: ink follows the page's text colour, so that they read in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from saccade.claims.claim import Axis, Claim
from saccade.claims.engine import Result

PALETTE = ("#8a8f98", "#2f7de1", "#e0701f", "#2a9d6f", "#b4519f", "#c9a21b", "#4fb3c9", "#d0505a", "#7a6fd0", "#6b8e23")
"""The baseline is grey; all are readable on white and on near-black."""

INK = "#010203"
"""Stands for the text colour until the SVG is written."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "saccade",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def arms_chart(claim: Claim, result: Result, metric: str) -> Figure:
    """Every seed a dot, every arm a row with its mean; the paper's figures as open diamonds where there are any."""
    arms = list(claim.arms)
    figure, axes = _figure(7.2, 0.75 + 0.36 * len(arms))
    paper = claim.data[result.data].paper if metric == claim.metric else {}
    for row, arm in enumerate(arms):
        values = [cell.metrics[metric] for cell in result.cells if cell.arm == arm]
        colour = colours(claim)[arm]
        axes.plot(values, np.full(len(values), row), "o", color=colour, alpha=0.55, markersize=5, markeredgewidth=0)
        axes.plot([np.mean(values)] * 2, [row - 0.28, row + 0.28], color=colour, linewidth=3, solid_capstyle="round")
        if arm in paper:
            axes.plot(paper[arm], row, "D", markerfacecolor="none", markeredgecolor=INK, markersize=6)
    axes.set_yticks(range(len(arms)), [claim.arms[arm].title for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlabel(claim.metrics[metric].title)
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    return figure


def curves_chart(claim: Claim, result: Result, name: str) -> Figure:
    """One line an arm, the mean over seeds, with the range of the seeds as a band."""
    figure, axes = _figure(7.2, 3.4)
    axis = claim.axes.get(name, Axis("step", name))
    for arm in claim.arms:
        lines = [cell.curves[name] for cell in result.cells if cell.arm == arm and cell.curves.get(name)]
        if not lines:
            continue
        x, low, mean, high = _band(lines)
        axes.plot(x, mean, color=colours(claim)[arm], linewidth=1.8, label=claim.arms[arm].title)
        if len(lines) > 1:
            axes.fill_between(x, low, high, color=colours(claim)[arm], alpha=0.15, linewidth=0)
    if axis.log_x:
        axes.set_xscale("log")
    axes.set_xlabel(axis.x)
    axes.set_ylabel(axis.y)
    axes.grid(color=INK, alpha=0.12, linewidth=0.8)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.4, frameon=False, labelcolor=INK)
    return figure


def colours(claim: Claim) -> Mapping[str, str]:
    """One colour an arm."""
    return {arm: PALETTE[number % len(PALETTE)] for number, arm in enumerate(claim.arms)}


def svg(figure: Figure) -> str:
    """A figure as an `<svg>` element that takes the colour and the font of the page around it."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"(font(?:-family)?:[^;\"]*?)('[^']*'|DejaVu Sans)(, [^;\"]*)?", r"\1inherit", text)
    text = re.sub(r"font: ([\d.]+)px inherit", r"font-size: \1px; font-family: inherit", text)
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg \1role="img" width="100%"', text, count=1)


def png(figure: Figure, path: Path) -> None:
    """A figure as a picture for pages that cannot hold inline SVG; mid-grey ink reads on light and on dark."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight", transparent=True)
    pixels = np.array(Image.open(buffer).convert("RGBA"))
    ink = (pixels[..., :3] < 24).all(axis=-1)
    pixels[ink, :3] = (125, 130, 140)
    Image.fromarray(pixels).save(path, optimize=True)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        return figure, figure.subplots()


def _band(lines: Sequence[Sequence[tuple[float, float]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bring the curves of the seeds onto the first one's x values."""
    x = np.array([point[0] for point in lines[0]])
    y = np.array([np.interp(x, [p[0] for p in line], [p[1] for p in line]) for line in lines])
    return x, y.min(axis=0), y.mean(axis=0), y.max(axis=0)
