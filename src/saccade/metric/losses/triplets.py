"""Losses over triplets: an anchor is to be nearer to its positive than to its negative."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.metric.distances import LpDistance
from saccade.metric.loss_terms import Indices, LossTerms, nothing, terms
from saccade.metric.losses.base import BaseMetricLossFunction
from saccade.metric.losses.sums import AllTriplets, ChunkedTriplets, HingeTriplets
from saccade.metric.reducers import AvgNonZeroReducer, DivisorReducer, LossDict
from saccade.metric.tuples import IndicesTuple, matches_and_differences, to_triplets


class TripletMarginLoss(BaseMetricLossFunction):
    r"""Triplet margin loss (arXiv:1503.03832): $[d_{ap} - d_{an} + m]_+$.

    Over all triplets of a batch, the default, time and memory are those of the distance matrix: no triplet is written
    out, unless the reducer wants a list.

    Args:
        margin: m.
        swap: Where the positive is nearer to the negative than the anchor is, its distance is taken. With a reference
            set this needs the distances between references.
        smooth_loss: softplus instead of the hinge.
        triplets_per_anchor: "all", or how many random ones, where no tuple comes.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> loss = TripletMarginLoss(margin=0.2)
        >>> loss(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(
        self,
        margin: float = 0.05,
        swap: bool = False,
        smooth_loss: bool = False,
        triplets_per_anchor: int | Literal["all"] = "all",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.margin = margin
        self.swap = swap
        self.smooth_loss = smooth_loss
        self.triplets_per_anchor = triplets_per_anchor
        self.add_to_recordable_attributes(name="margin")

    default_reducer = AvgNonZeroReducer

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        mat = self.distance(embeddings, ref_emb)
        between = None
        if self.swap:
            between = mat if ref_emb is embeddings else self.distance(ref_emb)
        if indices_tuple is None and self.triplets_per_anchor == "all" and labels is not None:
            sign = -1 if self.distance.is_inverted else 1
            triplets = AllTriplets(sign * mat, *matches_and_differences(labels, ref_labels))
            losses: LossTerms = (
                ChunkedTriplets(triplets, self._of_distances, None if between is None else sign * between)
                if self.swap or self.smooth_loss
                else HingeTriplets(triplets, self.margin)
            )
            return {"loss": terms(losses, None, "triplet")}
        anchors, positives, negatives = to_triplets(indices_tuple, labels, ref_labels, self.triplets_per_anchor)
        if len(anchors) == 0:
            return self.zero_losses()
        sign = -1 if self.distance.is_inverted else 1
        d_pn = None if between is None else sign * between[positives, negatives]
        losses_ = self._of_distances(sign * mat[anchors, positives], sign * mat[anchors, negatives], d_pn)
        return {"loss": terms(losses_, (anchors, positives, negatives), "triplet")}

    def _of_distances(self, d_ap: Tensor, d_an: Tensor, d_pn: Tensor | None) -> Tensor:
        """From distances in which larger means farther."""
        violation = d_ap - (d_an if d_pn is None else torch.minimum(d_an, d_pn)) + self.margin
        return F.softplus(violation) if self.smooth_loss else violation.relu()


class MarginLoss(BaseMetricLossFunction):
    r"""Margin loss (arXiv:1706.07567): $[d_{ap} - \beta + m]_+ + [\beta - d_{an} + m]_+$.

    Args:
        margin: m.
        nu: Weight of the penalty on β.
        beta: The boundary between near and far.
        triplets_per_anchor: "all", or how many random ones, where no tuple comes.
        learn_beta: Whether β is a parameter.
        num_classes: One β for each class of anchors; a single one where `None`.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Attributes:
        beta: (1,), or (num_classes,).

    Example:
        >>> loss = MarginLoss(learn_beta=True, num_classes=4)
        >>> loss(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    beta: Tensor

    def __init__(
        self,
        margin: float = 0.2,
        nu: float = 0,
        beta: float = 1.2,
        triplets_per_anchor: int | Literal["all"] = "all",
        learn_beta: bool = False,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.margin = margin
        self.nu = nu
        self.learn_beta = learn_beta
        self.triplets_per_anchor = triplets_per_anchor
        start = torch.full((num_classes or 1,), float(beta))
        if learn_beta:
            self.beta = nn.Parameter(start)
        else:
            self.register_buffer("beta", start, persistent=False)
        self.add_to_recordable_attributes(list_of_names=["margin", "nu", "beta"])

    default_reducer = DivisorReducer

    def _sub_loss_names(self) -> list[str]:
        return ["margin_loss", "beta_reg_loss"]

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        mat = self.distance(embeddings, ref_emb)
        beta = self.beta.to(mat)
        if len(beta) > 1:
            if labels is None:
                raise ValueError("labels are None; MarginLoss needs them to choose the beta of each anchor's class")
            beta = beta[labels]
        per_anchor = beta.expand(len(mat))
        if indices_tuple is None and self.triplets_per_anchor == "all" and labels is not None:
            losses = _MarginTerms(self, mat, per_anchor, *matches_and_differences(labels, ref_labels))
            margin_loss = terms(losses, None, "triplet", divisor=losses.divisor)
            number = losses.number
        else:
            triplets = to_triplets(indices_tuple, labels, ref_labels, self.triplets_per_anchor)
            anchors, positives, negatives = triplets
            if len(anchors) == 0:
                return self.zero_losses()
            near = self.of_positives(mat[anchors, positives], per_anchor[anchors])
            far = self.of_negatives(mat[anchors, negatives], per_anchor[anchors])
            divisor = (near > 0).sum() + (far > 0).sum()
            margin_loss = terms(near + far, triplets, "triplet", divisor=divisor)
            number = anchors.bincount(minlength=len(mat))
        return {"margin_loss": margin_loss, "beta_reg_loss": self._penalty(beta, number, margin_loss["divisor"])}

    def of_positives(self, distances: Tensor, beta: Tensor) -> Tensor:
        """The positives' part of each term."""
        return (self.distance.margin(distances, beta) + self.margin).relu()

    def of_negatives(self, distances: Tensor, beta: Tensor) -> Tensor:
        """The negatives' part of each term."""
        return (self.distance.margin(beta, distances) + self.margin).relu()

    def _penalty(self, beta: Tensor, number: Tensor, divisor: Any) -> dict[str, Any]:
        """ν β: once, or for each triplet where there is one β a class."""
        if not self.learn_beta:
            return nothing()
        if len(self.beta) == 1:
            return terms(self.nu * beta, None, "already_reduced")
        return terms(_RepeatedElements(self.nu * beta, number), None, "element", divisor=divisor)


class _RepeatedElements(LossTerms):
    """A loss of each anchor, that counts as often as it has triplets."""

    def __init__(self, losses: Tensor, number: Tensor) -> None:
        self.losses = losses
        self.number = number

    def totals(self, low: float = -math.inf, high: float = math.inf) -> tuple[Tensor, Tensor]:
        kept = self.number * ((self.losses > low) & (self.losses < high))
        return self.losses * kept, kept

    def explicit(self) -> tuple[Tensor, Indices]:
        anchors = torch.arange(len(self.number), device=self.number.device).repeat_interleave(self.number)
        return self.losses[anchors], anchors


class _MarginTerms(LossTerms):
    """A triplet's loss is the sum of a part of its positive and one of its negative: sums need no triplets."""

    def __init__(self, loss: MarginLoss, mat: Tensor, beta: Tensor, same: Tensor, different: Tensor) -> None:
        self.same, self.different = same, different
        self.near = torch.where(same, loss.of_positives(mat, beta.unsqueeze(1)), 0)
        self.far = torch.where(different, loss.of_negatives(mat, beta.unsqueeze(1)), 0)
        self.positives, self.negatives = same.sum(dim=1), different.sum(dim=1)
        self.number = self.positives * self.negatives
        near, far = (self.near > 0).sum(dim=1), (self.far > 0).sum(dim=1)
        self.divisor = (near * self.negatives + far * self.positives).sum()

    def totals(self, low: float = -math.inf, high: float = math.inf) -> tuple[Tensor, Tensor] | None:
        if low >= 0 or high < math.inf:
            return None
        return self.near.sum(dim=1) * self.negatives + self.far.sum(dim=1) * self.positives, self.number

    def explicit(self) -> tuple[Tensor, Indices]:
        anchors, positives, negatives = indices = AllTriplets(self.near, self.same, self.different).indices()
        return self.near[anchors, positives] + self.far[anchors, negatives], indices


class DynamicSoftMarginLoss(BaseMetricLossFunction):
    r"""Dynamic soft margin (Zhang and Rusinkiewicz, ICCV 2019): each triplet weighs as much as there are easier ones.

    The weight of $x = d_{ap} - d_{an}$ is the cumulative distribution of x, kept as a running histogram. Without
    labels, row i of `ref_emb` is the positive of row i, and the negative is the hardest of its row and column; a tuple
    is not looked at then.

    Args:
        min_val: Left end of the histogram, which is symmetric around 0.
        num_bins: Number of its nodes.
        momentum: Weight of the batch.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Attributes:
        hist_: The histogram, (num_bins,).

    Example:
        >>> DynamicSoftMarginLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    hist_: Tensor

    def __init__(self, min_val: float = -2.0, num_bins: int = 10, momentum: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(LpDistance, normalize_embeddings=True, p=2)
        self.min_val = min_val
        self.num_bins = int(num_bins)
        self.delta = 2 * abs(min_val) / num_bins
        self.momentum = momentum
        self.register_buffer("hist_", torch.zeros(self.num_bins), persistent=False)
        self.add_to_recordable_attributes(name="num_bins")

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        mat = self.distance(embeddings, ref_emb)
        chunks: Any
        if labels is None:
            x = self._aligned(mat)
            chunks = [(x, torch.ones_like(x, dtype=torch.bool))]
            apply = lambda function: [function(*chunk) for chunk in chunks]  # noqa: E731
        elif indices_tuple is None:
            triplets = AllTriplets(mat, *matches_and_differences(labels, ref_labels))
            apply = lambda function: list(triplets.map(lambda p, n, _, mask: function(p - n, mask)))  # noqa: E731
        else:
            anchors, positives, negatives = to_triplets(indices_tuple, labels, ref_labels)
            x = mat[anchors, positives] - mat[anchors, negatives]
            apply = lambda function: [function(x, torch.ones_like(x, dtype=torch.bool))]  # noqa: E731
        parts = apply(self._histogram)
        number = sum(count for _, count in parts)
        if not parts or int(number) == 0:
            return self.zero_losses()
        total = torch.stack([histogram for histogram, _ in parts]).sum(dim=0)
        kept = self.hist_.to(mat)
        momentum = self.momentum if bool(kept.sum() != 0) else 1.0
        mixed = (1 - momentum) * kept + momentum * total
        mixed = mixed / mixed.sum()
        self.hist_ = mixed.detach()
        cumulative = mixed.cumsum(dim=0)
        weighted = apply(lambda x, mask: torch.where(mask, cumulative[self._bin(x)] * x, 0).sum())
        return {"loss": terms(torch.stack(weighted).sum() / number, None, "already_reduced")}

    def _aligned(self, mat: Tensor) -> Tensor:
        """Row i and column i belong together: the distance of that pair minus the smallest other one of both."""
        rows, columns = mat.shape
        d_pos = mat.new_zeros(max(rows, columns))
        d_pos = torch.cat([mat.diagonal(), d_pos[min(rows, columns) :]])
        others = mat.masked_fill(torch.eye(rows, columns, dtype=torch.bool, device=mat.device), torch.inf)
        of_columns = F.pad(others.amin(dim=0), (0, max(rows - columns, 0)))
        of_rows = F.pad(others.amin(dim=1), (0, max(columns - rows, 0)))
        d_neg = torch.minimum(of_columns, of_rows)
        return d_pos - d_neg

    def _bin(self, x: Tensor) -> Tensor:
        return ((x - self.min_val) / self.delta).floor().long().clamp(0, self.num_bins - 1)

    def _histogram(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Each value is split between the nodes on its left and on its right."""
        x = x[mask]
        position = (x - self.min_val) / self.delta
        left = self._bin(x)
        share = position - position.floor()
        right = (left + 1).clamp(max=self.num_bins - 1)
        histogram = x.new_zeros(self.num_bins).index_add(0, left, 1 - share).index_add(0, right, share)
        return histogram, mask.sum()
