"""What is done to whole models or single layers: freezing, re-estimating batch norm, Linear as convolution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from saccade.surgery.names import find_layers


@contextmanager
def frozen(*models: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; both as they were afterwards, also after an exception.

    Args:
        models: One or more modules.

    Yields:
        Nothing.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> with frozen(model):
        ...     model.training, model.weight.requires_grad
        (False, False)
        >>> model.training, model.weight.requires_grad
        (True, True)
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for model in models for parameter in model.parameters()]
    try:
        for module, _ in modes:
            module.training = False
        for parameter, flag in flags:
            if flag:
                parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            if flag:
                parameter.requires_grad_(True)


@torch.no_grad()
def recalibrate_bn(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Re-estimate the running statistics of all batch norms, as the plain mean over batches.

    Wanted after weights have been changed (clustered, pruned, averaged), when the old statistics no longer fit. All
    other layers stay in eval mode; modes and momenta are as before afterwards.

    Args:
        model: Its batch norms are changed.
        batches: Inputs of the model.

    Returns:
        The number of batches used.

    Raises:
        ValueError: No batches, or no batch norm with running statistics.

    Example:
        >>> recalibrate_bn(nn.Sequential(nn.BatchNorm1d(3)), [torch.randn(8, 3) for _ in range(5)])
        5
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    if not norms:
        raise ValueError(f"{type(model).__name__} has no batch norm with running statistics")
    momenta = [norm.momentum for norm in norms]
    count = 0
    with frozen(model):
        try:
            for batch in batches:
                if count == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # cumulative mean
                        norm.training = True
                model(batch)
                count += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if count == 0:
        raise ValueError("no batches to estimate batch-norm statistics from")
    return count


def linear_to_conv(linear: nn.Linear, kernel_size: int | tuple[int, int] = 1) -> nn.Conv2d:
    """The convolution that computes the same as a linear layer on flattened `c h w` features.

    With it a classifier slides over images of any size: VGG's first fully connected layer becomes a 7x7 convolution,
    the others 1x1.

    Args:
        linear: Its weights are copied.
        kernel_size: Height and width of the feature map that the linear layer saw.

    Returns:
        A convolution without padding.

    Raises:
        ValueError: The kernel's area does not divide the number of input features.

    Example:
        >>> linear_to_conv(nn.Linear(512 * 7 * 7, 64), 7)
        Conv2d(512, 64, kernel_size=(7, 7), stride=(1, 1))
    """
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if height < 1 or width < 1 or linear.in_features % (height * width):
        raise ValueError(f"{linear.in_features} input features are no map of {height}x{width} positions")
    channels = linear.in_features // (height * width)
    conv = nn.Conv2d(channels, linear.out_features, (height, width), bias=linear.bias is not None)
    conv = conv.to(device=linear.weight.device, dtype=linear.weight.dtype).train(linear.training)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.view(linear.out_features, channels, height, width))
        if conv.bias is not None:
            conv.bias.copy_(linear.bias)
    conv.weight.requires_grad_(linear.weight.requires_grad)
    return conv


def width_of(stage: nn.Module) -> int:
    """Channels that a residual stage or block of a convolutional network gives out.

    Args:
        stage: A residual block, or a sequence of them.

    Returns:
        The output channels of its last convolution that is not on a shortcut.

    Raises:
        ValueError: There is no convolution in it.

    Example:
        >>> width_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1)))
        16
    """
    layers = find_layers(stage, (nn.Conv2d, nn.Conv3d))
    shortcuts = ("downsample", "shortcut")
    branch = [
        layer for name, layer in layers.items() if not any(part.startswith(shortcuts) for part in name.split("."))
    ]
    if not branch:
        raise ValueError(f"there is no convolution in {type(stage).__name__}: the width of what it gives is not known")
    return int(branch[-1].out_channels)  # type: ignore[arg-type]
