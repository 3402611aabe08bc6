"""The metric-learning toolkit against pytorch-metric-learning: losses (forward and backward), miners, accuracy.

Limit of losses: three matrix products of the batch with itself and a few passes over B x B floats; losses over triplets
add a sort of the rows. What the peer writes out (pairs x pairs, B x B x B) is not limited by the problem.
Limit of miners: one distance matrix, a few passes over it, and the tuples that come out. Limit of the accuracy
calculator: one product of the embeddings with themselves (the same that faiss makes for the peer), one pass over each
row, and a few over the neighbours.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytorch_metric_learning.losses as peers
import pytorch_metric_learning.miners as peer_miners
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator as PeerCalculator

from saccade.bench import Comparison
from saccade.metric import losses, miners
from saccade.metric.accuracy import AccuracyCalculator

GROUPS = {"losses": 1.5}
BATCH, SIZE, EACH = 512, 128, 4
CLASSES = BATCH // EACH
ARGUMENTS: dict[str, dict[str, Any]] = {
    "RankedListLoss": {"margin": 0.4, "Tn": 3},
    "P2SGradLoss": {"descriptors_dim": SIZE, "num_classes": CLASSES},
    "ManifoldLoss": {"l": SIZE},
}
SINGLE = [
    "AngularLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "DynamicSoftMarginLoss",
    "FastAPLoss",
    "GeneralizedLiftedStructureLoss",
    "HistogramLoss",
    "InstanceLoss",
    "IntraPairVarianceLoss",
    "LiftedStructureLoss",
    "ManifoldLoss",
    "MarginLoss",
    "MultiSimilarityLoss",
    "NCALoss",
    "NPairsLoss",
    "NTXentLoss",
    "PNPLoss",
    "RankedListLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "SmoothAPLoss",
    "SupConLoss",
    "ThresholdConsistentMarginLoss",
    "TripletMarginLoss",
    "TupletMarginLoss",
    "VICRegLoss",
    "P2SGradLoss",
]
WITH_CLASSES = [
    "ArcFaceLoss",
    "CosFaceLoss",
    "LargeMarginSoftmaxLoss",
    "NormalizedSoftmaxLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SubCenterArcFaceLoss",
]

MINED = 8
MINERS: list[tuple[str, dict[str, Any]]] = [
    ("AngularMiner", {}),
    ("BatchEasyHardMiner", {}),
    ("BatchHardMiner", {}),
    ("DistanceWeightedMiner", {}),
    ("HDCMiner", {}),
    ("MultiSimilarityMiner", {}),
    ("PairMarginMiner", {}),
    ("TripletMarginMiner", {"type_of_triplets": "all"}),
    ("TripletMarginMiner", {"type_of_triplets": "semihard"}),
    ("UniformHistogramMiner", {}),
]


def comparisons() -> Iterator[Comparison]:
    yield from loss_comparisons()
    yield from memory_comparisons()
    yield from miner_comparisons()
    yield from accuracy_comparisons()


def loss_comparisons() -> Iterator[Comparison]:
    for name in sorted([*SINGLE, *WITH_CLASSES]):
        sizes = {"num_classes": CLASSES, "embedding_size": SIZE} if name in WITH_CLASSES else ARGUMENTS.get(name, {})
        ours, peer = getattr(losses, name)(**sizes), getattr(peers, name)(**sizes)
        peer.load_state_dict(ours.state_dict())
        yield Comparison(
            name=f"{name}, batch {BATCH}, d {SIZE}, {EACH} a class",
            ours=step(name, ours, BATCH),
            peer=step(name, peer, BATCH),
            peer_name="pytorch-metric-learning",
            target=0.9,
            limit="matrix products and passes over B x B floats",
            group="losses",
        )


def memory_comparisons() -> Iterator[Comparison]:
    """At a batch of 2,048 the peer needs more than 24 GiB: it is measured at smaller ones."""
    for name, rows in (("NTXentLoss", 384), ("TripletMarginLoss", 1024), ("LiftedStructureLoss", 256)):
        yield Comparison(
            name=f"{name}, batch 2,048 for ours, {rows:,} for the peer: peak memory",
            ours=step(name, getattr(losses, name)(), 2048),
            peer=step(name, getattr(peers, name)(), rows),
            peer_name="pytorch-metric-learning",
            target=0.0,
            memory_target=4.0,
            limit="a few B x B matrices",
        )


def miner_comparisons() -> Iterator[Comparison]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, SIZE, generator=generator).to(device)
    y = (torch.arange(BATCH) // MINED)[torch.randperm(BATCH, generator=generator)].to(device)
    for name, kwargs in MINERS:
        ours, peer = getattr(miners, name)(**kwargs), getattr(peer_miners, name)(**kwargs)
        chosen = f" ({kwargs['type_of_triplets']})" if "type_of_triplets" in kwargs else ""
        yield Comparison(
            name=f"{name}{chosen}, batch {BATCH}, d {SIZE}, {MINED} a class",
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


def step(name: str, loss: Any, batch: int) -> Callable[[], None]:
    """Forward and backward on random embeddings."""
    generator = torch.Generator().manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loss = loss.to(device)
    x = torch.randn(batch, SIZE, generator=generator).to(device).requires_grad_()
    view = torch.randn(batch, SIZE, generator=generator).to(device)
    order = torch.arange(batch) if name == "SmoothAPLoss" else torch.randperm(batch, generator=generator)
    labels = (torch.arange(batch) // EACH)[order].to(device)
    meta = torch.randint(50, (batch,), generator=generator).to(device)

    def run() -> None:
        x.grad = None
        if name == "DynamicSoftMarginLoss":
            loss.hist_ = torch.zeros_like(loss.hist_)  # the peer keeps the graph of the last call
        if name == "VICRegLoss":
            loss(x, ref_emb=view).backward()
        elif name == "ManifoldLoss":
            loss(x, indices_tuple=meta).backward()
        else:
            loss(x, labels).backward()

    return run
