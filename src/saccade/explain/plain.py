"""The search's two costly steps in the plain formulation of the authors' library: slow, the same values.

Where mask values are equal but for rounding, the order of operations decides which of them the area term pushes down,
and after a few steps two searches that differ in nothing else may look different, though equally good. With
`plain=True` the search makes the library's choices; it is what the golden replays and the benchmark use.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from saccade.explain.smooth_mask import SmoothMask


class PlainMask:
    """The smooth maximum with one full-resolution plane for each neighbour.

    Args:
        masks: Its settings are taken over; the pooling has to be `softmax` with finite coldness.
        device: Where the planes live.
        dtype: Their type.

    Raises:
        ValueError: Another pooling.

    Example:
        >>> masks = SmoothMask((16, 20), step=4, sigma=4)
        >>> parameters = torch.rand(2, 1, 4, 5)
        >>> bool(torch.allclose(PlainMask(masks).full(parameters), masks.full(parameters), atol=1e-5))
        True
    """

    def __init__(
        self, masks: SmoothMask, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if masks.pooling != "softmax" or masks.coldness == float("inf"):
            raise ValueError("the plain formulation is there for softmax pooling with finite coldness")
        self.masks = masks
        reach = torch.arange(2 * masks.radius + 1, dtype=dtype, device=device)[:, None]
        distances = []
        for side in masks.shape_out:
            pixel = torch.arange(side, dtype=dtype, device=device)
            index = (pixel / masks.step).floor() + reach - masks.padding
            distances.append(pixel - masks.margin - masks.step * index)
        radial = torch.sqrt(distances[0][:, None, :, None] ** 2 + distances[1][None, :, None, :] ** 2)
        self.weight = torch.exp(-2 * (radial / masks.sigma - 0.5).clamp(min=0) ** 2).flatten(0, 1)

    def full(self, parameters: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 H W"]:
        """As `SmoothMask.full`."""
        masks = self.masks
        planes = F.unfold(F.pad(parameters, [masks.padding] * 4), 2 * masks.radius + 1)
        planes = planes.view(len(parameters), -1, *masks.shape_mid)
        planes = F.interpolate(planes, scale_factor=masks.step, mode="nearest")
        value = planes[..., : masks.shape_out[0], : masks.shape_out[1]] * self.weight
        full = (F.softmax(masks.coldness * value, dim=1) * value).sum(1, keepdim=True)
        return torch.where(full >= 1, 1.0, full.clamp(min=0)) if masks.clamp else full


def plain_area_distance(values: Float[Tensor, "n a"], areas: Sequence[float]) -> Float[Tensor, " n"]:
    """As `area_distance`, by sorting; among equal values the order is that of `torch.sort`.

    Args:
        values: Masks, flattened.
        areas: Area of each row, n or a divisor of n.

    Returns:
        One distance a row.
    """
    ordered = values.sort(dim=1).values
    reference = torch.ones_like(ordered)
    for row in range(len(reference)):
        reference[row, : int(values.shape[1] * (1 - areas[row % len(areas)]))] = 0
    return (ordered - reference).square().mean(1)
