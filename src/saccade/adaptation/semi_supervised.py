"""Semi-supervised adaptation: what methods that learn from a few labelled target images share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.adaptation.baselines import classify, supervised_loss
from saccade.adaptation.method import AdaptationMethod, DomainBatch, Labelled, Moment, Predictions, Update, check_batch
from saccade.adaptation.networks import Classifier
from saccade.ops.collective import process_count, sum_over_processes


def joined_counts(device: torch.device, *counts: int) -> list[float]:
    """Counts summed over the processes.

    Args:
        device: Where the processes talk to each other.
        *counts: Of this process.

    Returns:
        Of all of them.

    Example:
        >>> joined_counts(torch.device("cpu"), 3, 0)
        [3.0, 0.0]
    """
    if process_count() == 1:
        return [float(count) for count in counts]
    return sum_over_processes(torch.tensor(counts, dtype=torch.float32, device=device)).tolist()


def check_threshold(threshold: float) -> None:
    """Check the confidence from which pseudo labels are taken.

    Raises:
        ValueError: It is outside [0, 1].
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}; 0 to 1 is accepted")


class SemiSupervised(AdaptationMethod):
    """The base of methods that learn from one source, a few labelled and many unlabelled target images.

    Args:
        classifier: The network.
        threshold: Confidence from which a pseudo label is taken, in [0, 1].
        pretrain: Length of a first phase on the labelled images alone, as
            [`SourceOnly`][saccade.adaptation.baselines.SourceOnly] trains (S+T): a share of all iterations
            where it is below 1, else their number.
        lr_mult: Factor of the learning rate for the body.
        head_lr_mult: The same for the head. The authors' code gives both 0.1, see the errata.

    Raises:
        ValueError: A threshold outside [0, 1], or a negative number.
    """

    def __init__(
        self,
        classifier: Classifier,
        threshold: float = 0.5,
        pretrain: float = 0.0,
        lr_mult: float = 0.1,
        head_lr_mult: float = 0.1,
    ) -> None:
        super().__init__()
        check_threshold(threshold)
        if not 0 <= pretrain < float("inf") or lr_mult < 0 or head_lr_mult < 0:
            raise ValueError(
                f"pretrain is {pretrain}, lr_mult {lr_mult}, head_lr_mult {head_lr_mult}; none may be negative"
            )
        self.classifier = classifier
        self.threshold = threshold
        self.pretrain = pretrain
        self.lr_mult = lr_mult
        self.head_lr_mult = head_lr_mult
        self._measures: dict[str, float] = {}

    def players(self) -> dict[str, list[dict[str, Any]]]:
        """One, `classifier`."""
        return {"classifier": self.groups(self.classifier)}

    def groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        """Parameter groups of a network: its body and its head."""
        return [
            {"params": list(classifier.body.parameters()), "lr_mult": self.lr_mult},
            {"params": list(classifier.head.parameters()), "lr_mult": self.head_lr_mult},
        ]

    def updates(self, batch: DomainBatch, moment: Moment) -> Iterator[Update]:
        """S+T while it lasts, then the method's own losses."""
        source, target, unlabelled = self.parts(batch)
        self._measures = {}
        if moment.iteration < self.pretrain_iterations(moment):
            yield from self.pretraining(source, target)
        else:
            yield from self.adaptation(source, target, unlabelled, moment)

    def pretrain_iterations(self, moment: Moment) -> int:
        """The iteration with which S+T is over."""
        return round(self.pretrain * moment.total if self.pretrain < 1 else self.pretrain)

    def parts(self, batch: DomainBatch) -> tuple[Labelled, Labelled, Tensor]:
        """Source, labelled target and unlabelled target of a batch.

        Raises:
            ValueError: Another number of domains, no labelled target, images of different shapes, wrong labels.
        """
        check_batch(batch, self.classifier.num_classes, sources=1, targets=1)
        if batch.labelled_target is None:
            raise ValueError(
                f"{type(self).__name__} adapts with a few labelled target images, and the batch has none: "
                "give the data module some a class"
            )
        return batch.sources[0], batch.labelled_target, batch.targets[0]

    def pretraining(self, source: Labelled, target: Labelled) -> Iterator[Update]:
        """An iteration of S+T."""
        yield Update("classifier", supervised_loss(self.classifier, [source, target]))

    @abstractmethod
    def adaptation(self, source: Labelled, target: Labelled, unlabelled: Tensor, moment: Moment) -> Iterator[Update]:
        """The losses of an iteration after S+T."""

    def predict(self, images: Float[Tensor, "b c h w"], domain: int = -1) -> Predictions:
        """What the network says; the same for every domain."""
        return classify(self.classifier, images)

    def measures(self) -> dict[str, float]:
        """Shares of unlabelled images that were taught from, where the method has any."""
        return self._measures
