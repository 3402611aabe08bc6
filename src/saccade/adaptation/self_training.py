"""Self-training: cross-entropy on source labels and on pseudo labels of the target (DSBN, arXiv:1906.03950, 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.adaptation.method import check_labels
from saccade.ops.collective import mean_over_processes

Mode = Literal["ensemble", "teacher", "mean", "ensemble_fix"]
MODES = ("ensemble", "teacher", "mean", "ensemble_fix")


class PseudoLabels(NamedTuple):
    """What teacher and student make of the target.

    Args:
        labels: The likeliest class.
        confidence: Its probability.
    """

    labels: Int[Tensor, " b"]
    confidence: Float[Tensor, " b"]


def pseudo_labels(
    teacher: Float[Tensor, "b k"], student: Float[Tensor, "b k"], share: float, mode: Mode = "ensemble"
) -> PseudoLabels:
    """Pseudo labels from the logits of both.

    Args:
        teacher: Logits of the frozen network of the stage before.
        student: Logits of the network in training, in evaluation mode.
        share: The student's, lambda', in [0, 1]; it counts in `ensemble`.
        mode: `ensemble` (1 - share) teacher + share student; `teacher` alone; `mean` of both; `ensemble_fix`: teacher +
            student / 2, as the authors' option of that name computes it.

    Returns:
        Labels and confidences, without gradient.

    Raises:
        ValueError: Another mode, a share outside [0, 1], other shapes.

    Example:
        >>> pseudo_labels(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5).labels
        tensor([0])
    """
    if teacher.shape != student.shape:
        raise ValueError(f"the teacher gives {tuple(teacher.shape)} and the student {tuple(student.shape)}")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"the student's share is {share}; 0 to 1 is accepted")
    if mode == "ensemble":
        logits = (1 - share) * teacher + share * student
    elif mode == "teacher":
        logits = teacher
    elif mode == "mean":
        logits = (teacher + student) / 2
    elif mode == "ensemble_fix":
        logits = teacher + student / 2
    else:
        raise ValueError(f"mode is {mode!r}; {', '.join(MODES)} are accepted")
    confidence, labels = logits.detach().softmax(1).max(1)
    return PseudoLabels(labels, confidence)


class SelfTraining(NamedTuple):
    """A second-stage loss and what it came from.

    Args:
        total: Source + weight * target.
        source: Cross-entropy of the sources.
        target: Cross-entropy of the selected target samples; 0 where none is.
        pseudo: Pseudo labels of each target.
        selected: Which samples reach the threshold.
    """

    total: Float[Tensor, ""]
    source: Float[Tensor, ""]
    target: Float[Tensor, ""]
    pseudo: list[PseudoLabels]
    selected: list[Bool[Tensor, " _"]]


class SelfTrainingLoss(nn.Module):
    """Cross-entropy of the sources, and of the target samples whose pseudo label is confident enough.

    Means are over the selected samples, of all processes where several train, then over domains.

    Args:
        threshold: Least confidence.
        mode: Of the pseudo labels, see `pseudo_labels`.
        scale_logits: Multiply the target's logits by their confidence before the cross-entropy (the authors' "score").

    Raises:
        ValueError: A threshold outside [0, 1], another mode.

    Example:
        >>> logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
        >>> loss = SelfTrainingLoss(threshold=0.5)([logits], [labels], [logits], [logits], [logits], share=0.3)
        >>> loss.total.shape
        torch.Size([])
    """

    def __init__(self, threshold: float = 0.0, mode: Mode = "ensemble", scale_logits: bool = False) -> None:
        super().__init__()
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold is {threshold}; 0 to 1 is accepted")
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; {', '.join(MODES)} are accepted")
        self.threshold = threshold
        self.mode: Mode = mode
        self.scale_logits = scale_logits

    def forward(
        self,
        sources: Sequence[Float[Tensor, "_ k"]],
        source_labels: Sequence[Int[Tensor, " _"]],
        targets: Sequence[Float[Tensor, "_ k"]],
        teacher: Sequence[Float[Tensor, "_ k"]],
        student: Sequence[Float[Tensor, "_ k"]],
        share: float = 0.0,
        weight: float = 1.0,
    ) -> SelfTraining:
        """The loss of one iteration.

        Args:
            sources: Logits of each source.
            source_labels: Their classes.
            targets: Logits of each target, in training mode, which learn.
            teacher: The teacher's logits of each target.
            student: The student's, in evaluation mode.
            share: The student's share in the pseudo labels.
            weight: Of the target's loss.

        Returns:
            The loss, its terms, and the pseudo labels.

        Raises:
            ValueError: No source or no target, labels outside the classes, other shapes.
        """
        if not sources or not targets:
            raise ValueError(f"{len(sources)} sources and {len(targets)} targets came; at least 1 of each is wanted")
        source_losses, target_losses = [], []
        for logits, labels in zip(sources, source_labels, strict=True):
            check_labels(labels, len(logits), logits.shape[1])
            source_losses.append(mean_over_processes(F.cross_entropy(logits, labels, reduction="none")))
        pseudo = [pseudo_labels(t, s, share, self.mode) for t, s in zip(teacher, student, strict=True)]
        selected = [found.confidence >= self.threshold for found in pseudo]
        for logits, found, chosen in zip(targets, pseudo, selected, strict=True):
            scaled = logits * found.confidence[:, None] if self.scale_logits else logits
            loss = F.cross_entropy(scaled, found.labels, reduction="none")
            target_losses.append(mean_over_processes(loss, chosen.to(loss.dtype)))
        source, target = torch.stack(source_losses).mean(), torch.stack(target_losses).mean()
        return SelfTraining(source + weight * target, source, target, pseudo, selected)
