"""Draws a picture of every world for docs/worlds.md, into docs/assets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from saccade.data.figures import to_pixels  # noqa: E402

ASSETS = ROOT / "docs" / "assets"


def digits() -> np.ndarray:
    """The same twelve drawings in every look."""
    from saccade.data.images import load_digits
    from saccade.worlds.digits import LOOKS, restyle

    drawings = load_digits().images[:12]
    rows = [torch.cat([*restyle(drawings, look, size=24, channels=3)], 2) for look in LOOKS.values()]
    sheet = (torch.cat(rows, 1) * 255).byte().permute(1, 2, 0).numpy()
    return sheet.repeat(3, 0).repeat(3, 1)


def graphs() -> np.ndarray:
    """A part of the citation graph, coloured by field; marks show the topics within fields."""
    import scipy.sparse.csgraph
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
    return to_pixels(figure)


def landscapes() -> np.ndarray:
    """Distributions of two landscapes, and by how much one changed choice changes the accuracy."""
    from matplotlib.figure import Figure

    from saccade.worlds.landscapes import landscape

    figure = Figure(figsize=(10, 3.4), facecolor="white", dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for seed, colour in enumerate(("#4c78a8", "#f58518")):
        world = landscape(seed)
        mean = world.accuracy.mean(axis=1)
        left.hist(mean, bins=np.linspace(75, 94, 90), histtype="stepfilled", color=colour, alpha=0.5)
        by_choice = mean.reshape((world.choices,) * world.codes.shape[1])
        steps = np.abs(np.diff(by_choice, axis=0)).ravel()
        right.hist(steps, bins=np.linspace(0, 8, 90), histtype="stepfilled", color=colour, alpha=0.5)
    left.set(xlabel="accuracy (%)", ylabel="architectures")
    right.set(xlabel="change by another choice in the first layer (points)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return to_pixels(figure)


def motion() -> np.ndarray:
    """Two clips as rows of frames: a disk that is told from the ground by its motion alone, and a brighter one."""
    from saccade.worlds.motion import MotionWorld

    rows = []
    for brightness in (0.0, 1.5):
        world = MotionWorld(size=64, frames=6, radius=(13.0, 15.0), speed=(7.0, 9.0), brightness=brightness)
        clip = world.batch("train", [1])
        frames = ((clip.video[0, 0] + 2.5) / 6).clamp(0, 1)
        edge = clip.mask[0].float()
        pooled = torch.nn.functional.max_pool2d(edge[:, None], 3, 1, 1)[:, 0]
        outlined = torch.stack([frames, frames, frames], -1)
        outlined[(pooled - edge) > 0] = torch.tensor([0.96, 0.52, 0.09])
        plain = torch.stack([frames, frames, frames], -1)
        rows += [torch.cat([framed(frame) for frame in shown], 1) for shown in (plain, outlined)]
    picture = (255 * torch.cat(rows)).byte().numpy()
    return picture.repeat(2, 0).repeat(2, 1)


def scenes() -> np.ndarray:
    """Pictures above, and below them their masks in one colour a class."""
    from saccade.worlds.scenes import TEXTURES, Scenes

    colours = torch.tensor([[76, 120, 168], [245, 133, 24], [84, 162, 75], [178, 121, 162], [238, 202, 59]]) / 255
    world = Scenes(seed=0, split="test", length=6, objects=(2, 3))
    rows: list[list[torch.Tensor]] = [[], []]
    for scene in (world[index] for index in range(6)):
        truth = torch.full_like(scene.image.permute(1, 2, 0), 0.93)
        for k in range(len(TEXTURES)):
            truth[scene.masks[k]] = colours[k]
        rows[0].append(framed(scene.image.permute(1, 2, 0)))
        rows[1].append(framed(truth))
    picture = (255 * torch.cat([torch.cat(row, 1) for row in rows])).byte().numpy()
    return picture.repeat(3, 0).repeat(3, 1)


def stick_figures() -> np.ndarray:
    """Queries on the left, each followed by figures in more and more different poses, with the distance as a bar."""
    from saccade.worlds.stick_figures import StickFigures

    world = StickFigures(size=64, noise=0.1)
    figures = world.batch("test", range(400))
    distances = figures.label_distances()
    rows = []
    for query in (0, 5, 8):
        order = distances[query].argsort()
        shown = [query, *(int(order[place]) for place in (1, 2, 4, 10, 40, 120, 399))]
        tiles = []
        for column, item in enumerate(shown):
            grey = 1 - figures.images[item, 0].clamp(0, 1)
            tile = torch.cat([torch.stack([grey, grey, grey], -1), torch.ones(5, 64, 3)])
            long = round(64 * min(float(distances[query, item]) / 2, 1.0))
            tile[-4:-1] = 0.92
            tile[-4:-1, :long] = torch.tensor([0.3, 0.47, 0.66])
            tiles.append(torch.nn.functional.pad(framed(tile), (0, 0, 0, 10 if column == 0 else 0), value=1.0))
        rows.append(torch.cat(tiles, 1))
    picture = (255 * torch.cat(rows)).byte().numpy()
    return picture.repeat(2, 0).repeat(2, 1)


def tracks() -> np.ndarray:
    """A clip of moving and one of still objects, frames side by side."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from saccade.worlds.tracks import ORDERS, TrackWorld

    colours = ["#4c78a8", "#f58518", "#54a24b", "#b279a2"]
    figure = Figure(figsize=(9, 3.4), facecolor="white", dpi=110)
    axes = figure.subplots(2, 6)
    for row, speed in enumerate((1.27, 0.0)):
        clip = TrackWorld(speed).batch("train", [3])
        for t in range(6):
            axis = axes[row][t]
            axis.set(xlim=(-0.5, 4.5), ylim=(4.5, -0.5), xticks=[], yticks=[], aspect="equal")
            for x in range(6):
                axis.axhline(x - 0.5, color="#e4e7ea", linewidth=0.8, zorder=0)
                axis.axvline(x - 0.5, color="#e4e7ea", linewidth=0.8, zorder=0)
            for thing in reversed(range(4)):
                y, x = divmod(int(clip.cell[0, thing, t]), 5)
                state = "ABC"[ORDERS[int(clip.order[0, thing])][t // 2]]
                line = {"edgecolor": "black", "linewidth": 2.2} if thing == 0 else {"edgecolor": "none"}
                axis.add_patch(Rectangle((x - 0.45, y - 0.45), 0.9, 0.9, facecolor=colours[thing], **line))
                axis.text(x, y, state, color="white", ha="center", va="center", fontsize=10, fontweight="bold")
            if row == 0:
                axis.set_title(f"frame {t}", fontsize=9)
        axes[row][0].set_ylabel("moving" if speed else "still", fontsize=10)
    figure.set_layout_engine("tight")
    return to_pixels(figure)


def framed(picture: torch.Tensor) -> torch.Tensor:
    """With a white margin of three pixels."""
    return torch.nn.functional.pad(picture, (0, 0, 3, 3, 3, 3), value=1.0)


WORLDS = {
    "digits": digits,
    "graphs": graphs,
    "landscapes": landscapes,
    "motion": motion,
    "scenes": scenes,
    "stick-figures": stick_figures,
    "tracks": tracks,
}


def main() -> None:
    """Draw them all, or those that are named."""
    torch.manual_seed(0)
    ASSETS.mkdir(exist_ok=True)
    for name, draw in WORLDS.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        Image.fromarray(draw()).save(ASSETS / f"world-{name}.png", optimize=True)
        print(f"docs/assets/world-{name}.png")


if __name__ == "__main__":
    main()
