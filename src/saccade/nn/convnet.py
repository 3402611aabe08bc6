"""The four-block convolutional network of few-shot and metric learning on small images."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class ConvNet(nn.Sequential):
    """Blocks of 3x3 convolution, batch norm, ReLU and, while there is resolution, 2x2 maximum pooling.

    Args:
        in_channels: 1 for grey images.
        width: Channels of every block.
        blocks: Their number.
        pooled: How many of them end in pooling.

    Example:
        >>> import torch
        >>> ConvNet()(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 32, 3, 3])
    """

    def __init__(self, in_channels: int = 1, width: int = 32, blocks: int = 4, pooled: int = 3) -> None:
        layers: list[nn.Module] = []
        for block in range(blocks):
            layers += [
                nn.Conv2d(in_channels if block == 0 else width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                *([nn.MaxPool2d(2)] if block < pooled else []),
            ]
        super().__init__(*layers)
        self.num_features = width

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """A feature map."""
        return super().forward(images)
