"""Clips in tar shards, for sets that outgrow one disk: written once, then read as streams.

A shard is a tar in WebDataset's form. A clip is the members `KEY.json` (or `KEY.cls`) with its label, and `KEY.mp4` (or
another suffix of a video or array) with the file's bytes, or `KEY.00001.jpg` and so on for a folder of frames. Shards
that others wrote in this form are read as well, from disks or from URLs that `webdataset` opens.
"""

from __future__ import annotations

import io
import json
import math
import random
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from saccade.data.clips import (
    VIDEO_SUFFIXES,
    ClipRecord,
    ClipSampler,
    Excerpt,
    close_clip,
    draw_clip,
    open_clip,
)
from saccade.data.loading import mix, seeded
from saccade.data.video import ArrayClip, FrameSource, VideoError, VideoReader

INDEX = "shards.json"
"""Beside the shards: how many clips each holds, and the classes."""

PLACES = 2**20
"""A clip's `index` is the number of its shard times this, plus its place in the shard."""

Member = dict[str, Any]


@dataclass(frozen=True)
class ShardIndex:
    """What is known of shards without opening them.

    Args:
        shards: File name to number of clips.
        classes: Names of the classes, by id.
        mirrored: Class to the class of the mirrored clip.
        skipped: Files that could not be read when the shards were written.
    """

    shards: dict[str, int]
    classes: list[str] = field(default_factory=list)
    mirrored: dict[int, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def write_shards(
    records: Sequence[ClipRecord],
    folder: str | Path,
    *,
    classes: Sequence[str] = (),
    mirrored: Mapping[int, int] | None = None,
    most_clips: int = 1000,
    most_bytes: int = 2**30,
    seed: int | None = 0,
) -> ShardIndex:
    """Write clips of any layout to `shard-000000.tar` and so on, with an index `shards.json`.

    The same records give the same bytes. Files are copied, not encoded anew; a record that is a part of a video is
    stored with the whole video. Records that are not there are left out and named in a warning and in the index.

    Args:
        records: The clips, such as `ActionData("ucf101", root).split("train").records`.
        folder: Where the shards go; it must not hold any.
        classes: Names of the classes.
        mirrored: Class to the class of the mirrored clip.
        most_clips: Clips in a shard.
        most_bytes: A shard is closed once it is larger.
        seed: Of the order; `None`: as the records are. Training mixes only within and among shards, so that records
            sorted by class should not stay so.

    Returns:
        The index.

    Raises:
        ValueError: No records, or limits below 1.
        FileExistsError: The folder holds shards.
        FileNotFoundError: None of the records is there.

    Example:
        >>> write_shards([], "nowhere")
        Traceback (most recent call last):
        ValueError: the list of clips is empty
    """
    if not records:
        raise ValueError("the list of clips is empty")
    if most_clips < 1 or most_bytes < 1:
        raise ValueError(f"most_clips and most_bytes have to be positive, not {most_clips} and {most_bytes}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if next(folder.glob("shard-*.tar"), None) is not None:
        raise FileExistsError(f"{folder} holds shards already")
    order = list(range(len(records)))
    if seed is not None:
        random.Random(mix(seed)).shuffle(order)
    index = ShardIndex({}, list(classes), dict(mirrored or {}))
    clips = _stored(records, order, index.skipped)
    for first in clips:
        path = folder / f"shard-{len(index.shards):06d}.tar"
        count = 0
        with tarfile.open(path.with_suffix(".part"), "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, members in chain([first], clips):
                for name, content in members.items():
                    info = tarfile.TarInfo(f"{number:09d}.{name}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                count += 1
                if count >= most_clips or tar.offset >= most_bytes:
                    break
        path.with_suffix(".part").rename(path)
        index.shards[path.name] = count
    if not index.shards:
        raise FileNotFoundError(f"none of the {len(records)} clips is there, such as {index.skipped[0]}")
    if index.skipped:
        some = ", ".join(index.skipped[:3])
        warnings.warn(
            f"{len(index.skipped)} of {len(records)} clips are not there, such as {some}; they are left out",
            stacklevel=2,
        )
    (folder / INDEX).write_text(json.dumps(asdict(index), indent=1), encoding="utf-8")
    return index


def read_index(file: str | Path) -> ShardIndex:
    """The index beside shards.

    Args:
        file: `shards.json`.

    Returns:
        The index.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not such an index.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        shards = {str(name): int(count) for name, count in content["shards"].items()}
        mirrored = {int(a): int(b) for a, b in content.get("mirrored", {}).items()}
        return ShardIndex(shards, list(content.get("classes", ())), mirrored, list(content.get("skipped", ())))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} is not an index of shards: {error}") from None


def expand_shards(pattern: str | Path) -> list[str]:
    """The shards that a pattern names.

    Args:
        pattern: A folder, a file, or a name with braces such as `/disk{1,2}/shard-{000000..000123}.tar`; or a URL.

    Returns:
        Files or URLs, in the order of the pattern.

    Raises:
        FileNotFoundError: Files that are not there; the first are named.
        ImportError: `webdataset` is not installed.
    """
    if Path(pattern).is_dir():
        found = sorted(map(str, Path(pattern).glob("*.tar")))
        if not found:
            raise FileNotFoundError(f"no shards such as {Path(pattern) / 'shard-000000.tar'}")
        return found
    shards: list[str] = _webdataset().shardlists.expand_urls(str(pattern))
    missing = [shard for shard in shards if is_local(shard) and not Path(shard).is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(shards)} shards are not there, such as {missing[0]}")
    return shards


def is_local(shard: str) -> bool:
    """Args: `shard`. Returns: whether it is a file, and not a URL such as `https:` or `pipe:`."""
    return ":" not in shard.partition("/")[0] or Path(shard).exists()


def count_clips(shard: str) -> int:
    """How many clips a shard on a disk holds, by its members' names alone.

    Args:
        shard: The tar.

    Returns:
        The number; a damaged tar is counted up to the damage.
    """
    keys = set()
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                keys.add((folder, name.partition(".")[0]))
    except (tarfile.TarError, EOFError):
        pass
    return len(keys)


class ShardClips(IterableDataset[dict[str, Any]]):
    """Clips out of shards, as [`ClipDataset`][saccade.data.clips.ClipDataset] gives them, but as a stream.

    Every worker of every process reads shards of its own. In training, the order of shards and of clips within a buffer
    and the augmentation are functions of (seed, epoch, number of streams); a clip that cannot be read gives its place
    to the next one that can. All processes see the same number of batches: a stream whose shards end early begins
    anew. In evaluation each clip comes once, in order, and one that cannot be read leaves a sample without `video`.
    The paths in `skipped` read `SHARD:KEY`; a shard that is damaged is left at the damage and named itself.

    Args:
        shards: Files or URLs.
        sampler: Which frames.
        transform: As for `ClipDataset`.
        train: Which of the two.
        samples: Clips of a training epoch, over all processes.
        batch_size: Clips a step and a process.
        views: Clips a video in evaluation; the sampler's own number where `None`.
        buffer: Undecoded clips among which a stream draws the next in training.
        seed: Of order and augmentation.
        strict: Raise on a clip that cannot be read.
        epoch: The first epoch.
        start: Batches of it that were seen before.

    Raises:
        ValueError: No shards, or numbers that make no batch.
        ImportError: `webdataset` is not installed.
    """

    def __init__(
        self,
        shards: Sequence[str],
        sampler: ClipSampler,
        transform: Callable[..., Any],
        *,
        train: bool,
        samples: int = 0,
        batch_size: int = 1,
        views: int | None = None,
        buffer: int = 100,
        seed: int = 0,
        strict: bool = False,
        epoch: int = 0,
        start: int = 0,
    ) -> None:
        if not shards:
            raise ValueError("the list of shards is empty")
        if batch_size < 1 or buffer < 1:
            raise ValueError(f"batch_size and buffer have to be positive, not {batch_size} and {buffer}")
        _webdataset()
        self.shards, self.sampler, self.transform, self.train = list(shards), sampler, transform, train
        self.views, self.buffer, self.seed, self.strict = views, buffer, seed, strict
        ready = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if ready else 0
        self.world = torch.distributed.get_world_size() if ready else 1
        self.batch_size, self.epoch, self.start = batch_size, epoch, start
        self.steps = samples // (self.world * batch_size)
        if train and self.steps < 1:
            raise ValueError(f"{samples} clips do not make one batch of {batch_size} in each of {self.world} processes")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The samples of this worker in the epoch at hand."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if not self.train:
            return self._evaluation(self.rank * workers + number, self.world * workers)
        # batch `start + i` of the epoch is batch i of this loader: worker 0 goes on where that batch's stream stopped
        number = (number + self.start) % workers
        batches = len(range(number, self.steps, workers))
        done = len(range(number, self.start, workers))
        if len(self.shards) < self.world * workers:
            raise ValueError(
                f"{len(self.shards)} shards cannot feed {self.world} processes with {workers} workers each: "
                "every one needs a shard of its own"
            )
        stream = self.rank * workers + number
        return self._training(stream, self.world * workers, self.epoch, done * self.batch_size, batches)

    def advance(self) -> None:
        """On to the next epoch, for iterators that are made from now on."""
        self.epoch, self.start = self.epoch + 1, 0

    def _evaluation(self, stream: int, streams: int) -> Iterator[dict[str, Any]]:
        for number in range(stream, len(self.shards), streams):
            damaged: list[str] = []
            for place, member in enumerate(self._read(number, damaged)):
                index = number * PLACES + place
                try:
                    yield {**self._draw(member), "index": index, "skipped": damaged[:]}
                except VideoError as error:
                    yield {"index": index, "skipped": [*damaged, self._failed(member, error)]}
                damaged.clear()
            if damaged:
                yield {"index": number * PLACES, "skipped": damaged}

    def _training(self, stream: int, streams: int, epoch: int, done: int, batches: int) -> Iterator[dict[str, Any]]:
        quota = batches * self.batch_size
        skipped: list[str] = []
        waiting: list[int] = []  # places in the stream whose own clip could not be read
        good_lap = 0
        for slot, (lap, member) in enumerate(self._endless(stream, streams, epoch, skipped)):
            if slot >= quota and not waiting:
                return
            if slot < done:
                good_lap = lap
                continue
            if lap > good_lap + 1:
                raise VideoError(f"no clip of the shards can be read; the first is {skipped[0]}")
            if slot < quota:
                waiting.append(slot)
            for place in waiting[:]:
                try:
                    with seeded(mix(self.seed, epoch, stream, place)):
                        sample = self._draw(member)
                except VideoError as error:
                    skipped.append(self._failed(member, error))
                    break
                yield {**sample, "index": member["index"], "skipped": skipped[:]}
                skipped.clear()
                waiting.remove(place)
                good_lap = lap

    def _endless(self, stream: int, streams: int, epoch: int, damaged: list[str]) -> Iterator[tuple[int, Member]]:
        """The stream's members, shuffled, over and over; each time round the shards are dealt out anew."""
        lap = 0
        while True:
            order = list(range(len(self.shards)))
            random.Random(mix(self.seed, epoch, lap)).shuffle(order)
            draw = random.Random(mix(self.seed, epoch, lap, stream))
            kept: list[Member] = []
            empty = True
            for number in order[stream::streams]:
                for place, member in enumerate(self._read(number, damaged)):
                    empty = False
                    kept.append({**member, "index": number * PLACES + place})
                    if len(kept) >= self.buffer:
                        yield lap, kept.pop(draw.randrange(len(kept)))
            draw.shuffle(kept)
            for member in kept:
                yield lap, member
            if empty:
                raise VideoError(f"the shards hold no clips, such as {self.shards[order[stream]]}")
            lap += 1

    def _read(self, number: int, damaged: list[str]) -> Iterator[Member]:
        """The members of a shard, grouped by key."""
        stages, shard = _webdataset().tariterators, self.shards[number]

        def note(error: Exception) -> bool:
            if self.strict:
                raise error if isinstance(error, VideoError) else VideoError(f"{shard} is damaged: {error}") from error
            if shard not in damaged:
                damaged.append(shard)
            return True

        opened = stages.url_opener([{"url": shard}], handler=note)
        yield from stages.group_by_keys(stages.tar_file_expander(opened, handler=note), handler=note)

    def _draw(self, member: Member) -> dict[str, Any]:
        name = f"{member['__url__']}:{member['__key__']}"
        about = _about(member, name)
        source = _open_member(member, about, name)
        try:
            return draw_clip(source, about["label"], self.sampler, self.transform, self.train, self.views)
        finally:
            close_clip(source)

    def _failed(self, member: Member, error: VideoError) -> str:
        if self.strict:
            raise error
        return f"{member['__url__']}:{member['__key__']}"


class ShardLoader(DataLoader[Any]):
    """Training batches of [`ShardClips`][saccade.data.shards.ShardClips]: each pass over it is the next epoch.

    Args:
        clips: In training mode; its batch size is used.
        num_workers: Processes that decode.
        collate: Joins samples.
    """

    def __init__(
        self, clips: ShardClips, num_workers: int = 0, collate: Callable[[list[Any]], Any] | None = None
    ) -> None:
        pin = torch.cuda.is_available()
        super().__init__(clips, clips.batch_size, num_workers=num_workers, collate_fn=collate, pin_memory=pin)
        self.clips = clips

    def __iter__(self) -> Any:
        """The batches of the epoch at hand, from where a resumed run stopped."""
        batches = super().__iter__()  # workers and their streams are set up here
        self.clips.advance()
        return batches

    def __len__(self) -> int:
        """Batches of a whole epoch in this process."""
        return self.clips.steps


class _FrameBytes:
    """Frames as encoded images in memory."""

    def __init__(self, images: Sequence[bytes], fps: float, name: str) -> None:
        self.images, self.fps, self.name = images, fps, name

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Args: `indices`, frame numbers from 0. Returns: (t, 3, h, w) uint8 RGB."""
        wanted = [int(i) for i in indices]
        frames: dict[int, Tensor] = {}
        for i in set(wanted):
            try:
                with Image.open(io.BytesIO(self.images[i])) as image:
                    frames[i] = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
            except (OSError, SyntaxError, ValueError) as error:
                raise VideoError(f"frame {i} of {self.name} cannot be read: {error}") from None
        if len({frame.shape for frame in frames.values()}) > 1:
            raise VideoError(f"frames of {self.name} differ in size")
        return torch.stack([frames[i] for i in wanted]).contiguous()


def _stored(
    records: Sequence[ClipRecord], order: Sequence[int], skipped: list[str]
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Number and members of each record that can be read."""
    for number, place in enumerate(order):
        try:
            yield number, _members(records[place])
        except (OSError, VideoError):
            skipped.append(str(records[place].path))


def _members(record: ClipRecord) -> dict[str, bytes]:
    """What a record becomes in a shard, by what follows the key's dot."""
    about: dict[str, Any] = {"label": record.label, "name": record.path.name}
    files: dict[str, bytes] = {}
    if record.path.is_dir():
        source: Any = open_clip(record)
        folder: Any = source.source if isinstance(source, Excerpt) else source  # a FrameFolder
        about["fps"] = folder.fps
        for i in range(folder.count):
            file = folder.path / folder.template.format(folder.first + i)
            files[f"{i + 1:06d}{file.suffix}"] = file.read_bytes()
    else:
        files[record.path.suffix[1:]] = record.path.read_bytes()
    if record.seconds is not None:
        about["seconds"] = record.seconds
    return {"json": json.dumps(about).encode(), **files}


def _about(member: Member, name: str) -> dict[str, Any]:
    """The label, and what else is told of a clip."""
    try:
        about = json.loads(member["json"]) if "json" in member else {}
        label = about["label"] if "label" in about else int(member["cls"])
        if not isinstance(label, int | list) or not isinstance(about, dict):
            raise ValueError(f"the label {label!r} is no class id")
    except (KeyError, ValueError, TypeError) as error:
        raise VideoError(f"{name} has no label: {error}") from None
    seconds, fps = about.get("seconds"), about.get("fps", 12.0)
    try:
        part = None if seconds is None else (float(seconds[0]), float(seconds[1]))
        if not math.isfinite(float(fps)) or float(fps) <= 0:
            raise ValueError(f"{fps} frames a second")
        return {"label": tuple(label) if isinstance(label, list) else label, "seconds": part, "fps": float(fps)}
    except (ValueError, TypeError, IndexError) as error:
        raise VideoError(f"{name} has no sound seconds or fps: {error}") from None


def _open_member(member: Member, about: dict[str, Any], name: str) -> FrameSource:
    images = sorted(key for key in member if key.endswith((".jpg", ".jpeg", ".png")))
    file = next((key for key in member if f".{key}" in VIDEO_SUFFIXES), None)
    source: FrameSource
    if images:
        source = _FrameBytes([member[key] for key in images], about["fps"], name)
    elif file in ("npy", "pt"):
        source = ArrayClip(f"{name}.{file}", content=member[file])
    elif file is not None:
        source = VideoReader(f"{name}.{file}", content=member[file])
    else:
        raise VideoError(f"{name} holds no video")
    if about["seconds"] is None:
        return source
    try:
        return Excerpt(source, about["seconds"], name)
    except VideoError:
        close_clip(source)
        raise


def _webdataset() -> Any:
    try:
        import webdataset
    except ImportError:
        raise ImportError("shards are read with webdataset: install saccade[stream]") from None
    return webdataset
