"""From many losses to one number.

A loss gives a dictionary of sub-losses, each with its terms, the indices they belong to and a reduction type:
`element`, `pos_pair`, `neg_pair`, `triplet` or `already_reduced`. Any reducer fits onto any loss. Losses that keep
their terms compact ([`LossTerms`][saccade.metric.loss_terms.LossTerms]) are summed without a list being written.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saccade.metric.inputs import ArgumentError
from saccade.metric.loss_terms import Indices, LossTerms, terms
from saccade.metric.records import ModuleWithRecords

LossDict = dict[str, dict[str, Any]]


class BaseReducer(ModuleWithRecords):
    """Reduces one sub-loss; subclasses say how for each reduction type.

    Args:
        collect_stats: Whether the number of losses is noted as `losses_size`.
    """

    def __init__(self, collect_stats: bool | None = None) -> None:
        super().__init__(collect_stats)
        self.add_to_recordable_attributes(name="losses_size", is_stat=True)

    def forward(self, loss_dict: LossDict, embeddings: Tensor, labels: Tensor | None) -> Any:
        """Reduce.

        Args:
            loss_dict: With one sub-loss.
            embeddings: Of the batch.
            labels: Of the batch, as far as they are known.

        Returns:
            A scalar.
        """
        self.reset_stats()
        if len(loss_dict) != 1:
            raise ArgumentError(f"{len(loss_dict)} sub-losses came; {type(self).__name__} takes one (MultipleReducers)")
        ((_, entry),) = loss_dict.items()
        losses = entry["losses"]
        if isinstance(losses, LossTerms):
            reduced = self.reduce_terms(losses, entry, embeddings, labels)
            if reduced is not None:
                return reduced
            losses, indices = losses.explicit()
        else:
            indices = entry["indices"]
        if self.collect_stats:
            self.losses_size = len(losses) if torch.is_tensor(losses) and losses.ndim else 1
        if not torch.is_tensor(losses) and losses == 0:
            return self.zero_loss(embeddings)
        kind = entry["reduction_type"]
        _check_sizes(losses, indices, kind)
        reduction: Callable[..., Tensor] = getattr(self, f"{kind}_reduction")
        return reduction(losses, indices, embeddings, labels, **self.extra_arguments(entry))

    def reduce_terms(self, losses: LossTerms, entry: dict[str, Any], embeddings: Tensor, labels: Tensor | None) -> Any:
        """Reduce terms that are not written out; `None` where that is not possible."""
        return None

    def extra_arguments(self, entry: dict[str, Any]) -> dict[str, Any]:
        """What the reductions of this class take from the sub-loss besides its terms."""
        return {}

    def already_reduced_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Return it."""
        if losses.ndim and len(losses) != 1:
            raise ArgumentError(f"an already reduced loss has the shape {tuple(losses.shape)}; a scalar is accepted")
        return losses

    def element_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce losses of elements."""
        raise NotImplementedError(f"{type(self).__name__} does not reduce losses of elements")

    def pos_pair_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce losses of positive pairs."""
        raise NotImplementedError(f"{type(self).__name__} does not reduce losses of pairs")

    def neg_pair_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce losses of negative pairs."""
        raise NotImplementedError(f"{type(self).__name__} does not reduce losses of pairs")

    def triplet_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce losses of triplets."""
        raise NotImplementedError(f"{type(self).__name__} does not reduce losses of triplets")

    def zero_loss(self, embeddings: Tensor) -> Tensor:
        """A 0 that has a gradient."""
        return (embeddings * 0).sum()


