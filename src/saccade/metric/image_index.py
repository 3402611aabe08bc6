"""A folder of images as an index that is searched by image: built in shards, resumed, extended, reloaded.

On disk an index is a folder: `index.json` says which folder and which network, and `shards/*.safetensors` hold the
embeddings with the files they belong to. A shard appears under its name in one step, when all of it is written: a kill
at any moment leaves a smaller index, and the next run goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saccade.metric.embedder import Embedder, load_embedder, read_image
from saccade.metric.index_files import (
    SUFFIXES,
    About,
    Measure,
    Shard,
    Stamp,
    newest,
    prepare,
    prune,
    read_about,
    scan,
    shards_of,
)
from saccade.metric.nearest import Searcher

Progress = Callable[[int, int], None]
"""Called with the number of images that are done and that there are to do."""


@dataclass(frozen=True)
class Hit:
    """One answer.

    Args:
        rank: 1 for the nearest.
        file: Its path below the indexed folder.
        distance: Euclidean, of unit vectors where the measure is cosine.
        similarity: The cosine; `None` where the measure is Euclidean.
    """

    rank: int
    file: str
    distance: float
    similarity: float | None


@dataclass(frozen=True)
class IndexReport:
    """What a run of `build_index` found and did.

    Args:
        index: The index.
        folder: What it is of.
        images: Images in it now.
        added: New ones of this run.
        changed: Those whose file had changed.
        removed: Those whose file is gone.
        unchanged: Those of which nothing had to be computed.
        skipped: Files that cannot be read, with the reason.
        seconds: How long it took.
    """

    index: str
    folder: str
    images: int
    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: dict[str, str]
    seconds: float


class ImageIndex:
    """An index in memory, ready for queries.

    Args:
        about: Folder, network, measure.
        files: Paths below the folder, sorted.
        embeddings: One row a file, of unit length where the measure is cosine.
        embedder: The network that made them.
        skipped: Files that could not be read, with the reason.

    Raises:
        ValueError: The embedder is another one than the index was made with.

    Example:
        >>> index = ImageIndex.open("my.index")  # doctest: +SKIP
        >>> index.query("photo.jpg", top=3)  # doctest: +SKIP
        [Hit(rank=1, file='beach/004.jpg', distance=0.31, similarity=0.95), ...]
    """

    def __init__(
        self,
        about: About,
        files: Sequence[str],
        embeddings: Float[Tensor, "n d"],
        embedder: Embedder,
        skipped: dict[str, str] | None = None,
    ) -> None:
        if embedder.fingerprint != about.fingerprint:
            raise ValueError(
                f"the index was made with {about.model} (fingerprint {about.fingerprint}), and {embedder.spec} has the "
                f"fingerprint {embedder.fingerprint}: embeddings of two networks cannot be compared"
            )
        self.about = about
        self.files = list(files)
        self.embedder = embedder
        self.skipped = skipped or {}
        self.searcher = Searcher(embeddings)
        self._place = {file: place for place, file in enumerate(self.files)}

    @classmethod
    def open(
        cls,
        path: str | Path,
        embedder: Embedder | None = None,
        *,
        download: bool = False,
        device: torch.device | str = "cpu",
    ) -> ImageIndex:
        """Load an index.

        Args:
            path: Its folder.
            embedder: The network that made it; built anew from what the index says where `None`.
            download: Whether published weights may be downloaded.
            device: Where to embed queries.

        Returns:
            The index.

        Raises:
            FileNotFoundError: No index there.
            ValueError: A broken index, an empty one, or another network than the one that made it.
        """
        about = read_about(Path(path))
        rows, skipped = newest(Path(path))
        if not rows:
            raise ValueError(f"the index {path} holds no image")
        embedder = embedder or load_embedder(about.model, download=download, device=device)
        files = sorted(rows)
        embeddings = torch.stack([rows[file][1] for file in files])
        return cls(about, files, embeddings, embedder, {file: reason for file, (reason, _, _) in skipped.items()})

    def __len__(self) -> int:
        return len(self.files)

    def path(self, file: str) -> Path:
        """Where a file of the index lies."""
        return Path(self.about.folder) / file

    def query(self, image: str | Path | Image.Image, top: int = 10, keep_itself: bool = False) -> list[Hit]:
        """The images nearest to one.

        Args:
            image: A file, or an image in memory.
            top: How many; all where there are fewer.
            keep_itself: Whether a file of the indexed folder may find itself.

        Returns:
            The nearest first; equal distances in the order of paths.

        Raises:
            FileNotFoundError: No such file.
            ValueError: It cannot be read, or `top` is below 1.
        """
        if top < 1:
            raise ValueError(f"top is {top}; at least 1 is accepted")
        picture = image.convert("RGB") if isinstance(image, Image.Image) else read_image(image)
        own = None if keep_itself or isinstance(image, Image.Image) else self._own(Path(image))
        embedding = self.embedder(self.embedder.transform(picture)[None], self.about.measure == "cosine")
        if not bool(torch.isfinite(embedding).all()):
            raise ValueError("the embedding of the query is not finite")
        wanted = min(top + (own is not None), len(self))
        distances, places = self.searcher(embedding, wanted)
        kept = [(float(d), int(p)) for d, p in zip(distances[0], places[0], strict=True) if int(p) != own][:top]
        cosine = self.about.measure == "cosine"
        return [
            Hit(rank, self.files[place], distance, 1 - distance**2 / 2 if cosine else None)
            for rank, (distance, place) in enumerate(kept, start=1)
        ]

    def _own(self, path: Path) -> int | None:
        """The place of a query file in the index."""
        try:
            return self._place.get(path.resolve().relative_to(self.about.folder).as_posix())
        except ValueError:
            return None


def build_index(
    folder: str | Path,
    path: str | Path,
    embedder: Embedder,
    *,
    measure: Measure = "cosine",
    batch_size: int = 32,
    workers: int = 0,
    shard_size: int = 256,
    shard_seconds: float = 5.0,
    progress: Progress | None = None,
) -> IndexReport:
    """Make an index of a folder, or bring one up to date: new and changed files are embedded, gone ones taken out.

    Args:
        folder: All images below it are indexed.
        path: Where the index is, or is to be.
        embedder: The network.
        measure: What queries compare: `cosine`, or `euclidean` distance of raw embeddings.
        batch_size: Images at a time.
        workers: Processes that read and decode; 0: this one.
        shard_size: Images after which what is done is written.
        shard_seconds: Seconds after which what is done is written.
        progress: Called before the first batch and after each; never where nothing is to be done.

    Returns:
        What was found and done.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: A folder without images, a path that holds something else, an index of another folder, network or
            measure, or one that another process is writing.
    """
    began = time.perf_counter()
    root, path = Path(folder).resolve(), Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of images at {folder}")
    if measure not in ("cosine", "euclidean"):
        raise ValueError(f"measure is {measure!r}; cosine and euclidean are accepted")
    if batch_size < 1 or workers < 0 or shard_size < 1:
        raise ValueError(
            f"batch_size, shard_size and workers are {batch_size}, {shard_size} and {workers}; "
            "at least 1, 1 and 0 are accepted"
        )
    about = About(str(root), embedder.spec, embedder.fingerprint, measure)
    there = scan(root, path.resolve())
    if not there and not (path / "index.json").exists():
        raise ValueError(f"no images in {folder}: files that end in {', '.join(sorted(SUFFIXES))} are wanted")
    prepare(path, about)
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process is writing the index {path}") from None
    try:
        known, unreadable = newest(path)
        stamps = {file: stamp for file, (stamp, _) in known.items()}
        stamps |= {file: (size, mtime) for file, (_, size, mtime) in unreadable.items()}
        fresh = [file for file, stamp in there.items() if stamps.get(file) != stamp]
        _embed(root, path, fresh, there, embedder, measure, batch_size, workers, shard_size, shard_seconds, progress)
        if any(file not in there for file in stamps) or any(file in stamps for file in fresh):
            prune(path, there)
        now, skipped = newest(path)
    finally:
        lock.release()
    gained = [file for file in fresh if file in now]
    changed = sum(file in known for file in gained)
    return IndexReport(
        index=str(path),
        folder=str(root),
        images=len(now),
        added=len(gained) - changed,
        changed=changed,
        removed=sum(file not in there for file in known),
        unchanged=len(now) - len(gained),
        skipped={file: reason for file, (reason, _, _) in sorted(skipped.items())},
        seconds=round(time.perf_counter() - began, 3),
    )


class _Files(Dataset[tuple[str, "Tensor | str"]]):
    """File and its tensor, or the reason why it cannot be read."""

    def __init__(self, root: Path, files: Sequence[str], transform: Callable[[Any], Tensor]) -> None:
        self.root, self.files, self.transform = root, files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[str, Tensor | str]:
        file = self.files[index]
        try:
            return file, self.transform(read_image(self.root / file))
        except (ValueError, OSError) as error:
            return file, str(error).replace(f"{self.root / file} ", "")


def _embed(
    root: Path,
    path: Path,
    files: list[str],
    stamps: dict[str, Stamp],
    embedder: Embedder,
    measure: Measure,
    batch_size: int,
    workers: int,
    shard_size: int,
    shard_seconds: float,
    progress: Progress | None,
) -> None:
    """Embed files and write them in shards; what is done is written also where this is interrupted."""
    if not files:
        return
    loader = DataLoader(
        _Files(root, files, embedder.transform), batch_size=batch_size, num_workers=workers, collate_fn=list
    )
    number = max((int(shard.stem) for shard in shards_of(path)), default=-1) + 1
    shard, written, done = Shard(), time.monotonic(), 0
    if progress:
        progress(0, len(files))
    try:
        for batch in loader:
            read = [(file, image) for file, image in batch if isinstance(image, Tensor)]
            reasons = {file: image for file, image in batch if not isinstance(image, Tensor)}
            embeddings: Sequence[Tensor] = []
            if read:
                embeddings = list(embedder(torch.stack([image for _, image in read]), measure == "cosine"))
            for (file, _), embedding in zip(read, embeddings, strict=True):
                if bool(torch.isfinite(embedding).all()):
                    shard.files.append(file)
                    shard.stamps.append(stamps[file])
                    shard.embeddings.append(embedding)
                else:
                    reasons[file] = "its embedding is not finite"
            shard.skipped |= {file: (reason, *stamps[file]) for file, reason in reasons.items()}
            done += len(batch)
            if len(shard) >= shard_size or time.monotonic() - written > shard_seconds:
                shard.write(path / "shards" / f"{number:06}.safetensors")
                shard, written, number = Shard(), time.monotonic(), number + 1
            if progress:
                progress(done, len(files))
    finally:
        if len(shard):
            shard.write(path / "shards" / f"{number:06}.safetensors")
