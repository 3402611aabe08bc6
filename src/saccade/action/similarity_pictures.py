"""Pictures of self-similarity in space and time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from saccade.data.figures import to_pixels
from saccade.worlds.motion import MotionClips


def similarity_strip(
    clips: MotionClips,
    said: Int[Tensor, " b"],
    similarity: Float[Tensor, "n t h2 w2 l u v"],
    cell: int,
    classes: Sequence[str],
    frame: int = 1,
    count: int = 4,
) -> UInt8[np.ndarray, "height width 3"]:
    """Clips row by row: the frames around one, and how similar the place of the disk is to each displacement in them.

    Args:
        clips: What was shown; its first `count` clips are drawn.
        said: Predicted class of each clip.
        similarity: Of those clips.
        cell: Pixels from one position of the similarities to the next.
        classes: Names of the classes.
        frame: From which it is looked.
        count: How many clips.

    Returns:
        The picture.
    """
    size, (offsets, window) = clips.video.shape[3], similarity.shape[4:6]
    around = range(-(offsets // 2), offsets // 2 + 1)
    figure = Figure(figsize=(1.65 * 2 * offsets, 1.7 * count + 0.8), dpi=100, facecolor="white")
    axes = figure.subplots(count, 2 * offsets, squeeze=False)
    figure.subplots_adjust(left=0.11, right=0.985, top=1 - 0.4 / figure.get_figheight(), bottom=0.08, wspace=0.08)
    for row in range(count):
        truth, answer = classes[int(clips.label[row])], classes[int(said[row])]
        axes[row][0].set_ylabel(
            f"goes {truth}\nsaid {answer}", fontsize=8, color="black" if truth == answer else "#b00020"
        )
        velocity = clips.velocity[row].numpy()
        centre = (clips.start[row].numpy() + frame * velocity) % size
        place = np.minimum(np.round(centre / cell), similarity.shape[3] - 1).astype(int)  # x, y
        for column, offset in enumerate(around):
            picture, seen = axes[row][column], axes[row][offsets + column]
            picture.imshow(clips.video[row, 0, frame + offset].numpy(), cmap="gray", vmin=-2.5, vmax=2.5)
            x, y = (centre + offset * velocity) % size
            for dx in (-size, 0, size):
                for dy in (-size, 0, size):
                    outline = Circle(
                        (x + dx, y + dy), float(clips.radius[row]), fill=False, color="#ffb000", linewidth=1.2
                    )
                    picture.add_patch(outline)
            if offset == 0:
                corner = place * cell - cell / 2
                picture.add_patch(Rectangle(corner, cell, cell, fill=False, edgecolor="#00a0ff", linewidth=1.5))
            values = similarity[row, frame, place[1], place[0], column].float().numpy()
            seen.imshow(values, cmap="viridis", vmin=0, vmax=1)
            middle = window // 2
            seen.plot(*(middle + offset * velocity / cell), "+", color="#ff4030", markersize=9, markeredgewidth=2)
            for axis in (picture, seen):
                axis.set_xticks([])
                axis.set_yticks([])
    for column, offset in enumerate(around):
        when = "this frame" if offset == 0 else f"{abs(offset)} {'before' if offset < 0 else 'after'}"
        axes[0][column].set_title(when, fontsize=9)
        axes[0][offsets + column].set_title(f"similar, {when}", fontsize=9)
    figure.text(0.11, 0.045, "orange: the disk; blue: the place that looks", fontsize=8, va="center")
    figure.text(
        0.55, 0.045, "displacements; dark: unlike, or outside the map; red: the same texture", fontsize=8, va="center"
    )
    return to_pixels(figure)
