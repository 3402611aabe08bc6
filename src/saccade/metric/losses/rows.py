"""Losses over the rows of the distance matrix: each sample against all its positives and negatives at once."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.metric.distances import BaseDistance, CosineSimilarity, LpDistance
from saccade.metric.inputs import ArgumentError
from saccade.metric.loss_terms import terms
from saccade.metric.losses.base import BaseMetricLossFunction, elements, miner_weights
from saccade.metric.losses.sums import grouped_logsumexp, masked_logsumexp
from saccade.metric.reducers import AvgNonZeroReducer, LossDict
from saccade.metric.tuples import IndicesTuple, masks_of, matches_and_differences


class _RowLoss(BaseMetricLossFunction, ABC):
    """A loss of each row, from the matrix and the masks of positives and negatives."""

    def compute_loss(
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        mat = self.distance(embeddings, ref_emb)
        same, different = masks_of(indices_tuple, labels, ref_labels, (len(mat), mat.shape[1]))
        if indices_tuple is not None and bool((same & different).any()):
            raise ArgumentError("the tuple names a pair both as positive and as negative; each is one of them")
        return self.of_rows(mat, same, different)

    @abstractmethod
    def of_rows(self, mat: Tensor, same: Tensor, different: Tensor) -> LossDict:
        """The losses of the rows."""


class MultiSimilarityLoss(_RowLoss):
    r"""Multi-similarity loss (arXiv:1904.06627, eq. 9).

    $\frac1α \log(1 + \sum_p e^{-α (s_p - λ)}) + \frac1β \log(1 + \sum_n e^{β (s_n - λ)})$ of each row.

    Args:
        alpha: α, of positives.
        beta: β, of negatives.
        base: λ.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> MultiSimilarityLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, alpha: float = 2, beta: float = 50, base: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.add_to_recordable_attributes(list_of_names=["alpha", "beta", "base"])

    default_distance = CosineSimilarity

    def of_rows(self, mat: Tensor, same: Tensor, different: Tensor) -> LossDict:  # noqa: D102
        beyond = self.distance.margin(mat, self.base)
        pulled = F.softplus(masked_logsumexp(self.alpha * beyond, same)) / self.alpha
        pushed = F.softplus(masked_logsumexp(-self.beta * beyond, different)) / self.beta
        return {"loss": elements(pulled + pushed)}


class CircleLoss(_RowLoss):
    r"""Circle loss (arXiv:2002.10857, eq. 6): pairs that are far from their optimum weigh more.

    $\mathrm{softplus}(\log \sum_p e^{-γ [1+m-s_p]_+ (s_p - 1 + m)} + \log \sum_n e^{γ [s_n+m]_+ (s_n - m)})$ of each
    row that has both kinds, else 0; no gradient goes through the weights.

    Args:
        m: Relaxation: 0.25 for faces and persons, 0.4 for fine-grained retrieval.
        gamma: Scale: 256, 128 and 80 for these.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> CircleLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, m: float = 0.4, gamma: float = 80, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(CosineSimilarity)
        self.m = m
        self.gamma = gamma
        self.op, self.on, self.delta_p, self.delta_n = 1 + m, -m, 1 - m, m
        self.add_to_recordable_attributes(list_of_names=["m", "gamma", "op", "on", "delta_p", "delta_n"])

    default_reducer = AvgNonZeroReducer

    default_distance = CosineSimilarity

    def of_rows(self, mat: Tensor, same: Tensor, different: Tensor) -> LossDict:  # noqa: D102
        fixed = mat.detach()
        positive = -self.gamma * (self.op - fixed).relu() * (mat - self.delta_p)
        negative = self.gamma * (fixed - self.on).relu() * (mat - self.delta_n)
        both = same.any(dim=1) & different.any(dim=1)
        total = masked_logsumexp(positive, same) + masked_logsumexp(negative, different)
        return {"loss": elements(F.softplus(total.masked_fill(~both, torch.finfo(mat.dtype).min)))}


class SupConLoss(_RowLoss):
    r"""Supervised contrastive loss (arXiv:2004.11362, eq. 2): mean over positives of $-\log$ softmax of $s / τ$.

    The softmax goes over all positives and negatives of the row.

    Args:
        temperature: τ > 0.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> SupConLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.temperature = temperature
        self.add_to_recordable_attributes(name="temperature")

    default_reducer = AvgNonZeroReducer

    default_distance = CosineSimilarity

    def of_rows(self, mat: Tensor, same: Tensor, different: Tensor) -> LossDict:  # noqa: D102
        if not (same.any() and different.any()):
            return self.zero_losses()
        scaled = mat * ((1 if self.distance.is_inverted else -1) / self.temperature)
        number = same.sum(dim=1)
        mean = torch.where(same, scaled, 0).sum(dim=1) / number.clamp(min=1)
        return {"loss": elements(torch.where(number > 0, masked_logsumexp(scaled, same | different) - mean, 0))}


