"""Citation graphs with features and labels: Cora, Citeseer and Pubmed in the files of the Planetoid repository."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from saccade.data.pickles import safe_unpickle
from saccade.graph.base import SparseFeatures

PLANETOID = ("cora", "citeseer", "pubmed")
SOURCE = "https://github.com/kimiyoung/planetoid, folder data"


@dataclass(frozen=True)
class NodeData:
    """A graph whose nodes are to be classified.

    Args:
        name: Which.
        edge_index: Undirected edges (2, e), each once, without self-loops.
        labels: Class of each node; -1 where the files have none.
        num_classes: k.
        features: Of each node; `None` where they were not asked for.
    """

    name: str
    edge_index: Int[Tensor, "2 e"]
    labels: Int[Tensor, " n"]
    num_classes: int
    features: SparseFeatures | None = None

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.labels)


@dataclass(frozen=True)
class Split:
    """Ids of the nodes of each part."""

    train: Int[Tensor, " t"]
    valid: Int[Tensor, " v"]
    test: Int[Tensor, " s"]


def random_split(labels: Int[Tensor, " n"], seed: int, train: float = 0.6, valid: float = 0.2) -> Split:
    """A random split over all labelled nodes, the paper's protocol on the small graphs: 60 / 20 / 20 %.

    Nodes without a label (-1) are in no part.

    Args:
        labels: Class of each node.
        seed: Number of the run.
        train: Share of the first part.
        valid: Share of the second part; the rest is for testing.

    Returns:
        The parts.

    Raises:
        ValueError: Shares that leave nothing for a part.

    Example:
        >>> split = random_split(torch.zeros(10, dtype=torch.long), seed=0)
        >>> len(split.train), len(split.valid), len(split.test)
        (6, 2, 2)
    """
    known = (labels >= 0).nonzero().flatten().cpu()
    order = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))].to(labels.device)
    first, second = round(len(order) * train), round(len(order) * (train + valid))
    if not 0 < first < second < len(order):
        raise ValueError(f"shares of {train} and {valid} of {len(order)} nodes leave a part empty")
    return Split(order[:first], order[first:second], order[second:])


def load_planetoid(root: str | Path, name: str, features: bool = True) -> NodeData:
    """Cora, Citeseer or Pubmed from the eight files `ind.NAME.{x,y,tx,ty,allx,ally,graph,test.index}`.

    The files are Python 2 pickles. They are read by an unpickler that admits arrays and sparse matrices alone: a pickle
    that names anything else is refused before anything of it runs. Fifteen test nodes of Citeseer are missing from the
    files: they get no features and no label.

    Args:
        root: The folder with the files, or one that has them under `planetoid/` or `NAME/raw/`.
        name: `cora`, `citeseer` or `pubmed`.
        features: Whether to load features; without them the files with features need not be there.

    Returns:
        The graph.

    Raises:
        ValueError: Unknown name, or a file that is damaged or holds anything but arrays.
        FileNotFoundError: A missing file, by its name.

    Example:
        >>> load_planetoid("/nowhere", "core")
        Traceback (most recent call last):
        ValueError: unknown Planetoid data 'core': one of cora, citeseer, pubmed
    """
    if name.lower() not in PLANETOID:
        raise ValueError(f"unknown Planetoid data {name!r}: one of {', '.join(PLANETOID)}")
    name = name.lower()
    folder = _folder(Path(root), name)
    parts = ["graph", "test.index", "ally", "ty", *(["allx", "tx"] if features else [])]
    missing = [f"ind.{name}.{part}" for part in parts if not (folder / f"ind.{name}.{part}").is_file()]
    if missing:
        without = "" if {"allx", "tx"}.isdisjoint(m.rsplit(".", 1)[-1] for m in missing) else " (features=False does)"
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}, which {name} cannot do without{without}; source: {SOURCE}"
        )
    test = _test_index(folder / f"ind.{name}.test.index")
    known, held_out = (_array(folder / f"ind.{name}.{part}") for part in ("ally", "ty"))
    start, stop = len(known), int(test.max()) + 1
    if int(test.min()) != start or len(test) != len(held_out):
        raise ValueError(f"{folder}: ind.{name}.test.index and ind.{name}.ty do not fit each other")
    onehot = np.zeros((stop, known.shape[1]), dtype=np.int64)
    onehot[:start], onehot[test] = known, held_out
    labels = np.where(onehot.any(1), onehot.argmax(1), -1)
    return NodeData(
        name=name,
        edge_index=_edges(folder / f"ind.{name}.graph", stop),
        labels=torch.from_numpy(labels),
        num_classes=known.shape[1],
        features=_features(folder, name, test, stop) if features else None,
    )


def _folder(root: Path, name: str) -> Path:
    candidates = [root, root / "planetoid", *(root / title / "raw" for title in (name, name.title(), "PubMed"))]
    for folder in candidates:
        if any(folder.glob(f"ind.{name}.*")):
            return folder
    raise FileNotFoundError(f"no files ind.{name}.* in {root} or {root / 'planetoid'}; source: {SOURCE}")


def _array(path: Path) -> np.ndarray:
    values = safe_unpickle(path)
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "iuf":
        raise ValueError(f"{path} should hold a matrix of one-hot labels, but holds {type(values).__name__}")
    return values


def _test_index(path: Path) -> np.ndarray:
    try:
        return np.array([int(line) for line in path.read_text().split()], dtype=np.int64)
    except ValueError as error:
        raise ValueError(f"{path} should hold one node id a line: {error}") from None


def _edges(path: Path, num_nodes: int) -> Tensor:
    graph = safe_unpickle(path)
    if not isinstance(graph, dict):
        raise ValueError(f"{path} should hold a dict of neighbours, but holds {type(graph).__name__}")
    pairs = np.array([(node, other) for node, others in graph.items() for other in others], dtype=np.int64)
    pairs = np.sort(pairs.reshape(-1, 2), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= num_nodes):
        raise ValueError(f"{path} names node {pairs.max()}, but there are {num_nodes} nodes")
    return torch.from_numpy(np.ascontiguousarray(pairs.T))


def _features(folder: Path, name: str, test: np.ndarray, num_nodes: int) -> SparseFeatures:
    blocks = []
    for part, rows in (("allx", test.min()), ("tx", len(test))):
        path = folder / f"ind.{name}.{part}"
        block: Any = safe_unpickle(path)
        if not hasattr(block, "check_format") or block.shape[0] != rows:
            raise ValueError(f"{path} should hold a sparse matrix with {rows} rows")
        try:  # a damaged matrix could lead outside its arrays
            block.check_format(full_check=True)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        blocks.append(block.tocoo())
    row = np.concatenate([blocks[0].row, test[blocks[1].row]])
    col, data = (np.concatenate([getattr(block, field) for block in blocks]) for field in ("col", "data"))
    size = (num_nodes, blocks[0].shape[1])
    indices = torch.from_numpy(np.stack([row, col]).astype(np.int64))
    return SparseFeatures.of(_sparse(indices, torch.from_numpy(data).float(), size))


def _sparse(indices: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse invariant checks")
        return torch.sparse_coo_tensor(indices, values, size, check_invariants=True)
