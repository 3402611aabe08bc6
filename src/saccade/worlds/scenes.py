"""Scenes: textured sprites on noise, the class being the texture, with the mask of every sprite.

A picture is a pure function of (seed, split, index). Shape, size, place and colours say nothing about the class: a
network that knows it looks at the texture, and where it looks can be checked against the masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

TEXTURES = ("horizontal stripes", "vertical stripes", "diagonal stripes", "checker", "dots")
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Scene:
    """One picture.

    Args:
        image: RGB in [0, 1].
        labels: Whether each class is there.
        masks: Pixels of each class's sprites.
    """

    image: Float[Tensor, "3 h w"]
    labels: Float[Tensor, " k"]
    masks: Bool[Tensor, "k h w"]

    @property
    def classes(self) -> list[int]:
        """The classes that are there."""
        return [int(k) for k in self.labels.nonzero().flatten()]


@dataclass(frozen=True)
class Scenes:
    """The world.

    Args:
        seed: Of the world.
        split: `train`, `val` or `test`.
        length: Number of pictures.
        size: Side in pixels.
        objects: Fewest and most sprites a picture, each of another class.
        radius: Smallest and largest radius in pixels.
        noise: Standard deviation of the background's noise: the difficulty.

    Raises:
        ValueError: A setting that makes no sense.

    Example:
        >>> world = Scenes(seed=0, split="test", length=10)
        >>> scene = world[3]
        >>> scene.image.shape, scene.masks.shape, bool((scene.masks.any(2).any(1) == (scene.labels > 0)).all())
        (torch.Size([3, 40, 40]), torch.Size([5, 40, 40]), True)
        >>> bool(torch.equal(scene.image, world[3].image))
        True
    """

    seed: int
    split: Split = "train"
    length: int = 1200
    size: int = 40
    objects: tuple[int, int] = (1, 3)
    radius: tuple[float, float] = (5.0, 7.5)
    noise: float = 0.12

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r}: wanted one of {', '.join(SPLITS)}")
        if self.length < 1 or not 1 <= self.objects[0] <= self.objects[1] <= len(TEXTURES):
            raise ValueError(f"length {self.length}, objects {self.objects}: wanted 1 to {len(TEXTURES)} sprites")
        if not 2 <= self.radius[0] <= self.radius[1] or self.size < 4 * self.radius[1]:
            raise ValueError(f"radius {self.radius} does not fit pictures of {self.size} pixels")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < self.length:
            raise IndexError(f"picture {index} of {self.length}")
        random = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
        image = random.uniform(0.25, 0.75, (1, 1, 3)) + self.noise * random.standard_normal((self.size, self.size, 3))
        masks = np.zeros((len(TEXTURES), self.size, self.size), dtype=bool)
        count = int(random.integers(self.objects[0], self.objects[1] + 1))
        centres: list[tuple[float, float, float]] = []
        y, x = np.mgrid[: self.size, : self.size].astype(np.float64)
        for texture in random.permutation(len(TEXTURES))[:count]:
            place = _free_place(random, self.size, self.radius, centres)
            if place is None:
                continue
            centres.append(place)
            cy, cx, radius = place
            if random.random() < 0.5:
                inside = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
            else:
                inside = np.maximum(abs(y - cy), abs(x - cx)) <= 0.88 * radius
            pattern = _pattern(int(texture), y, x, random)
            first, second = _two_colours(random)
            image[inside] = np.where(pattern[..., None], first, second)[inside]
            image[inside] += 0.03 * random.standard_normal((int(inside.sum()), 3))
            masks[texture] = inside
        pixels = torch.from_numpy(image.clip(0, 1).astype(np.float32)).permute(2, 0, 1).contiguous()
        found = torch.from_numpy(masks)
        return Scene(pixels, found.flatten(1).any(1).float(), found)

    def stack(self) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n k"]]:
        """All images and labels."""
        scenes = [self[i] for i in range(self.length)]
        return torch.stack([scene.image for scene in scenes]), torch.stack([scene.labels for scene in scenes])


def _free_place(
    random: np.random.Generator, size: int, radius: tuple[float, float], taken: list[tuple[float, float, float]]
) -> tuple[float, float, float] | None:
    """A centre and radius apart from the others; `None` after many tries (never for the first sprite)."""
    for _ in range(50):
        r = float(random.uniform(*radius))
        cy, cx = random.uniform(r, size - 1 - r, 2)
        if all((cy - oy) ** 2 + (cx - ox) ** 2 > (r + o + 2) ** 2 for oy, ox, o in taken):
            return float(cy), float(cx), r
    return None


def _pattern(texture: int, y: np.ndarray, x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Period 4 pixels, random phase."""
    dy, dx = random.integers(0, 4, 2)
    u, v = (y + dy) % 4, (x + dx) % 4
    if texture == 0:
        return u < 2
    if texture == 1:
        return v < 2
    if texture == 2:
        return (u + v) % 4 < 2
    if texture == 3:
        return (u < 2) != (v < 2)
    return (u < 2) & (v < 2)


def _two_colours(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dark and a bright random colour, in random order."""
    dark, bright = random.uniform(0.0, 0.35, 3), random.uniform(0.65, 1.0, 3)
    return (dark, bright) if random.random() < 0.5 else (bright, dark)
