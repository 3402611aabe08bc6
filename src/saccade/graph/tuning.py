"""Choosing the settings of Correct and Smooth on validation nodes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.graph.adjacency import KINDS, Edges, Graph, Kind
from saccade.graph.correct_and_smooth import (
    CorrectAndSmooth,
    Mode,
    Stages,
    correct_and_smooth_all,
)
from saccade.graph.nodes import labelled_index

MAX_ENTRIES = 2**24
"""Settings are computed together up to this many numbers (64 MiB of float32) in one buffer."""


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Args:
        best: The setting with the best validation accuracy; the first of them where several tie.
        accuracy: Its accuracy on the validation nodes, 0 to 1.
        trials: Every setting that was tried, with its accuracy.
    """

    best: CorrectAndSmooth
    accuracy: float
    trials: tuple[tuple[CorrectAndSmooth, float], ...]


def draw_settings(
    num_trials: int = 50,
    seed: int = 0,
    modes: Sequence[Mode] = ("autoscale",),
    kinds: Sequence[Kind] = KINDS,
    stages: Stages = "both",
    num_steps: int = 50,
) -> list[CorrectAndSmooth]:
    """Random settings: alphas uniform in [0.05, 1], scales log-uniform in [0.5, 20], the rest drawn from the choices.

    Args:
        num_trials: How many.
        seed: The same seed gives the same settings.
        modes: Modes to choose from.
        kinds: Normalisations to choose from.
        stages: Of all of them.
        num_steps: Steps of both stages.

    Returns:
        The settings.

    Raises:
        ValueError: Fewer than one, or nothing to choose from.

    Example:
        >>> len(draw_settings(3)), draw_settings(3) == draw_settings(3)
        (3, True)
    """
    if num_trials < 1 or not modes or not kinds:
        raise ValueError(f"a search needs trials, modes and kinds, but has {num_trials}, {modes} and {kinds}")
    draw = random.Random(seed)
    return [
        CorrectAndSmooth(
            correct_alpha=draw.uniform(0.05, 1.0),
            smooth_alpha=draw.uniform(0.05, 1.0),
            correct_adj=draw.choice(kinds),
            smooth_adj=draw.choice(kinds),
            num_correct_steps=num_steps,
            num_smooth_steps=num_steps,
            mode=draw.choice(modes),
            scale=math.exp(draw.uniform(math.log(0.5), math.log(20.0))),
            stages=stages,
        )
        for _ in range(num_trials)
    ]


def tune(
    prob: Float[Tensor, "n k"] | None,
    labels: Int[Tensor, " n"],
    train: Int[Tensor, " t"] | Bool[Tensor, " n"],
    valid: Int[Tensor, " v"] | Bool[Tensor, " n"],
    adj: Edges | Graph,
    settings: Sequence[CorrectAndSmooth] | None = None,
    num_classes: int | None = None,
) -> Tuned:
    """The setting that predicts the validation nodes best when the training labels are known.

    All settings are propagated together, as extra columns of the same sparse products: fifty cost about as much as ten
    one by one.

    Args:
        prob: Base probabilities; `None` tunes label propagation (its settings are `smooth_alpha` and `smooth_adj`).
        labels: Class of each node.
        train: Nodes whose labels are known, as ids or mask.
        valid: Nodes to choose on; none of them is in `train`.
        adj: The graph, not normalised.
        settings: What to try, a grid for example; fifty random ones where not given.
        num_classes: k, needed with `prob=None` where a class occurs on no training node.

    Returns:
        The best setting, and all trials.

    Raises:
        ValueError: Nodes both in `train` and `valid`, no settings, or what `CorrectAndSmooth` refuses.

    Example:
        >>> from saccade.worlds.graphs import citation_graph
        >>> world = citation_graph(seed=0, num_nodes=300)
        >>> train, valid = torch.arange(0, 180), torch.arange(180, 240)
        >>> found = tune(None, world.labels, train, valid, world.edge_index, num_classes=world.num_classes)
        >>> len(found.trials), found.best.stages
        (50, 'smooth')
    """
    train, valid = labelled_index(train, len(labels)), labelled_index(valid, len(labels))
    both = set(train.tolist()) & set(valid.tolist())
    if both:
        raise ValueError(f"{len(both)} nodes are training and validation nodes at once, such as node {min(both)}")
    if settings is None:
        settings = draw_settings(stages="smooth" if prob is None else "both")
    if not settings:
        raise ValueError("there are no settings to choose from")
    if prob is None:
        if any(setting.stages != "smooth" for setting in settings):
            raise ValueError('label propagation has no base predictions to correct: use stages="smooth"')
        classes = int(labels[torch.cat([train, valid])].max()) + 1 if num_classes is None else num_classes
        prob = torch.zeros(len(labels), classes, device=labels.device)
    graph = Graph.of(adj, len(labels))
    together = max(1, MAX_ENTRIES // max(prob.numel(), 1))
    accuracies: list[float] = []
    for start in range(0, len(settings), together):
        scores = correct_and_smooth_all(settings[start : start + together], prob, labels, train, graph)
        accuracies += (scores[:, valid].argmax(2) == labels[valid]).double().mean(1).tolist()
    best = max(range(len(settings)), key=accuracies.__getitem__)
    return Tuned(settings[best], accuracies[best], tuple(zip(settings, accuracies, strict=True)))
