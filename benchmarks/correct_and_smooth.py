"""Correct & Smooth against torch_geometric: on Cora (or a world of its size), and on a graph of a million edges."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from saccade.bench import Comparison
from saccade.graph import CorrectAndSmooth, Graph
from saccade.graph.datasets import load_planetoid
from saccade.worlds.graphs import citation_graph

CORRECT_ALPHA, SMOOTH_ALPHA = 0.9, 0.8
LIMIT = "memory: 12 bytes an edge and 8 bytes a node and class, each step"


def comparisons() -> Iterator[Comparison]:
    root = Path(os.environ.get("SACCADE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on so small a graph, more threads only wait for each other, on both sides
    if (root / "planetoid" / "ind.cora.graph").is_file():
        cora = load_planetoid(root, "cora", features=False)
        yield comparison("Cora, one thread", Graph(cora.edge_index, cora.num_nodes), 7, steps=50, target=4)
    else:
        world = citation_graph(0, num_nodes=2708)
        yield comparison("a world of Cora's size, one thread", Graph(world.edge_index, 2708), 7, steps=50, target=4)
    torch.set_num_threads(threads)
    edges = torch.randint(100_000, (2, 500_000), generator=torch.Generator().manual_seed(0))
    # Few steps keep it short; that favours the peer, as our normalisation weighs more.
    yield comparison("random graph of 1M directed edges", Graph(edges, 100_000), 10, steps=10, target=3)


def problem(graph: Graph, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, labels, and a mask of labelled nodes."""
    generator = torch.Generator().manual_seed(0)
    n = graph.num_nodes
    prob = torch.randn(n, classes, generator=generator).softmax(1)
    return prob, torch.randint(classes, (n,), generator=generator), torch.rand(n, generator=generator) < 0.6


def comparison(name: str, graph: Graph, classes: int, steps: int, target: float) -> Comparison:
    """Both start from the list of both directions of the edges, and normalise it within the time that is taken."""
    from torch_geometric.nn import CorrectAndSmooth as Peer

    prob, labels, mask = problem(graph, classes)
    edges = graph.edge_index
    setting = CorrectAndSmooth(CORRECT_ALPHA, SMOOTH_ALPHA, num_correct_steps=steps, num_smooth_steps=steps)
    theirs = Peer(steps, CORRECT_ALPHA, steps, SMOOTH_ALPHA, autoscale=True)

    def peer() -> Tensor:
        corrected = theirs.correct(prob, labels[mask], mask, edges)
        return theirs.smooth(corrected, labels[mask], mask, edges)

    sizes = f"{graph.num_nodes} nodes, {edges.shape[1]} directed edges, {classes} classes, {steps}+{steps} steps"
    return Comparison(
        name=f"{name}: {sizes}",
        ours=lambda: setting(prob, labels, mask, edges),
        peer=peer,
        peer_name="torch_geometric.nn.CorrectAndSmooth",
        target=target,
        limit=LIMIT,
    )
