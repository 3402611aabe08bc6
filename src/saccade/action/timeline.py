"""What a network says over the length of a video, and the picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor, nn

from saccade.data.clips import ClipSampler
from saccade.data.figures import to_pixels
from saccade.data.transforms import EvalTransform
from saccade.data.video import FrameSource
from saccade.nn.input_spec import InputSpec

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b0568f", "#8a6d00", "#3a9bd9", "#7a52c7", "#5c5c5c")
"""Colours that people with any colour vision tell apart, dark enough for white text."""


@dataclass(frozen=True)
class Timeline:
    """Probabilities of clips that slide over a video.

    Attributes:
        start: Where each clip begins, in seconds.
        end: Where it ends.
        probabilities: Of the classes, by clip.
        duration: Of the video, in seconds.
        thumbnails: Frames from the middles of equal parts of the video.
    """

    start: Float[Tensor, " n"]
    end: Float[Tensor, " n"]
    probabilities: Float[Tensor, "n k"]
    duration: float
    thumbnails: UInt8[Tensor, "m 3 h w"]


def sampler_of(spec: InputSpec) -> ClipSampler:
    """Args: `spec`, what a model is fed. Returns: how clips of a validation are drawn for it."""
    return ClipSampler("segment", spec.frames) if spec.stride is None else ClipSampler("clip", spec.frames, spec.stride)


def window_frames(spec: InputSpec, fps: float, window: float | None) -> int:
    """How many frames of a video a sliding clip spans.

    Args:
        spec: What the model is fed.
        fps: Frame rate of the video.
        window: Seconds; `None`: as long as the model's clips are at their stride, which counts at 30 frames a second;
            2 seconds for models without a stride, which see a whole video in segments.

    Returns:
        At least 1.

    Raises:
        ValueError: A window that is not positive.

    Example:
        >>> window_frames(InputSpec(frames=8, stride=8), 15.0, None), window_frames(InputSpec(), 15.0, None)
        (32, 30)
    """
    if window is None:
        window = 2.0 if spec.stride is None else spec.frames * spec.stride / 30
    if not window > 0:
        raise ValueError(f"the window has to be longer than 0 seconds, not {window:g}")
    return max(round(window * fps), 1)


def slide(
    network: nn.Module,
    source: FrameSource,
    spec: InputSpec,
    *,
    window: float | None = None,
    step: float | None = None,
    batch: int = 4,
    thumbnails: int = 8,
    device: str = "cpu",
) -> Timeline:
    """Classify clips that slide over a video, from its first frame to its last.

    Args:
        network: Maps clips (b, c, t, h, w) to probabilities (b, k).
        source: The video.
        spec: What the network is fed.
        window: Length of a clip in seconds; `None`: see [`window_frames`][saccade.action.timeline.window_frames]. A
            window longer than the video is the whole video.
        step: From one clip to the next in seconds; `None`: half a window.
        batch: Clips at a time; their frames are decoded together.
        thumbnails: How many frames to keep for the picture.
        device: Where to compute.

    Returns:
        The timeline. The last clip ends with the video.

    Raises:
        ValueError: A window or step that is not positive.
        VideoError: A frame that cannot be decoded.
    """
    count, fps = len(source), source.fps
    span = min(window_frames(spec, fps, window), count)
    if step is not None and not step > 0:
        raise ValueError(f"the step has to be longer than 0 seconds, not {step:g}")
    stride = max(span // 2 if step is None else round(step * fps), 1)
    starts = list(range(0, count - span + 1, stride))
    if starts[-1] + span < count:
        starts.append(count - span)
    inside = sampler_of(spec).test(span, fps)[0].clamp(0, span - 1)
    transform = EvalTransform(spec)
    found = []
    for first in range(0, len(starts), batch):
        indices = torch.tensor(starts[first : first + batch])[:, None] + inside
        needed, place = indices.unique(return_inverse=True)
        frames = source.read(needed)
        clips = torch.cat([transform(frames[one]) for one in place])
        with torch.no_grad():
            found.append(network(clips.to(device)).float().cpu())
    begin = torch.tensor(starts, dtype=torch.float32)
    parts = max(thumbnails, 1)
    shown = source.read(((torch.arange(parts) + 0.5) * count / parts).long())
    return Timeline(begin / fps, (begin + span) / fps, torch.cat(found), count / fps, shown)


def timeline_picture(
    timeline: Timeline, names: Sequence[str], *, top_k: int = 5, title: str = ""
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a timeline: frames along the axis, the likeliest class as a strip, and a band for each of the top classes.

    Each clip colours the time nearest to its centre. The classes are those with the highest mean probability and those
    that are likeliest somewhere, `top_k` at most; a band's colour fades with the probability, and the number is printed
    where there is room.

    Args:
        timeline: Of `slide`.
        names: Of the classes, by id.
        top_k: How many bands.
        title: Above the picture.

    Returns:
        The picture.

    Raises:
        ValueError: Names of another number of classes, or no bands.
    """
    probabilities = timeline.probabilities.numpy()
    if len(names) != probabilities.shape[1]:
        raise ValueError(f"{len(names)} names for {probabilities.shape[1]} classes")
    if top_k < 1:
        raise ValueError(f"top_k has to be at least 1, not {top_k}")
    edges, rows = _edges(timeline), _rows(probabilities, top_k)
    colours = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(rows)}
    height = 2.55 + 0.36 * len(rows)
    figure = Figure(figsize=(11, height), dpi=110, facecolor="white")
    widest = max(len(_short(names[label])) for label in rows)
    left = min(0.022 + 0.0068 * max(widest, 9), 0.26)
    place = {"left": left, "right": 0.925, "top": 1 - 0.42 / height, "bottom": 0.5 / height, "hspace": 0.12}
    pictures, strip, bands = figure.subplots(
        3, 1, sharex=True, gridspec_kw={**place, "height_ratios": [1.1, 0.36, 0.36 * len(rows)]}
    )
    _draw_thumbnails(pictures, timeline)
    best = probabilities.argmax(1)
    for clip, label in enumerate(best):
        strip.axvspan(edges[clip], edges[clip + 1], color=colours.get(int(label), "#c8c8c8"), linewidth=0)
    for first, last in _runs(best):
        _fit(strip, names[int(best[first])], edges[first], edges[last + 1], timeline.duration, bold=True)
    strip.set_yticks([0.5], ["likeliest"], fontsize=9, fontweight="bold")
    strip.set_ylim(0, 1)
    numbers = np.median(np.diff(edges)) > 0.028 * timeline.duration
    for row, label in enumerate(rows):
        for clip, share in enumerate(probabilities[:, label]):
            # the band is white at 0 and the class's full colour at 1
            shade = 1 - float(share) * (1 - np.array(to_rgb(colours[label])))
            bands.fill_between(edges[clip : clip + 2], row + 0.05, row + 0.95, color=shade, linewidth=0)
            if numbers and share >= 0.005:
                middle = (edges[clip] + edges[clip + 1]) / 2
                ink = "white" if share > 0.55 else "#333333"
                bands.text(middle, row + 0.52, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5, color=ink)
        mean = float(probabilities[:, label] @ np.diff(edges)) / timeline.duration
        bands.text(1.008, row + 0.5, f"{mean:.0%}", transform=bands.get_yaxis_transform(), va="center", fontsize=8.5)
    bands.text(1.008, -0.12, "mean", transform=bands.get_yaxis_transform(), va="bottom", fontsize=8, color="#666666")
    bands.set_yticks(np.arange(len(rows)) + 0.5, [_short(names[label]) for label in rows], fontsize=9)
    for tick, label in zip(bands.get_yticklabels(), rows, strict=True):
        tick.set_color(colours[label])
    bands.set_ylim(len(rows), 0)
    bands.set_xlim(0, timeline.duration)
    bands.set_xlabel("seconds", fontsize=9)
    bands.tick_params(axis="x", labelsize=8.5)
    for axis in (strip, bands):
        axis.tick_params(axis="y", length=0)
        for side in axis.spines.values():
            side.set_visible(False)
    bands.spines["bottom"].set_visible(True)
    strip.tick_params(axis="x", length=0, labelbottom=False)
    figure.text(left, 1 - 0.2 / height, title, fontsize=11, fontweight="bold", va="center")
    length = float(timeline.end[0] - timeline.start[0])
    about = (
        f"{len(best)} clip{'s' * (len(best) != 1)} of {length:.3g} s{'; numbers: probability in %' if numbers else ''}"
    )
    figure.text(0.925, 1 - 0.2 / height, about, fontsize=8.5, color="#666666", ha="right", va="center")
    return to_pixels(figure)


