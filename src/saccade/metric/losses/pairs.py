"""Losses over pairs: positives are drawn together, negatives pushed apart."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.metric.distances import CosineSimilarity, DotProductSimilarity, LpDistance
from saccade.metric.loss_terms import MaskedMatrix, nothing, terms
from saccade.metric.losses.base import BaseMetricLossFunction
from saccade.metric.losses.sums import CELLS, grouped_logsumexp, in_chunks, masked_logsumexp
from saccade.metric.reducers import LossDict
from saccade.metric.tuples import IndicesTuple, matches_and_differences, one_positive_per_class, to_pairs


class Pairs:
    """The pairs that a loss looks at: masks over the distance matrix, or the lists of a tuple.

    Args:
        mat: The distance matrix.
        labels: Of the batch.
        ref_labels: Of the references.
        indices_tuple: Everything that the labels say where `None`.
    """

    def __init__(self, mat: Tensor, labels: Any, ref_labels: Any, indices_tuple: IndicesTuple | None) -> None:
        self.mat = mat
        self.listed: IndicesTuple | None = None
        if indices_tuple is None:
            if labels is None:
                raise ValueError("neither labels nor an indices_tuple came; one of them is needed")
            self.same, self.different = matches_and_differences(labels, ref_labels)
        else:
            self.listed = to_pairs(indices_tuple, labels, ref_labels)

    def positive(self, function: Any) -> dict[str, Any]:
        """Losses of positive pairs, a function of their distances."""
        if self.listed is not None:
            return self._of_list(self.listed[:2], function, "pos_pair")
        if self.mat.device.type == "cpu" and 8 * int(self.same.sum()) < self.same.numel():  # few: a list is faster
            return self._of_list(self.positive_list(), function, "pos_pair")
        return terms(MaskedMatrix(function(self.mat), self.same), None, "pos_pair")

    def negative(self, function: Any) -> dict[str, Any]:
        """Losses of negative pairs, a function of their distances."""
        if self.listed is None:
            return terms(MaskedMatrix(function(self.mat), self.different), None, "neg_pair")
        return self._of_list(self.listed[2:], function, "neg_pair")

    def positive_list(self) -> tuple[Tensor, Tensor]:
        """Anchors and positives."""
        if self.listed is None:
            anchors, positives = torch.where(self.same)
            return anchors, positives
        return self.listed[0], self.listed[1]

    def distances(self, positive: bool) -> Tensor:
        """The list of distances of positive or of negative pairs."""
        if self.listed is None:
            return self.mat[self.same if positive else self.different]
        rows, columns = self.listed[:2] if positive else self.listed[2:]
        return self.mat[rows, columns]

    def logsumexp_of_negatives(self, function: Any, by_column: bool = False) -> Tensor:
        """Log Σ exp over the negatives of each anchor (or of each reference), a function of their distances."""
        if self.listed is None:
            return masked_logsumexp(function(self.mat), self.different, dim=0 if by_column else 1)
        rows, columns = self.listed[2:]
        size = self.mat.shape[1] if by_column else self.mat.shape[0]
        return grouped_logsumexp(function(self.mat[rows, columns]), columns if by_column else rows, size)

    def any_negative(self) -> bool:
        """Whether there is a negative pair."""
        return bool(self.different.any()) if self.listed is None else len(self.listed[2]) > 0

    def _of_list(self, indices: IndicesTuple, function: Any, kind: str) -> dict[str, Any]:
        return terms(function(self.mat[indices]), indices, kind) if len(indices[0]) else nothing()


class NTXentLoss(BaseMetricLossFunction):
    r"""Normalised temperature-scaled cross-entropy, or InfoNCE (arXiv:1807.03748, arXiv:2002.05709 eq. 1).

    $-\log \frac{e^{s_p/\tau}}{e^{s_p/\tau} + \sum_n e^{s_n/\tau}}$ of each positive pair, over the negatives of its
    anchor.

    Args:
        temperature: τ > 0.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> NTXentLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, temperature: float = 0.07, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.temperature = temperature
        self.add_to_recordable_attributes(name="temperature")

    default_distance = CosineSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        scale = (1 if self.distance.is_inverted else -1) / self.temperature
        pairs = Pairs(self.distance(embeddings, ref_emb) * scale, labels, ref_labels, indices_tuple)
        anchors, positives = pairs.positive_list()
        if len(anchors) == 0 or not pairs.any_negative():
            return self.zero_losses()
        others = pairs.logsumexp_of_negatives(lambda s: s)
        losses = F.softplus(others[anchors] - pairs.mat[anchors, positives])
        return {"loss": terms(losses, (anchors, positives), "pos_pair")}


