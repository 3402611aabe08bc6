"""Pictures of where attention looks in the track world, and of what it finds of a moving patch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from saccade.data.figures import to_pixels
from saccade.worlds.tracks import ORDERS, Tracks


def attention_on_tracks(
    clips: Tracks, looks: Float[Tensor, "rows t p"], said: Int[Tensor, " b"], kind: str
) -> UInt8[np.ndarray, "h w 3"]:
    """Frames side by side, the attention of the marked token as brightness, the marked object outlined.

    Args:
        clips: What was shown; as many as `looks` has rows are drawn.
        looks: Attention by frame and cell.
        said: Predicted class of each clip.
        kind: Of attention.

    Returns:
        The picture.
    """
    rows, frames, cells = looks.shape
    side = round(cells**0.5)
    figure = Figure(figsize=(1.3 * frames + 1.1, 1.35 * rows + 0.95), dpi=100, facecolor="white")
    axes = figure.subplots(rows, frames, squeeze=False)
    figure.subplots_adjust(left=0.13, right=0.99, top=1 - 0.6 / figure.get_figheight(), bottom=0.1, wspace=0.08)
    for row in range(rows):
        truth, answer = (["ABC"[i] for i in ORDERS[int(x[row])]] for x in (clips.label, said))
        right = truth == answer
        axes[row][0].set_ylabel(
            f"is {''.join(truth)}\nsaid {''.join(answer)}", fontsize=9, color="black" if right else "#b00020"
        )
        most = float(looks[row].max())
        for t in range(frames):
            axis = axes[row][t]
            axis.imshow(looks[row, t].view(side, side).numpy(), cmap="magma", vmin=0, vmax=most)
            for thing in reversed(range(clips.cell.shape[1])):
                y, x = divmod(int(clips.cell[row, thing, t]), side)
                state = "ABC"[ORDERS[int(clips.order[row, thing])][t * 3 // frames]]
                colour = "#40c4ff" if thing == 0 else "#9e9e9e"
                axis.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, color=colour, linewidth=2))
                axis.text(x, y, state, color=colour, fontsize=8, ha="center", va="center", fontweight="bold")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(f"frame {t}", fontsize=9)
    figure.suptitle(f"{kind} attention from the marked token of frame 0", fontsize=10, x=0.56)
    legend = "blue: the marked object and its state; grey: the others; bright: looked at (scaled by clip)"
    figure.text(0.13, 0.025, legend, fontsize=8)
    return to_pixels(figure)


def moving_patch(
    cells: Float[Tensor, "t p d"], place: Int[Tensor, " t"], likeness: Float[Tensor, " t"], name: str
) -> UInt8[np.ndarray, "h w 3"]:
    """The frames of the moving patch, the patch outlined, with what was found in each below.

    Args:
        cells: Pixels of each cell.
        place: Where the patch is.
        likeness: Cosine of what is found in each frame to the patch.
        name: Of the arm.

    Returns:
        The picture.
    """
    frames, count, pixels = cells.shape
    side, small = round(count**0.5), round(pixels**0.5)
    figure = Figure(figsize=(1.7 * frames, 2.2), dpi=100, facecolor="white")
    axes = figure.subplots(1, frames)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.84, bottom=0.1, wspace=0.06)
    for t in range(frames):
        picture = cells[t].view(side, side, small, small).transpose(1, 2).reshape(side * small, side * small)
        axes[t].imshow(picture.numpy(), cmap="gray", vmin=-2.5, vmax=2.5)
        y, x = divmod(int(place[t]), side)
        axes[t].add_patch(
            Rectangle((x * small - 0.5, y * small - 0.5), small, small, fill=False, color="#ffb000", linewidth=2)
        )
        axes[t].set_xticks([])
        axes[t].set_yticks([])
        axes[t].set_xlabel(f"found: cosine {float(likeness[t]):.2f}", fontsize=9)
    figure.suptitle(f"{name}: the query is the outlined patch of the first frame", fontsize=10)
    return to_pixels(figure)
