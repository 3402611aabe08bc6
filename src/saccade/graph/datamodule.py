"""Graphs for Lightning: one batch is the whole graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from saccade.data.root import default_root
from saccade.graph.adjacency import Graph
from saccade.graph.base import SparseFeatures
from saccade.graph.datasets import NodeData, Split, load_planetoid, random_split
from saccade.training.data import DataModule
from saccade.worlds.graphs import citation_graph


@dataclass
class NodeBatch:
    """A whole graph with its split.

    Args:
        features: Of all nodes.
        train_features: Of the training nodes, so that they need not be cut out in every step.
        labels: Class of each node; -1 where it is not known.
        split: Ids of the nodes of each part.
        graph: The graph itself.
    """

    features: SparseFeatures
    train_features: SparseFeatures
    labels: Tensor
    split: Split
    graph: Graph

    def to(self, device: torch.device | str, **_: Any) -> NodeBatch:
        """On that device; Lightning calls this."""
        split = Split(*(part.to(device) for part in (self.split.train, self.split.valid, self.split.test)))
        return NodeBatch(
            self.features.to(device),
            self.train_features.to(device),
            self.labels.to(device),
            split,
            self.graph.to(device),
        )


class CitationGraph(DataModule):
    """Cora, Citeseer, or a citation world, in a random 60/20/20 split: the paper's protocol.

    Args:
        name: `cora`, `citeseer`, `pubmed` (needs its features), or `citations` for the world, which needs no files.
        root: The data root, or the folder with the `ind.*` files; `SACCADE_DATA` where not given.
        seed: Number of the run: of the split, and of the world.
        num_nodes: Size of the world.
    """

    def __init__(
        self,
        name: Literal["cora", "citeseer", "pubmed", "citations"] = "cora",
        root: str | None = None,
        seed: int = 0,
        num_nodes: int = 2000,
    ) -> None:
        super().__init__(batch_size=1, num_workers=0, seed=seed)
        self.source = name
        self.root = root
        self.num_nodes = num_nodes
        self._whole: NodeBatch | None = None

    collate = staticmethod(lambda samples: samples[0])

    @property
    def whole(self) -> NodeBatch:
        """The one batch, read when it is first asked for."""
        if self._whole is None:
            with torch.inference_mode(False):  # Lightning may ask in inference mode, and train with it afterwards
                self._whole = self._assemble()
        return self._whole

    def train_set(self) -> Dataset[Any]:
        """The graph."""
        return _Once(self.whole)

    def val_set(self) -> Dataset[Any]:
        """The graph."""
        return _Once(self.whole)

    def _assemble(self) -> NodeBatch:
        data = self._read()
        if data.features is None:
            raise ValueError(f"{data.name} has no features to train a predictor on")
        split = random_split(data.labels, self.seed)
        graph = Graph(data.edge_index, data.num_nodes)
        return NodeBatch(data.features, data.features.rows(split.train), data.labels, split, graph)

    def _read(self) -> NodeData:
        if self.source != "citations":
            return load_planetoid(self.root or default_root(), self.source)
        world = citation_graph(self.seed, self.num_nodes)
        features = SparseFeatures.of(world.features)
        return NodeData("citations", world.edge_index, world.labels, world.num_classes, features)


class _Once(Dataset[NodeBatch]):
    """A data set of one sample."""

    def __init__(self, sample: NodeBatch) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> NodeBatch:
        return self.sample
