"""Losses of pairs, each against a margin of its own: contrastive, intra-pair variance, consistent thresholds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saccade.metric.distances import CosineSimilarity, SNRDistance
from saccade.metric.loss_terms import terms
from saccade.metric.losses.base import BaseMetricLossFunction
from saccade.metric.losses.pairs import Pairs
from saccade.metric.reducers import AvgNonZeroReducer, LossDict
from saccade.metric.tuples import IndicesTuple


class ContrastiveLoss(BaseMetricLossFunction):
    r"""Contrastive loss (Hadsell et al., CVPR 2006): $[d_p - m_p]_+$ of positives, $[m_n - d_n]_+$ of negatives.

    Args:
        pos_margin: Positives are to be nearer; for a similarity, larger (such as 1).
        neg_margin: Negatives are to be farther; for a similarity, smaller (such as 0).
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> ContrastiveLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, pos_margin: float = 0, neg_margin: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_margin = pos_margin
        self.neg_margin = neg_margin
        self.add_to_recordable_attributes(list_of_names=["pos_margin", "neg_margin"])

    default_reducer = AvgNonZeroReducer

    def _sub_loss_names(self) -> list[str]:
        return ["pos_loss", "neg_loss"]

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        pairs = Pairs(self.distance(embeddings, ref_emb), labels, ref_labels, indices_tuple)
        margin = self.distance.margin
        return {
            "pos_loss": pairs.positive(lambda d: margin(d, self.pos_margin).relu()),
            "neg_loss": pairs.negative(lambda d: margin(self.neg_margin, d).relu()),
        }


class SignalToNoiseRatioContrastiveLoss(ContrastiveLoss):
    """Contrastive loss over the signal-to-noise distance (arXiv:1904.02616).

    Example:
        >>> SignalToNoiseRatioContrastiveLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(SNRDistance)

    default_distance = SNRDistance


class IntraPairVarianceLoss(BaseMetricLossFunction):
    r"""Intra-pair variance loss (arXiv:2009.02005): similarities of a kind are to be no worse than their mean.

    $[(1-\epsilon_p) \bar s_p - s_p]_+^2$ of positives and $[s_n - (1+\epsilon_n) \bar s_n]_+^2$ of negatives.

    Args:
        pos_eps: ε of positives.
        neg_eps: ε of negatives.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> IntraPairVarianceLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, pos_eps: float = 0.01, neg_eps: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_eps = pos_eps
        self.neg_eps = neg_eps
        self.add_to_recordable_attributes(list_of_names=["pos_eps", "neg_eps"])

    default_distance = CosineSimilarity

    def _sub_loss_names(self) -> list[str]:
        return ["pos_loss", "neg_loss"]

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        pairs = Pairs(self.distance(embeddings, ref_emb), labels, ref_labels, indices_tuple)
        inverted = self.distance.is_inverted

        def deviation(d: Tensor, mean: Tensor, eps: float, to_grow: bool) -> Tensor:
            return ((1 - eps) * mean - d if to_grow else d - (1 + eps) * mean).relu().square()

        result = {}
        for name, positive, eps in (("pos_loss", True, self.pos_eps), ("neg_loss", False, self.neg_eps)):
            mean = self._mean(pairs, positive)
            entry = pairs.positive if positive else pairs.negative
            result[name] = entry(lambda d, m=mean, e=eps, grow=inverted == positive: deviation(d, m, e, grow))
        return result

    @staticmethod
    def _mean(pairs: Pairs, positive: bool) -> Tensor:
        if pairs.listed is not None:
            return pairs.distances(positive).mean()
        mask = pairs.same if positive else pairs.different
        return torch.where(mask, pairs.mat, 0).sum() / mask.sum().clamp(min=1)


class ThresholdConsistentMarginLoss(BaseMetricLossFunction):
    r"""Threshold-consistent margin (arXiv:2307.04047, eq. 6): only pairs on the wrong side of their margin count.

    $λ_+ \cdot$ mean of $m_+ - s$ over positive pairs with $s \le m_+$, plus $λ_- \cdot$ mean of $s - m_-$ over negative
    pairs with $s \ge m_-$.

    Args:
        lambda_plus: Weight of positives.
        lambda_minus: Weight of negatives.
        margin_plus: Cosine above which a positive is left alone.
        margin_minus: Cosine below which a negative is left alone.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> ThresholdConsistentMarginLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(
        self,
        lambda_plus: float = 1.0,
        lambda_minus: float = 1.0,
        margin_plus: float = 0.9,
        margin_minus: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.require_distance(CosineSimilarity)
        self.lambda_plus = lambda_plus
        self.lambda_minus = lambda_minus
        self.margin_plus = margin_plus
        self.margin_minus = margin_minus

    default_distance = CosineSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        pairs = Pairs(self.distance(embeddings, ref_emb), labels, ref_labels, indices_tuple)
        near = self._mean(pairs, True, lambda s: self.margin_plus - s)
        far = self._mean(pairs, False, lambda s: s - self.margin_minus)
        total = self.lambda_plus * near + self.lambda_minus * far
        return {"loss": terms(total, None, "already_reduced")}

    @staticmethod
    def _mean(pairs: Pairs, positive: bool, excess: Any) -> Tensor:
        """The mean over those that are not below 0."""
        if pairs.listed is None:
            values = excess(pairs.mat)
            kept = (pairs.same if positive else pairs.different) & (values >= 0)
        else:
            values = excess(pairs.distances(positive))
            kept = values >= 0
        return torch.where(kept, values, 0).sum() / kept.sum().clamp(min=1)
