"""Many losses of one kind that need not be written out: they can be summed where they stand.

A loss over pairs or triplets has far more terms than the distance matrix has entries, or as many. Reducers that take
a mean or a sum need only the totals of each anchor. What keeps the terms in a compact form therefore offers
`totals`, and `explicit` for everyone who wants the list.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Indices = Tensor | tuple[Tensor, ...] | None


class LossTerms(ABC):
    """The terms of a loss, in a compact form."""

    @abstractmethod
    def totals(self, low: float = -math.inf, high: float = math.inf) -> tuple[Tensor, Tensor] | None:
        """Sum and number of the terms of each anchor that are above `low` and below `high`.

        Args:
            low: Terms have to be greater.
            high: Terms have to be less.

        Returns:
            Two (b,) tensors; `None` where this form cannot tell, and the list has to be written out.
        """

    @abstractmethod
    def explicit(self) -> tuple[Float[Tensor, " n"], Indices]:
        """The list of terms, and the indices of the pairs or triplets that they belong to."""


class MaskedMatrix(LossTerms):
    """One term for each pair of a mask.

    Args:
        losses: A term for every pair; only those of the mask count.
        mask: Which pairs there are.

    Example:
        >>> terms = MaskedMatrix(torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[True, True], [True, False]]))
        >>> [total.tolist() for total in terms.totals(low=0)]
        [[3.0, 0.0], [2, 0]]
    """

    def __init__(self, losses: Float[Tensor, "b m"], mask: Bool[Tensor, "b m"]) -> None:
        self.losses = losses
        self.mask = mask

    def totals(self, low: float = -math.inf, high: float = math.inf) -> tuple[Tensor, Tensor]:
        """Row sums."""
        kept = self.mask
        if low > -math.inf:
            kept = kept & (self.losses > low)
        if high < math.inf:
            kept = kept & (self.losses < high)
        return torch.where(kept, self.losses, 0).sum(dim=1), kept.sum(dim=1)

    def explicit(self) -> tuple[Tensor, Indices]:
        """In the order of rows."""
        return self.losses[self.mask], torch.where(self.mask)


def terms(losses: Tensor | LossTerms | float, indices: Indices, reduction_type: str, **more: Any) -> dict[str, Any]:
    """One entry of the dictionary that `compute_loss` returns.

    Args:
        losses: One for each element, pair or triplet; a scalar with "already_reduced"; 0 where there is none.
        indices: What they belong to; `None` for "already_reduced" and for compact terms.
        reduction_type: "element", "pos_pair", "neg_pair", "triplet" or "already_reduced".
        **more: What the reducer of the loss needs besides, such as `divisor`.

    Returns:
        The entry.
    """
    return {"losses": losses, "indices": indices, "reduction_type": reduction_type, **more}


def nothing() -> dict[str, Any]:
    """The entry of a loss that finds nothing to compute: the reducer makes a 0 of it that has a gradient."""
    return terms(0, None, "already_reduced")
