"""Labels of several levels: each sample has a class, the class a class of its own, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saccade.metric.inputs import ArgumentError

Level = int | Sequence[int] | Literal["all"]
"""A column of labels, several, or all."""


class LabelMapper:
    """Replaces labels by their ranks among those of a data set, so that the smallest becomes 0.

    Args:
        set_min_label_to_zero: Whether it does so at all.
        dataset_labels: (n,) or (n, levels), of the data set.

    Raises:
        ValueError: No labels to rank by.

    Example:
        >>> LabelMapper(True, [10, 30, 20]).map(np.array([30, 10]), 0)
        array([2, 0])
    """

    def __init__(self, set_min_label_to_zero: bool = False, dataset_labels: Any = None) -> None:
        self.set_min_label_to_zero = set_min_label_to_zero
        if set_min_label_to_zero and dataset_labels is None:
            raise ValueError("set_min_label_to_zero needs dataset_labels")
        if dataset_labels is not None:
            labels = np.asarray(dataset_labels)
            self.levels = [np.unique(level) for level in (labels.T if labels.ndim == 2 else labels[None])]

    def map(self, labels: Any, hierarchy_level: int) -> np.ndarray:
        """Ranks of labels of one level.

        Raises:
            ValueError: A label that the data set does not have.
        """
        labels = np.asarray(labels)
        if not self.set_min_label_to_zero:
            return labels
        known = self.levels[hierarchy_level]
        ranks = np.searchsorted(known, labels).clip(max=len(known) - 1)
        strange = labels[known[ranks] != labels]
        if len(strange):
            raise ValueError(f"label {strange[0]} of level {hierarchy_level} is not among the dataset_labels")
        return ranks


def labels_of_level(labels: Any, level: Level, mapper: LabelMapper | None = None) -> Tensor:
    """Labels of a batch, at one level or several, mapped.

    Args:
        labels: (b,), (b, levels), or a list with one (b,) for each level, as a data loader gives it.
        level: Which.
        mapper: Applied to each level.

    Returns:
        (b,) for one level of labels in columns, (b, levels) else.

    Raises:
        ValueError: The labels do not have the level.
    """
    if isinstance(labels, list | tuple):
        labels = torch.stack([torch.as_tensor(column) for column in labels], dim=1)
    labels = torch.as_tensor(labels).cpu()
    if mapper is not None and mapper.set_min_label_to_zero:
        columns = labels.unsqueeze(1) if labels.ndim == 1 else labels
        mapped = [torch.as_tensor(mapper.map(column.numpy(), at)) for at, column in enumerate(columns.T)]
        labels = mapped[0] if labels.ndim == 1 else torch.stack(mapped, dim=1)
    if level == "all":
        return labels
    highest = level if isinstance(level, int) else max(int(at) for at in level)
    if highest > 0 and (labels.ndim != 2 or labels.shape[1] <= highest):
        raise ArgumentError(f"level {highest} was asked for of labels of the shape {tuple(labels.shape)}")
    return labels[:, level if isinstance(level, int) else list(level)] if labels.ndim == 2 else labels
