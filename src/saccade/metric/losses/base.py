"""The contract of a loss: what makes any loss fit any distance, reducer, miner, memory and wrapper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from saccade.metric.composed import ModuleWithRecordsReducerAndDistance
from saccade.metric.distances import BaseDistance
from saccade.metric.loss_terms import nothing, terms
from saccade.metric.reducers import BaseReducer, LossDict
from saccade.metric.regularizers import BaseRegularizer
from saccade.metric.tuples import IndicesTuple, appearance_weights


class BaseMetricLossFunction(ModuleWithRecordsReducerAndDistance):
    """A loss over embeddings; subclasses write `compute_loss`.

    Args:
        embedding_regularizer: A penalty on the embeddings that is added.
        embedding_reg_weight: Its factor.
        reducer: From many losses to one number; the class's own where `None`.
        distance: What compares embeddings; the class's own where `None`.
        collect_stats: Whether statistics are noted.

    Raises:
        ValueError: Labels that are not one for each embedding, embeddings that are not a matrix, or something the loss
            does not support; the message says which.
    """

    takes_labels = True
    takes_ref = True
    takes_tuples = True

    def __init__(
        self,
        embedding_regularizer: BaseRegularizer | None = None,
        embedding_reg_weight: float = 1,
        reducer: BaseReducer | None = None,
        distance: BaseDistance | None = None,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(reducer, distance, collect_stats)
        self.embedding_regularizer = embedding_regularizer
        self.embedding_reg_weight = embedding_reg_weight
        if embedding_regularizer is not None:
            self.add_to_recordable_attributes(name="embedding_reg_weight")
            self.set_reducer(reducer)  # there is one sub-loss more

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> LossDict:
        """The sub-losses; without a reference set, `ref_emb is embeddings` and `ref_labels is labels`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its loss is computed")

    def forward(
        self,
        embeddings: Float[Tensor, "b d"],
        labels: Shaped[Tensor, " b"] | None = None,
        indices_tuple: Any = None,
        ref_emb: Float[Tensor, "m d"] | None = None,
        ref_labels: Shaped[Tensor, " m"] | None = None,
    ) -> Any:
        """The loss of a batch.

        Args:
            embeddings: Of the batch.
            labels: Classes; they may be left out where there is a tuple.
            indices_tuple: What a miner chose: triplets (anchors, positives, negatives) or pairs (anchors, positives,
                anchors, negatives); everything where `None`.
            ref_emb: What the batch is compared with; the batch itself where `None`.
            ref_labels: Classes of the references.

        Returns:
            What the reducer makes of it: a scalar, but for `DoNothingReducer`.
        """
        self.reset_stats()
        check_batch(embeddings, labels, "")
        if labels is not None:
            labels = labels.to(embeddings.device)
        if ref_emb is not None:
            check_batch(ref_emb, ref_labels, "ref_")
            if ref_labels is not None:
                ref_labels = ref_labels.to(ref_emb.device)
        elif ref_labels is not None:
            raise ValueError("ref_labels came without ref_emb; they come together")
        self._check_supported(labels, indices_tuple, ref_emb)
        ref_emb, ref_labels = (embeddings, labels) if ref_emb is None else (ref_emb, ref_labels)
        loss_dict = self.compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        if self.embedding_regularizer is not None:
            penalty = self.embedding_regularizer(embeddings) * self.embedding_reg_weight
            loss_dict["embedding_reg_loss"] = terms(penalty, None, "already_reduced")
        return self.reducer(loss_dict, embeddings, labels)

    def _sub_loss_names(self) -> list[str]:
        """Names of the sub-losses of `compute_loss`, without those of regularisers."""
        return ["loss"]

    def all_regularization_loss_names(self) -> list[str]:
        """Names of the penalties that are added."""
        return [] if getattr(self, "embedding_regularizer", None) is None else ["embedding_reg_loss"]

    def sub_loss_names(self) -> list[str]:
        """Names of all sub-losses."""
        return self._sub_loss_names() + self.all_regularization_loss_names()

    def zero_loss(self) -> dict[str, Any]:
        """The entry of a sub-loss that finds nothing to compute."""
        return nothing()

    def zero_losses(self) -> LossDict:
        """The same for all sub-losses."""
        return {name: nothing() for name in self.sub_loss_names()}

    def _check_supported(self, labels: Tensor | None, indices_tuple: Any, ref_emb: Tensor | None) -> None:
        own = type(self).__name__
        if not self.takes_labels and labels is not None:
            raise ValueError(f"labels came; {own} does not take any")
        if not self.takes_ref and ref_emb is not None:
            raise ValueError(f"ref_emb came; {own} does not take a reference set")
        if not self.takes_tuples and indices_tuple is not None:
            raise ValueError(f"indices_tuple came; {own} does not take pairs or triplets")


