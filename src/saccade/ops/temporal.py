"""Moving features along time in a batch of folded frames."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def temporal_shift(x: Float[Tensor, "bt c h w"], num_frames: int, fold: int = 8) -> Float[Tensor, "bt c h w"]:
    """Give a share of the channels to the neighbouring frames.

    The first `c // fold` channels take the value of the next frame, the second `c // fold` that of the previous one,
    the others stay; beyond the ends of a clip there are zeros.

    Args:
        x: Frames folded into the batch, clip by clip.
        num_frames: Frames in a clip.
        fold: One of how many channels moves, each way.

    Returns:
        Features of the same shape.

    Raises:
        ValueError: A batch that is no multiple of `num_frames`, or a fold below 2.

    Note:
        Source: arXiv:1811.08383 (TSM), section 3.

    Example:
        >>> frames = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 8, 1, 1)  # frame t holds t
        >>> temporal_shift(frames, num_frames=3)[:, :3, 0, 0]
        tensor([[1., 0., 0.],
                [2., 0., 1.],
                [0., 1., 2.]])
    """
    if fold < 2:
        raise ValueError(f"fold has to be at least 2 (both ways take a share of the channels), not {fold}")
    check_clips(x, num_frames)
    share = x.shape[1] // fold
    clips = x.unflatten(0, (-1, num_frames))
    out = torch.zeros_like(clips)
    out[:, :-1, :share] = clips[:, 1:, :share]
    out[:, 1:, share : 2 * share] = clips[:, :-1, share : 2 * share]
    out[:, :, 2 * share :] = clips[:, :, 2 * share :]
    return out.flatten(0, 1)


def check_clips(x: Tensor, num_frames: int, least: int = 1) -> None:
    """Raise unless `x` holds whole clips of `num_frames` frames, folded into its batch.

    Args:
        x: Frames folded into the batch.
        num_frames: Frames in a clip.
        least: The fewest frames that make sense.

    Raises:
        ValueError: Too few frames, or a batch that is no multiple of them.

    Example:
        >>> check_clips(torch.zeros(7, 1), num_frames=4)
        Traceback (most recent call last):
        ValueError: 7 frames in the batch are no multiple of num_frames=4
    """
    if num_frames < least:
        need = "motion takes two frames" if least == 2 else "a clip has frames"
        raise ValueError(f"num_frames has to be at least {least} ({need}), not {num_frames}")
    if x.shape[0] % num_frames:
        raise ValueError(f"{x.shape[0]} frames in the batch are no multiple of num_frames={num_frames}")
