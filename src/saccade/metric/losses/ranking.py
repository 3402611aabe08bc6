"""Losses that smooth a measure of ranking: average precision, histograms, negatives before positives."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from saccade.metric.distances import BaseDistance, CosineSimilarity, LpDistance
from saccade.metric.inputs import ArgumentError
from saccade.metric.loss_terms import terms
from saccade.metric.losses.base import BaseMetricLossFunction, elements, miner_weights
from saccade.metric.losses.sums import CELLS, AllTriplets, in_chunks
from saccade.metric.reducers import LossDict
from saccade.metric.tuples import IndicesTuple, matches_and_differences, to_triplets


class FastAPLoss(BaseMetricLossFunction):
    r"""FastAP (Cakir et al., CVPR 2019): 1 - average precision over histograms of squared distances.

    With histograms h of positives and H of all, cumulated, $\mathrm{FastAP} = \frac{1}{N_+} \sum_b h^+_b H^+_b / H_b$.
    A tuple only weights the rows.

    Args:
        num_bins: Bins from 0 to the largest distance.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Example:
        >>> FastAPLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    takes_ref = False

    def __init__(self, num_bins: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(LpDistance, normalize_embeddings=True, p=2)
        self.num_bins = int(num_bins)
        self.num_edges = self.num_bins + 1
        self.add_to_recordable_attributes(name="num_bins")

    def get_default_distance(self) -> BaseDistance:
        """Squared Euclidean, of normalised embeddings."""
        return LpDistance(power=2)

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if labels is None:
            raise ValueError("labels are None; FastAPLoss needs the class of each sample")
        same, different = matches_and_differences(labels)
        number = same.sum(dim=1)
        safe = number > 0
        if not bool(safe.any()):
            return self.zero_losses()
        position = self.distance(embeddings) * (self.num_bins / 2**self.distance.power)
        positives, everything = self._histogram(position, same), self._histogram(position, same | different)
        found = positives * positives.cumsum(dim=1)
        total = everything.cumsum(dim=1)
        precision = torch.where(total > 0, found / torch.where(total > 0, total, 1), 0).sum(dim=1)
        losses = (1 - precision[safe] / number[safe]) * self._weights(indices_tuple, embeddings, safe)
        return {"loss": terms(losses, torch.where(safe)[0], "element")}

    def _histogram(self, position: Tensor, mask: Tensor) -> Tensor:
        """Of each row; a value is split between the two edges that it lies between."""
        left = position.detach().floor().long().clamp(0, self.num_bins - 1)
        share = (position - left).clamp(0, 1)
        histogram = position.new_zeros((len(position), self.num_edges))
        histogram = histogram.scatter_add(1, left, torch.where(mask, 1 - share, 0))
        return histogram.scatter_add(1, left + 1, torch.where(mask, share, 0))

    @staticmethod
    def _weights(indices_tuple: IndicesTuple | None, embeddings: Tensor, safe: Tensor) -> Tensor | float:
        weights = miner_weights(indices_tuple, embeddings)
        return weights[safe] if isinstance(weights, Tensor) else weights


class HistogramLoss(BaseMetricLossFunction):
    r"""Histogram loss (arXiv:1611.00822): the chance that a negative pair is more similar than a positive one.

    $\sum_b p^-_b \sum_{c \le b} p^+_c$ over histograms of similarities in [-1, 1], with linear bins.

    Args:
        n_bins: Number of bins; 100 where neither is given.
        delta: Their width, 2 / n_bins.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Raises:
        ValueError: Both, and they do not agree.

    Example:
        >>> HistogramLoss()(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    takes_ref = False

    def __init__(self, n_bins: int | None = None, delta: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if n_bins is not None and delta is not None and delta != 2 / n_bins:
            raise ArgumentError(f"delta and n_bins are {delta} and {n_bins}; delta has to be 2 / n_bins")
        self.delta = 2 / (n_bins or 100) if delta is None else delta
        self.add_to_recordable_attributes(name="delta")

    default_distance = CosineSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if indices_tuple is None and labels is not None:
            same, different = matches_and_differences(labels)
            same, different = same & different.any(dim=1, keepdim=True), different & same.any(dim=1, keepdim=True)
        else:
            anchors, positives, negatives = to_triplets(indices_tuple, labels)
            masks = torch.zeros((2, len(embeddings), len(embeddings)), dtype=torch.bool, device=embeddings.device)
            masks[0, anchors, positives] = True
            masks[1, anchors, negatives] = True
            same, different = masks[0], masks[1]
        if not bool(same.any()):
            return self.zero_losses()
        mat = self.distance(embeddings)
        positive = self._density(mat[(same | same.T).triu()])
        negative = self._density(mat[(different | different.T).triu()])
        return {"loss": terms((negative * positive.cumsum(dim=0)).sum(), None, "already_reduced")}

    def _density(self, values: Tensor) -> Tensor:
        nodes = round(1 + 2 / self.delta)
        position = (values + 1) / self.delta
        left = position.detach().floor().long().clamp(0, nodes - 2)
        share = position - left
        density = values.new_zeros(nodes).index_add(0, left, 1 - share).index_add(0, left + 1, share)
        return density / len(values)


Variant = Literal["Ds", "Dq", "Iu", "Ib", "O"]


class PNPLoss(BaseMetricLossFunction):
    r"""Penalising negatives before positives (arXiv:2102.04640).

    The number of negatives that rank before a positive, smoothed: $r = \sum_n σ((s_n - s_p) / \text{anneal})$, the
    query itself being one of its positives.

    Args:
        b: Of the variant "Ib".
        alpha: Of the variant "Dq".
        anneal: Temperature.
        variant: "O": r. "Ds": log(1 + r). "Dq": 1 - (1 + r)^-α. "Iu": (1 + r) log(1 + r).
            "Ib": (b r - log(1 + b r)) / b².
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Raises:
        ValueError: An unknown variant.

    Example:
        >>> PNPLoss(variant="Ds")(torch.randn(8, 4), torch.arange(8) // 2).shape
        torch.Size([])
    """

    VARIANTS = get_args(Variant)
    takes_ref = False
    takes_tuples = False

    def __init__(
        self, b: float = 2, alpha: float = 1, anneal: float = 0.01, variant: Variant = "O", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.require_distance(CosineSimilarity)
        if variant not in self.VARIANTS:
            raise ValueError(f"variant is {variant!r}; {', '.join(self.VARIANTS)} are accepted")
        self.b = b
        self.alpha = alpha
        self.anneal = anneal
        self.variant = variant

    default_distance = CosineSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if labels is None:
            raise ValueError("labels are None; PNPLoss needs the class of each sample")
        if len(embeddings) == 0:
            return self.zero_losses()
        same = labels.unsqueeze(1) == labels
        triplets = AllTriplets(self.distance(embeddings), same, ~same)

        def chunk(s_p: Tensor, s_n: Tensor, _: Any, triplet: Tensor) -> Tensor:
            sooner = ((s_n - s_p) / self.anneal).clamp(-50, 50).sigmoid()
            return torch.where(triplet, sooner, 0).sum(dim=2)

        before = torch.cat(list(triplets.map(chunk)))
        filled = triplets.filled
        losses = (torch.where(filled, self._of_rank(before), 0).sum(dim=1) / filled.sum(dim=1)).mean()
        return {"loss": terms(losses, None, "already_reduced")}

    def _of_rank(self, r: Tensor) -> Tensor:
        if self.variant == "Ds":
            return r.log1p()
        if self.variant == "Dq":
            return 1 - (1 + r) ** -self.alpha
        if self.variant == "Iu":
            return (1 + r) * r.log1p()
        if self.variant == "Ib":
            return (self.b * r - (self.b * r).log1p()) / self.b**2
        return r


class SmoothAPLoss(BaseMetricLossFunction):
    r"""Smooth-AP (arXiv:2007.12163, eq. 8): 1 - average precision, with a sigmoid for the step in the ranks.

    $\frac1{|P|} \sum_p \frac{1 + \sum_{p'} σ((s_{p'} - s_p)/τ)}{1 + \sum_j σ((s_j - s_p)/τ)}$ for each query, P being
    all of its class, itself included.

    Args:
        temperature: τ.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].

    Raises:
        ValueError: Classes with unequal numbers of samples in a batch.

    Example:
        >>> SmoothAPLoss()(torch.randn(8, 4), torch.arange(8) % 4).shape
        torch.Size([])
    """

    takes_ref = False

    def __init__(self, temperature: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(CosineSimilarity)
        self.temperature = temperature

    default_distance = CosineSimilarity

    def compute_loss(  # noqa: D102
        self, embeddings: Tensor, labels: Any, indices_tuple: IndicesTuple | None, ref_emb: Tensor, ref_labels: Any
    ) -> LossDict:
        if labels is None:
            raise ValueError("labels are None; SmoothAPLoss needs the class of each sample")
        sizes = labels.unique(return_counts=True)[1]
        if len(sizes.unique()) > 1:
            raise ValueError(
                f"the classes have {sizes.tolist()} samples; as many of each are accepted: "
                "MPerClassSampler with a batch size makes such batches"
            )
        mat = self.distance(embeddings)
        members = (labels.unsqueeze(1) == labels).nonzero()[:, 1].view(len(labels), int(sizes[0]))

        def chunk(row: Tensor, positives: Tensor) -> Tensor:
            s_p = row.gather(1, positives)
            sooner = ((row.unsqueeze(1) - s_p.unsqueeze(2)) / self.temperature).sigmoid()
            # each is before itself with 1/2: taken off, and counted as 1
            ranks = sooner.sum(dim=2) + 0.5
            among = sooner.gather(2, positives.unsqueeze(1).expand(-1, positives.shape[1], -1)).sum(dim=2) + 0.5
            return (among / ranks).mean(dim=1)

        rows = max(1, CELLS // max(members.shape[1] * len(labels), 1))
        precision = in_chunks(chunk, rows, mat, members)
        return {"ap_loss": elements((1 - precision) * miner_weights(indices_tuple, embeddings))}

    def _sub_loss_names(self) -> list[str]:
        return ["ap_loss"]
