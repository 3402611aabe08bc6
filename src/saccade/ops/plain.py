"""The library's own operators in terms of torch's: for formats that know no others, such as ONNX.

They are slower and need more memory, and are for inference: no gradients are defined here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.ops import correlation, window_convolution  # noqa: F401  (they register the operators)


def plain_operators() -> dict[Any, Callable[..., Any]]:
    """A table for `ExportedProgram.run_decompositions`.

    Returns:
        Each forward operator of the library, and a function that computes the same.

    Example:
        >>> sorted(str(operator) for operator in plain_operators())[0]
        'saccade.local_correlation.default'
    """
    own = torch.ops.saccade
    return {
        own.local_correlation.default: _local_correlation,
        own.self_similarity.default: _self_similarity,
        own.window_convolution.default: _window_convolution,
        own.normalized_window_convolution.default: _normalized_window_convolution,
    }


def _local_correlation(a: Tensor, b: Tensor, window: int, dilation: int) -> Tensor:
    """One product for each displacement."""
    reach = window // 2 * dilation
    height, width = a.shape[2:]
    padded = F.pad(b, (reach, reach, reach, reach))
    rows = []
    for i in range(window):
        below = padded[:, :, i * dilation : i * dilation + height]
        rows.append(
            torch.stack([(a * below[..., j * dilation : j * dilation + width]).sum(1) for j in range(window)], dim=1)
        )
    return torch.stack(rows, dim=1)


def _self_similarity(x: Tensor, offsets: int, window: int) -> Tensor:
    """Correlation of each frame with those around it; zero frames beyond the clip."""
    frames, half = x.shape[1], offsets // 2
    around = F.pad(x, (0, 0, 0, 0, 0, 0, half, half))
    now = x.flatten(0, 1)
    parts = []
    for offset in range(offsets):
        then = around[:, offset : offset + frames].flatten(0, 1)
        parts.append(_local_correlation(now, then, window, 1).unflatten(0, x.shape[:2]))
    return torch.stack(parts, dim=1).permute(3, 4, 0, 1, 2, 5, 6)  # b l t u v h w -> u v b l t h w


def _window_convolution(x: Tensor, band: Tensor, stride: int, padding: int) -> Tensor:
    """A product for each row of the result."""
    rows = window_convolution.convolved_size(x.shape[0], band.shape[1], stride, padding)
    found = []
    for row in range(rows):
        seen, taps = window_convolution.band_span(row, x.shape[0], band.shape[1], stride, padding)
        found.append(band[:, taps].flatten(1) @ x[seen].flatten(0, 1))
    return torch.stack(found)


def _normalized_window_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    band: Tensor,
    training: bool,
    eps: float,
    stride: int,
    padding: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm, ReLU, and the convolution."""
    if training:
        raise ValueError("plain operators are for inference: call eval() first")
    rstd = (running_var + eps).rsqrt()
    cells = x.unflatten(1, (-1, weight.shape[0]))
    scale = (weight * rstd).unsqueeze(1)
    y = (cells * scale + (bias - running_mean * weight * rstd).unsqueeze(1)).relu().flatten(1, 2)
    return _window_convolution(y, band, stride, padding), running_mean.clone(), rstd
