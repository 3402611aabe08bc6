"""Video data sets: records, readers of plain layouts, and a data set that survives corrupt clips.

A clip that cannot be read (corrupt, truncated, without frames, gone) never ends an epoch. In training the next readable
clip takes its place, so that batches keep their size in every process; in evaluation it is left out. Either way its
path is in the batch's `skipped`, and the task reports the count; `strict=True` raises instead. A video shorter than the
clip is no error: the sampling rule repeats frames as its documentation says.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from saccade.data import sampling
from saccade.data.video import ArrayClip, FrameFolder, FrameSource, VideoError, VideoReader

VIDEO_SUFFIXES = (".mp4", ".avi", ".webm", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".npy", ".pt")


@dataclass(frozen=True)
class ClipRecord:
    """One labelled clip.

    Args:
        path: Video file, folder of frames, or array file.
        label: Class, -1 where unknown; or several, such as verb and noun.
        frames: Number of frames of a folder, where a list says it.
        template: Names of a folder's frames.
        fps: Frame rate of a folder's frames.
        first: Number of the clip's first frame in a folder.
        seconds: Where in the video the clip begins and ends; `None`: it is the whole video.
    """

    path: Path
    label: int | tuple[int, ...] = -1
    frames: int | None = None
    template: str = "img_{:05d}.jpg"
    fps: float = 12.0
    first: int = 1
    seconds: tuple[float, float] | None = None


class Excerpt:
    """A part of a video, as a video.

    Args:
        source: The video.
        seconds: Where the part begins and ends.
        name: Of the video, for messages.

    Raises:
        VideoError: The part begins after the end of the video.
    """

    def __init__(self, source: FrameSource, seconds: tuple[float, float], name: str | Path = "the video") -> None:
        self.source, self.fps = source, source.fps
        self.start = round(seconds[0] * source.fps)
        self.stop = min(max(round(seconds[1] * source.fps), self.start + 1), len(source))
        if self.start >= len(source):
            raise VideoError(f"{name} ends after {len(source) / source.fps:.1f} s, before {seconds[0]:.1f} s begin")

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Args: `indices`, frame numbers from 0 within the part. Returns: (t, 3, h, w) uint8 RGB."""
        outside = [int(i) for i in indices if not 0 <= int(i) < len(self)]
        if outside:
            raise IndexError(f"the part has frames 0 to {len(self) - 1}, not {outside[0]}")
        return self.source.read([self.start + int(i) for i in indices])

    def close(self) -> None:
        """Give the file back."""
        close_clip(self.source)


def open_clip(record: ClipRecord) -> FrameSource:
    """Open what a record names.

    Args:
        record: The clip.

    Returns:
        Its frames by number.

    Raises:
        FileNotFoundError: It is not there.
        VideoError: It cannot be read.
    """
    source = _open_whole(record)
    if record.seconds is None:
        return source
    try:
        return Excerpt(source, record.seconds, record.path)
    except VideoError:
        close_clip(source)
        raise


def close_clip(source: FrameSource) -> None:
    """Give a file back, where there is one open.

    Args:
        source: Of `open_clip`.
    """
    if isinstance(source, VideoReader | Excerpt):
        source.close()


def _open_whole(record: ClipRecord) -> FrameSource:
    if record.path.is_dir():
        return FrameFolder(record.path, record.frames, record.template, record.first, record.fps)
    if record.path.suffix in (".npy", ".pt"):
        return ArrayClip(record.path)
    return VideoReader(record.path)


