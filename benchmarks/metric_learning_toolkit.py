"""Miners and the accuracy calculator against pytorch-metric-learning.

Limit of the miners: one distance matrix, a few passes over it, and the tuples that come out. The peer writes out all pairs
or triplets first. Limit of the accuracy calculator: one product of the embeddings with themselves (the same one that
faiss makes for the peer), one pass over each row, and a few over the neighbours.
"""

from collections.abc import Iterator
from typing import Any

import pytorch_metric_learning.miners as peers
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator as PeerCalculator

from saccade.bench import Comparison
from saccade.metric import miners
from saccade.metric.accuracy import AccuracyCalculator

BATCH, SIZE, EACH = 512, 128, 8
MINERS: list[tuple[str, dict[str, Any]]] = [
    ("AngularMiner", {}),
    ("BatchEasyHardMiner", {}),
    ("BatchHardMiner", {}),
    ("DistanceWeightedMiner", {}),
    ("HDCMiner", {}),
    ("MultiSimilarityMiner", {}),
    ("PairMarginMiner", {"pos_margin": 1.3, "neg_margin": 1.4}),
    ("TripletMarginMiner", {"type_of_triplets": "all"}),
    ("TripletMarginMiner", {"type_of_triplets": "semihard"}),
    ("UniformHistogramMiner", {}),
]


def comparisons() -> Iterator[Comparison]:
    yield from miner_comparisons()
    yield from accuracy_comparisons()


def miner_comparisons() -> Iterator[Comparison]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, SIZE, generator=generator).to(device)
    y = (torch.arange(BATCH) // EACH)[torch.randperm(BATCH, generator=generator)].to(device)
    for name, kwargs in MINERS:
        ours, peer = getattr(miners, name)(**kwargs), getattr(peers, name)(**kwargs)
        chosen = f" ({kwargs['type_of_triplets']})" if "type_of_triplets" in kwargs else ""
        yield Comparison(
            name=f"{name}{chosen}, batch {BATCH}, d {SIZE}, {EACH} a class",
            ours=lambda miner=ours: miner(x, y),
            peer=lambda miner=peer: miner(x, y),
            peer_name="pytorch-metric-learning",
            target=2.0,
            limit="a few passes over B x B floats, and the tuples",
        )


def accuracy_comparisons() -> Iterator[Comparison]:
    """As many embeddings, and as few of a class, as Stanford Online Products has."""
    rows, classes = 50_000, 10_000
    x = torch.nn.functional.normalize(torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(0)))
    y = torch.arange(rows) % classes
    options: dict[str, Any] = {"k": "max_bin_count", "exclude": ("NMI", "AMI")}
    device = torch.device("cpu")  # the peer's faiss runs there
    ours, peer = AccuracyCalculator(device=device, **options), PeerCalculator(device=device, **options)
    yield Comparison(
        name=f"accuracy calculator, {rows:,} x {SIZE}, {classes:,} classes",
        ours=lambda: ours.get_accuracy(x, y),
        peer=lambda: peer.get_accuracy(x, y),
        peer_name="pytorch-metric-learning with faiss",
        target=2.0,
        limit="the product of the embeddings with themselves",
    )