class TupletMarginLoss(BaseMetricLossFunction):
    r"""Tuplet margin loss (Yu and Tao, ICCV 2019): $\log(1 + \sum_n e^{s (\cos θ_n - \cos(θ_p - m))})$.

    Args:
        margin: m, in degrees.
        scale: s.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> TupletMarginLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, margin: float = 5.73, scale: float = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(CosineSimilarity)
        self.margin = math.radians(margin)
        self.scale = scale
        self.add_to_recordable_attributes(list_of_names=["margin", "scale"])
        self.add_to_recordable_attributes(list_of_names=["avg_pos_angle", "avg_neg_angle"], is_stat=True)

    default_distance = CosineSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        pairs = Pairs(self.distance(embeddings, ref_emb), labels, ref_labels, indices_tuple)
        anchors, positives = pairs.positive_list()
        if len(anchors) == 0 or not pairs.any_negative():
            return self.zero_losses()
        cosine = pairs.mat[anchors, positives]
        if self.collect_stats:
            with torch.no_grad():
                self.avg_pos_angle = _mean_angle(cosine)
                self.avg_neg_angle = _mean_angle(pairs.distances(positive=False))
        sine = (1 - cosine.square()).clamp(min=torch.finfo(cosine.dtype).tiny).sqrt()
        nearer = cosine * math.cos(self.margin) + sine * math.sin(self.margin)  # cos(θ - m)
        others = pairs.logsumexp_of_negatives(lambda s: self.scale * s)
        losses = F.softplus(others[anchors] - self.scale * nearer)
        return {"loss": terms(losses, (anchors, positives), "pos_pair")}


class LiftedStructureLoss(BaseMetricLossFunction):
    r"""Lifted structure loss (arXiv:1511.06452): a positive pair against the negatives of both its ends.

    $\frac12 [d_p - m_p + \log \sum e^{m_n - d_n}]_+^2$, the sum over the negatives of the anchor and of the positive.

    Args:
        neg_margin: Negatives are to be farther.
        pos_margin: Positives are to be nearer.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Note:
        With a reference set the negatives of a positive are the rows of the batch that are not of its class. The
        reference library takes the negatives of the anchor that has the positive's number.

    Example:
        >>> LiftedStructureLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, neg_margin: float = 1, pos_margin: float = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.neg_margin = neg_margin
        self.pos_margin = pos_margin
        self.add_to_recordable_attributes(list_of_names=["pos_margin", "neg_margin"])

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        pairs = Pairs(self.distance(embeddings, ref_emb), labels, ref_labels, indices_tuple)
        anchors, positives = pairs.positive_list()
        if len(anchors) == 0 or not pairs.any_negative():
            return self.zero_losses()

        def violation(d: Tensor) -> Tensor:
            return self.distance.margin(self.neg_margin, d)

        of_anchor = pairs.logsumexp_of_negatives(violation)
        alone = ref_emb is embeddings
        of_positive = of_anchor if alone else pairs.logsumexp_of_negatives(violation, by_column=True)
        pushed = torch.logaddexp(of_anchor[anchors], of_positive[positives])
        if pairs.listed is not None and alone:  # an anchor that is its own positive has its negatives once
            pushed = torch.where(anchors == positives, of_anchor[anchors], pushed)
        pulled = self.distance.margin(pairs.mat[anchors, positives], self.pos_margin)
        return {"loss": terms((pushed + pulled).relu().square() / 2, (anchors, positives), "pos_pair")}


