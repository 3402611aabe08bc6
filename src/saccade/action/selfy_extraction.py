"""What self-similarities say of motion: the three ways of SELFY to extract features from them (arXiv:2102.07092)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.action.motion_squeeze import kernel_soft_argmax
from saccade.ops.window_convolution import (
    convolved_size,
    is_plain,
    normalized_window_convolution,
    window_convolution,
)


class WindowConv2d(nn.Conv2d):
    """A square convolution over displacements; (u, v, channels, positions) in and out.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel: Its side.
        stride: Over both displacements.
        padding: Zeros around the window.

    Example:
        >>> WindowConv2d(4, 16, stride=2, padding=1)(torch.randn(9, 9, 4, 100)).shape
        torch.Size([5, 5, 16, 100])
    """

    padding: tuple[int, int]

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, padding: int = 0) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding, bias=False)

    def forward(
        self, input: Float[Tensor, "u v c n"], norm: nn.BatchNorm1d | None = None
    ) -> Float[Tensor, "u2 v2 d n"]:
        """Convolve the input, or what a batch norm and ReLU make of it."""
        if norm is None:
            return window_convolution(input, self.weight, self.stride[0], self.padding[0])
        return normalized_window_convolution(input, norm, self.weight, self.stride[0], self.padding[0])


class WindowLayer(nn.Module):
    """A convolution over displacements, batch norm and ReLU.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        stride: Over both displacements.
        padding: Zeros around the window.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = WindowConv2d(in_channels, out_channels, 3, stride, padding)
        self.norm = nn.BatchNorm1d(out_channels)

    def activate(self, y: Float[Tensor, "u v d n"]) -> Float[Tensor, "u v d n"]:
        """Norm and ReLU, of what the convolution gave."""
        return self.norm(y.flatten(0, 1)).relu_().view(y.shape)


class ConvExtraction(nn.Module):
    """Motion features by convolutions over the displacements, each temporal offset by itself, until one cell is left.

    Args:
        window: Displacements U and V.
        channels: Of the convolutions; all have 3x3 kernels, batch norm and ReLU. The last has no padding.
        strides: Of the convolutions.

    Raises:
        ValueError: As many strides as channels are needed; or the window is not brought to one cell.

    Note:
        Source: arXiv:2102.07092, section 3.2. The authors write 3D convolutions of kernel 1x3x3; batch norm is over all
        positions and temporal offsets in both.

    Example:
        >>> similarity = torch.randn(2, 4, 6, 6, 5, 9, 9)
        >>> ConvExtraction(9, (4, 8, 12, 12))(similarity).shape
        torch.Size([2, 5, 4, 12, 6, 6])
    """

    def __init__(
        self, window: int = 9, channels: Sequence[int] = (4, 16, 64, 64), strides: Sequence[int] = (1, 2, 2, 1)
    ) -> None:
        super().__init__()
        if not channels or len(channels) != len(strides):
            raise ValueError(f"channels and strides of the extraction need one length, not {channels} and {strides}")
        if cells_left(window, strides) != 1:
            taken = [str(size) for size in range(1, 64, 2) if cells_left(size, strides) == 1]
            raise ValueError(
                f"convolutions of strides {tuple(strides)} do not bring a window of {window} to one cell: "
                f"{' or '.join(taken) or 'no window'} is accepted; (1, 2, 1, 1) takes 5 and (1, 2, 2, 2) takes 13"
            )
        self.channels = channels[-1]
        layers = []
        last = len(channels) - 1
        for i, (inputs, outputs) in enumerate(pairwise((1, *channels))):
            layers.append(WindowLayer(inputs, outputs, strides[i], int(i < last)))
        self.layers = nn.ModuleList(layers)

    def forward(self, similarity: Float[Tensor, "b t h w l u v"]) -> Float[Tensor, "b l t c h w"]:
        """Args: `similarity`, of all positions. Returns: their features."""
        x = similarity.permute(5, 6, 0, 4, 1, 2, 3)  # as it lies in memory
        positions = x.shape[2:]
        first, *others = (layer for layer in self.layers if isinstance(layer, WindowLayer))
        x, before = first.conv(x.flatten(2).unsqueeze(2)), first
        for layer in others:
            x = layer.conv(x, before.norm) if is_plain(before.norm) else layer.conv(before.activate(x))
            before = layer
        return before.activate(x)[0, 0].unflatten(1, positions).movedim(0, 3)


class MLPExtraction(nn.Module):
    """Motion features by two layers on all similarities of a position and temporal offset at once.

    Args:
        window: Displacements U and V.
        channels: Of both layers.

    Note:
        Source: arXiv:2102.07092, section 3.2, "MLP"; batch norm and equal widths are choices.

    Example:
        >>> MLPExtraction(5, 12)(torch.randn(2, 4, 6, 6, 3, 5, 5)).shape
        torch.Size([2, 3, 4, 12, 6, 6])
    """

    def __init__(self, window: int = 9, channels: int = 64) -> None:
        super().__init__()
        self.channels = channels
        widths = (window * window, channels, channels)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv1d(i, o, 1, bias=False), nn.BatchNorm1d(o), nn.ReLU(inplace=True))
                for i, o in pairwise(widths)
            )
        )

    def forward(self, similarity: Float[Tensor, "b t h w l u v"]) -> Float[Tensor, "b l t c h w"]:
        """Args: `similarity`, of all positions. Returns: their features."""
        x = similarity.permute(5, 6, 0, 4, 1, 2, 3)
        positions = x.shape[2:]
        return self.layers(x.flatten(2).flatten(0, 1).unsqueeze(0))[0].unflatten(1, positions).movedim(0, 3)


class SoftArgmaxExtraction(nn.Module):
    """One displacement (x, y) for each position and temporal offset, as in MotionSqueeze.

    Args:
        sigma: Width of the Gaussian around the largest similarity, in displacements.
        temperature: Of the softmax.

    Note:
        Source: arXiv:2102.07092, section 3.2, "soft-argmax", after arXiv:2007.09933, section 3.2. Displacements are in
        units of the window's radius.

    Example:
        >>> SoftArgmaxExtraction()(torch.randn(2, 4, 6, 6, 3, 5, 5)).shape
        torch.Size([2, 3, 4, 2, 6, 6])
    """

    channels = 2

    def __init__(self, sigma: float = 5.0, temperature: float = 0.01) -> None:
        super().__init__()
        self.sigma, self.temperature = sigma, temperature

    def forward(self, similarity: Float[Tensor, "b t h w l u v"]) -> Float[Tensor, "b l t 2 h w"]:
        """Args: `similarity`, of all positions. Returns: their displacements."""
        volumes = similarity.permute(0, 4, 1, 5, 6, 2, 3)  # b l t u v h w
        with torch.autocast(similarity.device.type, enabled=False):
            flow, _ = kernel_soft_argmax(volumes.flatten(0, 2), self.sigma, self.temperature)
        return flow.unflatten(0, volumes.shape[:3])


def cells_left(window: int, strides: Sequence[int]) -> int:
    """Cells a side that 3x3 convolutions leave of a window, the last of them without padding; 0 where it does not fit.

    Args:
        window: Displacements a side.
        strides: Of the convolutions.

    Returns:
        Cells.

    Example:
        >>> [cells_left(window, (1, 2, 2, 1)) for window in (5, 7, 9, 11, 13)]
        [0, 0, 1, 1, 2]
    """
    for i, stride in enumerate(strides):
        window = max(0, convolved_size(window, 3, stride, int(i < len(strides) - 1)))
    return window