@dataclass(frozen=True)
class ClipSampler:
    """Which frames are drawn, in training and in evaluation.

    Args:
        rule: `segment` (TSN), `dense` (I3D: a window of 64 frames), `interval` (SlowFast's Something-Something) or
            `clip` (SlowFast's Kinetics).
        frames: Frames in a clip.
        stride: From one frame to the next, for `clip`.
        views: Clips a video in test; `segment` and `interval` have 1, `segment` also 2.

    Example:
        >>> ClipSampler("segment", frames=4).test(20, fps=30.0)
        tensor([[ 2,  7, 12, 17]])
    """

    rule: Literal["segment", "dense", "interval", "clip"] = "segment"
    frames: int = 8
    stride: int = 8
    views: int = 1

    def __post_init__(self) -> None:
        if self.rule not in ("segment", "dense", "interval", "clip"):
            raise ValueError(f"the rules are segment, dense, interval and clip, not {self.rule!r}")
        if self.frames < 1 or self.stride < 1 or self.views < 1:
            raise ValueError(f"frames, stride and views have to be positive: {self}")
        most = {"segment": 2, "interval": 1}.get(self.rule, self.views)
        if self.views > most:
            raise ValueError(f"the rule {self.rule!r} gives at most {most} clip(s) a video, not {self.views}")

    def train(self, frames: int, fps: float) -> Tensor:
        """Args: `frames` of the video and its `fps`. Returns: one clip's indices (t,), drawn at random."""
        if self.rule == "segment":
            return sampling.segment_random(frames, self.frames)
        if self.rule == "dense":
            return sampling.dense_random(frames, self.frames)
        if self.rule == "interval":
            return sampling.interval_random(frames, self.frames)
        return sampling.clip_random(frames, self.frames, self.stride, fps)

    def test(self, frames: int, fps: float, views: int | None = None) -> Tensor:
        """Args: `frames` of the video, its `fps`, `views` if others. Returns: indices (v, t), always the same."""
        views = views or self.views
        if self.rule == "segment":
            both = sampling.segment_twice(frames, self.frames)
            return both[:views]
        if self.rule == "dense" and views == 1:
            return sampling.dense_views(frames, self.frames, 3)[1:2]
        if self.rule == "dense":
            return sampling.dense_views(frames, self.frames, views)
        if self.rule == "interval":
            return sampling.interval_center(frames, self.frames)[None]
        return sampling.clip_views(frames, self.frames, self.stride, views, fps, reach_end=views == 1)


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips of labelled videos.

    A sample is a dict: `video` (v, c, t, h, w), `label`, `index` of the record, and `skipped`, the paths of clips that
    could not be read on the way to it. In evaluation an unreadable clip gives a sample without `video`, which
    [`collate_clips`][saccade.data.clips.collate_clips] leaves out.

    Args:
        records: The clips.
        sampler: Which frames.
        transform: In training `(frames, label) -> (clip (c, t, h, w), label)`, in evaluation
            `frames -> views (v, c, t, h, w)`; frames are uint8 (t, 3, h, w).
        train: Which of the two.
        views: Clips a video in evaluation; the sampler's own number where `None`.
        strict: Raise on a clip that cannot be read.

    Raises:
        ValueError: No records.
    """

    def __init__(
        self,
        records: Sequence[ClipRecord],
        sampler: ClipSampler,
        transform: Callable[..., Any],
        *,
        train: bool,
        views: int | None = None,
        strict: bool = False,
    ) -> None:
        if not records:
            raise ValueError("the list of clips is empty")
        self.records, self.sampler, self.transform = list(records), sampler, transform
        self.train, self.views, self.strict = train, views, strict

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample at `index`, or in training that of the next clip that can be read."""
        skipped: list[str] = []
        for step in range(len(self.records) if self.train else 1):
            place = (index + step) % len(self.records)
            try:
                return {**self._load(place), "skipped": skipped}
            except (VideoError, OSError) as error:
                if self.strict:
                    raise VideoError(f"clip {place}: {error}") from error
                skipped.append(str(self.records[place].path))
        if self.train:
            raise VideoError(f"none of the {len(self.records)} clips can be read; the first is {self.records[0].path}")
        return {"index": index, "skipped": skipped}

    def _load(self, place: int) -> dict[str, Any]:
        record = self.records[place]
        source = open_clip(record)
        try:
            sample = draw_clip(source, record.label, self.sampler, self.transform, self.train, self.views)
            return {**sample, "index": place}
        finally:
            close_clip(source)


def draw_clip(
    source: FrameSource,
    label: Any,
    sampler: ClipSampler,
    transform: Callable[..., Any],
    train: bool,
    views: int | None = None,
) -> dict[str, Any]:
    """Draw a training clip, or the views of an evaluation, from a video.

    Args:
        source: The video.
        label: Its label.
        sampler: Which frames.
        transform: As [`ClipDataset`][saccade.data.clips.ClipDataset] takes it.
        train: Which of the two.
        views: Clips a video in evaluation; the sampler's own number where `None`.

    Returns:
        `video` (v, c, t, h, w) and `label`.

    Raises:
        VideoError: A frame that cannot be decoded.
    """
    if train:
        clip, label = transform(source.read(sampler.train(len(source), source.fps)), label)
        return {"video": clip[None], "label": label}
    indices = sampler.test(len(source), source.fps, views)
    frames = source.read(indices.flatten())
    return {"video": torch.cat([transform(clip) for clip in frames.unflatten(0, indices.shape)]), "label": label}


