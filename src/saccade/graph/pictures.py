"""What a person wants to see of predictions on a graph: a part of it, and where the accuracy comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from saccade.data.figures import to_pixels
from saccade.graph.datasets import NodeData, Split

CLASSES = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#eeca3b", "#72b7b2", "#9d755d", "#ff9da6", "#79706e", "#2f4b7c")
WRONG, BEFORE, AFTER, INK = "#d62728", "#9aa0a8", "#2f7de1", "#333a44"


def neighbourhood(
    data: NodeData, split: Split, before: Float[Tensor, "n k"], after: Float[Tensor, "n k"], size: int = 140
) -> np.ndarray:
    """The part of the graph where most changed, drawn twice: base predictions, and what C&S made of them."""
    edges, labels = data.edge_index.numpy(), data.labels.numpy()
    neighbours: list[list[int]] = [[] for _ in labels]
    for a, b in edges.T.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    guesses = [scores.argmax(1).numpy() for scores in (before, after)]
    mended = np.zeros(len(labels), bool)
    mended[split.test.numpy()] = True
    mended &= (guesses[0] != labels) & (guesses[1] == labels)
    chosen = _around(neighbours, _densest(neighbours, mended), size)
    place = {node: at for at, node in enumerate(chosen)}
    inner = np.array([(place[a], place[b]) for a, b in edges.T.tolist() if a in place and b in place], int).reshape(
        -1, 2
    )
    spots = spring_layout(inner, len(chosen))
    known = np.isin(chosen, split.train.numpy())
    wide, high = np.maximum(np.ptp(spots, 0), 1e-3)
    figure = Figure(figsize=(11, float(np.clip(5.2 * high / wide, 3.0, 7.0)) + 0.5), facecolor="white")
    for axes, guess, title in zip(figure.subplots(1, 2), guesses, ("base predictor", "Correct & Smooth"), strict=True):
        axes.add_collection(LineCollection(list(spots[inner]), colors="#c3c8cf", linewidths=0.8, zorder=1))
        colours = np.array([CLASSES[label % len(CLASSES)] for label in guess[chosen]])
        wrong = guess[chosen] != labels[chosen]
        for shown, marker, dot in ((known, "s", 34), (~known, "o", 42)):
            for bad, edge, width in ((False, "white", 0.6), (True, WRONG, 2.0)):
                at = shown & (wrong == bad)
                axes.scatter(
                    *spots[at].T, s=dot, c=colours[at], marker=marker, edgecolors=edge, linewidths=width, zorder=2 + bad
                )
        axes.set_title(f"{title}: {int((wrong & ~known).sum())} of {int((~known).sum())} unknown papers wrong")
        axes.set_axis_off()
        axes.set_aspect("equal", adjustable="datalim")
        axes.autoscale_view()
    return to_pixels(figure, dpi=110, tight=True)


def by_known_neighbours(
    data: NodeData, split: Split, before: Float[Tensor, "n k"], after: Float[Tensor, "n k"]
) -> np.ndarray:
    """Bars of test accuracy over the number of neighbours whose label is known: who gains, and how many they are."""
    known = torch.zeros(data.num_nodes)
    known[split.train] = 1
    a, b = data.edge_index
    counts = torch.zeros(data.num_nodes).index_add_(0, a, known[b]).index_add_(0, b, known[a])[split.test]
    groups = {
        "none": counts == 0,
        "1": counts == 1,
        "2": counts == 2,
        "3 or 4": (counts >= 3) & (counts <= 4),
        "5 or more": counts >= 5,
    }
    groups = {name: members for name, members in groups.items() if bool(members.any())}
    figure = Figure(figsize=(7.2, 4.2), facecolor="white")
    axes = figure.subplots()
    for shift, scores, colour, title in ((-0.2, before, BEFORE, "base predictor"), (0.2, after, AFTER, "with C&S")):
        right = scores[split.test].argmax(1) == data.labels[split.test]
        shares = [100 * float(right[members].double().mean()) for members in groups.values()]
        bars = axes.bar(np.arange(len(groups)) + shift, shares, 0.38, color=colour, label=title)
        axes.bar_label(bars, fmt="%.0f", padding=2, color=INK, fontsize=9)
    names = [f"{name}\n({int(members.sum())} papers)" for name, members in groups.items()]
    axes.set_xticks(range(len(groups)), names)
    axes.set_ylim(0, 118)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xlabel("neighbours whose label is known")
    axes.set_ylabel("test accuracy (%)")
    _plain(axes)
    axes.legend(frameon=False, ncols=2, loc="upper left")
    return to_pixels(figure, dpi=110, tight=True)


def confidence(data: NodeData, split: Split, before: Float[Tensor, "n k"], after: Float[Tensor, "n k"]) -> np.ndarray:
    """Histograms of the largest share of each test node's scores, right and wrong predictions apart."""
    figure = Figure(figsize=(9.6, 3.8), facecolor="white")
    bins = np.linspace(0, 1, 21)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, scores, title in zip(panels, (before, after), ("base predictor", "with C&S"), strict=True):
        rows = scores[split.test].clamp_min(0)
        share = (rows.max(1).values / rows.sum(1).clamp_min(1e-12)).numpy()
        right = (rows.argmax(1) == data.labels[split.test]).numpy()
        parts = [share[right], share[~right]]
        axes.hist(parts, bins=bins.tolist(), stacked=True, color=[AFTER, WRONG], label=["right", "wrong"], rwidth=0.92)
        axes.set_title(f"{title}: {100 * right.mean():.1f} % right")
        axes.set_xlabel("confidence (largest share of the scores)")
        _plain(axes)
    panels[0].set_ylabel("test papers")
    panels[0].legend(frameon=False, loc="upper left")
    return to_pixels(figure, dpi=110, tight=True)