class AngularLoss(BaseMetricLossFunction):
    r"""Angular loss (arXiv:1708.01682, eq. 8): the angle at a negative, seen from a positive pair, is to be small.

    $\log(1 + \sum_n e^{4 \tan^2 α\, (a+p) \cdot n - 2 (1 + \tan^2 α)\, a \cdot p})$ of each positive pair over all of
    other classes: the labels say which, also where a tuple comes.

    Args:
        alpha: The bound of the angle, in degrees.
        normalize_negatives: Whether negatives are normalised, as anchors and positives are. The reference library
            takes them as they come; `False` gives its values.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> AngularLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    def __init__(self, alpha: float = 40, normalize_negatives: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(LpDistance, p=2, power=1, normalize_embeddings=True)
        self.alpha = torch.tensor(math.radians(alpha), dtype=torch.float64)
        self.normalize_negatives = normalize_negatives
        self.add_to_recordable_attributes(name="alpha")
        self.add_to_recordable_attributes(name="average_angle", is_stat=True)

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if labels is None or ref_labels is None:
            raise ValueError("labels are None; AngularLoss takes the negatives from them")
        anchors, positives, negative_anchors, _ = to_pairs(indices_tuple, labels, ref_labels)
        if len(anchors) == 0 or len(negative_anchors) == 0:
            return self.zero_losses()
        a = self.distance.normalize(embeddings)[anchors]
        p = self.distance.normalize(ref_emb)[positives]
        references = self.distance.normalize(ref_emb) if self.normalize_negatives else ref_emb
        squared = math.tan(float(self.alpha)) ** 2

        def chunk(a: Tensor, p: Tensor, of_class: Tensor) -> Tensor:
            seen = 4 * squared * (a + p) @ references.T - 2 * (1 + squared) * (a * p).sum(dim=1, keepdim=True)
            return F.softplus(masked_logsumexp(seen, of_class.unsqueeze(1) != ref_labels))

        rows = max(1, CELLS // len(references))
        losses = in_chunks(chunk, rows, a, p, labels[anchors])
        if self.collect_stats:
            with torch.no_grad():
                self.average_angle = self._average_angle(a, p, references, labels[anchors].unsqueeze(1) != ref_labels)
        return {"loss": terms(losses, (anchors, positives), "pos_pair")}

    @staticmethod
    def _average_angle(a: Tensor, p: Tensor, references: Tensor, mask: Tensor) -> float:
        halves = F.pairwise_distance(a, p).unsqueeze(1) / 2
        angles = (halves / torch.cdist((a + p) / 2, references)).atan()
        return math.degrees(float(angles[mask].mean()))


class NPairsLoss(BaseMetricLossFunction):
    """N-pairs loss (Sohn, NeurIPS 2016): each class's anchor finds its positive among those of all classes.

    One pair of each class is taken, the first; cross-entropy of anchors against positives.

    Example:
        >>> NPairsLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    takes_ref = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_to_recordable_attributes(name="num_pairs", is_stat=True)

    default_distance = DotProductSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if labels is None:
            raise ValueError("labels are None; NPairsLoss needs the class of each sample")
        if indices_tuple is None:
            anchors, positives = one_positive_per_class(labels)
        else:
            anchors, positives, _, _ = to_pairs(indices_tuple, labels)
            order = labels[anchors].argsort(stable=True)
            classes, sizes = labels[anchors].unique(return_counts=True)
            first = order[sizes.cumsum(0) - sizes] if len(classes) else order
            anchors, positives = anchors[first], positives[first]
        self.num_pairs = len(anchors)
        if len(anchors) == 0:
            return self.zero_losses()
        similarity = self.distance(embeddings[anchors], embeddings[positives])
        if not self.distance.is_inverted:
            similarity = -similarity
        own = torch.arange(len(anchors), device=anchors.device)
        return {"loss": terms(F.cross_entropy(similarity, own, reduction="none"), anchors, "element")}


def _mean_angle(cosines: Tensor) -> float:
    return math.degrees(float(cosines.clamp(-1, 1).acos().mean()))
