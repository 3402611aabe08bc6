"""Which frames of a video make a clip: pure functions from a number of frames to indices, counted from 0.

`frames` is the number of frames the video has, `count` the number wanted. Random rules take a torch generator. A
video shorter than the clip is never an error: each rule says which frames come twice.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor


def segment_random(frames: int, count: int, generator: Generator | None = None, length: int = 1) -> Tensor:
    """TSN's training rule: the video is cut into `count` equal segments, and each gives a random frame.

    Where there are fewer frames than segments, but more than `count` snippet positions, sorted random draws (with
    replacement) are taken; a video with as few frames as `count` or fewer gives its first frame `count` times.

    Args:
        frames: Frames of the video.
        count: Segments.
        generator: Source of randomness.
        length: Frames of the snippet that begins at each index.

    Returns:
        `count` first frames of snippets, ascending.

    Raises:
        ValueError: No frames, or nothing wanted.

    Example:
        >>> segment_random(8, 4, torch.Generator().manual_seed(0)).shape
        torch.Size([4])
    """
    _check(frames, count)
    places = max(frames - length + 1, 1)
    segment = places // count
    if segment > 0:
        return torch.arange(count) * segment + torch.randint(segment, (count,), generator=generator)
    if frames > count:
        return torch.randint(places, (count,), generator=generator).sort().values
    return torch.zeros(count, dtype=torch.int64)


def segment_center(frames: int, count: int, official: bool = False) -> Tensor:
    """The middle frame of each of `count` equal segments: TSN's rule for validation and test.

    Args:
        frames: Frames of the video.
        count: Segments.
        official: For videos with at most `count` frames give frame 0 throughout, as the authors' validation does;
            otherwise frames are repeated evenly.

    Returns:
        `count` indices, ascending.

    Example:
        >>> segment_center(30, 3)
        tensor([ 5, 15, 25])
        >>> segment_center(2, 4), segment_center(2, 4, official=True)
        (tensor([0, 0, 1, 1]), tensor([0, 0, 0, 0]))
    """
    _check(frames, count)
    if official and frames <= count:
        return torch.zeros(count, dtype=torch.int64)
    tick = frames / count
    return torch.tensor([int(tick / 2 + tick * i) for i in range(count)])


def segment_twice(frames: int, count: int) -> Tensor:
    """Two clips a video: the middles of the segments, then their first frames (TSM's "twice sample").

    Args:
        frames: Frames of the video.
        count: Segments.

    Returns:
        (2, count) indices.

    Example:
        >>> segment_twice(30, 3)
        tensor([[ 5, 15, 25],
                [ 0, 10, 20]])
    """
    _check(frames, count)
    tick = frames / count
    first = torch.tensor([int(tick * i) for i in range(count)])
    return torch.stack([segment_center(frames, count), first])


def dense_random(frames: int, count: int, generator: Generator | None = None, window: int = 64) -> Tensor:
    """I3D's training rule: a random window of 64 frames, evenly strided; past the end it begins anew.

    Args:
        frames: Frames of the video.
        count: Frames wanted.
        generator: Source of randomness.
        window: Frames the clip spans.

    Returns:
        `count` indices; they wrap around.

    Example:
        >>> dense_random(10, 4)  # shorter than the window: it begins at 0 and wraps around
        tensor([0, 6, 2, 8])
    """
    _check(frames, count)
    last = max(1, frames - window + 1) - 1
    start = 0 if last == 0 else int(torch.randint(last, (), generator=generator))
    return _strided(start, frames, count, window)


def dense_views(frames: int, count: int, views: int = 10, window: int = 64) -> Tensor:
    """I3D's test rule: `views` windows with evenly spread starts.

    Args:
        frames: Frames of the video.
        count: Frames wanted in each.
        views: Number of windows.
        window: Frames a clip spans.

    Returns:
        (views, count) indices; they wrap around.

    Example:
        >>> dense_views(200, 2, views=3)[:, 0]
        tensor([  0,  68, 136])
    """
    _check(frames, count)
    last = max(1, frames - window + 1) - 1
    starts = np.linspace(0, last, num=views, dtype=int)
    return torch.stack([_strided(int(start), frames, count, window) for start in starts])


def interval_random(frames: int, count: int, generator: Generator | None = None) -> Tensor:
    """SlowFast's Something-Something rule for training: a random frame of each interval, both ends included.

    Args:
        frames: Frames of the video.
        count: Intervals.
        generator: Source of randomness.

    Returns:
        `count` indices, ascending.

    Example:
        >>> interval_random(1, 4)
        tensor([0, 0, 0, 0])
    """
    starts, ends = _intervals(frames, count)
    draws = torch.rand(count, generator=generator, dtype=torch.float64)
    return starts + (draws * (ends - starts + 1)).long()


def interval_center(frames: int, count: int) -> Tensor:
    """SlowFast's Something-Something rule for test: the middle of each interval.

    Args:
        frames: Frames of the video.
        count: Intervals.

    Returns:
        `count` indices, ascending.

    Example:
        >>> interval_center(30, 3)
        tensor([ 5, 14, 24])
    """
    starts, ends = _intervals(frames, count)
    return (starts + ends) // 2


def clip_random(
    frames: int, count: int, stride: int, fps: float = 30.0, generator: Generator | None = None, base_fps: float = 30.0
) -> Tensor:
    """The Kinetics rule of SlowFast for training: a clip of `count * stride` frames at 30 fps, at a random start.

    Args:
        frames: Frames of the video.
        count: Frames wanted.
        stride: Frames from one to the next, at `base_fps`.
        fps: Frame rate of the video.
        generator: Source of randomness.
        base_fps: Rate that `stride` is meant at.

    Returns:
        `count` indices; a short video gives its last frame again and again.

    Example:
        >>> clip_random(4, 4, stride=2)
        tensor([0, 2, 3, 3])
    """
    _check(frames, count)
    length = count * stride * fps / base_fps
    start = float(torch.rand((), generator=generator, dtype=torch.float64)) * max(frames - length, 0)
    return _spread(start, length, frames, count)


def clip_views(
    frames: int,
    count: int,
    stride: int,
    views: int = 10,
    fps: float = 30.0,
    base_fps: float = 30.0,
    reach_end: bool = False,
) -> Tensor:
    """The Kinetics rule of SlowFast for test: `views` clips with evenly spread starts.

    Args:
        frames: Frames of the video.
        count: Frames wanted in each.
        stride: Frames from one to the next, at `base_fps`.
        views: Number of clips.
        fps: Frame rate of the video.
        base_fps: Rate that `stride` is meant at.
        reach_end: Spread the starts so that the last clip ends with the video (a single one is centred). The older
            rule, which papers' figures come from, never reaches the end.

    Returns:
        (views, count) indices.

    Example:
        >>> clip_views(100, 2, stride=4, views=2)[:, 0], clip_views(100, 2, stride=4, views=2, reach_end=True)[:, 0]
        (tensor([ 0, 46]), tensor([ 0, 92]))
    """
    _check(frames, count)
    length = count * stride * fps / base_fps
    free = max(frames - length, 0)
    if not reach_end:
        starts = [free * view / views for view in range(views)]
    elif views == 1:
        starts = [free / 2]
    else:
        starts = [view * float(int(free / (views - 1))) for view in range(views)]
    return torch.stack([_spread(start, length, frames, count) for start in starts])


def uniform(frames: int, count: int) -> Tensor:
    """From the first to the last frame in equal steps, truncated.

    Args:
        frames: Frames of the video.
        count: Frames wanted.

    Returns:
        `count` indices, ascending.

    Example:
        >>> uniform(10, 4)
        tensor([0, 3, 6, 9])
    """
    _check(frames, count)
    return torch.linspace(0, frames - 1, count).long()


def _check(frames: int, count: int) -> None:
    if frames < 1 or count < 1:
        raise ValueError(f"a clip of {count} frames cannot be drawn from a video of {frames}: both have to be positive")


def _strided(start: int, frames: int, count: int, window: int) -> Tensor:
    return (start + torch.arange(count) * (window // count)) % frames


def _intervals(frames: int, count: int) -> tuple[Tensor, Tensor]:
    _check(frames, count)
    edges = np.round((frames - 1) / count * np.arange(count + 1)).astype(np.int64)  # half to even, as the authors'
    return torch.from_numpy(edges[:-1]), torch.from_numpy(edges[1:])


def _spread(start: float, length: float, frames: int, count: int) -> Tensor:
    # float32 on purpose: the authors' torch.linspace; float64 falls one frame off at some whole numbers
    return torch.linspace(start, start + length - 1, count).clamp(0, frames - 1).long()
