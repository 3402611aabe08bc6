"""Pictures of maps with numpy and PIL alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

# a perceptually ordered ramp, dark to bright: violet, magenta, orange, pale yellow
_STOPS = np.array(
    [
        [0, 0, 4],
        [40, 11, 84],
        [101, 21, 110],
        [159, 42, 99],
        [212, 72, 66],
        [245, 125, 21],
        [250, 193, 39],
        [252, 255, 164],
    ],
    dtype=np.float64,
)


def to_pixels(image: Tensor) -> np.ndarray:
    """An image tensor as an array.

    Args:
        image: (3, h, w) or (1, h, w) in [0, 1].

    Returns:
        (h, w, 3) uint8.
    """
    array = image.detach().float().cpu().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    return (255 * array).round().astype(np.uint8)


def unit(values: Tensor) -> np.ndarray:
    """A map stretched to [0, 1]; a constant one becomes 0.

    Args:
        values: (h, w) or (1, h, w).

    Returns:
        (h, w) float64.
    """
    array = values.detach().double().cpu().reshape(values.shape[-2:]).numpy()
    low, high = float(array.min()), float(array.max())
    return (array - low) / (high - low) if high > low else np.zeros_like(array)


def colours(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as colours.

    Args:
        values: (h, w).

    Returns:
        (h, w, 3) uint8.

    Example:
        >>> colours(np.array([[0.0, 1.0]])).tolist()
        [[[0, 0, 4], [252, 255, 164]]]
    """
    position = values.clip(0, 1) * (len(_STOPS) - 1)
    ramp = [np.interp(position, np.arange(len(_STOPS)), _STOPS[:, channel]) for channel in range(3)]
    return np.stack(ramp, axis=-1).round().astype(np.uint8)


def overlay(image: np.ndarray, values: Tensor, *, strength: float = 0.6) -> np.ndarray:
    """A heat map over the greyed image.

    Args:
        image: (h, w, 3) uint8.
        values: Map of the same height and width.
        strength: Weight of the colours.

    Returns:
        (h, w, 3) uint8.

    Raises:
        ValueError: Another size.
    """
    if image.shape[:2] != tuple(values.shape[-2:]):
        raise ValueError(f"the map is {tuple(values.shape[-2:])}, the image {image.shape[:2]}")
    grey = image.astype(np.float64).mean(-1, keepdims=True)
    mixed = (1 - strength) * grey + strength * colours(unit(values))
    return mixed.round().clip(0, 255).astype(np.uint8)


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    labels: Sequence[str] = (),
    *,
    tile: int = 120,
    points: Sequence[Sequence[tuple[float, float] | None]] = (),
) -> np.ndarray:
    """A grid of pictures with titles above the columns and labels beside the rows.

    Args:
        rows: Pictures (h, w, 3) uint8.
        columns: A title each.
        labels: A label each row, or none.
        tile: Side of a picture on the sheet in pixels.
        points: For each picture a point (x, y) in [0, 1] to mark, or `None`.

    Returns:
        (height, width, 3) uint8 on white.
    """
    gap, head, left = 8, 24, 110 if labels else 0
    width = left + len(columns) * (tile + gap) + gap
    shapes = [picture.shape for pictures in rows for picture in pictures]
    tall = max((round(tile * shape[0] / max(shape[:2])) for shape in shapes), default=tile)
    canvas = Image.new("RGB", (width, head + len(rows) * (tall + gap) + gap), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(columns):
        x = left + gap + column * (tile + gap)
        draw.text((x + tile / 2, head / 2 + 2), title, fill=(40, 40, 40), anchor="mm", font_size=13)
    for row, pictures in enumerate(rows):
        y = head + row * (tall + gap)
        if labels:
            lines = "\n".join(_wrapped(labels[row], 16))
            draw.multiline_text(
                (left - 2, y + tall / 2), lines, fill=(40, 40, 40), anchor="rm", align="right", font_size=12
            )
        for column, picture in enumerate(pictures):
            x = left + gap + column * (tile + gap)
            scale = tile / max(picture.shape[:2])
            size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
            resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
            canvas.paste(Image.fromarray(picture).resize(size, resample), (x, y))
            point = points[row][column] if points else None
            if point is not None:
                cx, cy = x + point[0] * size[0], y + point[1] * size[1]
                for radius, colour in ((6, (0, 0, 0)), (4.5, (255, 255, 255))):
                    draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), outline=colour, width=2)
    return np.asarray(canvas)


def _wrapped(text: str, most: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def plot_point(peak: Tensor, size: tuple[int, int]) -> tuple[float, float]:
    """A pixel's centre in [0, 1] of width and height, for `sheet`.

    Args:
        peak: (x, y).
        size: Height and width.

    Returns:
        (x, y).
    """
    x, y = torch.as_tensor(peak).tolist()
    return (x + 0.5) / size[1], (y + 0.5) / size[0]
