"""What an image index is on disk: `index.json`, and shards that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saccade.data.records import IMAGE_ENDINGS
from saccade.metric.embedder import ModelSpec

SUFFIXES = IMAGE_ENDINGS | {".gif", ".tif", ".tiff", ".ppm", ".pgm"}
FORMAT = 1
Measure = Literal["cosine", "euclidean"]


@dataclass(frozen=True)
class About:
    """What `index.json` says."""

    folder: str
    model: ModelSpec
    fingerprint: str
    measure: Measure
    format: int = FORMAT


Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds: a file with the same is taken to be the same."""


@dataclass
class Shard:
    """Some images with their embeddings, and some files that could not be read."""

    files: list[str] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    embeddings: list[Tensor] = field(default_factory=list)
    skipped: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files) + len(self.skipped)

    def write(self, path: Path) -> None:
        """Write beside, then rename."""
        stamps = torch.tensor(self.stamps, dtype=torch.int64).reshape(-1, 2)
        embeddings = torch.stack(self.embeddings) if self.embeddings else torch.zeros(0, 0)
        partial = path.with_name(f"{path.name}.partial")
        metadata = {"files": json.dumps(self.files), "skipped": json.dumps(self.skipped)}
        save_file({"embeddings": embeddings, "stamps": stamps}, partial, metadata)
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Shard:
        """Read a shard, or say which file is broken."""
        try:
            with safe_open(path, framework="pt") as content:
                about = content.metadata()
                stamps: list[Any] = content.get_tensor("stamps").tolist()
                embeddings = content.get_tensor("embeddings")
            files, skipped = json.loads(about["files"]), json.loads(about["skipped"])
            if not len(files) == len(stamps) == len(embeddings):
                raise ValueError("its parts are of different lengths")
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a readable part of an index ({error}); delete it, and `saccade search index` makes "
                "it anew"
            ) from None
        kept = {file: (str(reason), int(size), int(mtime)) for file, (reason, size, mtime) in skipped.items()}
        return cls(files, [(size, mtime) for size, mtime in stamps], list(embeddings), kept)


def scan(root: Path, besides: Path) -> dict[str, Stamp]:
    """Image files below a folder, sorted, with size and time of their last change.

    Args:
        root: The folder.
        besides: A folder to leave out, such as the index itself.

    Returns:
        Path below the root to stamp.
    """
    found: dict[str, Stamp] = {}
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if Path(place, name) != besides and not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                file = Path(place, name)
                try:
                    status = file.stat()
                except OSError:  # gone since the folder was read, or a link that leads nowhere
                    continue
                found[file.relative_to(root).as_posix()] = (status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items()))


def read_about(path: Path) -> About:
    """What an index says of itself.

    Args:
        path: Its folder.

    Returns:
        Folder, network and measure.

    Raises:
        FileNotFoundError: No index there.
        ValueError: `index.json` is broken, or of a later format.
    """
    file = path / "index.json"
    if not file.is_file():
        raise FileNotFoundError(f"no index at {path}: `saccade search index FOLDER -o {path}` makes one")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        about = About(**{**content, "model": ModelSpec(**content["model"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is not what an index says of itself: {error}") from None
    if about.format != FORMAT:
        raise ValueError(f"{file} has the format {about.format}; {FORMAT} is accepted")
    return about


def prepare(path: Path, about: About) -> None:
    """Make the folder of an index, or see that the one that is there is of the same folder, network and measure."""
    if (path / "index.json").exists():
        old = read_about(path)
        if old.fingerprint != about.fingerprint:
            raise ValueError(
                f"the index {path} was made with {old.model} (fingerprint {old.fingerprint}), not with {about.model} "
                f"({about.fingerprint}): give another -o, or delete it"
            )
        for name in ("folder", "measure"):
            if getattr(old, name) != getattr(about, name):
                raise ValueError(
                    f"the index {path} has the {name} {getattr(old, name)}, not {getattr(about, name)}: "
                    "give another -o, or delete it"
                )
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} is there and is no index: give another -o")
    (path / "shards").mkdir(parents=True, exist_ok=True)
    partial = path / "index.json.partial"
    partial.write_text(json.dumps(asdict(about), indent=1) + "\n", encoding="utf-8")
    partial.replace(path / "index.json")


def shards_of(path: Path) -> Iterator[Path]:
    """The shards of an index, the oldest first."""
    return iter(sorted((path / "shards").glob("[0-9]*.safetensors")))


def newest(path: Path) -> tuple[dict[str, tuple[Stamp, Tensor]], dict[str, tuple[str, int, int]]]:
    """The last word of all shards on every file: its embedding, or why there is none."""
    rows: dict[str, tuple[Stamp, Tensor]] = {}
    skipped: dict[str, tuple[str, int, int]] = {}
    for place in shards_of(path):
        shard = Shard.read(place)
        for file, stamp, embedding in zip(shard.files, shard.stamps, shard.embeddings, strict=True):
            rows[file] = stamp, embedding
            skipped.pop(file, None)
        for file, reason in shard.skipped.items():
            skipped[file] = reason
            rows.pop(file, None)
    return rows, skipped


def prune(path: Path, there: dict[str, Stamp]) -> None:
    """Take out what a later shard says anew, and files that are gone; a shard of which nothing is left goes too."""
    said: set[str] = set()
    for place in reversed(list(shards_of(path))):
        shard, kept = Shard.read(place), Shard()
        for file, stamp, embedding in zip(shard.files, shard.stamps, shard.embeddings, strict=True):
            if file in there and file not in said:
                kept.files.append(file)
                kept.stamps.append(stamp)
                kept.embeddings.append(embedding)
        kept.skipped = {file: why for file, why in shard.skipped.items() if file in there and file not in said}
        said |= {*kept.files, *kept.skipped}
        if not len(kept):
            place.unlink()
        elif len(kept) < len(shard):
            kept.write(place)
