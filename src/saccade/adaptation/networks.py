"""Classifiers in two halves, images to features and features to logits, and the small ones for digits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.nn.backbones import timm_model


class Classifier(nn.Module):
    """A network in two halves, as adaptation methods want it.

    Args:
        body: Images to features (b, d).
        head: Features to logits (b, k).
        in_features: d.
        num_classes: k.

    Example:
        >>> classifier = digit_classifier(side=16)
        >>> classifier(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """

    def __init__(self, body: nn.Module, head: nn.Module, in_features: int, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; at least 2 is accepted")
        self.body = body
        self.head = head
        self.in_features = in_features
        self.num_classes = num_classes

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Features of images."""
        return self.body(images)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits of images."""
        return self.head(self.features(images))


def digit_body(
    side: int = 16, channels: int = 1, widths: tuple[int, int] = (16, 32), features: int = 128
) -> nn.Sequential:
    """Two 3x3 convolutions and a linear layer, each with batch norm and ReLU: a network that trains in seconds.

    Args:
        side: Height and width of the images, a multiple of 4.
        channels: Of the images.
        widths: Channels of the convolutions.
        features: Width of the result.

    Returns:
        Images to features.

    Raises:
        ValueError: The side is no multiple of 4.
    """
    if side < 4 or side % 4:
        raise ValueError(f"the side of the images is {side}; a multiple of 4 is accepted")
    layers: list[nn.Module] = []
    for before, after in ((channels, widths[0]), (widths[0], widths[1])):
        layers += [
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
    flat = widths[1] * (side // 4) ** 2
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(flat, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(inplace=True)
    )


def digit_classifier(side: int = 16, channels: int = 1, num_classes: int = 10, features: int = 128) -> Classifier:
    """The small network of the claims.

    Args:
        side: Height and width of the images, a multiple of 4.
        channels: Of the images.
        num_classes: Classes.
        features: Width of the features.

    Returns:
        The classifier, with random weights.
    """
    return Classifier(
        digit_body(side, channels, features=features), nn.Linear(features, num_classes), features, num_classes
    )


def timm_classifier(name: str, num_classes: int, pretrained: bool = False) -> Classifier:
    """A backbone of timm with a new linear head.

    Args:
        name: As timm knows it, such as `resnet50`.
        num_classes: Classes.
        pretrained: Start from timm's weights, which are downloaded where they are not in the cache.

    Returns:
        The classifier.

    Raises:
        ValueError: timm does not know the name.

    Example:
        >>> timm_classifier("resnet18", 31).in_features
        512
    """
    body = timm_model(name, pretrained=pretrained, num_classes=0)
    width: int = body.num_features  # type: ignore[assignment]
    head = nn.Linear(width, num_classes)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.01)
        head.bias.zero_()
    return Classifier(body, head, width, num_classes)
