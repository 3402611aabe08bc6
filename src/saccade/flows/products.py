"""Products of spaces."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.flows.manifolds import Manifold
from saccade.flows.ratios import root


class Product(Manifold):
    """Pairs, triples and so on of points, one after the other in a vector.

    Args:
        factors: The spaces.

    Raises:
        ValueError: None.

    Example:
        >>> from saccade.flows.manifolds import Sphere
        >>> torus = Product(Sphere(1), Sphere(1))
        >>> torus.dim, torus.ambient, torus.dist(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1.0, 0.0]))
        (2, 4, tensor(1.5708))
    """

    def __init__(self, *factors: Manifold) -> None:
        if not factors:
            raise ValueError("a product needs at least one space")
        self.factors = factors
        self.dim = sum(factor.dim for factor in factors)
        self.ambient = sum(factor.ambient for factor in factors)

    def __repr__(self) -> str:
        return f"Product({', '.join(map(repr, self.factors))})"

    def origin(self, like: Tensor) -> Float[Tensor, " a"]:
        """Of each."""
        return torch.cat([factor.origin(like) for factor in self.factors])

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """The sum."""
        return self._summed(lambda m, u, v: m.inner(u, v), u, v)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        """Of each."""
        return self._joined(lambda m, x, u: m.exp(x, u), x, u)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Of each."""
        return self._joined(lambda m, x, y: m.log(x, y), x, y)

    def dlog(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """Of each."""
        return self._joined(lambda m, x, y, w: m.dlog(x, y, w), x, y, w)

    def project(self, x: Tensor) -> Tensor:
        """Of each."""
        return self._joined(lambda m, x: m.project(x), x)

    def tangent_project(self, x: Tensor, u: Tensor) -> Tensor:
        """Of each."""
        return self._joined(lambda m, x, u: m.tangent_project(x, u), x, u)

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Of each."""
        return self._joined(lambda m, x, y, u: m.transport(x, y, u), x, y, u)

    def logdet_exp(self, u: Tensor) -> Tensor:
        """The sum."""
        return self._summed(lambda m, u: m.logdet_exp(u), u)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """The root of the sum of squares."""
        return root(self._summed(lambda m, x, y: m.dist(x, y).square(), x, y))

    def divergence(self, x: Tensor, f: Tensor, jacobian: Tensor) -> Tensor:
        """The sum, each from its block."""
        total, start = torch.zeros_like(x[..., 0]), 0
        for factor in self.factors:
            block = slice(start, start + factor.ambient)
            total = total + factor.divergence(x[..., block], f[..., block], jacobian[..., block, block])
            start += factor.ambient
        return total

    def tangent(self, v: Tensor) -> Tensor:
        """Of each."""
        parts = v.split([factor.dim for factor in self.factors], dim=-1)
        return torch.cat([factor.tangent(part) for factor, part in zip(self.factors, parts, strict=True)], dim=-1)

    def coordinates(self, u: Tensor) -> Tensor:
        """Of each."""
        return self._joined(lambda m, u: m.coordinates(u), u)

    def distance_from(self, x: Tensor) -> Tensor:
        """The largest."""
        parts = zip(self.factors, x.split(self._sizes, dim=-1), strict=True)
        return torch.stack([factor.distance_from(part) for factor, part in parts]).amax(0)

    @cached_property
    def _sizes(self) -> list[int]:
        return [factor.ambient for factor in self.factors]

    def _each(self, call: Callable[..., Tensor], *vectors: Tensor) -> list[Tensor]:
        wide = torch.broadcast_tensors(*vectors)
        split = [vector.split(self._sizes, dim=-1) for vector in wide]
        return [call(factor, *parts) for factor, *parts in zip(self.factors, *split, strict=True)]

    def _joined(self, call: Callable[..., Tensor], *vectors: Tensor) -> Tensor:
        return torch.cat(self._each(call, *vectors), dim=-1)

    def _summed(self, call: Callable[..., Tensor], *vectors: Tensor) -> Tensor:
        return torch.stack(self._each(call, *vectors)).sum(0)
