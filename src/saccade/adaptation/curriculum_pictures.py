"""Pictures of a curriculum: which source has how much weight over training, and which images have most and least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from saccade.adaptation.pictures import DOMAIN_COLOURS, framed_sheet
from saccade.data.figures import to_pixels


def share_chart(
    shares: Float[np.ndarray, "t n"], effective: Float[np.ndarray, " t"], names: Sequence[str], batch: int
) -> UInt8[np.ndarray, "height width 3"]:
    """The sources' shares of the weight over training, one upon the other, with the effective sample size below.

    Args:
        shares: Of each source in each iteration; rows sum to 1.
        effective: The effective sample size.
        names: Of the sources.
        batch: Source images an iteration.

    Returns:
        The picture.

    Example:
        >>> share_chart(np.full((9, 2), 0.5), np.full(9, 4.0), ["one", "other"], 8).ndim
        3
    """
    figure = Figure(figsize=(8, 4.6), facecolor="white", layout="constrained", dpi=110)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps = np.arange(len(shares))
    colours = [_colour(at) for at in range(len(names))]
    above.stackplot(steps, _smooth(shares).T, colors=colours, labels=list(names), alpha=0.85)
    for level in np.arange(1, len(names)) / len(names):
        above.axhline(level, color="white", linewidth=1, linestyle=":")
    above.set(ylim=(0, 1), ylabel="share of the weight")
    above.legend(loc="lower right", framealpha=0.9, title="dotted: equal weights")
    below.plot(steps, _smooth(effective[:, None])[:, 0], color="#444444")
    below.set(ylim=(0, batch), xlim=(0, max(len(shares) - 1, 1)), xlabel="iteration")
    below.set_ylabel(f"effective\nsample size\n(of {batch})")
    return to_pixels(figure)


def weight_sheet(
    images: Float[Tensor, "n c h w"],
    weights: Float[Tensor, " n"],
    domains: Int[Tensor, " n"],
    names: Sequence[str],
    count: int = 48,
    columns: int = 16,
) -> UInt8[np.ndarray, "height width 3"]:
    """The images with the most weight, and those with the least, framed in the colour of their source.

    Args:
        images: Source images in [-1, 1], grey or RGB.
        weights: Theirs.
        domains: The source of each.
        names: Of the sources.
        count: Images on either side.
        columns: Images a row.

    Returns:
        The picture.

    Example:
        >>> import torch
        >>> images, ids = torch.zeros(6, 1, 8, 8), torch.arange(6) % 2
        >>> weight_sheet(images, torch.rand(6), ids, ["one", "other"], count=3).ndim
        3
    """
    order = weights.argsort(descending=True)
    count = min(count, len(order))
    rows = -(-count // columns)
    rgb = [tuple(bytes.fromhex(_colour(number).lstrip("#"))) for number in range(len(names))]
    figure = Figure(figsize=(8, 1.1 + 2 * (0.45 + 0.5 * rows)), facecolor="white", layout="constrained", dpi=110)
    for axes, chosen, title in zip(
        figure.subplots(2, 1),
        (order[:count], order[-count:].flip(0)),
        ("most weight first", "least weight first"),
        strict=True,
    ):
        frames = [rgb[domain] for domain in domains[chosen].tolist()]
        axes.imshow(framed_sheet(images[chosen], frames, columns, 32), interpolation="nearest")
        mean = float(weights[chosen].mean() / weights.mean())
        axes.set_title(f"{title}: {mean:.2g} times the mean weight", loc="left", fontsize=10)
        axes.axis("off")
    handles = [figure.axes[0].plot([], [], "s", color=_colour(at), label=name)[0] for at, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names), frameon=False)
    return to_pixels(figure)


def _colour(domain: int) -> str:
    return DOMAIN_COLOURS[domain % len(DOMAIN_COLOURS)]


def _smooth(rows: np.ndarray, width: int = 7) -> np.ndarray:
    """A running mean that is shorter at both ends."""
    total = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    at = np.arange(len(rows))
    first, last = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, len(rows))
    return (total[last] - total[first]) / (last - first)[:, None]
