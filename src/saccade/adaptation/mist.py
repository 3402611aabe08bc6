"""One network that learns from its own pseudo labels: with mixup (MiST, DeCoTa's ablation) and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.adaptation.method import Labelled, Moment, Update
from saccade.adaptation.mico import (
    PseudoLabels,
    Stream,
    check_inputs,
    draw_lambda,
    least_images,
    mixed_stream,
    pseudo_labels,
)
from saccade.adaptation.semi_supervised import SemiSupervised, joined_counts
from saccade.ops.collective import sum_over_processes


@dataclass
class MiSTOutput:
    """One iteration of MiST.

    Args:
        loss: Of both streams.
        labels: What the network says about the unlabelled images.
        target: The stream of the labelled target images.
        source: The stream of the source.
        lam: The λ of the iteration.
    """

    loss: Float[Tensor, ""]
    labels: PseudoLabels
    target: Stream
    source: Stream
    lam: float


class MiSTLoss(nn.Module):
    """Mixup self-training: DeCoTa's two losses for one network, which is its own teacher (arXiv:2007.12684, table 4).

    Args:
        threshold: τ, the confidence from which a pseudo label is taken, in [0, 1].

    Raises:
        ValueError: The threshold is outside.

    Example:
        >>> from saccade.adaptation import Labelled, digit_classifier
        >>> few = Labelled(torch.randn(4, 1, 16, 16), torch.arange(4))
        >>> MiSTLoss()(digit_classifier(), few, few, torch.randn(6, 1, 16, 16)).loss.shape
        torch.Size([])
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        check_inputs(threshold)
        self.threshold = threshold

    def forward(
        self,
        network: Callable[[Tensor], Tensor],
        source: Labelled,
        target: Labelled,
        unlabelled: Float[Tensor, "b c h w"],
        lam: float | None = None,
        generator: torch.Generator | None = None,
        partners_target: Int[Tensor, " p"] | None = None,
        partners_source: Int[Tensor, " q"] | None = None,
    ) -> MiSTOutput:
        """The loss of one iteration.

        Args:
            network: Images to logits.
            source: Labelled source images.
            target: The few labelled target images.
            unlabelled: Target images.
            lam: λ in [0, 1], drawn from Beta(1, 1) where `None`.
            generator: For λ and the partners, of any device; the CPU's global one where `None`.
            partners_target: Indices of labelled target images for the selected ones, drawn where `None`.
            partners_source: The same of source images.

        Returns:
            Loss and parts.

        Raises:
            ValueError: λ outside [0, 1], images of different shapes, labels outside the classes.
        """
        check_inputs(self.threshold, lam, source.images, target.images, unlabelled)
        labels = pseudo_labels(network, unlabelled)
        lam = draw_lambda(unlabelled.device, generator) if lam is None else lam
        in_target = mixed_stream(network, target, unlabelled, labels, lam, self.threshold, partners_target, generator)
        in_source = mixed_stream(
            network, source, unlabelled, labels, 1.0 - lam, self.threshold, partners_source, generator
        )
        return MiSTOutput(in_target.loss + in_source.loss, labels, in_target, in_source, lam)


class MiST(SemiSupervised):
    """Mixup self-training with one network.

    Args:
        classifier: The network.
        threshold: τ in [0, 1].
        pretrain: Length of S+T before, a share of all iterations where below 1, else their number.
        lr_mult: Factor of the learning rate for the body.
        head_lr_mult: The same for the head.

    Raises:
        ValueError: A threshold outside [0, 1].

    Example:
        >>> from saccade.adaptation import digit_classifier
        >>> list(MiST(digit_classifier()).players())
        ['classifier']
    """

    def adaptation(  # noqa: D102
        self, source: Labelled, target: Labelled, unlabelled: Tensor, moment: Moment
    ) -> Iterator[Update]:
        output = MiSTLoss(self.threshold)(self.classifier, source, target, unlabelled)
        self._measures = {"selected": float(output.target.selected.float().mean())}
        yield Update("classifier", output.loss)


class PseudoLabelling(SemiSupervised):
    """Plain pseudo labels (Lee, 2013): the network's confident answers are labels like any other.

    The loss is the cross-entropy of the source, of the labelled target, and of the target images that the network, in
    training mode, is sure of; each is a mean over its images.

    Args:
        classifier: The network.
        threshold: Confidence from which an answer is taken, in [0, 1].
        pretrain: Length of S+T before, a share of all iterations where below 1, else their number.
        lr_mult: Factor of the learning rate for the body.
        head_lr_mult: The same for the head.

    Raises:
        ValueError: A threshold outside [0, 1].

    Example:
        >>> from saccade.adaptation import digit_classifier
        >>> list(PseudoLabelling(digit_classifier(), threshold=0.9).players())
        ['classifier']
    """

    def adaptation(  # noqa: D102
        self, source: Labelled, target: Labelled, unlabelled: Tensor, moment: Moment
    ) -> Iterator[Update]:
        teacher = pseudo_labels(self.classifier, unlabelled)
        chosen = teacher.sure(self.threshold).nonzero().squeeze(1)
        if len(chosen) < least_images(self.classifier):
            chosen = chosen[:0]
        taught = Labelled(unlabelled[chosen], teacher.labels[chosen])
        parts = [source, target, *([taught] if len(chosen) else [])]
        counts = joined_counts(unlabelled.device, *(len(part.labels) for part in (source, target, taught)))
        losses = [
            F.cross_entropy(self.classifier(part.images), part.labels, reduction="sum") / count
            for part, count in zip(parts, counts, strict=False)
        ]
        self._measures = {"selected": len(chosen) / len(unlabelled)}
        yield Update("classifier", sum_over_processes(torch.stack(losses).sum()))
