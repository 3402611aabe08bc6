"""Stick figures: a torso and four limbs at any angle, with the pose as a continuous label.

What a figure looks like is its pose, and also where it stands, how large and how bright it is, and noise; the label is
the pose alone, in the frame of the body. So two pictures are near by label where the poses are alike, whatever the
rest, and nearness has degrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saccade.worlds.draws import addresses, normal, uniform

LIMBS = ("left arm", "right arm", "left leg", "right leg")
NECK, HIP = np.array([0.0, -0.32]), np.array([0.0, 0.22])
ATTACHED = np.stack([NECK, NECK, HIP, HIP])
"""Where limbs begin, in the frame of the body: x to the right, y down, a figure about 1.5 high."""
REST = np.array([np.pi, 0.0, 0.75 * np.pi, 0.25 * np.pi])
"""Direction of a limb at angle 0: arms to the side, legs to the side and down."""
LENGTHS = np.array([0.46, 0.46, 0.52, 0.52])
HALF_WIDTH = 0.055


@dataclass(frozen=True)
class FigureBatch:
    """Figures with all that is true of them.

    Attributes:
        images: Grey; a dark ground at 0 and a figure at its contrast, plus noise.
        angles: Of the limbs, radians from rest, in the order of `LIMBS`.
        pose: The label: ends of the four limbs in the frame of the body, (x, y) each.
        shift: Of the figure, (x, y); the picture's half side is 1.
        scale: Size of the figure, about 1.
        contrast: Brightness of the figure.
    """

    images: Float[Tensor, "b 1 h w"]
    angles: Float[Tensor, "b 4"]
    pose: Float[Tensor, "b 8"]
    shift: Float[Tensor, "b 2"]
    scale: Float[Tensor, " b"]
    contrast: Float[Tensor, " b"]

    def label_distances(self, other: FigureBatch | None = None) -> Float[Tensor, "b n"]:
        """Euclidean distances between poses of this batch and another, or of all pairs."""
        return torch.cdist(self.pose, (other or self).pose, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class StickFigures:
    """How hard the world is.

    Args:
        size: Height and width in pixels.
        swing: Greatest angle of a limb from rest, radians.
        shift: Greatest shift in x and in y; the picture's half side is 1.
        scale: Least and greatest size.
        contrast: Least and greatest brightness of the figure.
        noise: Standard deviation of the pixels' noise.
        seed: Of the world.

    Raises:
        ValueError: A setting that makes no sense.

    Example:
        >>> figures = StickFigures().batch("train", range(3))
        >>> figures.images.shape, figures.pose.shape
        (torch.Size([3, 1, 32, 32]), torch.Size([3, 8]))
    """

    size: int = 32
    swing: float = 1.4
    shift: float = 0.15
    scale: tuple[float, float] = (0.85, 1.15)
    contrast: tuple[float, float] = (0.6, 1.0)
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 8 or self.noise < 0 or self.shift < 0 or not 0 <= self.swing <= np.pi:
            raise ValueError(f"size >= 8, noise >= 0, shift >= 0 and swing from 0 to pi are needed: {self}")
        for name, (low, high) in (("scale", self.scale), ("contrast", self.contrast)):
            if not 0 < low <= high:
                raise ValueError(f"{name} goes from least to greatest, both above 0, not {low} to {high}")

    def batch(self, split: str, indices: Sequence[int] | np.ndarray) -> FigureBatch:
        """Make figures; each is a function of (seed, split, index), however many are made at once.

        Args:
            split: Name, such as `train` or `test`.
            indices: Which.

        Returns:
            The figures.
        """
        keys = addresses(self.seed, split, indices)
        angles = self.swing * (2 * uniform(keys, "angle", (4,)) - 1)
        shift = self.shift * (2 * uniform(keys, "shift", (2,)) - 1)
        scale, contrast = (
            low + uniform(keys, name) * (high - low)
            for name, (low, high) in (("scale", self.scale), ("contrast", self.contrast))
        )
        ends = limb_ends(angles)
        starts = np.concatenate([np.broadcast_to(ATTACHED, ends.shape), np.broadcast_to(NECK, (len(keys), 1, 2))], 1)
        stops = np.concatenate([ends, np.broadcast_to(HIP, (len(keys), 1, 2))], 1)
        images = self._draw(starts, stops, shift, scale) * contrast[:, None, None].astype(np.float32)
        if self.noise:
            images += np.float32(self.noise) * normal(keys, "noise", (self.size, self.size))
        flat = ends.reshape(len(keys), 8)
        whole = (torch.from_numpy(array.astype(np.float32)) for array in (angles, flat, shift, scale, contrast))
        return FigureBatch(torch.from_numpy(images)[:, None], *whole)

    def _draw(self, starts: np.ndarray, stops: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Segments (n, s, 2) as an image (n, h, w): 1 within the width, 0 beyond, a pixel's ramp between."""
        place = (2 * np.arange(self.size) + 1) / self.size - 1
        x = (place[None] - shift[:, :1]) / scale[:, None]  # pixels seen from the body
        y = (place[None] - shift[:, 1:]) / scale[:, None]
        ramp = self.size * scale[:, None, None] / 2  # pixels in a unit of the body
        image = np.zeros((len(starts), self.size, self.size), np.float32)
        for segment in range(starts.shape[1]):
            (ax, ay), (bx, by) = starts[:, segment].T, stops[:, segment].T
            px, py = (x - ax[:, None])[:, None, :], (y - ay[:, None])[:, :, None]
            dx, dy = ((b - a)[:, None, None] for a, b in ((ax, bx), (ay, by)))
            t = ((px * dx + py * dy) / (dx**2 + dy**2)).clip(0, 1)
            away = np.hypot(px - t * dx, py - t * dy)
            np.maximum(image, ((HALF_WIDTH - away) * ramp + 0.5).clip(0, 1).astype(np.float32), out=image)
        return image


def limb_ends(angles: np.ndarray) -> np.ndarray:
    """Where limbs end in the frame of the body.

    Args:
        angles: (n, 4), radians from rest; an arm or leg turns upwards with its angle.

    Returns:
        (n, 4, 2), (x, y) with y down.

    Example:
        >>> limb_ends(np.zeros((1, 4)))[0, 1].round(2)  # the right arm, to the side
        array([ 0.46, -0.32])
    """
    turn = np.array([1.0, -1.0, 1.0, -1.0])  # mirrored: left limbs turn clockwise on the screen
    direction = REST + turn * angles
    return ATTACHED + LENGTHS[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=-1)
