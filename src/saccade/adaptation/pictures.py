"""Pictures of domains: where their images lie for a network, and what it says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from saccade.data.figures import to_pixels

DOMAIN_COLOURS = ("#2f7de1", "#e0701f", "#2a9d6f", "#b4519f", "#c9a21b", "#d0505a", "#7a6fd0")


def embedding_map(
    embeddings: Mapping[str, Float[Tensor, "_ d"]],
    labels: Mapping[str, Int[Tensor, " _"]],
    names: Sequence[str],
    *,
    most: int = 400,
    title: str = "",
    seed: int = 0,
) -> UInt8[np.ndarray, "h w 3"]:
    """Images of several domains as points (t-SNE): once coloured by domain, once by class.

    Args:
        embeddings: Name of a domain to its features.
        labels: Name of a domain to classes, true or predicted.
        names: Name of each class.
        most: Points drawn of each domain, drawn by `seed`.
        title: Of the whole.
        seed: Of the points and of t-SNE.

    Returns:
        The picture.

    Raises:
        ValueError: Fewer than five points in all.

    Example:
        >>> points = {"source": torch.randn(20, 8), "target": torch.randn(20, 8) + 2}
        >>> classes = {name: torch.arange(20) % 2 for name in points}
        >>> embedding_map(points, classes, ["cat", "dog"]).ndim
        3
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = {name: torch.randperm(len(rows), generator=generator)[:most] for name, rows in embeddings.items()}
    points = np.concatenate([embeddings[name][rows].float().cpu().numpy() for name, rows in chosen.items()])
    if len(points) < 5:
        raise ValueError(f"there are {len(points)} points; at least 5 are wanted for a map")
    if points.shape[1] > 50:
        points = PCA(min(50, len(points)), random_state=seed).fit_transform(points)
    perplexity = min(30.0, (len(points) - 1) / 3)
    places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(points)
    domain = np.concatenate([np.full(len(rows), number) for number, rows in enumerate(chosen.values())])
    classes = np.concatenate([labels[name][rows].cpu().numpy() for name, rows in chosen.items()])
    figure = Figure(figsize=(10.5, 5), facecolor="white", layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    markers = ("o", "^", "s", "D", "v", "P", "X")
    for number, name in enumerate(chosen):
        own = places[domain == number]
        colour = DOMAIN_COLOURS[number % len(DOMAIN_COLOURS)]
        left.scatter(own[:, 0], own[:, 1], s=9, color=colour, alpha=0.6, linewidths=0, label=name)
        cmap = mpl.colormaps["tab10" if len(names) <= 10 else "tab20"]
        own_classes = classes[domain == number]
        right.scatter(
            own[:, 0],
            own[:, 1],
            s=11,
            c=cmap(own_classes % cmap.N),
            alpha=0.7,
            linewidths=0,
            marker=markers[number % 7],
        )
    left.legend(frameon=False, markerscale=2)
    left.set_title("by domain")
    right.set_title("by class" if len(names) > 20 else "by class: " + ", ".join(names), fontsize=10, wrap=True)
    for axes in (left, right):
        axes.set_xticks([])
        axes.set_yticks([])
    if title:
        figure.suptitle(title)
    return to_pixels(figure)


def answer_sheet(
    images: Float[Tensor, "n c h w"],
    predicted: Int[Tensor, " n"],
    actual: Int[Tensor, " n"],
    columns: int = 16,
    side: int = 40,
) -> UInt8[np.ndarray, "height width 3"]:
    """Images framed green where the answer is right, and red where it is wrong.

    Args:
        images: In [-1, 1], grey or RGB.
        predicted: Answers.
        actual: Classes.
        columns: Images a row.
        side: Of an image, in pixels.

    Returns:
        The picture.
    """
    colours = [(42, 157, 111) if right else (208, 80, 90) for right in (predicted == actual).tolist()]
    return framed_sheet(images, colours, columns, side)


def framed_sheet(
    images: Float[Tensor, "n c h w"], colours: Sequence[Sequence[int]], columns: int = 16, side: int = 40
) -> UInt8[np.ndarray, "height width 3"]:
    """Images in rows, each in a frame of its colour.

    Args:
        images: In [-1, 1], grey or RGB.
        colours: Red, green and blue of each frame, 0 to 255.
        columns: Images a row.
        side: Of an image, in pixels.

    Returns:
        The picture.

    Example:
        >>> framed_sheet(torch.zeros(3, 1, 8, 8), [(0, 0, 0)] * 3, columns=2, side=8).shape
        (32, 32, 3)
    """
    gap, rows = 3, -(-len(images) // columns)
    cell = side + 2 * gap + 2
    sheet = np.full((rows * cell, columns * cell, 3), 255, np.uint8)
    shown = torch.nn.functional.interpolate(images.expand(-1, 3, -1, -1), size=(side, side), mode="nearest")
    pixels = ((shown + 1) * 127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    for place, colour in enumerate(colours):
        top, left = cell * (place // columns), cell * (place % columns)
        sheet[top : top + side + 2 * gap, left : left + side + 2 * gap] = colour
        sheet[top + gap : top + gap + side, left + gap : left + gap + side] = pixels[place]
    return sheet
