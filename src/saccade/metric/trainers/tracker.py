"""The losses of one step, their weights and their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class LossTracker:
    """Losses by name, and `total_loss`.

    Args:
        loss_names: Names, with or without "total_loss".

    Example:
        >>> tracker = LossTracker(["metric_loss", "classifier_loss"])
        >>> tracker.losses |= {"metric_loss": 2.0, "classifier_loss": 3.0}
        >>> tracker.update({"metric_loss": 0.5})
        >>> tracker.losses
        {'metric_loss': 1.0, 'classifier_loss': 3.0, 'total_loss': 4.0}
    """

    def __init__(self, loss_names: Sequence[str]) -> None:
        names = [*loss_names, *([] if "total_loss" in loss_names else ["total_loss"])]
        self.losses: dict[str, Any] = dict.fromkeys(names, 0)
        self.loss_weights: dict[str, float] = dict.fromkeys(names, 1)

    def update(self, loss_weight_dict: Mapping[str, float]) -> None:
        """Weight the losses and sum them.

        Args:
            loss_weight_dict: Name to weight; 1 for names that are not in it.
        """
        total: Any = 0
        for name in self.losses:
            self.loss_weights[name] = loss_weight_dict.get(name, 1.0)
            if name != "total_loss":
                self.losses[name] = self.losses[name] * self.loss_weights[name]
                total = total + self.losses[name]
        self.losses["total_loss"] = total
