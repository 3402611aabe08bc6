"""Miners that keep what violates a margin."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from saccade.metric.distances import CosineSimilarity, LpDistance
from saccade.metric.miners.base import BaseMiner, gather_triplets, positive_pairs_in_chunks
from saccade.metric.ordering import order_of_rows
from saccade.metric.tuples import IndicesTuple, matches_and_differences


class TripletMarginMiner(BaseMiner):
    """Triplets by how much farther the negative is than the positive, t = d_an - d_ap (FaceNet, arXiv:1503.03832, 3.2).

    Args:
        margin: In the units of the distance.
        type_of_triplets: "all": t <= margin; "hard": of these t <= 0; "semihard": of these t > 0; "easy": t > margin.
        **kwargs: `distance`, `collect_stats`. With statistics, the means over all triplets of the batch are in
            `avg_triplet_margin`, `pos_pair_dist` and `neg_pair_dist`.

    Raises:
        ValueError: Another type of triplets.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
        >>> TripletMarginMiner(0.1)(points, torch.tensor([0, 0, 1]))
        (tensor([0, 1]), tensor([1, 0]), tensor([2, 2]))
    """

    TYPES = ("all", "hard", "semihard", "easy")

    def __init__(
        self,
        margin: float = 0.2,
        type_of_triplets: Literal["all", "hard", "semihard", "easy"] = "all",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if type_of_triplets not in self.TYPES:
            raise ValueError(f"type_of_triplets is {type_of_triplets!r}; {', '.join(self.TYPES)} are accepted")
        self.margin = margin
        self.type_of_triplets = type_of_triplets
        self.add_to_recordable_attributes(name="margin")
        self.add_to_recordable_attributes(
            list_of_names=["avg_triplet_margin", "pos_pair_dist", "neg_pair_dist"], is_stat=True
        )

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Anchors, positives, negatives; in this order."""
        distances = self.distance(embeddings, ref_emb)
        same, different = matches_and_differences(labels, ref_labels)
        if self.collect_stats:
            self._note(distances, same, different)
        if self.distance.is_inverted:
            distances = -distances
        # t <= bound is d_an <= d_ap + bound; every kind of triplet is an interval of d_an
        below = torch.where(different, distances, torch.inf)
        found = []
        for anchors, positives in positive_pairs_in_chunks(same):
            nearest = distances[anchors, positives].unsqueeze(1)
            gap = below[anchors].sub_(nearest)  # infinite where the reference is no negative
            if self.type_of_triplets == "easy":
                kept = (gap > self.margin) & gap.isfinite()
            elif self.type_of_triplets == "semihard":
                kept = (gap <= self.margin) & (gap > 0)
            else:
                kept = gap <= (min(self.margin, 0.0) if self.type_of_triplets == "hard" else self.margin)
            pair, negatives = torch.where(kept)
            found.append((anchors[pair], positives[pair], negatives))
        return gather_triplets(found, labels)

    def _note(self, distances: Tensor, same: Tensor, different: Tensor) -> None:
        """Means over all triplets: a positive pair is in as many as its anchor has negatives, and the reverse."""
        positives, negatives = same.sum(dim=1).double(), different.sum(dim=1).double()
        triplets = (positives * negatives).sum()
        if triplets == 0:
            return
        wide = distances.double()
        positive = ((wide * same).sum(dim=1) * negatives).sum() / triplets
        negative = ((wide * different).sum(dim=1) * positives).sum() / triplets
        self.pos_pair_dist, self.neg_pair_dist = positive.item(), negative.item()
        self.avg_triplet_margin = float(self.distance.margin(self.neg_pair_dist, self.pos_pair_dist))


