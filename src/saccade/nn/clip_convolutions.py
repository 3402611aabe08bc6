"""The thin 3D convolutions of X3D, in forms that are fast on a CPU; keys and results are those of `nn.Conv3d`."""

from __future__ import annotations

from typing import Any

import torch
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


class _Depthwise(torch.autograd.Function):
    """A depth-wise convolution of stride 1 whose gradients are convolutions for which there is fast code on a CPU.

    The gradient of the input is again a depth-wise convolution, with the kernel reversed. That of the weight is taken
    frame by frame of the kernel, as one of 2D convolutions.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return _depthwise(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        grad_x = _depthwise(grad, weight.flip(2, 3, 4)) if ctx.needs_input_grad[0] else None
        return grad_x, _depthwise_weight_gradient(x, weight, grad) if ctx.needs_input_grad[1] else None


def _depthwise(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    if weight.shape[3:] == (1, 1) and x.device.type == "cpu" and stride == 1:
        weight = F.pad(weight, (1, 1, 1, 1))  # with zeros: there is fast code for such kernels alone
    padding = [side // 2 for side in weight.shape[2:]]
    return F.conv3d(x, weight, None, (1, stride, stride), padding, groups=len(weight))


def _depthwise_weight_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    sides, frames = weight.shape[2:], x.shape[2]
    padding, groups = [side // 2 for side in sides], len(weight)
    wanted = [False, True, False]
    if tuple(sides[1:]) == (1, 1):  # a 2D convolution over time and cells
        pair = [y.flatten(3).contiguous(memory_format=torch.channels_last) for y in (grad, x)]
        found = torch.ops.aten.convolution_backward(
            *pair, weight.squeeze(4), None, [1, 1], [padding[0], 0], [1, 1], False, [0, 0], groups, wanted
        )[1]
        return found.unsqueeze(4)
    taps = []
    for tap in range(sides[0]):
        shift = tap - padding[0]
        first, last = max(0, -shift), min(frames, frames - shift)  # frames of the output that this tap reaches
        if first >= last:
            taps.append(torch.zeros_like(weight[:, :, tap]))
            continue
        pair = [
            y[:, :, begin:end].transpose(1, 2).flatten(0, 1)
            for y, begin, end in ((grad, first, last), (x, first + shift, last + shift))
        ]
        taps.append(
            torch.ops.aten.convolution_backward(
                *pair, weight[:, :, tap], None, [1, 1], padding[1:], [1, 1], False, [0, 0], groups, wanted
            )[1]
        )
    return torch.stack(taps, dim=2)


def depthwise_conv3d(
    x: Float[Tensor, "b c t h w"], weight: Float[Tensor, "c 1 kt kh kw"], stride: int = 1
) -> Float[Tensor, "b c t h2 w2"]:
    """A convolution of every channel by itself, padded so that the size stays; on a CPU with faster gradients.

    Args:
        x: Maps.
        weight: Odd sides.
        stride: In space.

    Returns:
        What `conv3d` gives.

    Example:
        >>> depthwise_conv3d(torch.randn(1, 4, 3, 5, 5), torch.randn(4, 1, 3, 3, 3)).shape
        torch.Size([1, 4, 3, 5, 5])
    """
    learnt = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    plain = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    if learnt and plain and stride == 1 and x.device.type == "cpu":
        return _Depthwise.apply(x, weight)
    return _depthwise(x, weight, stride)


class DepthwiseConv3d(nn.Conv3d):
    """A convolution of every channel by itself, padded so that the size stays.

    Args:
        channels: Of input and output.
        kernel: Three odd sides.
        stride: In space.

    Example:
        >>> DepthwiseConv3d(8, (3, 3, 3), 2)(torch.randn(1, 8, 4, 5, 5)).shape
        torch.Size([1, 8, 4, 3, 3])
    """

    def __init__(self, channels: int, kernel: tuple[int, int, int], stride: int = 1) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(channels, channels, kernel, (1, stride, stride), padding, groups=channels, bias=False)

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h2 w2"]:
        """Convolve."""
        if self.bias is not None:  # norms were folded into it
            return super().forward(input)
        return depthwise_conv3d(input, self.weight, self.stride[1])


class TemporalConv3d(DepthwiseConv3d):
    """A depth-wise 5x1x1 convolution; on a CPU its kernel is widened by zeros to 5x3x3, for which there is fast code.

    Args:
        channels: Of input and output.

    Example:
        >>> TemporalConv3d(8)(torch.randn(1, 8, 4, 5, 5)).shape
        torch.Size([1, 8, 4, 5, 5])
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, (5, 1, 1))

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Convolve."""
        if self.bias is None or input.device.type != "cpu":
            return super().forward(input)
        return F.conv3d(input, F.pad(self.weight, (1, 1, 1, 1)), self.bias, padding=(2, 1, 1), groups=self.groups)
