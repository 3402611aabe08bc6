"""Inception with batch norm (Ioffe and Szegedy, arXiv:1502.03167): the backbone of many metric-learning papers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Widths(NamedTuple):
    """Output channels of the branches of one block; 0: the branch is not there."""

    one: int
    three_reduce: int
    three: int
    double_reduce: int
    double: int
    pool: int


BLOCKS: dict[str, Widths] = {
    "3a": Widths(64, 64, 64, 64, 96, 32),
    "3b": Widths(64, 64, 96, 64, 96, 64),
    "3c": Widths(0, 128, 160, 64, 96, 0),
    "4a": Widths(224, 64, 96, 96, 128, 128),
    "4b": Widths(192, 96, 128, 96, 128, 128),
    "4c": Widths(160, 128, 160, 128, 160, 128),
    "4d": Widths(96, 128, 192, 160, 192, 128),
    "4e": Widths(0, 128, 192, 192, 256, 0),
    "5a": Widths(352, 192, 320, 160, 224, 128),
    "5b": Widths(352, 192, 320, 192, 224, 128),
}


class ConvNorm(nn.Module):
    """Convolution with bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Apply the three."""
        return F.relu(self.norm(self.conv(x)))


class Block(nn.Module):
    """Four branches side by side; a block without the 1x1 branch halves the resolution."""

    def __init__(self, in_channels: int, widths: Widths, max_pool: bool) -> None:
        super().__init__()
        stride = 1 if widths.one else 2
        self.one = ConvNorm(in_channels, widths.one, 1) if widths.one else None
        self.three = nn.Sequential(
            ConvNorm(in_channels, widths.three_reduce, 1), ConvNorm(widths.three_reduce, widths.three, 3, stride)
        )
        self.twice = nn.Sequential(
            ConvNorm(in_channels, widths.double_reduce, 1),
            ConvNorm(widths.double_reduce, widths.double, 3),
            ConvNorm(widths.double, widths.double, 3, stride),
        )
        self.project = ConvNorm(in_channels, widths.pool, 1) if widths.pool else None
        self.stride = stride
        self.max_pool = max_pool or stride == 2
        self.out_channels = widths.one + widths.three + widths.double + (widths.pool or in_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Concatenate the branches."""
        if self.stride == 2:
            pooled = F.max_pool2d(x, 3, 2, ceil_mode=True)
        elif self.max_pool:
            pooled = F.max_pool2d(x, 3, 1, 1)
        else:
            pooled = F.avg_pool2d(x, 3, 1, 1)
        branches = [self.three(x), self.twice(x), self.project(pooled) if self.project is not None else pooled]
        return torch.cat([self.one(x), *branches] if self.one is not None else branches, dim=1)


class BNInception(nn.Module):
    """Inception-BN up to its last feature map.

    Its input is BGR in 0..255 minus (104, 117, 128), as in the Caffe network whose weights are in use.

    Example:
        >>> BNInception()(torch.randn(1, 3, 224, 224)).shape
        torch.Size([1, 1024, 7, 7])
    """

    num_features = 1024

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, 64, 7, 2)
        self.conv2_reduce = ConvNorm(64, 64, 1)
        self.conv2 = ConvNorm(64, 192, 3)
        blocks, channels = {}, 192
        for name, widths in BLOCKS.items():
            block = Block(channels, widths, max_pool=name == "5b")
            blocks[f"inception_{name}"], channels = block, block.out_channels
        self.blocks = nn.ModuleDict(blocks)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1024 h2 w2"]:
        """Features at 1/32 of the resolution."""
        x = F.max_pool2d(self.conv1(images), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.conv2(self.conv2_reduce(x)), 3, 2, ceil_mode=True)
        for block in self.blocks.values():
            x = block(x)
        return x
