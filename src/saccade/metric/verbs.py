"""What the metric domain does for a person's own images: index a folder, and search it by image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from saccade.metric.contact_sheet import Tile, contact_sheet
from saccade.metric.embedder import ModelSpec, load_embedder
from saccade.metric.image_index import Hit, ImageIndex, IndexReport, Progress, build_index
from saccade.metric.index_files import SUFFIXES, Measure, read_about


@dataclass(frozen=True)
class Answer:
    """What was found for one query."""

    query: str
    hits: list[Hit]


@dataclass(frozen=True)
class SearchResult:
    """What was found for many queries, and those that could not be read, with the reason.

    Args:
        index: The index.
        folder: What it is of.
        model: The network in words.
        measure: `cosine` or `euclidean`.
        images: How many images were searched.
        answers: One a query.
        skipped: Queries that could not be read.
    """

    index: str
    folder: str
    model: str
    measure: str
    images: int
    answers: list[Answer]
    skipped: dict[str, str]

    def json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self), indent=1)

    def html(self) -> str:
        """As a contact sheet."""
        folder = Path(self.folder)
        rows = []
        for answer in self.answers:
            farthest = max((hit.distance for hit in answer.hits), default=0.0) or 1.0
            tiles = []
            for hit in answer.hits:
                if hit.similarity is None:
                    figure, share = f"distance {hit.distance:.3g}", 1 - hit.distance / (2 * farthest)
                else:
                    figure, share = f"{hit.similarity:.3f}", hit.similarity
                tiles.append(Tile(folder / hit.file, hit.file, figure, share))
            rows.append((Tile(Path(answer.query), Path(answer.query).name), tiles))
        count = len(self.answers)
        measure = "cosine similarity" if self.measure == "cosine" else "Euclidean distance"
        about = [f"{self.images:,} images of {self.folder}, by {measure}", f"Network: {self.model}"]
        footer = [f"Skipped: {path}: {reason}" for path, reason in self.skipped.items()]
        title = f"Nearest images of {Path(self.answers[0].query).name if count == 1 else f'{count} queries'}"
        return contact_sheet(title, about, rows, footer)


def index_folder(
    folder: str | Path,
    out: str | Path,
    model: str | None = None,
    *,
    weights: str | None = None,
    config: str | None = None,
    measure: Measure | None = None,
    batch_size: int = 32,
    workers: int = 0,
    download: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> IndexReport:
    """Index a folder of images, or bring its index up to date.

    Args:
        folder: All images below it.
        out: The index, a folder.
        model: A timm name, or a checkpoint of `saccade fit`, or one of `saccade convert` with `config`. For an index
            that is there: what it was made with, where `None`.
        weights: Of a timm model: `default` (published), `none` (random) or a file.
        config: Recipe of a checkpoint that holds weights alone.
        measure: `cosine` (where `None`) or `euclidean`.
        batch_size: Images at a time.
        workers: Processes that read images.
        download: Whether published weights may be downloaded.
        device: Where to compute.
        progress: Called with the number of images done and to do.

    Returns:
        What was found and done.

    Raises:
        FileNotFoundError: No such folder or checkpoint.
        ValueError: An unknown model, an index of something else, or a folder without images.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder of images at {folder}")
    old = read_about(Path(out)) if (Path(out) / "index.json").is_file() else None
    if model is None:
        if old is None:
            raise ValueError(f"there is no index at {out} yet: name the network with --model")
        spec = old.model
    else:
        place = str(Path(model).resolve()) if Path(model).is_file() else model
        file = str(Path(weights).resolve()) if weights and Path(weights).is_file() else weights
        spec = ModelSpec(place, file or "default", config)
    chosen = measure or (old.measure if old else "cosine")
    embedder = load_embedder(spec, download=download, device=device)
    return build_index(folder, out, embedder, measure=chosen, batch_size=batch_size, workers=workers, progress=progress)


def search_images(
    images: Sequence[str | Path],
    index: str | Path,
    *,
    top: int = 10,
    keep_itself: bool = False,
    download: bool = False,
    device: str = "cpu",
) -> SearchResult:
    """Search an index by image.

    A single query that cannot be read is an error; among several it is skipped, with the reason.

    Args:
        images: Files, or folders of them.
        index: The index.
        top: How many images to find for each.
        keep_itself: Whether a file of the indexed folder may find itself.
        download: Whether published weights may be downloaded.
        device: Where to embed.

    Returns:
        The nearest images of each query.

    Raises:
        FileNotFoundError: No such index, file or checkpoint.
        ValueError: No query that can be read, `top` below 1, or a network that is not the one of the index.
    """
    queries = _expand(images)
    if top < 1:
        raise ValueError(f"top is {top}; at least 1 is accepted")
    opened = ImageIndex.open(index, download=download, device=device)
    answers: list[Answer] = []
    skipped: dict[str, str] = {}
    for query in queries:
        try:
            answers.append(Answer(str(query), opened.query(query, top, keep_itself)))
        except ValueError as error:
            if len(queries) == 1:
                raise
            skipped[str(query)] = str(error).removeprefix(f"{query} ")
    if not answers:
        raise ValueError(f"none of the {len(queries)} queries can be read; the first: {next(iter(skipped.values()))}")
    about = opened.about
    return SearchResult(str(index), about.folder, str(about.model), about.measure, len(opened), answers, skipped)


def _expand(images: Sequence[str | Path]) -> list[Path]:
    queries: list[Path] = []
    for image in map(Path, images):
        if not image.exists():
            raise FileNotFoundError(f"no image at {image}")
        if image.is_dir():
            queries += sorted(path for path in image.iterdir() if path.suffix.lower() in SUFFIXES)
        else:
            queries.append(image)
    if not queries:
        raise ValueError("name at least one image to search with")
    return queries