class GeneralizedLiftedStructureLoss(_RowLoss):
    r"""Generalised lifted structure loss (arXiv:1703.07737, eq. 4), over all positives and negatives of a row.

    $[\log \sum_p e^{d_p - m_p} + \log \sum_n e^{m_n - d_n}]_+$; a sum over nothing is left out.

    Args:
        neg_margin: Negatives are to be farther.
        pos_margin: Positives are to be nearer.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> GeneralizedLiftedStructureLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, neg_margin: float = 1, pos_margin: float = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.neg_margin = neg_margin
        self.pos_margin = pos_margin
        self.add_to_recordable_attributes(list_of_names=["pos_margin", "neg_margin"])

    def of_rows(self, mat: Tensor, same: Tensor, different: Tensor) -> LossDict:  # noqa: D102
        pulled = masked_logsumexp(self.distance.margin(mat, self.pos_margin), same)
        pushed = masked_logsumexp(self.distance.margin(self.neg_margin, mat), different)
        pulled = pulled.masked_fill(~same.any(dim=1), 0)
        pushed = pushed.masked_fill(~different.any(dim=1), 0)
        return {"loss": elements((pulled + pushed).relu())}


class NCALoss(BaseMetricLossFunction):
    r"""Neighbourhood components analysis (Goldberger et al., NeurIPS 2004).

    $-\log \sum_{j \text{ of the class}} \mathrm{softmax}_j(-\text{scale} \cdot d_{ij})$ of each row that has one of
    its class, itself left out. A tuple only weights the rows.

    Args:
        softmax_scale: Factor of the distances.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> NCALoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, softmax_scale: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.softmax_scale = softmax_scale
        self.add_to_recordable_attributes(name="softmax_scale")

    def get_default_distance(self) -> BaseDistance:
        """Squared Euclidean, of normalised embeddings."""
        return LpDistance(power=2)

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if len(embeddings) <= 1 and ref_emb is embeddings:
            return self.zero_losses()
        if labels is None or ref_labels is None:
            raise ValueError("labels are None; NCALoss needs the class of each sample")
        return self.nca(embeddings, ref_emb, labels, ref_labels, indices_tuple)

    def nca(
        self, query: Tensor, reference: Tensor, query_labels: Tensor, reference_labels: Tensor, indices_tuple: Any
    ) -> LossDict:
        """The losses of queries among references."""
        logits = self.distance(query, reference) * (self.softmax_scale * (1 if self.distance.is_inverted else -1))
        alone = query is reference
        same = query_labels.unsqueeze(1) == reference_labels
        if alone:
            logits.fill_diagonal_(torch.finfo(logits.dtype).min)
            same.fill_diagonal_(False)
        rows, columns = torch.where(same)
        found = same.any(dim=1)
        losses = -grouped_logsumexp(logits.log_softmax(dim=1)[rows, columns], rows, len(query))
        losses = losses * miner_weights(indices_tuple, query, using_ref=not alone)
        return {"loss": terms(losses[found], torch.where(found)[0], "element")}


class InstanceLoss(BaseMetricLossFunction):
    """Instance loss (arXiv:1711.05535): cross-entropy of scaled cosines to the batch.

    The target of a row is the column whose number is that of its class among the sorted classes of the batch, as the
    reference library has it; with one sample a class, sorted, that is the sample itself.

    Args:
        gamma: Factor of the cosines.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> InstanceLoss()(torch.randn(8, 4), torch.arange(8)).shape
        torch.Size([])
    """

    takes_ref = False
    takes_tuples = False

    def __init__(self, gamma: float = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(CosineSimilarity)
        self.gamma = gamma
        self.add_to_recordable_attributes(name="gamma")

    default_distance = CosineSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if labels is None:
            raise ValueError("labels are None; InstanceLoss needs the class of each sample")
        target = labels.unique(return_inverse=True)[1]
        return {"loss": elements(F.cross_entropy(self.gamma * self.distance(embeddings), target, reduction="none"))}


class RankedListLoss(BaseMetricLossFunction):
    r"""Ranked list loss (arXiv:1903.03238): positives within α - m of each sample, negatives beyond α.

    Positives with $d > α - m$ weigh $e^{T_p (d - (α - m))}$, negatives with $d < α$ weigh $e^{T_n (α - d)}$; of each
    row the weighted means of the excess are mixed.

    Args:
        margin: m.
        Tn: Temperature of negatives.
        imbalance: Share of the negatives, in [0, 1].
        alpha: α; 1 + m / 2 where `None`.
        Tp: Temperature of positives.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Raises:
        ValueError: An imbalance outside [0, 1].

    Example:
        >>> RankedListLoss(margin=0.4, Tn=10)(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    takes_ref = False
    takes_tuples = False

    def __init__(
        self,
        margin: float,
        Tn: float,
        imbalance: float = 0.5,
        alpha: float | None = None,
        Tp: float = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= imbalance <= 1:
            raise ArgumentError(f"imbalance is {imbalance}; a number in [0, 1] is accepted")
        if max(Tp, Tn) > 20:
            warnings.warn(f"Tp and Tn are {Tp} and {Tn}; above 20 the weights may overflow", stacklevel=2)
        self.margin = margin
        self.imbalance = imbalance
        self.alpha = 1 + margin / 2 if alpha is None else alpha
        self.Tp = Tp
        self.Tn = Tn
        self.add_to_recordable_attributes(list_of_names=["imbalance", "alpha", "margin", "Tp", "Tn"])

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if labels is None:
            raise ValueError("labels are None; RankedListLoss needs the class of each sample")
        mat = self.distance(embeddings)
        same, different = matches_and_differences(labels)
        pulled = self._weighted_mean(mat - (self.alpha - self.margin), same & (mat > 0), self.Tp)
        pushed = self._weighted_mean(self.alpha - mat, different & (mat > 0), self.Tn)
        return {"loss": elements((1 - self.imbalance) * pulled + self.imbalance * pushed)}

    @staticmethod
    def _weighted_mean(excess: Tensor, mask: Tensor, temperature: float) -> Tensor:
        kept = mask & (excess > 0)
        weight = torch.where(kept, torch.where(kept, temperature * excess, 0).exp(), 0)
        return (weight * excess).sum(dim=1) / (weight + 1e-5).sum(dim=1)
