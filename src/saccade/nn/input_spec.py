"""What a model wants to be fed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

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

    def check_clips(self, clips: Tensor, in_channels: int) -> None:
        """Raise unless these are normalised clips.

        Args:
            clips: What a network was called with.
            in_channels: Channels of its frames.

        Raises:
            TypeError: uint8 or other integer input.
            ValueError: Another rank or number of channels.

        Example:
            >>> import torch
            >>> InputSpec().check_clips(torch.zeros(2, 1, 8, 32, 32), in_channels=3)
            Traceback (most recent call last):
            ValueError: clips have to be (b, 3, t, h, w), not (2, 1, 8, 32, 32)
        """
        if not clips.is_floating_point():
            raise TypeError(
                f"clips have to be floating-point and normalised, not {clips.dtype}: divide by 255, "
                f"subtract {self.mean} and divide by {self.std}"
            )
        if clips.ndim != 5 or clips.shape[1] != in_channels:
            raise ValueError(f"clips have to be (b, {in_channels}, t, h, w), not {tuple(clips.shape)}")
