"""Gaussian smoothing of maps and images as two small matrix products."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Padding = Literal["zero", "replicate", "reflect"]


def gaussian_smooth(x: Float[Tensor, "*b h w"], sigma: float, padding: Padding = "zero") -> Float[Tensor, "*b h w"]:
    """Smooth the last two dimensions with a Gaussian; the size stays.

    Taps i = -W..W with W = ceil(4 sigma) and weights exp(-i²/(2 sigma²)), normalised to sum 1, vertical and
    horizontal. Both passes with their padding are linear, so each is one product with a banded (size, size) matrix:
    exact, and much faster than a depthwise convolution of up to hundreds of taps.

    Args:
        x: Maps or images, any leading dimensions.
        sigma: Standard deviation in pixels, not negative; 0 is the identity.
        padding: Beyond the border: zeros (the border darkens), the border pixel, or the mirror image (without
            repeating the border pixel; needs W smaller than the image).

    Returns:
        Smoothed values, the shape and type of `x`.

    Raises:
        ValueError: Negative or non-finite sigma, unknown padding, or an image too small to mirror.

    Source:
        As `imsmooth` of the library that comes with arXiv:1910.08485.

    Example:
        >>> gaussian_smooth(torch.ones(1, 1, 9, 9), 2.0, "replicate").sum()
        tensor(81.)
    """
    if not math.isfinite(sigma) or sigma < 0:
        raise ValueError(f"sigma is {sigma}: wanted a finite number of pixels, 0 or more")
    if padding not in get_args(Padding):
        raise ValueError(f"padding {padding!r}: wanted one of {', '.join(get_args(Padding))}")
    if sigma == 0:
        return x
    with torch.autocast(x.device.type, enabled=False):
        rows = smoothing_matrix(x.shape[-2], sigma, padding).to(x)
        columns = rows if x.shape[-1] == x.shape[-2] else smoothing_matrix(x.shape[-1], sigma, padding).to(x)
        return rows @ x @ columns.mT


def smoothing_matrix(size: int, sigma: float, padding: Padding) -> Float[Tensor, "size size"]:
    """The matrix that smooths a signal of `size` values, padding folded in; float64, one row per output value.

    Args:
        size: Number of values.
        sigma: Standard deviation.
        padding: As in `gaussian_smooth`.

    Returns:
        Rows of weights; each sums to 1 but where zero padding cuts it.

    Raises:
        ValueError: The signal is too short to mirror.
    """
    reach = math.ceil(4 * sigma)
    if padding == "reflect" and reach >= size:
        raise ValueError(f"reflect padding of {reach} values needs more than {size}: take a smaller sigma or replicate")
    taps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-((taps / (math.sqrt(2) * sigma + torch.finfo(torch.float32).eps)) ** 2))
    weights = weights / weights.sum()
    source = torch.arange(size)[:, None] + taps.long()
    inside = (source >= 0) & (source < size)
    if padding == "reflect":
        source = source.abs()
        source = torch.where(source >= size, 2 * (size - 1) - source, source)
    weights = torch.where(inside, weights, 0.0) if padding == "zero" else weights.expand(size, -1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, source.clamp(0, size - 1), weights.contiguous())
