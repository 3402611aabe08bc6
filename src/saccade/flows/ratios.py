"""sin r / r and its kin as functions of κ r², smooth at 0 and through it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SERIES = 0.05
"""Below this, functions are summed from their series: twelve terms are exact in float64."""


def cosine(s: Tensor) -> Tensor:
    """Cos √s, and cosh √-s for negative s."""
    near, positive, negative = _three(s)
    return _pick(s, positive.sqrt().cos(), negative.sqrt().cosh(), near, COSINE)


def sinc(s: Tensor) -> Tensor:
    """Sin √s / √s, and sinh √-s / √-s for negative s."""
    near, positive, negative = _three(s)
    up, down = positive.sqrt(), negative.sqrt()
    return _pick(s, up.sin() / up, down.sinh() / down, near, SINC)


def angle_over_sine(e: Tensor) -> Tensor:
    """θ / sin θ of cos θ = 1 - e, and d / sinh d of cosh d = 1 - e for negative e."""
    near, positive, negative = _three(e)
    up, down = (2 * positive - positive.square()).clamp(min=1e-30).sqrt(), (negative * (2 + negative)).sqrt()
    return _pick(e, torch.atan2(up, 1 - positive) / up, torch.asinh(down) / down, near, ANGLE)


def angle_over_sine_slope(e: Tensor) -> Tensor:
    """Its derivative by c = 1 - e: (c F - 1) / (1 - c²)."""
    near, positive, negative = _three(e)
    ratio = angle_over_sine(e)
    up = ((1 - positive) * ratio - 1) / (2 * positive - positive.square()).clamp(min=1e-30)
    down = (1 - (1 + negative) * ratio) / (negative * (2 + negative))
    return _pick(e, up, down, near, SLOPE)


def root(square: Tensor) -> Tensor:
    """A square root whose gradient at 0 is 0."""
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


def length(x: Tensor) -> Tensor:
    """The Euclidean norm of the last axis, whose gradient at 0 is 0."""
    return root(x.square().sum(-1))


TERMS = range(13)
COSINE = [(-1) ** n / math.factorial(2 * n) for n in TERMS]
SINC = [(-1) ** n / math.factorial(2 * n + 1) for n in TERMS]
ANGLE = [2**n * math.factorial(n) ** 2 / math.factorial(2 * n + 1) for n in TERMS]
SLOPE = [-(n + 1) * 2 ** (n + 1) * math.factorial(n + 1) ** 2 / math.factorial(2 * n + 3) for n in TERMS]


def _three(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The argument for the series, for positive and for negative values, each safe where it is not used."""
    near = torch.where(s.abs() < SERIES, s, 0)
    return near, torch.where(s >= SERIES, s, 1), torch.where(s <= -SERIES, -s, 1)


def _pick(s: Tensor, positive: Tensor, negative: Tensor, near: Tensor, coefficients: Sequence[float]) -> Tensor:
    total = torch.zeros_like(near)
    for coefficient in reversed(coefficients):
        total = total * near + coefficient
    return torch.where(s.abs() < SERIES, total, torch.where(s > 0, positive, negative))
