"""A method with two players, dropout and augmentation: all that makes an exact resume hard."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.adaptation.baselines import classify
from saccade.adaptation.datamodule import DomainSets
from saccade.adaptation.images import TensorImages
from saccade.adaptation.method import AdaptationMethod, DomainBatch, Moment, Predictions, Update, frozen
from saccade.adaptation.networks import Classifier


def classifier(classes: int = 3, dropout: float = 0.0) -> Classifier:
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Dropout(dropout))
    return Classifier(body, nn.Linear(8, classes), 8, classes)


class TwoPlayers(AdaptationMethod):
    """The network fools a discriminator; the discriminator moves second."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.classifier = classifier(dropout=dropout)
        self.discriminator = nn.Linear(8, 1)

    def players(self) -> dict[str, list[dict[str, Any]]]:
        own = [{"params": list(self.classifier.body.parameters()), "lr_mult": 0.5}]
        return {
            "network": [*own, {"params": list(self.classifier.head.parameters())}],
            "discriminator": [{"params": list(self.discriminator.parameters())}],
        }

    def updates(self, batch: DomainBatch, moment: Moment) -> Iterator[Update]:
        source = batch.sources[0]
        features = self.classifier.features(torch.cat([source.images, batch.targets[0]]))
        count = len(source.labels)
        domain = (torch.arange(len(features)) < count).to(features)
        with frozen(self.discriminator):
            fooled = F.binary_cross_entropy_with_logits(self.discriminator(features).flatten(), domain)
        taught = F.cross_entropy(self.classifier.head(features[:count]), source.labels)
        yield Update("network", taught - moment.progress * fooled)
        judged = self.discriminator(features.detach()).flatten()
        yield Update("discriminator", F.binary_cross_entropy_with_logits(judged, domain))

    def predict(self, images: Tensor, domain: int = -1) -> Predictions:
        return classify(self.classifier, images)

    def measures(self) -> dict[str, float]:
        return {"weight": float(self.discriminator.weight.detach().norm())}


def sets(count: int = 40, augment: bool = False, **settings: Any) -> DomainSets:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(2, count, 1, 4, 4, generator=generator)
    labels = torch.arange(count) % 3
    noisy = (lambda x: x + 0.1 * torch.randn(x.shape)) if augment else None
    settings = {"source_batch": 6, "target_batch": 4, "iterations": 5} | settings
    return DomainSets(
        [TensorImages(images[0], labels, noisy)],
        [TensorImages(images[1, : count // 2], augment=noisy)],
        validation=TensorImages(images[0], labels),
        test=TensorImages(images[1], labels),
        **settings,
    )