def collate_clips(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Join samples to a batch, without those that could not be read.

    Args:
        samples: Of a `ClipDataset`.

    Returns:
        `video` (b, v, c, t, h, w), `label` (b,) or (b, labels), `index` (b,), and `skipped`, a list of paths. Where
        no clip of the batch could be read, the tensors are empty.
    """
    read = [sample for sample in samples if "video" in sample]
    return {
        "video": torch.stack([sample["video"] for sample in read]) if read else torch.zeros(0),
        "label": torch.tensor([sample["label"] for sample in read], dtype=torch.int64),
        "index": torch.tensor([sample["index"] for sample in read], dtype=torch.int64),
        "skipped": [path for sample in samples for path in sample["skipped"]],
    }


def existing(records: Iterable[ClipRecord], what: str, strict: bool = False) -> list[ClipRecord]:
    """Those records whose file or folder is there; the others are counted in a warning.

    Args:
        records: The clips.
        what: Whose they are, for the message.
        strict: Raise where one is missing.

    Returns:
        The records that are there.

    Raises:
        FileNotFoundError: None is there, or one is missing and `strict`; the first missing paths are listed.
    """
    there: list[ClipRecord] = []
    missing: list[ClipRecord] = []
    for record in records:
        (there if record.path.exists() else missing).append(record)
    if missing:
        first = ", ".join(str(record.path) for record in missing[:3])
        message = f"{what}: {len(missing)} of {len(missing) + len(there)} clips are not there, such as {first}"
        if strict or not there:
            raise FileNotFoundError(message)
        warnings.warn(f"{message}; they are skipped", stacklevel=2)
    return there


def scan_folder(root: str | Path) -> tuple[list[ClipRecord], list[str]]:
    """A folder with one folder of videos a class; class ids in alphabetical order.

    Args:
        root: The folder.

    Returns:
        The clips, and the names of the classes.

    Raises:
        FileNotFoundError: No such folder, or no videos in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of videos at {root}")
    classes = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    records = [
        ClipRecord(path, label)
        for label, name in enumerate(classes)
        for path in sorted((root / name).iterdir())
        if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES
    ]
    if not records:
        raise FileNotFoundError(f"{root} holds no videos in folders named after their classes")
    return records, classes


def read_csv(file: str | Path, root: str | Path | None = None, separator: str | None = None) -> list[ClipRecord]:
    """A list with `path label` on each line, as SlowFast's for Kinetics.

    Args:
        file: The list. Empty lines are passed over.
        root: What paths are relative to; the list's own folder where `None`.
        separator: Between path and label; where `None` the last comma or blank of the line.

    Returns:
        The clips.

    Raises:
        FileNotFoundError: No such list.
        ValueError: A malformed line; the message has its file and number.
    """
    file = Path(file)
    root = file.parent if root is None else Path(root)
    records = []
    for number, line in numbered_lines(file):
        at = separator or ("," if "," in line else None)
        parts = line.rsplit(at, 1)
        label = _integer(parts[-1]) if len(parts) == 2 else None
        if label is None or label < 0:
            raise ValueError(f"{file}, line {number}: expected 'path label' with a class id from 0, found {line!r}")
        records.append(ClipRecord(root / parts[0].strip(), label))
    return records


def read_frame_list(
    file: str | Path, root: str | Path, template: str = "img_{:05d}.jpg", fps: float = 12.0
) -> list[ClipRecord]:
    """TSN's list: `frame_folder num_frames label` on each line.

    Args:
        file: The list. Empty lines are passed over.
        root: What folders are relative to.
        template: Names of the frames, counted from 1.
        fps: Frame rate they were taken at.

    Returns:
        The clips.

    Raises:
        FileNotFoundError: No such list.
        ValueError: A malformed line; the message has its file and number.
    """
    records = []
    for number, line in numbered_lines(Path(file)):
        parts = line.rsplit(maxsplit=2)
        frames, label = (_integer(part) for part in (parts[1:] if len(parts) == 3 else ("", "")))
        if frames is None or label is None or frames < 0 or label < 0:
            raise ValueError(f"{file}, line {number}: expected 'folder num_frames label', found {line!r}")
        records.append(ClipRecord(Path(root) / parts[0], label, frames, template, fps))
    return records


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers from 1.

    Args:
        file: The file.

    Yields:
        Number and line, without blanks at either end.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no text.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no list at {file}")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.strip()


def _integer(text: str) -> int | None:
    try:
        return int(text.strip())
    except ValueError:
        return None
