"""Penalties on embeddings, or on the class vectors of a loss, that are added to a metric loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.metric.composed import ModuleWithRecordsReducerAndDistance
from saccade.metric.distances import BaseDistance, CosineSimilarity, LpDistance
from saccade.metric.inputs import ArgumentError
from saccade.metric.loss_terms import terms
from saccade.metric.reducers import DivisorReducer, LossDict


class BaseRegularizer(ModuleWithRecordsReducerAndDistance):
    """A loss over the rows of one matrix.

    Args:
        reducer: Over rows; the mean where `None`.
        distance: The class's own where `None`.
        collect_stats: Whether statistics are noted.
    """

    def compute_loss(self, x: Tensor) -> LossDict:
        """The losses of the rows."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its loss is computed")

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        """The penalty.

        Args:
            x: Embeddings, or class vectors, one a row.

        Returns:
            A scalar.
        """
        self.reset_stats()
        return self.reducer(self.compute_loss(x), x, torch.arange(len(x), device=x.device))


def _of_rows(losses: Tensor, **more: Any) -> LossDict:
    return {"loss": terms(losses, torch.arange(len(losses), device=losses.device), "element", **more)}


class LpRegularizer(BaseRegularizer):
    """The p-norm of each row, to a power.

    Args:
        p: Of the norm.
        power: Exponent.
        **kwargs: As for [`BaseRegularizer`][saccade.metric.regularizers.BaseRegularizer].

    Example:
        >>> LpRegularizer()(torch.tensor([[3.0, 4.0]]))
        tensor(5.)
    """

    def __init__(self, p: float = 2, power: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.p = p
        self.power = power
        self.add_to_recordable_attributes(list_of_names=["p", "power"])

    def compute_loss(self, x: Tensor) -> LossDict:
        """‖x‖^power of each row."""
        return _of_rows(torch.linalg.vector_norm(x, ord=self.p, dim=1) ** self.power)


class ZeroMeanRegularizer(BaseRegularizer):
    """The absolute value of the sum of each row.

    Example:
        >>> ZeroMeanRegularizer()(torch.tensor([[3.0, -4.0]]))
        tensor(1.)
    """

    def compute_loss(self, x: Tensor) -> LossDict:
        """|Σ x| of each row."""
        return _of_rows(x.sum(dim=1).abs())


class CenterInvariantRegularizer(BaseRegularizer):
    """Class vectors of unequal norm are penalised: a quarter of the squared deviation of ‖w‖² from its mean."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(LpDistance, power=1, normalize_embeddings=False)

    def get_default_distance(self) -> BaseDistance:
        """Raw Euclidean."""
        return LpDistance(power=1, normalize_embeddings=False)

    def compute_loss(self, x: Tensor) -> LossDict:
        """(‖w‖² - mean)² / 4 of each row."""
        squared = self.distance.get_norm(x).square()
        return _of_rows((squared - squared.mean()).square() / 4)


class RegularFaceRegularizer(BaseRegularizer):
    """The similarity of each class vector to its nearest other one (arXiv:1904.07838, eq. 7).

    Raises:
        ValueError: A distance, where a similarity is needed.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.require_distance(is_inverted=True)

    default_distance = CosineSimilarity

    def compute_loss(self, x: Tensor) -> LossDict:
        """The largest entry of each row off the diagonal."""
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        return _of_rows(self.distance(x).masked_fill(own, torch.finfo(x.dtype).min).amax(dim=1))


class SparseCentersRegularizer(BaseRegularizer):
    """Centres of one class are drawn together, so that superfluous ones merge (arXiv:1909.05235, eq. 11).

    Args:
        num_classes: C.
        centers_per_class: K, at least 2; row c K + k is centre k of class c.
        **kwargs: As for [`BaseRegularizer`][saccade.metric.regularizers.BaseRegularizer].

    Raises:
        ValueError: Fewer than 2 centres a class, or a distance that is not the cosine.
    """

    def __init__(self, num_classes: int, centers_per_class: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if centers_per_class < 2:
            raise ArgumentError(f"centers_per_class is {centers_per_class}; at least 2 are needed")
        self.require_distance(CosineSimilarity)
        self.num_classes = num_classes
        self.centers_per_class = centers_per_class
        self.add_to_recordable_attributes(list_of_names=["num_classes", "centers_per_class"])
        self.add_to_recordable_attributes(
            list_of_names=["same_class_center_sim", "diff_class_center_sim"], is_stat=True
        )

    default_distance = CosineSimilarity

    default_reducer = DivisorReducer

    def compute_loss(self, x: Tensor) -> LossDict:
        """√(2 - 2 cos) of each pair of centres of a class."""
        if len(x) != self.num_classes * self.centers_per_class:
            raise ValueError(
                f"{len(x)} centres came; {self.num_classes} classes with {self.centers_per_class} each are accepted"
            )
        classes = torch.arange(len(x), device=x.device) // self.centers_per_class
        together = classes.unsqueeze(1) == classes
        pairs = together.triu(diagonal=1)
        cosines = self.distance(x)
        if self.collect_stats:
            self.same_class_center_sim = cosines[pairs].mean().item()
            self.diff_class_center_sim = cosines[~together].mean().item()
        distance = (2 + torch.finfo(x.dtype).tiny - (2 * cosines[pairs]).clamp(max=2)).sqrt()
        return _of_rows(distance, divisor=2 * len(distance))
