"""The small network of the claims."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


class SmallClassifier(nn.Sequential):
    """Three 3 x 3 convolutions (16, 32, 32) with batch norm, one pooling, global average pooling and a linear layer.

    Args:
        in_channels: 1 for grey images.
        num_classes: Classes.

    Example:
        >>> import torch
        >>> SmallClassifier()(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (inside, out) in enumerate(((in_channels, 16), (16, 32), (32, 32)), start=1):
            layers[f"conv{number}"] = nn.Conv2d(inside, out, 3, padding=1, bias=False)
            layers[f"bn{number}"] = nn.BatchNorm2d(out)
            layers[f"relu{number}"] = nn.ReLU()
            if number == 2:
                layers["pool"] = nn.MaxPool2d(2)
        layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "linear": nn.Linear(32, num_classes)}
        super().__init__(layers)
