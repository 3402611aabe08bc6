"""Frames of a video by number: only what is asked for is decoded to pixels, and nothing that no frame needs is decoded.

Frame `i` is the frame that would come out at place `i` if the whole video were decoded. The packets' timestamps say
where that is without decoding: reading seeks to the last key frame before a wanted frame, skips over frames that
neither are wanted nor serve as a reference, and stops after the last one. Containers whose timestamps cannot be trusted
(AVI) are decoded from the start, and the frames counted.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

_UNTRUSTED = ("avi",)  # packed streams give frames the timestamps of their neighbours
_PROMISES = ("mov", "mp4")  # containers whose header says exactly how many frames follow


class VideoError(ValueError):
    """A clip that cannot be read: corrupt, truncated, without frames. Data sets skip it and count it."""


@runtime_checkable
class FrameSource(Protocol):
    """Anything that gives frames by number."""

    fps: float

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Frames (t, 3, h, w), uint8 RGB, in the order of `indices`."""


@dataclass(frozen=True)
class _Packet:
    pts: int
    dts: int | None
    key: bool
    place: int  # in decoding order


class VideoReader:
    """Reads frames of a video file by number.

    Args:
        path: The file.
        content: Its bytes, where they are in memory already; `path` is then only a name for messages.

    Attributes:
        fps: Mean frame rate; 30 where the file does not say.
        height: Of a frame in pixels.
        width: Of a frame in pixels.

    Raises:
        FileNotFoundError: No such file.
        VideoError: Not a readable video, a truncated one, or one without frames.

    Example:
        >>> VideoReader("nowhere.mp4")
        Traceback (most recent call last):
        FileNotFoundError: no video at nowhere.mp4
    """

    def __init__(self, path: str | Path, content: bytes | None = None) -> None:
        self.path, self._content = Path(path), content
        if content is None and not self.path.is_file():
            raise FileNotFoundError(f"no video at {self.path}")
        try:
            self._container = self._open()
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f"{self.path} is not a readable video: {_reason(error)}") from None
        if not self._container.streams.video:
            self.close()
            raise VideoError(f"{self.path} has no video stream")
        self._stream = self._container.streams.video[0]
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate else 30.0
        self.height, self.width = self._stream.height, self._stream.width
        try:
            self._index()
        except VideoError:
            self.close()
            raise

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Decode the frames asked for.

        Args:
            indices: Frame numbers from 0, in any order, with repetitions.

        Returns:
            (t, 3, h, w) uint8 RGB, in the order of `indices`.

        Raises:
            IndexError: A number outside the video.
            VideoError: A frame that cannot be decoded.
        """
        wanted = [int(i) for i in indices]
        outside = [i for i in wanted if not 0 <= i < self._count]
        if outside:
            raise IndexError(f"{self.path} has frames 0 to {self._count - 1}, not {outside[0]}")
        numbers = sorted(set(wanted))
        try:
            found = self._by_timestamp(numbers) if self._trusted else self._by_counting(numbers)
        except av.error.FFmpegError as error:
            raise VideoError(f"{self.path} is damaged: {_reason(error)}") from None
        missing = [i for i in numbers if i not in found]
        if missing:
            raise VideoError(f"{self.path} is damaged: frame {missing[0]} of {self._count} does not come out")
        stacked = torch.stack([found[i] for i in numbers])
        if wanted != numbers:
            places = {number: place for place, number in enumerate(numbers)}
            stacked = stacked[[places[i] for i in wanted]]
        return stacked.permute(0, 3, 1, 2).contiguous()

    def close(self) -> None:
        """Give the file back."""
        self._container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _index(self) -> None:
        """Read the packets' timestamps, not their pictures."""
        packets: list[_Packet] = []
        counted = 0
        timed = not any(name in self._container.format.name.split(",") for name in _UNTRUSTED)
        hidden_possible = self._stream.codec_context.name in ("vp8", "libvpx")
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0:
                    continue
                if packet.is_corrupt:
                    raise VideoError(f"{self.path} is truncated or damaged after {counted} frames")
                counted += 1
                if packet.is_discard or (hidden_possible and not bytes(packet)[0] >> 4 & 1):
                    continue
                if packet.pts is None:
                    timed = False
                else:
                    packets.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, counted - 1))
        except av.error.FFmpegError as error:
            raise VideoError(f"{self.path} is damaged after {counted} frames: {_reason(error)}") from None
        promised = self._stream.frames
        if any(name in self._container.format.name.split(",") for name in _PROMISES) and counted < promised:
            raise VideoError(f"{self.path} is truncated: {counted} of {promised} frames are there")
        self._pts = sorted(packet.pts for packet in packets)
        self._trusted = timed and len(set(self._pts)) == len(self._pts)
        self._keys = sorted((packet for packet in packets if packet.key), key=lambda packet: packet.pts)
        self._place = {packet.pts: packet.place for packet in packets}
        self._count = len(self._pts) if self._trusted else sum(1 for _ in self._decode_all())
        if self._count == 0:
            raise VideoError(f"{self.path} holds no frames")

    def _by_timestamp(self, numbers: list[int]) -> dict[int, Tensor]:
        wanted = {self._pts[number]: number for number in numbers}
        key_times = [key.pts for key in self._keys]
        groups: dict[int, set[int]] = {}  # key frame -> timestamps to be decoded from it
        for pts in wanted:
            groups.setdefault(bisect_right(key_times, pts) - 1, set()).add(pts)
        found: dict[int, Tensor] = {}
        ahead: Iterator[av.Packet] | None = None
        last = -2
        for group, times in sorted(groups.items()):
            # the next group of pictures is reached sooner by reading on than by seeking
            if ahead is None or group != last + 1:
                ahead = self._packets_from(self._keys[group] if group >= 0 else None)
            last = group
            pending = {pts for pts in times if wanted[pts] not in found}
            if not pending:
                continue
            for packet in ahead:
                if packet.size and packet.pts is not None:
                    self._stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                for frame in self._stream.codec_context.decode(packet):
                    if frame.pts in wanted and wanted[frame.pts] not in found:
                        found[wanted[frame.pts]] = self._pixels(frame)
                    pending.discard(frame.pts)
                if not pending:
                    break
            else:
                ahead = None
        return found

    def _packets_from(self, key: _Packet | None) -> Iterator[av.Packet]:
        """Packets from a key frame on, with a fresh decoder; from the start where the container cannot seek to it."""
        codec = self._stream.codec_context
        if key is not None and key.place > 0:
            self._container.seek(key.pts, stream=self._stream, backward=True)
            codec.flush_buffers()
            packets = self._container.demux(self._stream)
            first = next(packets, None)
            if first is not None and first.size and self._places(first, key.place + 1) <= key.place:
                if first.pts == key.pts:
                    yield first
                for packet in packets:
                    if packet.size == 0 or self._places(packet, 0) >= key.place:
                        yield packet
                return
        self._rewind()
        yield from self._container.demux(self._stream)

    def _places(self, packet: av.Packet, otherwise: int) -> int:
        return otherwise if packet.pts is None else self._place.get(packet.pts, otherwise)

    def _by_counting(self, numbers: list[int]) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        wanted = set(numbers)
        for number, frame in enumerate(self._decode_all()):
            if number in wanted:
                found[number] = self._pixels(frame)
                if len(found) == len(wanted):
                    break
        return found

    def _decode_all(self) -> Iterator[av.VideoFrame]:
        self._rewind()
        try:
            yield from self._container.decode(self._stream)
        except av.error.FFmpegError as error:
            raise VideoError(f"{self.path} is damaged: {_reason(error)}") from None

    def _open(self) -> Any:
        return av.open(str(self.path) if self._content is None else io.BytesIO(self._content))

    def _rewind(self) -> None:
        """A demuxer at its end, or past a seek, does not go back in all containers: open the file again."""
        self._container.close()
        self._container = self._open()
        self._stream = self._container.streams.video[0]

    def _pixels(self, frame: av.VideoFrame) -> Tensor:
        return torch.from_numpy(frame.to_ndarray(format="rgb24", width=self.width, height=self.height))


