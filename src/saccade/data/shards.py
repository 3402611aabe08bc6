"""Clips out of tar shards, as streams: every worker of every process reads shards of its own.

What shards hold is said in [`shard_files`][saccade.data.shard_files]. Those that others wrote in this form are read as
well, from disks or from URLs that `webdataset` opens.
"""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from saccade.data.clips import VIDEO_SUFFIXES, ClipSampler, Excerpt, close_clip, draw_clip
from saccade.data.loading import mix, seeded
from saccade.data.shard_files import load_webdataset
from saccade.data.video import ArrayClip, FrameSource, VideoError, VideoReader

PLACES = 2**20
"""A clip's `index` is the number of its shard times this, plus its place in the shard."""

Member = dict[str, Any]


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
        load_webdataset()
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
        stages, shard = load_webdataset().tariterators, self.shards[number]

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
