"""Miners that draw at random: by distance, or evenly over distances."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from saccade.metric.distances import LpDistance
from saccade.metric.miners.base import BaseMiner
from saccade.metric.tuples import IndicesTuple, matches_and_differences, random_triplets


class DistanceWeightedMiner(BaseMiner):
    """Negatives drawn so that their distances are spread evenly (arXiv:1706.07567, section 4).

    Points that are uniform on the sphere of dimension d - 1 have pairwise distances with the density
    q(D) ~ D^(d-2) (1 - D^2/4)^((d-3)/2); a negative is drawn with the weight 1 / q(D). Each anchor gets as many
    triplets as its class has references, with random positives; an anchor without any negative to draw gives none.

    The logarithms of the weights are reduced by the largest of their row, so that no anchor is lost to underflow.

    Args:
        cutoff: Smaller distances are raised to it, to keep the variance of the gradient low.
        nonzero_loss_cutoff: Negatives from this distance on are not drawn.
        **kwargs: `distance` (Euclidean, normalised), `collect_stats`.

    Raises:
        ValueError: Another distance.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [-1.0, 0.0]])
        >>> anchors, positives, negatives = DistanceWeightedMiner()(points, torch.tensor([0, 0, 1, 1]))
        >>> anchors
        tensor([0, 0, 1, 1, 2, 2])
    """

    def __init__(self, cutoff: float = 0.5, nonzero_loss_cutoff: float = 1.4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(LpDistance, p=2, power=1, normalize_embeddings=True)
        self.cutoff = float(cutoff)
        self.nonzero_loss_cutoff = float(nonzero_loss_cutoff)
        self.add_to_recordable_attributes(list_of_names=["cutoff", "nonzero_loss_cutoff"])

    def probabilities(
        self,
        embeddings: Float[Tensor, "b d"],
        labels: Shaped[Tensor, " b"],
        ref_emb: Float[Tensor, "m d"] | None = None,
        ref_labels: Shaped[Tensor, " m"] | None = None,
    ) -> Float[Tensor, "b m"]:
        """How likely each reference is drawn as a negative of each sample.

        Args:
            embeddings: Of the batch.
            labels: Their classes.
            ref_emb: The references; the batch where `None`.
            ref_labels: Their classes.

        Returns:
            Rows sum to 1, or to 0 where there is nothing to draw.
        """
        distances = self.distance(embeddings, ref_emb).clamp(min=self.cutoff)
        _, different = matches_and_differences(labels, ref_labels)
        size = embeddings.shape[1]
        log_weights = (2 - size) * distances.log() - (size - 3) / 2 * (1 - distances.square() / 4).log()
        allowed = different & (distances < self.nonzero_loss_cutoff) & log_weights.isfinite()
        log_weights = log_weights.masked_fill(~allowed, -torch.inf)
        return log_weights.softmax(dim=1).masked_fill(~allowed, 0)

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Anchors, positives, negatives; by class, then by anchor."""
        return random_triplets(labels, ref_labels, weights=self.probabilities(embeddings, labels, ref_emb, ref_labels))


class UniformHistogramMiner(BaseMiner):
    """As many pairs from each bin of the histogram of distances, drawn with replacement; empty bins give none.

    Args:
        num_bins: Bins of equal width between the smallest and the largest distance.
        pos_per_bin: Positive pairs a bin.
        neg_per_bin: Negative pairs a bin.
        **kwargs: `distance`, `collect_stats`.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
        >>> miner = UniformHistogramMiner(num_bins=10, pos_per_bin=1, neg_per_bin=3)
        >>> [len(index) for index in miner(points, torch.tensor([0, 0, 1]))]
        [1, 1, 6, 6]
    """

    def __init__(self, num_bins: int = 100, pos_per_bin: int = 10, neg_per_bin: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("num_bins", num_bins), ("pos_per_bin", pos_per_bin), ("neg_per_bin", neg_per_bin)):
            if value < 1:
                raise ValueError(f"{name} is {value}; at least 1 is accepted")
        self.num_bins = num_bins
        self.pos_per_bin = pos_per_bin
        self.neg_per_bin = neg_per_bin
        self.add_to_recordable_attributes(list_of_names=["pos_per_bin", "neg_per_bin"])

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Anchors, positives, anchors, negatives; in the order of bins."""
        distances = self.distance(embeddings, ref_emb)
        same, different = matches_and_differences(labels, ref_labels)
        return (*self._draw(distances, same, self.pos_per_bin), *self._draw(distances, different, self.neg_per_bin))

    def _draw(self, distances: Tensor, mask: Tensor, per_bin: int) -> tuple[Tensor, Tensor]:
        """Pairs of a mask: the cells are put in the order of their bins, then places within each run are drawn."""
        cells = mask.flatten().nonzero().squeeze(1)
        if cells.numel() == 0:
            return cells, cells.clone()
        values = distances.flatten()[cells]
        low, high = torch.aminmax(values)
        edges = torch.linspace(0, 1, self.num_bins + 1, device=values.device, dtype=values.dtype) * (high - low) + low
        bins = torch.bucketize(values, edges[1:-1].contiguous(), right=True)
        counts = bins.bincount(minlength=self.num_bins)
        order = bins.argsort()
        filled = counts.nonzero()
        firsts = (counts.cumsum(0) - counts)[filled]
        chance = torch.rand((len(filled), per_bin), dtype=torch.float64, device=values.device) * counts[filled]
        drawn = cells[order[(firsts + chance.long()).flatten()]]
        return drawn // distances.shape[1], drawn % distances.shape[1]
