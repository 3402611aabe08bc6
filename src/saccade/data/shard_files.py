"""Clips in tar shards, for sets that outgrow one disk: written once, then read as streams.

A shard is a tar in WebDataset's form. A clip is the members `KEY.json` (or `KEY.cls`) with its label, and `KEY.mp4` (or
another suffix of a video or array) with the file's bytes, or `KEY.00001.jpg` and so on for a folder of frames.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from saccade.data.clips import ClipRecord, Excerpt, open_clip
from saccade.data.loading import mix
from saccade.data.video import VideoError

INDEX = "shards.json"
"""Beside the shards: how many clips each holds, and the classes."""


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
    shards: list[str] = load_webdataset().shardlists.expand_urls(str(pattern))
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


def load_webdataset() -> Any:
    """Returns: the module `webdataset`, or raises `ImportError` that names the extra."""
    try:
        import webdataset
    except ImportError:
        raise ImportError("shards are read with webdataset: install saccade[stream]") from None
    return webdataset
