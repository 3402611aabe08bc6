"""Accuracy where a plain share of right answers will not do: several labels at once, and classes of unequal sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class TopK(Metric):
    """Share of the samples whose labels are all among the k likeliest.

    An action of EPIC-Kitchens is right where its verb and its noun are: `TopK([0, 1])`. Among equal probabilities the
    smaller class comes first.

    Args:
        labels: Which of the labels have to be right.
        k: How many classes of each may be tried.

    Raises:
        ValueError: No labels, or k below 1.

    Example:
        >>> verb, noun = torch.tensor([[0.9, 0.1], [0.9, 0.1]]), torch.tensor([[0.2, 0.8], [0.2, 0.8]])
        >>> action = TopK([0, 1])
        >>> action.update([verb, noun], torch.tensor([[0, 1], [0, 0]]))
        >>> action.compute()
        tensor(0.5000)
    """

    higher_is_better = True
    full_state_update = False
    right: Tensor
    seen: Tensor

    def __init__(self, labels: Sequence[int], k: int = 1) -> None:
        super().__init__()
        if not labels or k < 1:
            raise ValueError(f"at least one label and k >= 1 are needed, not {list(labels)} and k = {k}")
        self.labels, self.k = tuple(labels), k
        self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("seen", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities: Sequence[Tensor], label: Tensor) -> None:
        """Count a batch.

        Args:
            probabilities: (b, classes) for each label.
            label: (b, labels).
        """
        hit = torch.ones(len(label), dtype=torch.bool, device=label.device)
        for place in self.labels:
            p, truth = probabilities[place], label[:, place, None]
            own = p.gather(1, truth)
            before = torch.arange(p.shape[1], device=p.device) < truth
            hit &= ((p > own) | ((p == own) & before)).sum(1) < self.k
        self.right += hit.sum()
        self.seen += len(label)

    def compute(self) -> Tensor:
        """The share, in [0, 1]."""
        return self.right / self.seen


class MeanClassAccuracy(Metric):
    """Mean over the classes of the share of their samples that are recognised.

    Every class that occurs counts alike, however many samples it has; one that does not occur counts nowhere. Among
    equal probabilities the smaller class comes first.

    Args:
        num_classes: Classes.

    Raises:
        ValueError: No classes.

    Example:
        >>> accuracy = MeanClassAccuracy(3)
        >>> accuracy.update(torch.eye(3)[[0, 0, 0, 2]], torch.tensor([0, 0, 0, 1]))
        >>> accuracy.compute()
        tensor(0.5000)
    """

    higher_is_better = True
    full_state_update = False
    right: Tensor
    seen: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes has to be at least 1, not {num_classes}")
        self.add_state("right", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Count a batch.

        Args:
            probabilities: (b, classes).
            label: (b,).
        """
        first = (probabilities == probabilities.amax(1, keepdim=True)).int().argmax(1)
        self.seen += torch.bincount(label, minlength=len(self.seen))
        self.right += torch.bincount(label[first == label], minlength=len(self.right))

    def compute(self) -> Tensor:
        """The mean share, in [0, 1]; 0 before anything was seen."""
        there = self.seen > 0
        return (self.right[there] / self.seen[there]).sum() / there.sum().clamp(min=1)
