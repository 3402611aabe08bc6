"""Pictures of an architecture search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from saccade.data.figures import to_pixels
from saccade.nn.architectures import CategoricalArchitectureDistribution


def choices_picture(
    distribution: CategoricalArchitectureDistribution,
    utility: Tensor | None = None,
    chosen: Int[Tensor, " l"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The probability of each choice of each decision, a row a decision.

    Args:
        distribution: With a group for each decision.
        utility: (decisions, choices), written into the cells; the names of the choices where `None`.
        chosen: Framed; the most probable where `None`.

    Returns:
        The picture.
    """
    space = distribution.space
    with torch.no_grad():
        rows = distribution.log_probs().exp().cpu().numpy()
    marked = (distribution.mode() if chosen is None else chosen).tolist()
    shown = np.where(distribution.valid.cpu().numpy(), rows, np.nan)
    figure = Figure(figsize=(5.2, 0.34 * len(rows) + 1.2), dpi=110, facecolor="white", layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, (choices, row) in enumerate(zip(space.decisions.values(), rows, strict=True)):
        for j, choice in enumerate(choices):
            text = f"{float(utility[i, j]):+.2f}" if utility is not None else str(choice)
            axis.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if row[j] > 0.55 else "black")
        axis.add_patch(Rectangle((marked[i] - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#d97706", linewidth=2))
    axis.set_yticks(range(len(rows)), space.names, fontsize=8)
    axis.set_xticks([])
    said = "utility of each choice" if utility is not None else "choices"
    axis.set_title(f"{said}; orange: taken", fontsize=9)
    figure.colorbar(image, ax=axis, shrink=0.8).set_label("probability", fontsize=8)
    return to_pixels(figure)


def accuracy_over_cost(points: Sequence[tuple[float, float]]) -> UInt8[np.ndarray, "h w 3"]:
    """Networks as points.

    Args:
        points: Cost over the target, and top-1 in percent.

    Returns:
        The picture.
    """
    figure = Figure(figsize=(4.6, 3.4), dpi=100, facecolor="white", layout="constrained")
    axis = figure.subplots()
    costs, accuracies = zip(*points, strict=True)
    axis.scatter(costs, accuracies, color="#4c78a8", s=45)
    axis.axvline(1.0, color="#8a9099", linestyle="--", linewidth=1)
    axis.set_xlim(0, 1.1)
    axis.set_ylim(0, 102)
    axis.set_xlabel("cost over the target")
    axis.set_ylabel("top-1 (%)")
    axis.grid(alpha=0.25)
    return to_pixels(figure)
