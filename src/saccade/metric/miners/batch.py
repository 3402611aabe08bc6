"""Miners that choose the hardest or the easiest of each row, or of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saccade.metric.miners.base import BaseMiner
from saccade.metric.ordering import kth_smallest
from saccade.metric.tuples import IndicesTuple, matches_and_differences, to_pairs


class BatchEasyHardMiner(BaseMiner):
    """For each anchor one positive and one negative, easy or hard, as asked for (arXiv:1904.04370, section 3).

    "hard" is the farthest positive or the nearest negative, "easy" the reverse, "all" every pair of that side.
    "semihard" is the hardest on the right side of the other's choice: the nearest negative that is strictly farther
    than the positive, or the farthest positive that is strictly nearer than the negative. An anchor for which one of
    the two is missing gives nothing.

    Args:
        pos_strategy: "hard", "semihard", "easy" or "all".
        neg_strategy: The same.
        allowed_pos_range: Least and greatest distance of a positive that is chosen; any where `None`. It does not
            concern "all".
        allowed_neg_range: The same for negatives.
        **kwargs: `distance`, `collect_stats`. With statistics, extremes over what was chosen are in
            `easiest_triplet`, `hardest_triplet` (d_ap - d_an), `easiest_pos_pair`, `hardest_pos_pair`,
            `easiest_neg_pair` and `hardest_neg_pair`.

    Raises:
        ValueError: Another strategy, both semihard, or semihard with all.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.5, 0.5]])
        >>> BatchEasyHardMiner("hard", "hard")(points, torch.tensor([0, 0, 1, 1]))
        (tensor([0, 1, 2, 3]), tensor([1, 0, 3, 2]), tensor([0, 1, 2, 3]), tensor([2, 3, 0, 0]))
    """

    HARD, SEMIHARD, EASY, ALL = "hard", "semihard", "easy", "all"
    all_batch_mining_strategies = (HARD, SEMIHARD, EASY, ALL)

    def __init__(
        self,
        pos_strategy: str = EASY,
        neg_strategy: str = SEMIHARD,
        allowed_pos_range: Sequence[float] | None = None,
        allowed_neg_range: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, strategy in (("pos_strategy", pos_strategy), ("neg_strategy", neg_strategy)):
            if strategy not in self.all_batch_mining_strategies:
                accepted = ", ".join(self.all_batch_mining_strategies)
                raise ValueError(f"{name} is {strategy!r}; {accepted} are accepted")
        chosen = {pos_strategy, neg_strategy}
        if chosen in ({self.SEMIHARD}, {self.SEMIHARD, self.ALL}):
            raise ValueError(
                f"pos_strategy is {pos_strategy!r} and neg_strategy {neg_strategy!r}: semihard is relative to the"
                " choice of the other side, which has to be hard or easy"
            )
        self.pos_strategy = pos_strategy
        self.neg_strategy = neg_strategy
        self.allowed_pos_range = allowed_pos_range
        self.allowed_neg_range = allowed_neg_range
        extremes = [f"{end}_{what}" for what in ("triplet", "pos_pair", "neg_pair") for end in ("easiest", "hardest")]
        self.add_to_recordable_attributes(list_of_names=extremes, is_stat=True)

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Anchors, positives, anchors, negatives; in the order of anchors."""
        values = self.distance(embeddings, ref_emb)
        distances = -values if self.distance.is_inverted else values
        same, different = matches_and_differences(labels, ref_labels)
        if self.allowed_pos_range is not None and self.pos_strategy != self.ALL:
            same &= (values >= self.allowed_pos_range[0]) & (values <= self.allowed_pos_range[1])
        if self.allowed_neg_range is not None and self.neg_strategy != self.ALL:
            different &= (values >= self.allowed_neg_range[0]) & (values <= self.allowed_neg_range[1])
        positive = negative = None
        if self.pos_strategy not in (self.ALL, self.SEMIHARD):
            positive = _extreme(distances, same, farthest=self.pos_strategy == self.HARD)
        if self.neg_strategy not in (self.ALL, self.SEMIHARD):
            negative = _extreme(distances, different, farthest=self.neg_strategy == self.EASY)
        if self.pos_strategy == self.SEMIHARD and negative is not None:
            positive = _extreme(distances, same & (distances < negative[0].unsqueeze(1)), farthest=True)
        if self.neg_strategy == self.SEMIHARD and positive is not None:
            negative = _extreme(distances, different & (distances > positive[0].unsqueeze(1)), farthest=False)

        mined: IndicesTuple
        if positive is not None and negative is not None:
            anchors = (positive[2] & negative[2]).nonzero().squeeze(1)
            mined = anchors, positive[1][anchors], anchors, negative[1][anchors]
        else:
            mined = (*_of_rows(positive, same), *_of_rows(negative, different))
        if self.collect_stats:
            self._note(values[mined[0], mined[1]], values[mined[2], mined[3]])
        return mined

    def _note(self, positive: Tensor, negative: Tensor) -> None:
        nearest, farthest = self.distance.smallest_dist, self.distance.largest_dist
        if len(positive) and len(negative) and self.ALL not in (self.pos_strategy, self.neg_strategy):
            gap = positive - negative
            self.easiest_triplet, self.hardest_triplet = nearest(gap).item(), farthest(gap).item()
        if len(positive):
            self.easiest_pos_pair, self.hardest_pos_pair = nearest(positive).item(), farthest(positive).item()
        if len(negative):
            self.easiest_neg_pair, self.hardest_neg_pair = farthest(negative).item(), nearest(negative).item()


