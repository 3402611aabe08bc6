"""The Wide ResNet of the authors' checkpoints, and the settings with which they deployed it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class WideBlock(nn.Module):
    """Pre-activation block: batch norm, ReLU and convolution, twice; the stride is the second convolution's.

    The shortcut sees the block's input before any activation, and is a 1 x 1 convolution without batch norm where the
    shape changes.

    Args:
        in_channels: Of the input.
        channels: Of the output.
        stride: Of the second convolution and of the shortcut.
        dropout: Share that is dropped between the convolutions.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride=stride))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """One block."""
        out = self.dropout(self.conv1(F.relu(self.bn1(x))))
        return self.conv2(F.relu(self.bn2(out))) + self.shortcut(x)


class WideResNet(nn.Module):
    """Wide ResNet for small images, with the peculiarities of the authors' code.

    All convolutions have a bias, also before a batch norm; the last batch norm has a momentum of 0.9.

    Args:
        depth: 6 n + 4, with n blocks in each of the three stages.
        widen_factor: Times 16, 32 and 64 channels.
        dropout: Within the blocks.
        num_classes: Classes.

    Raises:
        ValueError: Another depth, or a factor below 1.

    Source:
        The network of arXiv:1806.09228's experiments on CIFAR-10 is depth 16, factor 4.

    Example:
        >>> WideResNet(10, 1)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, depth: int = 16, widen_factor: int = 4, dropout: float = 0.3, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6 or widen_factor < 1:
            raise ValueError(f"depths are 10, 16, 22, ... and factors 1 or more, not {depth} and {widen_factor}")
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        widths = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        for stage, stride in enumerate((1, 2, 2), start=1):
            layers = [WideBlock(widths[stage - 1], widths[stage], stride, dropout)]
            layers += [WideBlock(widths[stage], widths[stage], 1, dropout) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.bn1 = nn.BatchNorm2d(widths[3], momentum=0.9)
        self.linear = nn.Linear(widths[3], num_classes)

    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d h2 w2"]:
        """What the last stage gives, before batch norm and ReLU."""
        x = self.conv1(images)
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)  # type: ignore[operator]
        return x

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Logits."""
        return self.linear(F.relu(self.bn1(self.features(images))).mean((2, 3)))


_CLUSTERS = {
    45: (144, 90, 80, 50, 30, 30, 100, 50, 10, 50, 50, 30, 7, 12, 7, 7),
    47: (144, 90, 80, 50, 30, 30, 100, 50, 10, 50, 50, 7, 6, 12, 7, 7),
    50: (144, 90, 80, 50, 30, 30, 100, 50, 10, 50, 50, 7, 6, 12, 7, 7),
}
_CORES = {
    45: (0.0, 0.3, 0.4, 0.5, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.62, 0.9, 0.5, 0.75, 0.9),
    47: (0.0, 0.3, 0.4, 0.5, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.9, 0.5, 0.75, 0.9),
    50: (0.0, 0.3, 0.4, 0.5, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.87, 0.9, 0.5, 0.75, 0.9),
}


def wide_resnet_setting(ratio: int) -> tuple[dict[str, int], dict[str, float]]:
    """The authors' numbers of clusters and core ratios for Wide ResNet 16-4 at a compression ratio.

    Args:
        ratio: 45, 47 or 50.

    Returns:
        Clusters and core ratio by layer.

    Raises:
        ValueError: Another ratio.

    Example:
        >>> clusters, cores = wide_resnet_setting(45)
        >>> clusters["layer1.0.shortcut.0"], cores["layer3.0.conv1"]
        (50, 0.62)
    """
    if ratio not in _CLUSTERS:
        raise ValueError(f"the authors published settings for the ratios 45, 47 and 50, not {ratio}")
    names = ["conv1"]
    for stage in (1, 2, 3):
        names += [f"layer{stage}.0.{layer}" for layer in ("conv1", "conv2", "shortcut.0")]
        names += [f"layer{stage}.1.{layer}" for layer in ("conv1", "conv2")]
    cores = {name: p for name, p in zip(names, _CORES[ratio], strict=True) if p}
    return dict(zip(names, _CLUSTERS[ratio], strict=True)), cores


def from_state(state: dict[str, Tensor], dropout: float = 0.3) -> WideResNet:
    """The network of a state dict, with its weights, in eval mode; depth, width and classes are read from its shapes.

    Args:
        state: In the keys of `WideResNet`.
        dropout: Which a state dict does not say.

    Returns:
        The network.

    Raises:
        ValueError: No such state dict; the message lists what does not fit.
    """
    from saccade.checkpoints import load_strict

    shape: Any = {key: tuple(value.shape) for key, value in state.items()}
    if "linear.weight" not in shape or "layer3.0.conv1.weight" not in shape:
        raise ValueError("the state dict is of no Wide ResNet: it lacks linear.weight or layer3.0.conv1.weight")
    blocks = len({key.split(".")[1] for key in shape if key.startswith("layer1.")})
    classes, width = shape["linear.weight"]
    with torch.device("meta"):
        model = WideResNet(6 * blocks + 4, max(width // 64, 1), dropout, classes)
    model = model.to_empty(device="cpu")
    load_strict(model, state)
    return model.eval()
