"""The motion world: a textured disk glides over a textured ground, and the class is where it goes.

Disk and ground may have the same statistics, so that the disk is seen only by its motion. Space is a torus: the disk
that leaves on the right comes back on the left. So its place is uniform in every frame whatever the class, and no
single frame tells the direction; a clip played backwards is a clip of the opposite class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from saccade.worlds.draws import addresses, normal, uniform

CLASSES = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
"""Directions by class, in steps of 45 degrees; the opposite of `k` is `(k + 4) % 8`."""


@dataclass(frozen=True)
class MotionClips:
    """Clips with all that is true of them.

    Attributes:
        video: Frames; mean 0 and variance about 1.
        label: Direction, 0 to 7.
        start: Centre of the disk in the first frame (x, y), pixels.
        velocity: (x, y), pixels a frame; y points down.
        radius: Pixels.
        mask: Where the disk is.
    """

    video: Float[Tensor, "b c t h w"]
    label: Int[Tensor, " b"]
    start: Float[Tensor, "b 2"]
    velocity: Float[Tensor, "b 2"]
    radius: Float[Tensor, " b"]
    mask: Bool[Tensor, "b t h w"]

    def flow(self) -> Float[Tensor, "b t 2 h w"]:
        """Displacement (x, y) to the next frame in pixels: the velocity on the disk, 0 on the ground."""
        return self.mask.unsqueeze(2) * self.velocity[:, None, :, None, None]


@dataclass(frozen=True)
class MotionWorld:
    """How hard the world is.

    Args:
        size: Height and width in pixels.
        frames: Frames in a clip.
        channels: 1 for grey; with 3 each has its own texture.
        speed: Least and greatest, pixels a frame.
        radius: Least and greatest, pixels.
        noise: Standard deviation of the sensor's noise.
        brightness: Mean of the disk over that of the ground; 0: it is told by its texture's motion alone.
        contrast: Standard deviation of the disk's texture; the ground's is 1.
        grain: Variance of the blur that makes both textures from white noise, pixels squared.
        seed: Of the world.

    Raises:
        ValueError: Sizes that make no clip, or a disk larger than half the picture.

    Example:
        >>> clips = MotionWorld(frames=4).batch("train", range(2))
        >>> clips.video.shape
        torch.Size([2, 1, 4, 32, 32])
    """

    size: int = 32
    frames: int = 4
    channels: int = 1
    speed: tuple[float, float] = (3.0, 4.5)
    radius: tuple[float, float] = (8.0, 10.0)
    noise: float = 0.05
    brightness: float = 0.0
    contrast: float = 1.0
    grain: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 8 or self.frames < 1 or self.channels < 1 or self.noise < 0:
            raise ValueError(f"size >= 8, frames >= 1, channels >= 1 and noise >= 0 are needed: {self}")
        for name, (low, high) in (("speed", self.speed), ("radius", self.radius)):
            if not 0 <= low <= high:
                raise ValueError(f"{name} goes from least to greatest, not {low} to {high}")
        if 2 * self.radius[1] > self.size:
            raise ValueError(f"a disk of radius {self.radius[1]} does not fit a picture of {self.size} pixels")

    def batch(self, split: str, indices: Sequence[int] | np.ndarray) -> MotionClips:
        """Make clips; each is a function of (seed, split, index), however many are made at once.

        Args:
            split: Name, such as `train` or `test`.
            indices: Which.

        Returns:
            The clips.
        """
        keys = addresses(self.seed, split, indices)
        return self.render(keys, *self.courses(keys))

    def courses(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Where the disks of samples go, without drawing them.

        Args:
            keys: (n,) of `addresses`.

        Returns:
            Label (n,), start (n, 2), velocity (n, 2) and radius (n,), as `render` takes them.
        """
        label = (uniform(keys, "label") * 8).astype(np.int64)
        start = uniform(keys, "start", (2,)) * self.size
        speed = self.speed[0] + uniform(keys, "speed") * (self.speed[1] - self.speed[0])
        angle = label * (np.pi / 4)
        velocity = speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        radius = self.radius[0] + uniform(keys, "radius") * (self.radius[1] - self.radius[0])
        return label, start, velocity, radius

    def render(
        self, keys: np.ndarray, label: np.ndarray, start: np.ndarray, velocity: np.ndarray, radius: np.ndarray
    ) -> MotionClips:
        """Draw clips of given courses; textures and noise come from the keys.

        Args:
            keys: (n,) of `addresses`.
            label: (n,) classes.
            start: (n, 2) places in the first frame, pixels.
            velocity: (n, 2) pixels a frame.
            radius: (n,) pixels.

        Returns:
            The clips.
        """
        n, size, shape = len(keys), self.size, (self.channels, self.size, self.size)
        ground, disk = (_smooth(normal(keys, stream, shape), self.grain) for stream in ("ground", "disk"))
        disk = np.float32(self.brightness) + np.float32(self.contrast) * disk
        time = np.arange(self.frames)[:, None]
        centre = start[:, None] + velocity[:, None] * time  # n t 2
        whole = np.floor(centre)
        fraction = (centre - whole).astype(np.float32)
        cell = (np.arange(size) - whole[..., None]).astype(np.int64)  # n t 2 size: seen from the disk's centre
        offset = (cell - fraction[..., None] + size // 2) % size - size // 2
        dx, dy = offset[:, :, 0, None, :], offset[:, :, 1, :, None]
        mask = dx * dx + dy * dy <= (radius**2)[:, None, None, None]
        moved = np.zeros((n, self.frames, *shape), np.float32)
        sample = np.arange(n)[:, None, None, None]
        for back_y in (0, 1):  # the disk's texture between its cells, mixed from four
            for back_x in (0, 1):
                weight_x = fraction[:, :, 0] if back_x else 1 - fraction[:, :, 0]
                weight_y = fraction[:, :, 1] if back_y else 1 - fraction[:, :, 1]
                weight = (weight_x * weight_y)[:, :, None, None]
                y = ((cell[:, :, 1] - back_y) % size)[..., None]
                x = ((cell[:, :, 0] - back_x) % size)[:, :, None]
                for channel in range(self.channels):
                    moved[:, :, channel] += weight * disk[sample, channel, y, x]
        video = np.where(mask[:, :, None], moved, ground[:, None])
        if self.noise:
            video += np.float32(self.noise) * normal(keys, "noise", (self.frames, *shape))
        return MotionClips(
            video=torch.from_numpy(video).transpose(1, 2).contiguous(),
            label=torch.from_numpy(label),
            start=torch.from_numpy(start.astype(np.float32)),
            velocity=torch.from_numpy(velocity.astype(np.float32)),
            radius=torch.from_numpy(radius.astype(np.float32)),
            mask=torch.from_numpy(mask),
        )


class MotionDataset(Dataset[dict[str, Any]]):
    """Clips of the motion world one by one, for a loader.

    Args:
        world: How hard.
        split: Name.
        size: How many.

    Example:
        >>> sample = MotionDataset(MotionWorld(), "train", size=10)[3]
        >>> sample["video"].shape, 0 <= sample["label"] < 8
        (torch.Size([1, 4, 32, 32]), True)
    """

    def __init__(self, world: MotionWorld, split: str = "train", size: int = 3072) -> None:
        if size < 1:
            raise ValueError(f"size has to be at least 1, not {size}")
        self.world, self.split, self.size = world, split, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Clip (c, t, h, w), label and index."""
        if not 0 <= index < self.size:
            raise IndexError(f"clips are 0 to {self.size - 1}, not {index}")
        clips = self.world.batch(self.split, [index])
        return {"video": clips.video[0], "label": int(clips.label[0]), "index": index}


def _smooth(white: np.ndarray, times: int) -> np.ndarray:
    """Band-limit white noise on the torus by a binomial kernel, again and again, keeping its variance."""
    for axis in (-1, -2):
        for _ in range(times):
            near = np.roll(white, 1, axis) + np.roll(white, -1, axis)
            far = np.roll(white, 2, axis) + np.roll(white, -2, axis)
            white = np.float32(6 / 16) * white + np.float32(4 / 16) * near + np.float32(1 / 16) * far
        # the kernel after n times is binomial of 4n; its squares add up to C(8n, 4n) / 16^(2n)
        white *= np.float32(16.0**times / math.comb(8 * times, 4 * times) ** 0.5)
    return white