class PairMarginMiner(BaseMiner):
    """Positive pairs farther than one margin, and negative pairs nearer than another.

    Args:
        pos_margin: Positive pairs have to be farther (for a similarity: less similar).
        neg_margin: Negative pairs have to be nearer.
        **kwargs: `distance`, `collect_stats`. With statistics, the means over all pairs are in `pos_pair_dist` and
            `neg_pair_dist`.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
        >>> PairMarginMiner(0.2, 0.8)(points, torch.tensor([0, 0, 1]))
        (tensor([0, 1]), tensor([1, 0]), tensor([0, 2]), tensor([2, 0]))
    """

    def __init__(self, pos_margin: float = 0.2, neg_margin: float = 0.8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_margin = pos_margin
        self.neg_margin = neg_margin
        self.add_to_recordable_attributes(list_of_names=["pos_margin", "neg_margin"])
        self.add_to_recordable_attributes(list_of_names=["pos_pair_dist", "neg_pair_dist"], is_stat=True)

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Anchors, positives, anchors, negatives."""
        distances = self.distance(embeddings, ref_emb)
        same, different = matches_and_differences(labels, ref_labels)
        if self.collect_stats:
            self.set_mean(pos_pair_dist=distances[same], neg_pair_dist=distances[different])
        anchors, positives = torch.where(same)
        apart = distances[anchors, positives]
        if self.distance.is_inverted:
            far, near = apart < self.pos_margin, distances > self.neg_margin
        else:
            far, near = apart > self.pos_margin, distances < self.neg_margin
        return (anchors[far], positives[far], *torch.where(near.logical_and_(different)))


class MultiSimilarityMiner(BaseMiner):
    """Positives less similar than the nearest negative, negatives more similar than the farthest positive.

    Each comparison is with slack epsilon (arXiv:1904.06627, eqs. 7 and 8); cosine similarity by default.

    Args:
        epsilon: In the units of the similarity.
        **kwargs: `distance`, `collect_stats`.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
        >>> MultiSimilarityMiner()(points, torch.tensor([0, 0, 1]))
        (tensor([0, 1]), tensor([1, 0]), tensor([0, 1]), tensor([2, 2]))
    """

    def __init__(self, epsilon: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.add_to_recordable_attributes(name="epsilon")

    default_distance = CosineSimilarity

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Anchors, positives, anchors, negatives; each anchor's in the order of the distance matrix's values."""
        values = self.distance(embeddings, ref_emb)
        same, different = matches_and_differences(labels, ref_labels)
        nearness = values if self.distance.is_inverted else -values
        worst = torch.where(same, nearness, torch.inf).amin(dim=1, keepdim=True)
        best = torch.where(different, nearness, -torch.inf).amax(dim=1, keepdim=True)
        hard_positive = (nearness - self.epsilon < best).logical_and_(same)
        enough = torch.where(worst.isfinite(), worst, torch.inf)
        hard_negative = (nearness + self.epsilon > enough).logical_and_(different)
        return (*_in_order(hard_positive, values), *_in_order(hard_negative, values))


def _in_order(kept: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of a mask, each row's columns in the order of their values."""
    counts = kept.sum(dim=1)
    number, width = int(counts.sum()), int(counts.max()) if len(counts) else 0
    rows = torch.repeat_interleave(counts, output_size=number)
    if 2 * width > kept.shape[1]:
        columns = order_of_rows(torch.where(kept, values, torch.inf), torch.int32)
        return rows, _taken(columns, torch.arange(columns.shape[1], device=kept.device) < counts.unsqueeze(1))
    filled = torch.arange(width, device=kept.device) < counts.unsqueeze(1)
    places = torch.where(kept)[1]
    packed, columns = values.new_full(filled.shape, torch.inf), places.new_zeros(filled.shape)
    packed[filled], columns[filled] = values[rows, places], places
    return rows, _taken(columns.gather(1, order_of_rows(packed)), filled)


def _taken(columns: Tensor, mask: Tensor) -> Tensor:
    """The entries of a mask; on the CPU numpy takes them several times as fast."""
    if columns.device.type == "cpu":
        columns = torch.from_numpy(columns.numpy()[mask.numpy()])
    else:
        columns = columns.masked_select(mask)
    return columns.to(torch.int64)


class AngularMiner(BaseMiner):
    """Triplets whose angle at the negative is too wide (angular loss, arXiv:1708.01682, eq. 4).

    With c the middle of anchor and positive, the angle is atan(|a - p| / (2 |n - c|)), of the embeddings as they come.

    Args:
        angle: In degrees.
        **kwargs: `distance` (Euclidean, normalised), `collect_stats`. With statistics, figures over all triplets, in
            degrees, are in `average_angle`, `average_angle_above_threshold`, `average_angle_below_threshold`,
            `min_angle`, `max_angle` and `std_of_angle`.

    Raises:
        ValueError: Another distance.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
        >>> AngularMiner(45)(points, torch.tensor([0, 0, 1]))
        (tensor([0, 1]), tensor([1, 0]), tensor([2, 2]))
    """

    def __init__(self, angle: float = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(LpDistance, p=2, power=1, normalize_embeddings=True)
        self.angle = math.radians(angle)
        self.add_to_recordable_attributes(name="angle")
        averages = ["average_angle", "average_angle_above_threshold", "average_angle_below_threshold"]
        extremes = ["min_angle", "max_angle", "std_of_angle"]
        self.add_to_recordable_attributes(list_of_names=averages + extremes, is_stat=True)

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Anchors, positives, negatives; in this order."""
        same, different = matches_and_differences(labels, ref_labels)
        found, angles = [], []
        # pairwise_distance adds its epsilon to each coordinate of the difference: here to the negatives
        moved = ref_emb + 1e-6
        widest = self.angle >= math.pi / 2  # no angle is beyond
        for anchors, positives in positive_pairs_in_chunks(same):
            a, p = embeddings[anchors], ref_emb[positives]
            height = torch.cdist((a + p) / 2, moved)
            base = self.distance.pairwise_distance(a, p).unsqueeze(1)
            if self.collect_stats:
                angles.append(torch.atan(base / (2 * height))[different[anchors]])
            kept = (base > 2 * math.tan(self.angle) * height) & different[anchors] & (not widest)
            pair, negatives = torch.where(kept)
            found.append((anchors[pair], positives[pair], negatives))
        if self.collect_stats and angles:
            self._note(torch.cat(angles).double())
        return gather_triplets(found, labels)

    def _note(self, angles: Tensor) -> None:
        above = angles > self.angle
        degrees = torch.rad2deg(angles)
        if len(degrees):
            self.min_angle, self.max_angle = (bound.item() for bound in torch.aminmax(degrees))
            self.std_of_angle = degrees.std(unbiased=len(degrees) > 1).item()
        self.set_mean(
            average_angle=degrees,
            average_angle_above_threshold=degrees[above],
            average_angle_below_threshold=degrees[~above],
        )
