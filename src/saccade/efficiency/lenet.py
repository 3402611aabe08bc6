"""LeNet-Caffe-5, the network of compression papers on MNIST."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class LeNetCaffe(nn.Sequential):
    """Two 5 x 5 convolutions (20 and 50 filters), each with 2 x 2 maximum pooling, and two linear layers (500 units).

    Nearly all of its 431,080 parameters are in the first linear layer, which clustering of convolutions leaves alone.

    Args:
        num_classes: Classes.
        in_channels: 1 for grey images.

    Example:
        >>> import torch
        >>> net = LeNetCaffe()
        >>> net(torch.zeros(2, 1, 28, 28)).shape, sum(p.numel() for p in net.parameters())
        (torch.Size([2, 10]), 431080)
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.flat = nn.Flatten()
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, images: Float[Tensor, "b c 28 28"]) -> Float[Tensor, "b k"]:
        """Logits."""
        return super().forward(images)
