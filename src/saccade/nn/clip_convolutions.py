"""The thin 3D convolutions of X3D, in forms that are fast on a CPU; keys and results are those of `nn.Conv3d`."""

from __future__ import annotations

import torch  # noqa: F401  (for the examples)
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def pointwise_conv3d(
    x: Float[Tensor, "b c t h w"], weight: Float[Tensor, "d c 1 1 1"], bias: Tensor | None = None, stride: int = 1
) -> Float[Tensor, "b d t h2 w2"]:
    """A 1x1x1 convolution; on a CPU a matrix product.

    Args:
        x: Maps.
        weight: Of the convolution.
        bias: A number an output channel.
        stride: In space.

    Returns:
        What `conv3d` gives.

    Example:
        >>> pointwise_conv3d(torch.randn(1, 4, 3, 5, 5), torch.randn(6, 4, 1, 1, 1), stride=2).shape
        torch.Size([1, 6, 3, 3, 3])
    """
    if x.device.type != "cpu":
        return F.conv3d(x, weight, bias, (1, stride, stride))
    return F.linear(x[..., ::stride, ::stride].permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)


class PointwiseConv3d(nn.Conv3d):
    """A 1x1x1 convolution; on a CPU it is a matrix product, which keeps channels beside each other in memory.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        stride: In space.
        bias: Whether it has one.

    Example:
        >>> PointwiseConv3d(4, 6, stride=2)(torch.randn(1, 4, 3, 5, 5)).shape
        torch.Size([1, 6, 3, 3, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 1, (1, stride, stride), bias=bias)

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Convolve."""
        return pointwise_conv3d(input, self.weight, self.bias, self.stride[1])


class SpatialConv3d(nn.Conv3d):
    """A 1x3x3 convolution of stride 2 in space; on a CPU it is a 2D convolution of the single frames.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.

    Example:
        >>> SpatialConv3d(3, 8)(torch.randn(1, 3, 2, 9, 9)).shape
        torch.Size([1, 8, 2, 5, 5])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (1, 3, 3), (1, 2, 2), padding=(0, 1, 1), bias=False)

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h2 w2"]:
        """Convolve."""
        if input.device.type != "cpu":
            return super().forward(input)
        frames = input.transpose(1, 2).flatten(0, 1)
        y = F.conv2d(frames, self.weight.squeeze(2), self.bias, stride=2, padding=1)
        return y.unflatten(0, (input.shape[0], input.shape[2])).transpose(1, 2)


class TemporalConv3d(nn.Conv3d):
    """A depth-wise 5x1x1 convolution; on a CPU its kernel is widened by zeros to 5x3x3, for which there is fast code.

    Args:
        channels: Of input and output.

    Example:
        >>> TemporalConv3d(8)(torch.randn(1, 8, 4, 5, 5)).shape
        torch.Size([1, 8, 4, 5, 5])
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, (5, 1, 1), padding=(2, 0, 0), groups=channels, bias=False)

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Convolve."""
        if input.device.type != "cpu":
            return super().forward(input)
        return F.conv3d(input, F.pad(self.weight, (1, 1, 1, 1)), self.bias, padding=(2, 1, 1), groups=self.groups)