class FrameFolder:
    """Frames kept as one image file each.

    Args:
        path: The folder.
        count: Number of frames; `None`: as many files as there are, from the first number without a gap.
        template: File name of a frame by its number.
        first: Number of the first frame.
        fps: Frame rate they were taken at.

    Raises:
        FileNotFoundError: No such folder.
        VideoError: No frames.
    """

    def __init__(
        self,
        path: str | Path,
        count: int | None = None,
        template: str = "img_{:05d}.jpg",
        first: int = 1,
        fps: float = 12.0,
    ) -> None:
        self.path, self.template, self.first, self.fps = Path(path), template, first, fps
        if not self.path.is_dir():
            raise FileNotFoundError(f"no folder of frames at {self.path}")
        if count is None:
            names = {entry.name for entry in self.path.iterdir()}
            count = 0
            while template.format(first + count) in names:
                count += 1
        if count < 1:
            raise VideoError(f"{self.path} holds no frames named {template.format(first)} and so on")
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Load the frames asked for.

        Args:
            indices: Frame numbers from 0, in any order.

        Returns:
            (t, 3, h, w) uint8 RGB.

        Raises:
            VideoError: An image that is missing, unreadable, or of another size than the first.
        """
        loaded: dict[int, np.ndarray] = {}
        for index in map(int, indices):
            if index not in loaded:
                file = self.path / self.template.format(self.first + index)
                try:
                    with Image.open(file) as image:
                        loaded[index] = np.array(image.convert("RGB"))
                except (OSError, SyntaxError, ValueError) as error:
                    raise VideoError(f"frame {file} cannot be read: {_reason(error)}") from None
        shapes = {frame.shape for frame in loaded.values()}
        if len(shapes) > 1:
            raise VideoError(f"frames of {self.path} differ in size: {sorted(shapes)}")
        return torch.stack([torch.from_numpy(loaded[int(i)]) for i in indices]).permute(0, 3, 1, 2).contiguous()


class ArrayClip:
    """A clip kept as one array: `.npy`, or `.pt` with one tensor; (t, h, w, 3) or (t, 3, h, w), uint8.

    Args:
        path: The file.
        fps: Frame rate it was taken at.
        content: Its bytes, where they are in memory already.

    Raises:
        FileNotFoundError: No such file.
        VideoError: Not such an array, or one without frames.
    """

    def __init__(self, path: str | Path, fps: float = 30.0, content: bytes | None = None) -> None:
        self.path, self.fps = Path(path), fps
        if content is None and not self.path.is_file():
            raise FileNotFoundError(f"no clip at {self.path}")
        file: Any = self.path if content is None else io.BytesIO(content)
        try:
            if self.path.suffix == ".npy":
                frames = torch.from_numpy(np.load(file, allow_pickle=False))
            else:
                frames = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # numpy and torch raise many kinds for a damaged file
            raise VideoError(f"{self.path} cannot be read: {_reason(error)}") from None
        if (
            not isinstance(frames, Tensor)
            or frames.ndim != 4
            or frames.dtype != torch.uint8
            or 3 not in frames.shape[1:]
        ):
            raise VideoError(f"{self.path} has to hold uint8 frames (t, h, w, 3) or (t, 3, h, w)")
        if len(frames) == 0:
            raise VideoError(f"{self.path} holds no frames")
        self.frames = frames.permute(0, 3, 1, 2) if frames.shape[3] == 3 else frames

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Args: `indices`, frame numbers from 0. Returns: (t, 3, h, w) uint8 RGB."""
        return self.frames[[int(i) for i in indices]].contiguous()


def decode_all(path: str | Path) -> Tensor:
    """Decode a whole video, frame after frame: the plain way, which `VideoReader` agrees with.

    Args:
        path: The file.

    Returns:
        (t, 3, h, w) uint8 RGB.
    """
    with av.open(str(path)) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(frames).permute(0, 3, 1, 2).contiguous()


def write_video(
    path: str | Path,
    frames: Tensor,
    fps: int = 30,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> None:
    """Encode frames, for tests, benchmarks and pictures.

    Args:
        path: The file; its suffix names the container.
        frames: (t, 3, h, w) uint8 RGB; height and width even.
        fps: Frames a second.
        codec: Encoder.
        options: Of the encoder.
        container_options: Of the container.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width, stream.pix_fmt = frames.shape[2], frames.shape[3], "yuv420p"
        for frame in frames.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
