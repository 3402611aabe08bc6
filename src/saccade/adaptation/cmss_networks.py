"""The networks of CMSS for 32 x 32 digits (Digits-Five): extractor with classifier, discriminator, manager."""

from __future__ import annotations

from torch import nn

from saccade.adaptation.adversary import DomainDiscriminator
from saccade.adaptation.cmss import CurriculumManager
from saccade.adaptation.networks import Classifier
from saccade.nn.backbones import timm_model


def digits_five_classifier(channels: int = 3, num_classes: int = 10) -> Classifier:
    """F and C: three 5x5 convolutions and two linear layers to 2048 features, and a linear classifier.

    Args:
        channels: Of the images, which are 32 x 32.
        num_classes: Classes.

    Returns:
        The classifier, with random weights.

    Example:
        >>> import torch
        >>> digits_five_classifier().eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    layers: list[nn.Module] = []
    for before, after in ((channels, 64), (64, 64)):
        layers += [
            nn.Conv2d(before, after, 5, padding=2),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
    body = nn.Sequential(
        *layers,
        nn.Conv2d(64, 128, 5, padding=2),
        nn.BatchNorm2d(128),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(8192, 3072),
        nn.BatchNorm1d(3072),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(3072, 2048),
        nn.BatchNorm1d(2048),
        nn.ReLU(inplace=True),
    )
    return Classifier(body, nn.Linear(2048, num_classes), 2048, num_classes)


def digits_five_discriminator(in_features: int = 2048) -> DomainDiscriminator:
    """D: one hidden layer of 1024 with dropout, one logit.

    Args:
        in_features: Width of the features; `PredictionConditioning.out_features` where D is conditional.

    Returns:
        The discriminator.
    """
    return DomainDiscriminator(in_features, hidden=1024, dropout=0.5, layers=1)


def digits_five_manager(channels: int = 3, bound: float | None = None, min_ess: float = 0.0) -> CurriculumManager:
    """G: two 5x5 convolutions and two linear layers to one score.

    Args:
        channels: Of the images, which are 32 x 32.
        bound: Of the scores; see `CurriculumManager`.
        min_ess: Least effective sample size, as a share of the batch.

    Returns:
        The manager.

    Example:
        >>> import torch
        >>> digits_five_manager()(torch.zeros(4, 3, 32, 32)).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    layers: list[nn.Module] = []
    for before, after in ((channels, 6), (6, 16)):
        layers += [nn.Conv2d(before, after, 5), nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    backbone = nn.Sequential(*layers, nn.Flatten(), nn.Linear(400, 120), nn.ReLU(inplace=True), nn.Linear(120, 1))
    return CurriculumManager(backbone, bound, min_ess)


def timm_manager(
    name: str, pretrained: bool = False, bound: float | None = None, min_ess: float = 0.0
) -> CurriculumManager:
    """G as a backbone of timm with one output: in the paper a network of the same kind as F.

    Args:
        name: As timm knows it, such as `resnet18`.
        pretrained: Start from timm's weights, which are downloaded where they are not in the cache.
        bound: Of the scores; see `CurriculumManager`.
        min_ess: Least effective sample size, as a share of the batch.

    Returns:
        The manager.

    Raises:
        ValueError: timm does not know the name.
    """
    return CurriculumManager(timm_model(name, pretrained=pretrained, num_classes=1), bound, min_ess)