def spring_layout(edges: np.ndarray, num_nodes: int, steps: int = 150) -> np.ndarray:
    """Places in the plane (n, 2) where neighbours pull and all push each other (Fruchterman and Reingold, 1991)."""
    angle = 2 * np.pi * np.arange(num_nodes) * 0.381966
    spots = np.sqrt(np.arange(1, num_nodes + 1))[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    spots /= np.abs(spots).max()
    ideal = 1.6 / np.sqrt(num_nodes)
    for step in range(steps):
        apart = spots[:, None] - spots[None]
        distance = np.maximum(np.linalg.norm(apart, axis=2), 1e-3)
        force = (apart * (ideal**2 / distance**2)[..., None]).sum(1)
        if len(edges):
            pull = spots[edges[:, 0]] - spots[edges[:, 1]]
            pull *= np.linalg.norm(pull, axis=1, keepdims=True) / ideal
            np.add.at(force, edges[:, 0], -pull)
            np.add.at(force, edges[:, 1], pull)
        force -= 0.4 * spots  # towards the middle, so that separate parts stay on the page
        length = np.maximum(np.linalg.norm(force, axis=1, keepdims=True), 1e-9)
        spots = spots + force / length * np.minimum(length, 0.15 * (1 - step / steps) + 1e-3)
    spots = spots - spots.mean(0)
    return spots @ np.linalg.eigh(spots.T @ spots)[1][:, ::-1]  # the longer side lies flat


def _densest(neighbours: list[list[int]], mended: np.ndarray) -> int:
    """The node with the most mended nodes within two steps."""
    one = np.array([mended[node] + mended[around].sum() for node, around in enumerate(neighbours)])
    return int(np.argmax([one[around].sum() if around else 0 for around in neighbours]))


def _around(neighbours: list[list[int]], start: int, size: int) -> list[int]:
    """The first `size` nodes of a breadth-first search; large neighbourhoods are entered partly."""
    seen, queue = {start}, [start]
    for node in queue:
        for other in neighbours[node][:9]:
            if other not in seen and len(queue) < size:
                seen.add(other)
                queue.append(other)
    return queue


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
