"""Maps: size, smoothing, class activation, and where they peak."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from saccade.ops.smoothing import Padding, gaussian_smooth

Resize = bool | tuple[int, int]
Reduce = Literal["gap_gradient", "elementwise", "weights"]


def finish(
    maps: Float[Tensor, "n 1 h w"],
    image_size: tuple[int, int] | torch.Size,
    resize: Resize,
    sigma: float,
    padding: Padding = "replicate",
) -> Float[Tensor, "n 1 H W"]:
    """Resize (bilinear, corners not aligned), then smooth.

    Args:
        maps: Maps.
        image_size: Height and width that `resize=True` means.
        resize: `False`: as they are; `True`: the image's size; or (height, width).
        sigma: Standard deviation of the smoothing in pixels of the result; 0: none.
        padding: Of the smoothing.

    Returns:
        Maps.

    Raises:
        ValueError: A size that is not positive.
    """
    if resize is not False:
        size = tuple(image_size) if resize is True else resize
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"resize is {resize!r}: wanted True, False or (height, width)")
        maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return gaussian_smooth(maps, sigma, padding) if sigma else maps


def class_activation_map(
    activation: Float[Tensor, "n c h w"],
    weight: Float[Tensor, ...],
    *,
    reduce: Reduce = "gap_gradient",
    relu: bool = False,
    normalise: Literal["minmax"] | None = None,
) -> Float[Tensor, "n 1 h w"]:
    """The family of class activation maps; differentiable.

    Args:
        activation: Of an inner layer.
        weight: `gap_gradient` and `elementwise`: the gradient at that layer, of its shape; `weights`: the class's row
            of a linear head, (c) or (n, c).
        reduce: `gap_gradient`: Σ_c x_c mean(g_c), Grad-CAM; `elementwise`: Σ_c x_c g_c, the linear approximation;
            `weights`: Σ_c x_c w_c, CAM.
        relu: Whether negative values become 0.
        normalise: `minmax`: each map to [0, 1] (a constant map becomes 0).

    Returns:
        One map an item.

    Raises:
        ValueError: An unknown reduction, or shapes that do not fit.

    Example:
        >>> class_activation_map(torch.ones(1, 2, 3, 3), torch.tensor([1.0, 2.0]), reduce="weights").sum()
        tensor(27.)
    """
    if reduce not in get_args(Reduce):
        raise ValueError(f"reduce {reduce!r}: wanted one of {', '.join(get_args(Reduce))}")
    if reduce == "weights":
        if weight.shape[-1] != activation.shape[1] or weight.ndim > 2:
            raise ValueError(f"weights {tuple(weight.shape)} do not fit {activation.shape[1]} channels")
        factor = weight.reshape(-1, activation.shape[1], 1, 1)
    else:
        if weight.shape != activation.shape:
            raise ValueError(f"the gradient is {tuple(weight.shape)}, the activation {tuple(activation.shape)}")
        factor = weight.mean((2, 3), keepdim=True) if reduce == "gap_gradient" else weight
    maps = (activation * factor).sum(1, keepdim=True)
    maps = maps.relu() if relu else maps
    if normalise == "minmax":
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        maps = (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)
    return maps


def peak(maps: Float[Tensor, "n 1 h w"]) -> Int[Tensor, "n 2"]:
    """Where each map is largest, the first of equals in reading order.

    Args:
        maps: Maps.

    Returns:
        (x, y) of each.

    Example:
        >>> peak(torch.eye(3)[None, None].cumsum(2).cumsum(3))
        tensor([[2, 2]])
    """
    index = maps.flatten(1).argmax(1)
    return torch.stack([index % maps.shape[-1], index // maps.shape[-1]], dim=1)
