"""Correct and Smooth: better predictions on a graph, without training.

Huang, He, Singh, Lim, Benson: *Combining Label Propagation and Simple Models Out-performs Graph Neural Networks*
(ICLR 2021, arXiv:2010.13993).

A base predictor sees each node alone and gives class probabilities Z. Its errors on the labelled nodes are known, and
neighbours tend to be wrong in the same way: *correct* spreads the errors along the edges and adds them to Z. Neighbours
also tend to have the same label: *smooth* spreads the corrected predictions, with the known labels put in. Both are the
same iteration, `R <- post(alpha S R + (1 - alpha) G)`, fifty sparse products with a matrix of n x classes; seconds on a
laptop.

The signs: the authors' code adds the spread Y - Z, the paper subtracts the spread Z - Y; that is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.graph.adjacency import KINDS, Edges, Graph, Kind
from saccade.graph.nodes import Labelled, check_probabilities, known_labels, labelled_index

Mode = Literal["autoscale", "fixed"]
Stages = Literal["both", "correct", "smooth"]
MAX_SCALE = 1000.0
"""Beyond this the autoscale of a row counts as unbounded, and the row's error is added as it is (the authors' code)."""


@torch.no_grad()
def propagate(
    adj: Tensor,
    signal: Float[Tensor, "n c"],
    alpha: float | Float[Tensor, " c"],
    num_steps: int = 50,
    clamp: tuple[float, float] | None = None,
    reset_index: Int[Tensor, " l"] | None = None,
    reset_value: Float[Tensor, "l c"] | None = None,
    tolerance: float = 0.0,
) -> Float[Tensor, "n c"]:
    """Spread a signal along the edges: `R <- post(alpha S R + (1 - alpha) G)`, from `R = G`.

    A step is one sparse product into one of two buffers, with alpha and the restart fused into it. Columns are
    independent of each other: several settings of alpha are computed at once as extra columns, which costs far less
    than one after the other. Not differentiable; torch.compile leaves it as it is, for it
    knows no sparse tensors. Source: arXiv:2010.13993, sections 2.2 and 2.3.

    Args:
        adj: S, the sparse CSR matrix (n, n) of [`normalized_adjacency`][saccade.graph.normalized_adjacency].
        signal: G, float32 or float64 as `adj`.
        alpha: How far it spreads, 0 to 1; one number, or one for each column. 1 is pure diffusion.
        num_steps: Number of steps.
        clamp: Lower and upper bound of R after each step; none where `None`.
        reset_index: Rows that are set back after each step.
        reset_value: What they are set to.
        tolerance: Stop when no entry changes by more than this; 0 does all steps.

    Returns:
        R after the last step.

    Raises:
        ValueError: alpha outside [0, 1], a negative number of steps, or one of `reset_index` and `reset_value` alone.

    Example:
        >>> from saccade.graph import normalized_adjacency
        >>> path = normalized_adjacency(torch.tensor([[0, 1], [1, 2]]), 3, kind="DA")
        >>> propagate(path, torch.tensor([[1.0], [0.0], [0.0]]), alpha=0.5, num_steps=2).flatten()
        tensor([0.6250, 0.1250, 0.1250])
    """
    if not _within(alpha, 0.0, 1.0):
        raise ValueError(f"alpha lies in [0, 1], but it is {alpha}")
    if num_steps < 0:
        raise ValueError(f"the number of steps is 0 or more, not {num_steps}")
    if (reset_index is None) != (reset_value is None):
        raise ValueError("reset_index and reset_value are given together")
    with torch.autocast(signal.device.type, enabled=False):
        columnwise = isinstance(alpha, Tensor)
        restart = signal * (1 - alpha)
        current, following = signal.clone(), torch.empty_like(signal)
        scaled = torch.empty_like(signal) if columnwise else current
        factor = 1.0 if columnwise else float(alpha)
        for _ in range(num_steps):
            source = torch.mul(current, alpha, out=scaled) if columnwise else current
            torch.addmm(restart, adj, source, beta=1.0, alpha=factor, out=following)
            if clamp is not None:
                following.clamp_(*clamp)
            if reset_index is not None and reset_value is not None:
                following.index_copy_(0, reset_index, reset_value)
            current, following = following, current
            if tolerance > 0 and bool((current - following).abs().max() <= tolerance):
                break
    return current


@dataclass(frozen=True)
class CorrectAndSmooth:
    """The two steps with their settings. Calling it gives the corrected and smoothed predictions.

    Graphs are given as they are (edge list, sparse matrix or [`Graph`][saccade.graph.Graph]), not normalised: the two
    steps normalise in their own way. A `Graph` that is used often is normalised once only.
    Source: arXiv:2010.13993, sections 2.2 and 2.3.

    Args:
        correct_alpha: How far errors spread, 0 to 1.
        smooth_alpha: How far predictions spread, 0 to 1.
        correct_adj: Normalisation that errors spread with: `DAD`, `DA` or `AD`.
        smooth_adj: The same for predictions.
        num_correct_steps: Steps of the first.
        num_smooth_steps: Steps of the second.
        mode: `autoscale` brings each node's spread error to the mean size of the known errors; `fixed` (the paper's
            FDiff-scale) holds the known errors fixed while they spread, and adds `scale` times the result.
        scale: Factor of mode `fixed`, 0.5 to 20 in the paper; unused in mode `autoscale`.
        stages: What calling it does: `both`, or `correct` or `smooth` alone. To smooth alone suits base predictors that
            know the graph already, such as graph neural networks.

    Raises:
        ValueError: A setting outside its range.

    Example:
        Nodes 0-1-2 and 3-4-5 are two paths; one node of each is labelled, and the base predictor errs on node 2.

        >>> edges = torch.tensor([[0, 1, 3, 4], [1, 2, 4, 5]])
        >>> base = torch.tensor([[0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [0.4, 0.6], [0.4, 0.6], [0.4, 0.6]])
        >>> labels = torch.tensor([0, -1, -1, 1, -1, -1])
        >>> smoothed = CorrectAndSmooth(correct_alpha=0.9, smooth_alpha=0.8)(base, labels, torch.tensor([0, 3]), edges)
        >>> smoothed.argmax(1)
        tensor([0, 0, 0, 1, 1, 1])
    """

    correct_alpha: float = 0.9
    smooth_alpha: float = 0.8
    correct_adj: Kind = "DAD"
    smooth_adj: Kind = "DAD"
    num_correct_steps: int = 50
    num_smooth_steps: int = 50
    mode: Mode = "autoscale"
    scale: float = 1.0
    stages: Stages = "both"

    def __post_init__(self) -> None:
        for name in ("correct_alpha", "smooth_alpha"):
            if not _within(getattr(self, name), 0.0, 1.0):
                raise ValueError(f"{name} lies in [0, 1], but it is {getattr(self, name)}")
        for name in ("num_correct_steps", "num_smooth_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more, not {getattr(self, name)}")
        choices = {"correct_adj": KINDS, "smooth_adj": KINDS, "mode": get_args(Mode), "stages": get_args(Stages)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: one of {', '.join(allowed)}")
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise ValueError(f"scale is finite and not negative, but it is {self.scale}")

    def correct(
        self, prob: Float[Tensor, "n k"], labels: Int[Tensor, " n"], labelled: Labelled, adj: Edges | Graph
    ) -> Float[Tensor, "n k"]:
        """Spread the errors on the labelled nodes and add them to the predictions of all nodes.

        Args:
            prob: Base probabilities Z; each row sums to 1.
            labels: Class of each node, 0 to k - 1; anything (such as -1) on nodes that are not labelled.
            labelled: Ids of the labelled nodes, or a mask.
            adj: The graph, not normalised.

        Returns:
            Z'; no longer a distribution.

        Raises:
            ValueError: Rows that are no probabilities; labels, ids or shapes out of range; no labelled node.
        """
        check_probabilities(prob)
        return _correct([self], prob, *known_labels(prob, labels, labelled), Graph.of(adj, len(prob)))[0]

    def smooth(
        self, prob: Float[Tensor, "n k"], labels: Int[Tensor, " n"], labelled: Labelled, adj: Edges | Graph
    ) -> Float[Tensor, "n k"]:
        """Put the known labels into the predictions and spread them.

        Args:
            prob: Corrected predictions, or base probabilities to smooth alone.
            labels: As in `correct`.
            labelled: As in `correct`.
            adj: As in `correct`.

        Returns:
            Scores in [0, 1]; their largest column is the prediction. Rows need not sum to 1.

        Raises:
            ValueError: Values that are not finite; labels, ids or shapes out of range; no labelled node.
        """
        index, onehot = known_labels(prob, labels, labelled)
        return _smooth([self], prob[None], index, onehot, Graph.of(adj, len(prob)))[0]

    def __call__(
        self, prob: Float[Tensor, "n k"], labels: Int[Tensor, " n"], labelled: Labelled, adj: Edges | Graph
    ) -> Float[Tensor, "n k"]:
        """Correct, then smooth (or what `stages` says); arguments and result as in those."""
        check_probabilities(prob)
        return correct_and_smooth_all([self], prob, labels, labelled, adj)[0]


@dataclass(frozen=True)
class LabelPropagation:
    """The baseline without a base predictor: known labels spread along the edges, clamped to [0, 1].

    Args:
        alpha: How far they spread, 0 to 1.
        num_steps: Number of steps.
        adj: Normalisation: `DAD`, `DA` or `AD`.

    Raises:
        ValueError: A setting outside its range.

    Example:
        >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> LabelPropagation(alpha=0.9)(torch.tensor([0, -1, -1, 1]), torch.tensor([0, 3]), path).argmax(1)
        tensor([0, 0, 1, 1])
    """

    alpha: float = 0.9
    num_steps: int = 50
    adj: Kind = "DAD"

    def __post_init__(self) -> None:
        CorrectAndSmooth(smooth_alpha=self.alpha, num_smooth_steps=self.num_steps, smooth_adj=self.adj)

    def __call__(
        self,
        labels: Int[Tensor, " n"],
        labelled: Labelled,
        adj: Edges | Graph,
        num_classes: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n k"]:
        """Scores (n, k) in [0, 1]; 0 throughout where no label reaches.

        Args:
            labels: Class of each node; anything on nodes that are not labelled.
            labelled: Ids of the labelled nodes, or a mask.
            adj: The graph, not normalised.
            num_classes: k; the largest known label plus one where it is not given.
            dtype: To compute in.

        Returns:
            Scores.

        Raises:
            ValueError: Labels or ids out of range; no labelled node.
        """
        index = labelled_index(labelled, len(labels))
        classes = int(labels[index].max()) + 1 if num_classes is None else num_classes
        nothing = torch.zeros(len(labels), max(classes, 1), dtype=dtype, device=labels.device)
        spread = CorrectAndSmooth(smooth_alpha=self.alpha, num_smooth_steps=self.num_steps, smooth_adj=self.adj)
        return spread.smooth(nothing, labels, index, adj)


def correct_and_smooth_all(
    settings: Sequence[CorrectAndSmooth],
    prob: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    labelled: Labelled,
    adj: Edges | Graph,
) -> Float[Tensor, "s n k"]:
    """What each of several settings gives, computed together as extra columns of the same sparse products.

    Args:
        settings: One or more; their `stages` is the same.
        prob: Base probabilities; zeros to spread labels alone (`stages="smooth"`).
        labels: As in [`CorrectAndSmooth.correct`][saccade.graph.CorrectAndSmooth.correct].
        labelled: As there.
        adj: As there.

    Returns:
        The result of each setting, in their order.

    Raises:
        ValueError: As in `CorrectAndSmooth.correct`, no settings, or settings that differ in `stages`.

    Example:
        >>> settings = [CorrectAndSmooth(correct_alpha=alpha) for alpha in (0.5, 0.9)]
        >>> edges, base = torch.tensor([[0, 1], [1, 2]]), torch.full((3, 2), 0.5)
        >>> correct_and_smooth_all(settings, base, torch.tensor([0, 0, 1]), torch.tensor([0, 2]), edges).shape
        torch.Size([2, 3, 2])
    """
    stages = {setting.stages for setting in settings}
    if len(stages) != 1:
        raise ValueError(f"settings are computed together when their stages agree, but these are {sorted(stages)}")
    index, onehot = known_labels(prob, labels, labelled)
    graph = Graph.of(adj, len(prob))
    if stages == {"smooth"}:
        corrected = prob.expand(len(settings), *prob.shape)
    else:
        check_probabilities(prob)
        corrected = _correct(settings, prob, index, onehot, graph)
    return corrected if stages == {"correct"} else _smooth(settings, corrected, index, onehot, graph)


def _correct(
    settings: Sequence[CorrectAndSmooth],
    prob: Float[Tensor, "n k"],
    index: Int[Tensor, " l"],
    onehot: Float[Tensor, "l k"],
    graph: Graph,
) -> Float[Tensor, "s n k"]:
    working = prob.to(onehot.dtype)
    known = onehot - working[index]
    error = torch.zeros_like(working).index_copy_(0, index, known)

    def spread(group: Sequence[CorrectAndSmooth]) -> Float[Tensor, "g n k"]:
        first = group[0]
        signal = error.expand(len(group), *error.shape)
        alphas = [setting.correct_alpha for setting in group]
        adj = graph.to(prob.device).normalized(first.correct_adj, working.dtype)
        if first.mode == "fixed":
            result = _propagate_settings(adj, signal, alphas, first.num_correct_steps, None, index, known)
            scales = torch.tensor([setting.scale for setting in group], dtype=working.dtype, device=prob.device)
            return working + scales[:, None, None] * result
        result = _propagate_settings(adj, signal, alphas, first.num_correct_steps, (-1.0, 1.0))
        size = result.abs().sum(2, keepdim=True)
        factor = known.abs().sum(1).mean() / torch.where(size > 0, size, 1.0)
        # Where no error arrives, or next to none, there is nothing to bring to size.
        factor = torch.where((size == 0) | (factor > MAX_SCALE), 1.0, factor)
        return working + factor * result

    corrected = _by_group(settings, spread, lambda s: (s.correct_adj, s.mode, s.num_correct_steps))
    return corrected.to(prob.dtype)


def _smooth(
    settings: Sequence[CorrectAndSmooth],
    corrected: Float[Tensor, "s n k"],
    index: Int[Tensor, " l"],
    onehot: Float[Tensor, "l k"],
    graph: Graph,
) -> Float[Tensor, "s n k"]:
    guess = corrected.to(onehot.dtype).clone()
    guess[:, index] = onehot
    position = {id(setting): place for place, setting in enumerate(settings)}

    def spread(group: Sequence[CorrectAndSmooth]) -> Float[Tensor, "g n k"]:
        first = group[0]
        adj = graph.to(corrected.device).normalized(first.smooth_adj, onehot.dtype)
        signal = guess[[position[id(setting)] for setting in group]]
        alphas = [setting.smooth_alpha for setting in group]
        return _propagate_settings(adj, signal, alphas, first.num_smooth_steps, (0.0, 1.0))

    smoothed = _by_group(settings, spread, lambda s: (s.smooth_adj, s.num_smooth_steps))
    return smoothed.to(corrected.dtype)


def _propagate_settings(
    adj: Tensor,
    signal: Float[Tensor, "g n k"],
    alphas: Sequence[float],
    num_steps: int,
    clamp: tuple[float, float] | None,
    reset_index: Int[Tensor, " l"] | None = None,
    reset_value: Float[Tensor, "l k"] | None = None,
) -> Float[Tensor, "g n k"]:
    """Propagate with one alpha a group: they lie beside each other as columns."""
    g, n, k = signal.shape
    columns = signal.permute(1, 0, 2).reshape(n, g * k)
    alpha: float | Tensor = alphas[0]
    if g > 1:
        alpha = torch.tensor(alphas, dtype=signal.dtype, device=signal.device).repeat_interleave(k)
    repeated = None if reset_value is None else reset_value.repeat(1, g)
    result = propagate(adj, columns, alpha, num_steps, clamp, reset_index, repeated)
    return result.view(n, g, k).permute(1, 0, 2)


def _by_group(
    settings: Sequence[CorrectAndSmooth],
    spread: Callable[[Sequence[CorrectAndSmooth]], Tensor],
    key: Callable[[CorrectAndSmooth], tuple[object, ...]],
) -> Float[Tensor, "s n k"]:
    """Compute settings of the same key together, and give the results in the order of the settings."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, setting in enumerate(settings):
        groups.setdefault(key(setting), []).append(place)
    results = torch.cat([spread([settings[place] for place in places]) for places in groups.values()])
    order = torch.tensor([place for places in groups.values() for place in places], device=results.device)
    return results[order.argsort()]


def _within(value: float | Tensor, low: float, high: float) -> bool:
    if isinstance(value, Tensor):
        return bool(((value >= low) & (value <= high)).all())
    return low <= value <= high
