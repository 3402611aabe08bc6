"""Draws a picture of every world for docs/worlds.md, into docs/assets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

ASSETS = ROOT / "docs" / "assets"


def graphs() -> np.ndarray:
    """A part of the citation graph, coloured by field; marks show the topics within fields."""
    import scipy.sparse.csgraph
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    from saccade.graph.pictures import CLASSES, spring_layout
    from saccade.worlds.graphs import citation_graph

    world = citation_graph(seed=0, num_nodes=420)
    edges = world.edge_index.numpy()
    degree = np.bincount(edges.ravel(), minlength=420)
    links = scipy.sparse.coo_array((np.ones(edges.shape[1]), edges), shape=(420, 420))
    part = scipy.sparse.csgraph.connected_components(links, directed=False)[1]
    kept = np.flatnonzero(part == np.bincount(part).argmax())
    place = np.full(420, -1)
    place[kept] = np.arange(len(kept))
    inner = place[edges.T[part[edges[0]] == part[kept[0]]]]
    spots = spring_layout(inner, len(kept), steps=300)
    figure = Figure(figsize=(10, 6.2), facecolor="white", dpi=110)
    axes = figure.subplots()
    axes.add_collection(LineCollection(list(spots[inner]), colors="#c3c8cf", linewidths=0.7, zorder=1))
    marks = "os^Dvp*h"
    for topic in range(8):
        own = kept[world.communities.numpy()[kept] % 8 == topic]
        colours = [CLASSES[label] for label in world.labels.numpy()[own]]
        sizes = 14 + 9 * degree[own]
        axes.scatter(*spots[place[own]].T, s=sizes, c=colours, marker=marks[topic], edgecolors="white", linewidths=0.4)
    axes.set_axis_off()
    axes.set_aspect("equal", adjustable="datalim")
    figure.set_layout_engine("tight")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


WORLDS = {"graphs": graphs}


def main() -> None:
    """Draw them all."""
    torch.manual_seed(0)
    ASSETS.mkdir(exist_ok=True)
    for name, draw in WORLDS.items():
        Image.fromarray(draw()).save(ASSETS / f"world-{name}.png", optimize=True)
        print(f"docs/assets/world-{name}.png")


if __name__ == "__main__":
    main()
