"""What adaptation is measured against: training on the source alone, and domain-adversarial training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from saccade.adaptation.adversary import DomainDiscriminator, GradientReversal, PredictionConditioning
from saccade.adaptation.method import AdaptationMethod, DomainBatch, Labelled, Moment, Predictions, Update, check_batch
from saccade.adaptation.networks import Classifier
from saccade.adaptation.schedules import adaptation_factor
from saccade.ops.collective import mean_over_processes


class SourceOnly(AdaptationMethod):
    """Cross-entropy on all that is labelled: the sources, and the labelled target images where there are any ("S+T").

    Each domain counts as much as another, whatever the sizes of their batches. Images of the target without labels
    are not looked at.

    Args:
        classifier: What is trained.

    Example:
        >>> from saccade.adaptation import DomainBatch, Labelled, Moment, digit_classifier
        >>> images, labels = torch.rand(4, 1, 16, 16), torch.arange(4)
        >>> batch = DomainBatch([Labelled(images, labels)], [images])
        >>> [update.player for update in SourceOnly(digit_classifier()).updates(batch, Moment(0, 10))]
        ['network']
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def players(self) -> dict[str, list[dict[str, Any]]]:
        """The network alone."""
        return {"network": [{"params": list(self.classifier.parameters())}]}

    def updates(self, batch: DomainBatch, moment: Moment) -> Iterator[Update]:
        """One update: the mean of the domains' cross-entropies."""
        check_batch(batch, self.classifier.num_classes)
        yield Update("network", supervised_loss(self.classifier, batch.labelled))

    def predict(self, images: Float[Tensor, "b c h w"], domain: int = -1) -> Predictions:
        """The classifier's answer; the domain makes no difference."""
        return classify(self.classifier, images)


class DomainAdversarial(AdaptationMethod):
    """DANN: features from which a discriminator cannot tell the domains apart (arXiv:1505.07818).

    With `conditional` it is CDAN (arXiv:1705.10667), whose discriminator sees the predictions too. The images of all
    domains go through the network together, so that batch norm sees their mixture. All sources are
    one domain for the discriminator (label 1), all targets the other (0).

    Args:
        classifier: What is trained.
        discriminator: Features to a logit (b, 1); two hidden layers of 128 where `None`.
        weight: Of the adversarial loss, which the ramp of `adaptation_factor` multiplies.
        conditional: Show the discriminator the outer product of features and predictions.
        gamma: Of the ramp.

    Raises:
        ValueError: A negative weight.

    Example:
        >>> from saccade.adaptation import DomainBatch, Labelled, Moment, digit_classifier
        >>> images, labels = torch.rand(4, 1, 16, 16), torch.arange(4)
        >>> batch = DomainBatch([Labelled(images, labels)], [images])
        >>> [update.player for update in DomainAdversarial(digit_classifier()).updates(batch, Moment(5, 10))]
        ['network']
    """

    def __init__(
        self,
        classifier: Classifier,
        discriminator: nn.Module | None = None,
        weight: float = 0.1,
        conditional: bool = False,
        gamma: float = 10.0,
    ) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight is {weight}; 0 or more is accepted")
        self.classifier = classifier
        self.conditioning = (
            PredictionConditioning(classifier.in_features, classifier.num_classes) if conditional else None
        )
        width = self.conditioning.out_features if self.conditioning else classifier.in_features
        self.discriminator = discriminator or DomainDiscriminator(width, hidden=128, dropout=0.0)
        self.reversal = GradientReversal()
        self.weight = weight
        self.gamma = gamma

    def players(self) -> dict[str, list[dict[str, Any]]]:
        """One player: the reversal of the gradient makes one step of the game of two."""
        return {"network": [{"params": [*self.classifier.parameters(), *self.discriminator.parameters()]}]}

    def updates(self, batch: DomainBatch, moment: Moment) -> Iterator[Update]:
        """Cross-entropy on what is labelled, and the discriminator's loss behind the reversal."""
        check_batch(batch, self.classifier.num_classes)
        labelled = batch.labelled
        taught = sum(len(part.labels) for part in labelled)
        sources = sum(len(part.labels) for part in batch.sources)
        features = self.classifier.features(torch.cat([*(part.images for part in labelled), *batch.targets]))
        logits = self.classifier.head(features)
        self.reversal.set_lambda(adaptation_factor(moment.progress, self.gamma))
        turned = self.reversal(features)
        judged = self.discriminator(self.conditioning(turned, logits) if self.conditioning else turned).flatten()
        # -log D on the sources, -log (1 - D) on all images of the target
        on_sources, on_targets = F.softplus(-judged[:sources]), F.softplus(judged[sources:])
        domain = (mean_over_processes(on_sources) + mean_over_processes(on_targets)) / 2
        taught_loss = mean_cross_entropy(logits[:taught], [part.labels for part in labelled])
        yield Update("network", taught_loss + self.weight * domain)

    def predict(self, images: Float[Tensor, "b c h w"], domain: int = -1) -> Predictions:
        """The classifier's answer; the domain makes no difference."""
        return classify(self.classifier, images)


def supervised_loss(classifier: Classifier, parts: Sequence[Labelled]) -> Float[Tensor, ""]:
    """The mean over domains of each one's cross-entropy, from one forward of all images together.

    Args:
        classifier: The network.
        parts: Labelled images of each domain.

    Returns:
        The loss.
    """
    logits = classifier(torch.cat([part.images for part in parts]))
    return mean_cross_entropy(logits, [part.labels for part in parts])


def mean_cross_entropy(logits: Float[Tensor, "b k"], labels: list[Tensor]) -> Float[Tensor, ""]:
    """The mean over domains of each one's cross-entropy, which is over the images of all processes.

    Args:
        logits: Of all domains, one behind the other.
        labels: Classes, one tensor a domain.

    Returns:
        The loss.
    """
    parts = logits.split([len(part) for part in labels])
    losses = [F.cross_entropy(*pair, reduction="none") for pair in zip(parts, labels, strict=True)]
    return torch.stack([mean_over_processes(loss) for loss in losses]).mean()


def classify(classifier: Classifier, images: Float[Tensor, "b c h w"]) -> Predictions:
    """What a classifier says about images, with its features, in float32 or wider."""
    features = classifier.features(images)
    logits, features = (x if x.dtype == torch.float64 else x.float() for x in (classifier.head(features), features))
    return Predictions(logits.softmax(1), features)
