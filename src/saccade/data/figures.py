"""Figures of matplotlib as pixels, without a window."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def to_pixels(figure: Figure, *, dpi: float | None = None, tight: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a figure.

    Args:
        figure: The figure.
        dpi: Pixels an inch; the figure's own where `None`.
        tight: Arrange its axes without gaps first.

    Returns:
        Its pixels.

    Example:
        >>> to_pixels(Figure(figsize=(2, 1), dpi=50)).shape
        (50, 100, 3)
    """
    if dpi is not None:
        figure.set_dpi(dpi)
    if tight:
        figure.set_layout_engine("tight")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