def _edges(timeline: Timeline) -> np.ndarray:
    """Where the time that each clip colours begins, and the end of the video: half-way between centres."""
    centre = ((timeline.start + timeline.end) / 2).double().numpy()
    return np.concatenate([[0.0], (centre[1:] + centre[:-1]) / 2, [timeline.duration]])


def _rows(probabilities: np.ndarray, top_k: int) -> list[int]:
    """The classes to draw: those likeliest somewhere, then those with the highest mean; in the order of the mean."""
    mean = probabilities.mean(0)
    wins = np.bincount(probabilities.argmax(1), minlength=len(mean))  # in how many clips it is the likeliest
    chosen = sorted(range(len(mean)), key=lambda label: (-wins[label], -mean[label]))[:top_k]
    return sorted(chosen, key=lambda label: -mean[label])


def _runs(best: np.ndarray) -> list[tuple[int, int]]:
    """First and last clip of each stretch with the same class."""
    changes = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
    return [(first, after - 1) for first, after in pairwise(changes)]


def _fit(axis: matplotlib.axes.Axes, text: str, start: float, end: float, duration: float, bold: bool) -> None:
    """Write a name where it has room."""
    room = int(118 * (end - start) / duration)
    if room >= min(len(text), 4):
        text = text if len(text) <= room else f"{text[: max(room - 1, 1)]}…"
        weight = "bold" if bold else "normal"
        axis.text((start + end) / 2, 0.47, text, ha="center", va="center", fontsize=8.5, color="white", weight=weight)


def _draw_thumbnails(axis: matplotlib.axes.Axes, timeline: Timeline) -> None:
    """Frames side by side, each over the time it was taken from."""
    frames = timeline.thumbnails.permute(0, 2, 3, 1).numpy()
    count = len(frames)
    box = axis.get_window_extent()
    aspect = (box.width / count) / box.height
    for i, frame in enumerate(frames):
        h, w = frame.shape[:2]
        share = min((w / h) / aspect, 0.98)  # of the cell's width
        tall = share * aspect / (w / h)  # of the row's height
        cell = timeline.duration / count
        left = i * cell + cell * (1 - share) / 2
        axis.imshow(
            frame,
            extent=(left, left + cell * share, 0.5 - tall / 2, 0.5 + tall / 2),
            aspect="auto",
            interpolation="antialiased",
        )
    axis.set_ylim(0, 1)
    axis.axis("off")


def _short(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"