class _Uniform(BaseReducer, ABC):
    """Reduces all kinds in the same way: over the terms between two bounds, from their totals."""

    bounds: tuple[float, float] = (-math.inf, math.inf)

    @abstractmethod
    def of_list(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce a list."""

    @abstractmethod
    def of_totals(self, sums: Tensor, counts: Tensor, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce sums and numbers of terms of each anchor."""

    def reduce_terms(self, losses: LossTerms, entry: dict[str, Any], embeddings: Tensor, labels: Tensor | None) -> Any:
        """From the totals."""
        totals = losses.totals(*self.bounds)
        if totals is None:
            return None
        if self.collect_stats:
            everything = losses.totals()
            self.losses_size = int(everything[1].sum()) if everything else 0
        return self.of_totals(*totals, embeddings, labels)

    def element_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce losses of elements."""
        return self.of_list(losses, indices, embeddings, labels)

    def pos_pair_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce losses of positive pairs."""
        return self.of_list(losses, indices, embeddings, labels)

    def neg_pair_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce losses of negative pairs."""
        return self.of_list(losses, indices, embeddings, labels)

    def triplet_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Reduce losses of triplets."""
        return self.of_list(losses, indices, embeddings, labels)


class MeanReducer(_Uniform):
    """The mean; 0 where there is nothing.

    Example:
        >>> entry = {"losses": torch.tensor([1.0, 0.0]), "indices": torch.arange(2), "reduction_type": "element"}
        >>> MeanReducer()({"loss": entry}, torch.randn(2, 3), torch.arange(2))
        tensor(0.5000)
    """

    def of_list(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """The mean."""
        return losses.mean() if losses.numel() else self.zero_loss(embeddings)

    def of_totals(self, sums: Tensor, counts: Tensor, embeddings: Tensor, labels: Any) -> Tensor:
        """The mean."""
        return sums.sum() / counts.sum().clamp(min=1)


class SumReducer(_Uniform):
    """The sum."""

    def of_list(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """The sum."""
        return losses.sum()

    def of_totals(self, sums: Tensor, counts: Tensor, embeddings: Tensor, labels: Any) -> Tensor:
        """The sum."""
        return sums.sum()


class ThresholdReducer(_Uniform):
    """The mean of the losses above `low` and below `high`; 0 where there is none.

    Args:
        low: Losses have to be greater; no bound where `None`.
        high: Losses have to be less; no bound where `None`.
        collect_stats: Whether `num_past_filter`, `num_above_low` and `num_below_high` are noted.

    Raises:
        ValueError: Neither bound.
    """

    def __init__(self, low: float | None = None, high: float | None = None, collect_stats: bool | None = None) -> None:
        super().__init__(collect_stats)
        if low is None and high is None:
            raise ArgumentError("neither low nor high came; at least one of them is needed")
        self.low = low
        self.high = high
        self.add_to_recordable_attributes(list_of_names=["low", "high"])
        self.add_to_recordable_attributes(
            list_of_names=["num_past_filter", "num_above_low", "num_below_high"], is_stat=True
        )

    @property
    def bounds(self) -> tuple[float, float]:  # type: ignore[override]
        """As two numbers."""
        return (-math.inf if self.low is None else self.low, math.inf if self.high is None else self.high)

    def reduce_terms(self, losses: LossTerms, entry: dict[str, Any], embeddings: Tensor, labels: Tensor | None) -> Any:
        """From the totals, unless statistics are wanted."""
        return None if self.collect_stats else super().reduce_terms(losses, entry, embeddings, labels)

    def of_list(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """The mean of what is left."""
        low, high = self.bounds
        kept = (losses > low) & (losses < high)
        if self.collect_stats:
            self.num_past_filter = int(kept.sum())
            self.num_above_low = int((losses > low).sum()) if self.low is not None else 0
            self.num_below_high = int((losses < high).sum()) if self.high is not None else 0
        return torch.where(kept, losses, 0).sum() / kept.sum().clamp(min=1)

    def of_totals(self, sums: Tensor, counts: Tensor, embeddings: Tensor, labels: Any) -> Tensor:
        """The mean of what is left."""
        return sums.sum() / counts.sum().clamp(min=1)


class AvgNonZeroReducer(ThresholdReducer):
    """The mean of the losses above 0; 0 where there is none.

    Args:
        collect_stats: As for [`ThresholdReducer`][saccade.metric.reducers.ThresholdReducer].
    """

    def __init__(self, collect_stats: bool | None = None) -> None:
        super().__init__(low=0, collect_stats=collect_stats)


class ClassWeightedReducer(_Uniform):
    """The mean of losses times the weight of the class of their anchor.

    Args:
        weights: One for each class.
        collect_stats: As for [`BaseReducer`][saccade.metric.reducers.BaseReducer].
    """

    def __init__(self, weights: Tensor, collect_stats: bool | None = None) -> None:
        super().__init__(collect_stats)
        self._weights: Tensor
        self.register_buffer("_weights", torch.as_tensor(weights), persistent=False)

    @property
    def weights(self) -> Tensor:
        """One for each class."""
        return self._weights

    def of_list(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """The weighted mean."""
        if not losses.numel():
            return self.zero_loss(embeddings)
        anchors = indices if isinstance(indices, Tensor) else indices[0]  # type: ignore[index]
        return (losses * self._of(labels, losses)[anchors]).mean()

    def of_totals(self, sums: Tensor, counts: Tensor, embeddings: Tensor, labels: Any) -> Tensor:
        """The weighted mean."""
        return (sums * self._of(labels, sums)).sum() / counts.sum().clamp(min=1)

    def _of(self, labels: Tensor | None, like: Tensor) -> Tensor:
        if labels is None:
            raise TypeError("labels are None; ClassWeightedReducer needs the class of each sample")
        return self._weights.to(like)[labels]


class DivisorReducer(BaseReducer):
    """The sum over the divisor that the loss gives; 0 where that is 0.

    Args:
        collect_stats: Whether `divisor` is noted.
    """

    def __init__(self, collect_stats: bool | None = None) -> None:
        super().__init__(collect_stats)
        self.add_to_recordable_attributes(name="divisor", is_stat=True)

    def reduce_terms(self, losses: LossTerms, entry: dict[str, Any], embeddings: Tensor, labels: Tensor | None) -> Any:
        """The sum of the totals, divided."""
        totals = losses.totals()
        return None if totals is None else self._divide(totals[0], entry["divisor"])

    def extra_arguments(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The divisor."""
        return {} if entry["reduction_type"] == "already_reduced" else {"divisor": entry["divisor"]}

    def element_reduction(
        self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any, divisor: Any = 1
    ) -> Tensor:
        """The sum over the divisor."""
        return self._divide(losses, divisor)

    pos_pair_reduction = element_reduction
    neg_pair_reduction = element_reduction
    triplet_reduction = element_reduction

    def _divide(self, losses: Tensor, divisor: Any) -> Tensor:
        if self.collect_stats:
            self.divisor = divisor
        wide = losses.float() if losses.dtype in (torch.float16, torch.bfloat16) else losses
        divisor = torch.as_tensor(divisor, dtype=wide.dtype, device=wide.device)
        return torch.where(divisor != 0, wide.sum() / torch.where(divisor != 0, divisor, 1), 0).to(losses.dtype)


class DoNothingReducer(BaseReducer):
    """Returns the dictionary of sub-losses, with every list written out."""

    def forward(self, loss_dict: LossDict, embeddings: Tensor, labels: Tensor | None) -> LossDict:
        """Nothing is reduced."""
        listed = {}
        for name, entry in loss_dict.items():
            losses = entry["losses"]
            if isinstance(losses, LossTerms):
                losses, indices = losses.explicit()
                entry = {**entry, "losses": losses, "indices": indices}
            listed[name] = entry
        return listed


def mean_of_rows(losses: Tensor, num_per_row: Tensor) -> Tensor:
    """The mean of the filled cells of each row; 0 for rows without any.

    Args:
        losses: (b, m), 0 where a cell is empty.
        num_per_row: (b,), the numbers of filled cells.

    Returns:
        (b,).
    """
    return losses.sum(dim=1) / num_per_row.clamp(min=1)


class PerAnchorReducer(BaseReducer):
    """Reduces the pairs of each anchor first, then over anchors.

    Args:
        reducer: Over anchors, whose losses are handed to it as `element`; the mean where `None`.
        aggregation_func: Over the pairs of an anchor: takes a matrix of losses that is 0 where there is no pair, and
            the number of pairs of each row.
        collect_stats: As for [`BaseReducer`][saccade.metric.reducers.BaseReducer].
    """

    def __init__(
        self,
        reducer: BaseReducer | None = None,
        aggregation_func: Callable[[Tensor, Tensor], Tensor] = mean_of_rows,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(collect_stats)
        self.reducer = MeanReducer() if reducer is None else reducer
        self.aggregation_func = aggregation_func

    def reduce_terms(self, losses: LossTerms, entry: dict[str, Any], embeddings: Tensor, labels: Tensor | None) -> Any:
        """From the totals, where the mean is asked for."""
        if entry["reduction_type"] == "triplet" or self.aggregation_func is not mean_of_rows:
            return None
        totals = losses.totals()
        if totals is None:
            return None
        rows = totals[0] / totals[1].clamp(min=1)
        return self.element_reduction(rows, torch.arange(len(rows), device=rows.device), embeddings, labels)

    def element_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Hand them on."""
        return self.reducer({"loss": terms(losses, indices, "element")}, embeddings, labels)

    def pos_pair_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Over the pairs of each anchor, then over anchors; of a pair that comes twice, the last counts."""
        anchors, others = indices  # type: ignore[misc]
        width = max(len(embeddings), int(others.max()) + 1 if others.numel() else 0)
        filled = torch.zeros((len(embeddings), width), dtype=torch.bool, device=losses.device)
        filled[anchors, others] = True
        matrix = losses.new_zeros((len(embeddings), width)).index_put((anchors, others), losses)
        rows = self.aggregation_func(matrix, filled.sum(dim=1))
        return self.element_reduction(rows, torch.arange(len(rows), device=rows.device), embeddings, labels)

    neg_pair_reduction = pos_pair_reduction

    def triplet_reduction(self, losses: Tensor, indices: Indices, embeddings: Tensor, labels: Any) -> Tensor:
        """Not defined."""
        raise NotImplementedError("PerAnchorReducer does not reduce losses of triplets")


class MultipleReducers(BaseReducer):
    """A reducer for each sub-loss; the results are summed.

    Args:
        reducers: By the name of the sub-loss.
        default_reducer: For the others; the mean where `None`.
        collect_stats: As for [`BaseReducer`][saccade.metric.reducers.BaseReducer].
    """

    def __init__(
        self,
        reducers: Mapping[str, BaseReducer],
        default_reducer: BaseReducer | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(collect_stats)
        self.reducers = nn.ModuleDict(reducers)
        self.default_reducer = MeanReducer() if default_reducer is None else default_reducer

    def forward(self, loss_dict: LossDict, embeddings: Tensor, labels: Tensor | None) -> Tensor:
        """Reduce each sub-loss, and sum."""
        self.reset_stats()
        reduced = [self.reducer_of(name)({name: entry}, embeddings, labels) for name, entry in loss_dict.items()]
        return self.sub_loss_reduction(torch.stack([value.reshape(()) for value in reduced]), embeddings, labels)

    def reducer_of(self, name: str) -> nn.Module:
        """That of a sub-loss."""
        return self.reducers[name] if name in self.reducers else self.default_reducer  # noqa: SIM401

    def sub_loss_reduction(self, sub_losses: Tensor, embeddings: Any = None, labels: Any = None) -> Tensor:
        """The sum."""
        return sub_losses.sum()


def _check_sizes(losses: Any, indices: Indices, kind: str) -> None:
    wanted = {"element": 1, "pos_pair": 2, "neg_pair": 2, "triplet": 3, "already_reduced": 0}
    if kind not in wanted:
        raise ArgumentError(f"the reduction type is {kind!r}; {', '.join(wanted)} are accepted")
    if not torch.is_tensor(losses):
        raise ArgumentError(f"losses are {losses!r}; a tensor, or 0 where there is nothing to compute, is accepted")
    if kind == "already_reduced":
        return
    parts = [indices] if isinstance(indices, Tensor) else list(indices or ())
    if len(parts) != wanted[kind] or any(not torch.is_tensor(part) or len(part) != len(losses) for part in parts):
        raise ArgumentError(f"{len(losses)} losses of the type {kind} come with {wanted[kind]} index vectors as long")
