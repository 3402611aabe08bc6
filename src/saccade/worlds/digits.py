"""Digits in other looks: further domains out of any grey digit images, by colour, texture, stroke and background.

A restyled image is a pure function of (seed, split, index) and of the digit that it starts from. What it shows is still
the same digit: its label does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from saccade.worlds.draws import addresses, uniform

Ground = Literal["plain", "noise", "stripes", "patches"]


@dataclass(frozen=True)
class DigitLook:
    """How a domain's digits look.

    Args:
        stroke: Strokes thicker by so many pixels, or thinner where negative.
        ground: What is behind the ink: nothing, coarse noise, stripes of a random direction, or blurred patches that
            the ink is subtracted from (as in MNIST-M).
        contrast: Of the ink: the image is `brightness + contrast * ink + strength * ground`.
        strength: Of the ground.
        brightness: Of the ground.
        inverted: Dark ink on bright ground.
        colour: Ink and ground of random colours; otherwise all channels are the same.
        rotation: Largest turn, in degrees.
        scale: Largest change of size, as a share.
        shift: Largest shift, in pixels.

    Raises:
        ValueError: A value that makes no sense.
    """

    stroke: int = 0
    ground: Ground = "plain"
    contrast: float = 1.0
    strength: float = 0.0
    brightness: float = 0.0
    inverted: bool = False
    colour: bool = False
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.contrast <= 1 or not 0 <= self.strength <= 1 or not 0 <= self.brightness < 1:
            raise ValueError(
                f"contrast {self.contrast} is in (0, 1], strength {self.strength} in [0, 1], brightness "
                f"{self.brightness} in [0, 1)"
            )
        if not 0 <= self.rotation <= 180 or not 0 <= self.scale < 1 or self.shift < 0:
            raise ValueError(
                f"rotation {self.rotation} is in [0, 180], scale {self.scale} in [0, 1), shift {self.shift} at least 0"
            )


LOOKS: dict[str, DigitLook] = {
    "plain": DigitLook(),
    "bold": DigitLook(stroke=1),
    "thin": DigitLook(stroke=-1),
    "inverted": DigitLook(inverted=True),
    "faded": DigitLook(ground="noise", contrast=0.4, strength=0.45, brightness=0.15),
    "dim": DigitLook(ground="noise", contrast=0.6, strength=0.3, brightness=0.1),
    "striped": DigitLook(ground="stripes", contrast=0.6, strength=0.4),
    "photo": DigitLook(ground="patches", contrast=1.0, strength=1.0),
    "coloured": DigitLook(colour=True),
    "turned": DigitLook(rotation=25.0, scale=0.15),
}
"""Named looks, for claims and demonstrations."""


def restyle(
    digits: UInt8[Tensor, "n h w"],
    look: DigitLook,
    *,
    size: int = 16,
    channels: Literal[1, 3] = 1,
    seed: int = 0,
    split: str = "train",
    indices: Sequence[int] | None = None,
) -> Float[Tensor, "n c s s"]:
    """Give digits a look.

    Args:
        digits: Bright ink on dark, 0 to 255.
        look: The look.
        size: Side of the result; digits are resampled to it (by area where it is smaller).
        channels: Grey or RGB; a grey look of colours keeps their brightness.
        seed: Seed of the world.
        split: Name of the split; looks of two splits are drawn independently.
        indices: The address of each image; 0, 1, ... where `None`.

    Returns:
        Images in [0, 1].

    Raises:
        ValueError: A size below 8.

    Example:
        >>> digits = torch.zeros(2, 8, 8, dtype=torch.uint8)
        >>> restyle(digits, LOOKS["faded"], size=16).shape
        torch.Size([2, 1, 16, 16])
    """
    if size < 8:
        raise ValueError(f"size is {size}; at least 8 is accepted")
    keys = addresses(seed, f"{split}/{look}", range(len(digits)) if indices is None else indices)
    ink = _resized(digits.float().unsqueeze(1) / 255, size)
    if look.rotation or look.scale or look.shift:
        ink = _moved(ink, keys, look)
    if look.stroke > 0:
        ink = F.max_pool2d(ink, 2 * look.stroke + 1, 1, look.stroke)
    elif look.stroke < 0:
        ink = -F.max_pool2d(-ink, 1 - 2 * look.stroke, 1, -look.stroke)
    ground = _ground(look.ground, keys, size)
    if look.ground == "patches":
        # MNIST-M's blend: the ink shows as the negative of what is behind it
        grey = (look.strength * ground - look.contrast * ink).abs() + look.brightness
    else:
        grey = look.brightness + look.contrast * ink + look.strength * ground
    grey = grey.clamp(0, 1)
    if look.inverted:
        grey = 1 - grey
    if not look.colour:
        return grey.expand(-1, channels, -1, -1).contiguous()
    # ink and ground are two colours, far enough apart to be told from each other
    colours = torch.from_numpy(uniform(keys, "colours", (2, 3))).float()
    apart = (colours[:, 0] - colours[:, 1]).abs().amax(1, keepdim=True) < 0.4
    colours[:, 1] = torch.where(apart, 1 - colours[:, 0].round(), colours[:, 1])
    painted = colours[:, 1, :, None, None] * (1 - grey) + colours[:, 0, :, None, None] * grey
    if channels == 3:
        return painted
    return (painted * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def _resized(ink: Tensor, size: int) -> Tensor:
    mode = "area" if ink.shape[-1] >= size else "bicubic"
    resized = F.interpolate(ink, (size, size), mode=mode, align_corners=None if mode == "area" else False)
    return resized.clamp(0, 1)


def _moved(ink: Tensor, keys: np.ndarray, look: DigitLook) -> Tensor:
    drawn = torch.from_numpy(uniform(keys, "move", (4,))).float() * 2 - 1
    angle = drawn[:, 0] * np.deg2rad(look.rotation)
    zoom = 1 + drawn[:, 1] * look.scale
    shift = drawn[:, 2:] * look.shift * 2 / ink.shape[-1]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    return F.grid_sample(ink, F.affine_grid(theta, list(ink.shape), align_corners=False), align_corners=False)


def _ground(kind: Ground, keys: np.ndarray, size: int) -> Tensor:
    if kind == "plain":
        return torch.zeros(1)
    if kind == "stripes":
        drawn = torch.from_numpy(uniform(keys, "stripes", (3,))).float()
        angle, phase, period = drawn[:, 0] * np.pi, drawn[:, 1] * 2 * np.pi, 3 + 3 * drawn[:, 2]
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
        return (0.5 + 0.5 * torch.sin(along * (2 * np.pi / period)[:, None, None] + phase[:, None, None]))[:, None]
    cells = 4 if kind == "noise" else max(size // 3, 4)
    coarse = torch.from_numpy(uniform(keys, kind, (1, cells, cells))).float()
    return F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