class Init:
    """An initialisation with its arguments, for `weight_init_func`.

    Args:
        function: Such as `torch.nn.init.kaiming_normal_`.
        **kwargs: Its arguments.
    """

    def __init__(self, function: Callable[..., Any], **kwargs: Any) -> None:
        self.function = function
        self.kwargs = kwargs

    def __call__(self, tensor: Tensor) -> None:
        """Fill a tensor."""
        self.function(tensor, **self.kwargs)


class WeightedLoss(BaseMetricLossFunction):
    """A loss with learnable class vectors.

    Args:
        weight_init_func: Fills them; the class's own where `None`.
        weight_regularizer: A penalty on them that is added.
        weight_reg_weight: Its factor.
        **kwargs: As for [`BaseMetricLossFunction`][saccade.metric.losses.BaseMetricLossFunction].
    """

    def __init__(
        self,
        weight_init_func: Callable[[Tensor], Any] | None = None,
        weight_regularizer: BaseRegularizer | None = None,
        weight_reg_weight: float = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.weight_init_func = self.get_default_weight_init_func() if weight_init_func is None else weight_init_func
        self.weight_regularizer = weight_regularizer
        self.weight_reg_weight = weight_reg_weight
        if weight_regularizer is not None:
            self.add_to_recordable_attributes(name="weight_reg_weight")
            self.set_reducer(kwargs.get("reducer"))  # there is one sub-loss more

    def get_default_weight_init_func(self) -> Callable[[Tensor], Any]:
        """From N(0, 1)."""
        return Init(nn.init.normal_)

    def all_regularization_loss_names(self) -> list[str]:
        """Names of the penalties that are added."""
        own = [] if getattr(self, "weight_regularizer", None) is None else ["weight_reg_loss"]
        return own + super().all_regularization_loss_names()

    def add_weight_regularization(self, loss_dict: LossDict, vectors: Tensor) -> None:
        """Add the penalty on the class vectors, one a row."""
        if self.weight_regularizer is not None:
            penalty = self.weight_regularizer(vectors) * self.weight_reg_weight
            loss_dict["weight_reg_loss"] = terms(penalty, None, "already_reduced")


def check_batch(embeddings: Tensor, labels: Tensor | None, prefix: str) -> None:
    """Raise unless embeddings are a float matrix and labels, where there are any, one for each row."""
    name = "ref_emb" if prefix else "embeddings"
    if embeddings.ndim != 2:
        raise ValueError(f"{name} have the shape {tuple(embeddings.shape)}; (number, size) is accepted")
    if not embeddings.is_floating_point():
        raise TypeError(f"{name} are {embeddings.dtype}; a floating-point tensor is accepted")
    if labels is None:
        return
    if labels.ndim != 1 or len(labels) != len(embeddings):
        raise ValueError(
            f"{prefix}labels have the shape {tuple(labels.shape)}; one for each of the {len(embeddings)} embeddings, "
            f"({len(embeddings)},), is accepted"
        )


def miner_weights(
    indices_tuple: IndicesTuple | None, embeddings: Tensor, using_ref: bool = False
) -> Float[Tensor, " b"] | float:
    """Weights of a tuple for a loss over elements; 1 where there is no tuple."""
    if indices_tuple is None:
        return 1.0
    return appearance_weights(indices_tuple, len(embeddings), using_ref).to(embeddings)


def elements(losses: Tensor, **more: Any) -> dict[str, Any]:
    """The entry of losses of single elements."""
    return terms(losses, torch.arange(len(losses), device=losses.device), "element", **more)


def widen_(parameter: nn.Parameter, embeddings: Tensor) -> None:
    """Bring class vectors to float64 where embeddings are; nothing is ever made narrower."""
    if embeddings.dtype == torch.float64 and parameter.dtype != torch.float64:
        parameter.data = parameter.data.double()