def _extreme(distances: Tensor, mask: Tensor, farthest: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row of a mask: the extreme distance, its column, and whether there is one."""
    worst = -torch.inf if farthest else torch.inf
    masked = torch.where(mask, distances, worst)
    values, columns = masked.max(dim=1) if farthest else masked.min(dim=1)
    return values, columns, mask.any(dim=1)


def _of_rows(choice: tuple[Tensor, Tensor, Tensor] | None, mask: Tensor) -> IndicesTuple:
    """The pairs of one side: those chosen, or all."""
    if choice is None:
        return torch.where(mask)
    anchors = choice[2].nonzero().squeeze(1)
    return anchors, choice[1][anchors]


class BatchHardMiner(BatchEasyHardMiner):
    """For each anchor the farthest positive and the nearest negative (arXiv:1703.07737, eq. 5).

    Args:
        **kwargs: `distance`, `collect_stats`, `allowed_pos_range`, `allowed_neg_range`.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
        >>> BatchHardMiner()(points, torch.tensor([0, 0, 1]))
        (tensor([0, 1]), tensor([1, 0]), tensor([2, 2]))
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(pos_strategy=self.HARD, neg_strategy=self.HARD, **kwargs)

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Anchors, positives, negatives; in the order of anchors."""
        anchors, positives, _, negatives = super().mine(embeddings, labels, ref_emb, ref_labels)
        return anchors, positives, negatives


class HDCMiner(BaseMiner):
    """The hardest share of all positive and of all negative pairs of the batch (HDC, arXiv:1611.05720, section 3.2).

    In a cascade each stage looks only at what the one before left: `set_idx_externally` gives it those pairs.

    Args:
        filter_percentage: The share, in (0, 1]; of n pairs the ceiling of share * n is kept.
        **kwargs: `distance`, `collect_stats`.

    Raises:
        ValueError: A share outside (0, 1].

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
        >>> HDCMiner(0.5)(points, torch.tensor([0, 0, 1]))
        (tensor([0]), tensor([1]), tensor([0, 2]), tensor([2, 0]))
    """

    def __init__(self, filter_percentage: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < filter_percentage <= 1:
            raise ValueError(f"filter_percentage is {filter_percentage}; a share in (0, 1] is accepted")
        self.filter_percentage = filter_percentage
        self.add_to_recordable_attributes(name="filter_percentage")
        self.a1, self.p, self.a2, self.n = torch.empty(4, 0, dtype=torch.long)
        self.was_set_externally = False

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Anchors, positives, anchors, negatives; ties are decided in favour of the first."""
        values = self.distance(embeddings, ref_emb)
        distances = -values if self.distance.is_inverted else values
        if not self.was_set_externally:
            for mask, sign, names in zip(
                matches_and_differences(labels, ref_labels), (1, -1), (("a1", "p"), ("a2", "n")), strict=True
            ):
                cells = mask.flatten().nonzero().squeeze(1)
                cells = cells[self._hardest(sign * distances.flatten()[cells])]
                setattr(self, names[0], cells // distances.shape[1])
                setattr(self, names[1], cells % distances.shape[1])
        else:
            hard = self._hardest(distances[self.a1, self.p])
            self.a1, self.p = self.a1[hard], self.p[hard]
            hard = self._hardest(-distances[self.a2, self.n])
            self.a2, self.n = self.a2[hard], self.n[hard]
        return self.a1, self.p, self.a2, self.n

    def _hardest(self, hardness: Tensor) -> Tensor:
        """The indices of the hardest share, ascending; of equal values the first ones."""
        if hardness.numel() == 0:
            return torch.empty(0, dtype=torch.long, device=hardness.device)
        count = math.ceil(self.filter_percentage * len(hardness))
        bound = kth_smallest(hardness, len(hardness) - count + 1)
        kept = hardness > bound
        equal = (hardness == bound).nonzero().squeeze(1)
        kept[equal[: count - int(kept.sum())]] = True
        return kept.nonzero().squeeze(1)

    def set_idx_externally(self, external_indices_tuple: IndicesTuple | None, labels: Tensor) -> None:
        """Look only at these pairs from now on.

        Args:
            external_indices_tuple: Triplets or pairs; all pairs where `None`.
            labels: Of the batch.
        """
        self.a1, self.p, self.a2, self.n = to_pairs(external_indices_tuple, labels)
        self.was_set_externally = True

    def reset_idx(self) -> None:
        """Look at all pairs again."""
        self.a1, self.p, self.a2, self.n = torch.empty(4, 0, dtype=torch.long)
        self.was_set_externally = False


class EmbeddingsAlreadyPackagedAsTriplets(BaseMiner):
    """For batches that come as anchor, positive, negative, anchor, positive, negative and so on.

    Args:
        **kwargs: `collect_stats`.

    Example:
        >>> EmbeddingsAlreadyPackagedAsTriplets()(torch.eye(6), torch.arange(6))
        (tensor([0, 3]), tensor([1, 4]), tensor([2, 5]))
    """

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """Rows 3i, 3i + 1 and 3i + 2."""
        if len(embeddings) % 3:
            raise ValueError(f"{len(embeddings)} embeddings came; packed triplets are a multiple of 3")
        anchors = torch.arange(0, len(embeddings), 3, device=embeddings.device)
        return anchors, anchors + 1, anchors + 2
