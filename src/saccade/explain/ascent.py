"""The search that extremal perturbations share: ascend a reward while the area of each mask is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DEFAULT_ITERATIONS = 800
DEFAULT_GROWTH = 1.0035


@dataclass(frozen=True)
class Ascent:
    """Settings of the search.

    Args:
        max_iter: Number of steps.
        lr: Step size.
        momentum: Of the gradient.
        dampening: Of the gradient's share after the first step.
        area_weight: Initial weight of the area term.
        growth: Factor on that weight after each step; `None`: 1.0035^(800 / max_iter), so that the weight ends where
            800 steps would bring it.

    Raises:
        ValueError: A number that makes no sense.
    """

    max_iter: int = DEFAULT_ITERATIONS
    lr: float = 0.01
    momentum: float = 0.9
    dampening: float = 0.9
    area_weight: float = 300.0
    growth: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.max_iter, int) or isinstance(self.max_iter, bool) or self.max_iter < 1:
            raise ValueError(f"max_iter is {self.max_iter!r}: wanted a positive whole number")
        if not (self.lr > 0 and self.area_weight >= 0 and 0 <= self.momentum < 1 and 0 <= self.dampening <= 1):
            raise ValueError(f"lr, area_weight, momentum or dampening make no sense: {self}")
        if self.growth is not None and not self.growth > 0:
            raise ValueError(f"growth is {self.growth}: wanted a positive factor")

    @property
    def growth_per_step(self) -> float:
        """The factor that is used."""
        return DEFAULT_GROWTH ** (DEFAULT_ITERATIONS / self.max_iter) if self.growth is None else self.growth


def check_areas(areas: Sequence[float]) -> tuple[float, ...]:
    """The areas as floats.

    Args:
        areas: Shares of the mask to keep.

    Returns:
        Them.

    Raises:
        ValueError: None, or one that is not in (0, 1].
    """
    values = tuple(float(area) for area in areas)
    if not values:
        raise ValueError("no areas: wanted at least one share in (0, 1]")
    outside = [area for area in values if not 0 < area <= 1]
    if outside:
        raise ValueError(f"area {outside[0]}: wanted a share in (0, 1]")
    return values


def reference_ones(values: Float[Tensor, "n a"], areas: Sequence[float]) -> Bool[Tensor, "n a"]:
    """Which entries the area term wants at 1: the largest, all but int(A (1 - area)) of them.

    It is what sorting each row and comparing with a step gives, found by selection in linear time; among equal
    values the earlier ones are the smaller, as in a stable sort.

    Args:
        values: Masks, flattened.
        areas: Area of each row, n or a divisor of n (the areas then repeat).

    Returns:
        True where the reference is 1.
    """
    n, a = values.shape
    ones = torch.ones_like(values, dtype=torch.bool)
    for first, area in enumerate(areas):
        rows, zeros = slice(first, n, len(areas)), int(a * (1 - area))
        if zeros == 0:
            continue
        part = values[rows]
        threshold = part.kthvalue(zeros, dim=1, keepdim=True).values
        at = part == threshold
        spare = zeros - (part < threshold).sum(1, keepdim=True)  # how many of the equal ones become zeros
        ones[rows] = (part > threshold) | (at & (at.cumsum(1) > spare))
    return ones


def area_distance(values: Float[Tensor, "n a"], areas: Sequence[float]) -> Float[Tensor, " n"]:
    """Mean (sort(values) - reference)², the reference being int(A (1 - area)) zeros and then ones.

    Args:
        values: Masks, flattened.
        areas: Area of each row, n or a divisor of n.

    Returns:
        One distance a row, differentiable.

    Source:
        arXiv:1910.08485, equation 3.

    Example:
        >>> area_distance(torch.tensor([[1.0, 0.0, 0.5, 1.0]]), [0.5])
        tensor([0.0625])
    """
    ones = reference_ones(values.detach(), areas)
    return (values - ones.to(values.dtype)).square().mean(1)


def ascend(
    parameters: Tensor,
    evaluate: Callable[[Tensor, int], tuple[Tensor, Tensor]],
    areas: Sequence[float],
    settings: Ascent,
    progress: Callable[[float], None] | None = None,
    distance: Callable[[Tensor, Sequence[float]], Tensor] = area_distance,
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximise reward minus weighted area distance by gradient ascent, parameters clamped to [0, 1].

    Args:
        parameters: (n, ...), where to start.
        evaluate: From parameters and step number to the rewards (n,) and what the area is measured on (n, a).
        areas: Area of each row, n or a divisor of n.
        settings: Of the search.
        progress: Called with the share that is done.
        distance: From what the area is measured on, and the areas, to how far each row is off.

    Returns:
        The parameters before the last step, those after it, and the history (n, 2, steps) of reward and area term.

    Raises:
        RuntimeError: The reward became NaN; the message names the iteration.
    """
    history = torch.zeros(parameters.shape[0], 2, settings.max_iter, dtype=parameters.dtype, device=parameters.device)
    weight, buffer, before = settings.area_weight, None, parameters
    with torch.enable_grad():
        for step in range(settings.max_iter):
            before = parameters.detach().requires_grad_()
            reward, measured = evaluate(before, step)
            area = -weight * distance(measured, areas)
            (gradient,) = torch.autograd.grad((reward + area).sum(), before)
            history[:, 0, step] = reward.detach().to(history.dtype)
            history[:, 1, step] = area.detach()
            if step % 20 == 0 or step == settings.max_iter - 1:  # rarely: it waits for the device
                _check(history[:, :, : step + 1])
                if progress is not None:
                    progress((step + 1) / settings.max_iter)
            if buffer is None:
                buffer = gradient.clone()
            else:
                buffer.mul_(settings.momentum).add_(gradient, alpha=1 - settings.dampening)
            parameters = before.detach().add(buffer, alpha=settings.lr).clamp_(0, 1)
            weight *= settings.growth_per_step
    return before.detach(), parameters, history


def _check(history: Tensor) -> None:
    bad = history.isnan().any(0).any(0)
    if bool(bad.any()):
        raise RuntimeError(f"the reward became NaN at iteration {int(bad.nonzero()[0])}")
