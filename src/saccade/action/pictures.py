"""Pictures of what action networks see and say."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Int, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from saccade.action.motion_squeeze import Motion
from saccade.data.figures import to_pixels
from saccade.worlds.motion import MotionClips


def flow_colours(flow: np.ndarray, most: float) -> np.ndarray:
    """Colour a flow field: the hue is the direction, the saturation the length.

    Args:
        flow: (2, h, w): x, y.
        most: Length that has full saturation.

    Returns:
        (h, w, 3) in [0, 1]; white where nothing moves.

    Example:
        >>> flow_colours(np.zeros((2, 1, 1)), most=1.0).tolist()
        [[[1.0, 1.0, 1.0]]]
    """
    hue = (np.arctan2(flow[1], flow[0]) / (2 * np.pi)) % 1
    saturation = np.clip(np.hypot(flow[0], flow[1]) / most, 0, 1)
    return matplotlib.colors.hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], axis=-1))


def motion_strip(
    clips: MotionClips, said: Int[Tensor, " b"], motion: Motion, reach: float, classes: Sequence[str], count: int = 4
) -> UInt8[np.ndarray, "h w 3"]:
    """Clips row by row: frames, the flow found from the first to the second, and its confidence.

    Args:
        clips: What was shown; its first `count` clips are drawn.
        said: Predicted class of each clip.
        motion: Of those `count` clips, all pairs.
        reach: Pixels that a flow of 1 stands for.
        classes: Names of the classes.
        count: How many clips.

    Returns:
        The picture.
    """
    frames, size = clips.video.shape[2], clips.video.shape[3]
    flow = motion.flow.unflatten(0, (count, frames - 1))[:, 0].float().cpu().numpy() * reach
    confidence = motion.confidence.unflatten(0, (count, frames - 1))[:, 0, 0].float().cpu().numpy()
    figure = Figure(figsize=(1.65 * (frames + 2), 1.75 * count + 0.75), dpi=100, facecolor="white")
    axes = figure.subplots(count, frames + 2, squeeze=False)
    figure.subplots_adjust(left=0.115, right=0.985, top=1 - 0.5 / figure.get_figheight(), bottom=0.08, wspace=0.08)
    cells = flow.shape[-1]
    for row in range(count):
        truth, answer = classes[int(clips.label[row])], classes[int(said[row])]
        axes[row][0].set_ylabel(
            f"goes {truth}\nsaid {answer}", fontsize=8, color="black" if truth == answer else "#b00020"
        )
        for t in range(frames):
            axes[row][t].imshow(clips.video[row, 0, t].numpy(), cmap="gray", vmin=-2.5, vmax=2.5)
            x, y = (clips.start[row] + t * clips.velocity[row]).numpy() % size
            for dx in (-size, 0, size):
                for dy in (-size, 0, size):
                    outline = Circle(
                        (x + dx, y + dy), float(clips.radius[row]), fill=False, color="#ffb000", linewidth=1.2
                    )
                    axes[row][t].add_patch(outline)
        axes[row][frames].imshow(flow_colours(flow[row], 5.0), extent=(0, cells, cells, 0))
        place = np.arange(cells)[::2] + 1.0
        shown = confidence[row][::2, ::2] > 0
        axes[row][frames].quiver(
            *np.meshgrid(place, place),
            np.where(shown, flow[row, 0, ::2, ::2], 0),
            np.where(shown, flow[row, 1, ::2, ::2], 0),
            angles="xy",
            scale_units="xy",
            scale=2.5,
            width=0.008,
            headwidth=4,
        )
        last = axes[row][frames + 1].imshow(confidence[row], cmap="viridis", vmin=0, vmax=1)
        for axis in axes[row]:
            axis.set_xticks([])
            axis.set_yticks([])
    names = [f"frame {t}" for t in range(frames)] + ["flow, 0 to 1", "confidence"]
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=9)
    bar = figure.colorbar(last, cax=figure.add_axes((0.86, 0.045, 0.125, 0.016)), orientation="horizontal")
    bar.ax.tick_params(labelsize=7)
    wheel = figure.add_axes((0.655, 0.005, 0.06, 0.07))
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 61), np.linspace(-1, 1, 61)))
    colours = flow_colours(grid, 1.0)
    colours[np.hypot(*grid) > 1] = 1
    wheel.imshow(colours)
    wheel.axis("off")
    figure.text(0.72, 0.03, "5 px a frame\nat the rim", fontsize=7, va="center")
    figure.text(0.115, 0.03, "orange: where the disk really is", fontsize=8, va="center")
    return to_pixels(figure)


def confusion(
    said: Int[Tensor, " b"], truth: Int[Tensor, " b"], classes: Sequence[str], title: str
) -> UInt8[np.ndarray, "h w 3"]:
    """How often each class is taken for each other.

    Args:
        said: Predicted classes.
        truth: True classes.
        classes: Names of the classes.
        title: Above the picture.

    Returns:
        The picture.
    """
    k = len(classes)
    counts = np.bincount((truth * k + said).numpy(), minlength=k * k).reshape(k, k)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(4.6, 4.1), dpi=100, facecolor="white", layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row in range(k):
        for column in range(k):
            colour = "white" if share[row, column] > 55 else "black"
            axis.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(k), classes, rotation=45, ha="right", fontsize=7)
    axis.set_yticks(range(k), classes, fontsize=7)
    axis.set_xlabel("said", fontsize=8)
    axis.set_ylabel("goes", fontsize=8)
    axis.set_title(title, fontsize=10)
    bar = figure.colorbar(image, ax=axis, shrink=0.8)
    bar.set_label("% of the row", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return to_pixels(figure)
