"""What a model wants to be fed."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """The input a model was made for, from which a data module can build its transforms.

    Args:
        size: Height and width in pixels.
        frames: Frames in a clip.
        stride: Frames of the video from one frame of the clip to the next; `None`: spread over the video in segments.
        mean: Subtracted from pixel values in [0, 1], by channel in the order of `channels`.
        std: Divided by afterwards.
        channels: `RGB`, `BGR` or `L` (grey).

    Example:
        >>> InputSpec(size=224, frames=8).mean
        (0.485, 0.456, 0.406)
    """

    size: int = 224
    frames: int = 8
    stride: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: str = "RGB"
