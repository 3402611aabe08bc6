"""Spaces of constant curvature, and their products, in embedded coordinates.

Sphere, Euclidean space and hyperboloid are one space with curvature κ of 1, 0 and -1: every formula below holds for all
three. Ratios such as sin r / r are functions of κ r², which are smooth at 0, so that values and gradients are right
there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.flows.ratios import angle_over_sine, angle_over_sine_slope, cosine, length, root, sinc


class Manifold(ABC):
    """A space on whose points vector fields and densities live.

    Attributes:
        dim: D, of the space.
        ambient: A, of the vectors that stand for its points.
    """

    dim: int
    ambient: int

    @abstractmethod
    def origin(self, like: Tensor) -> Float[Tensor, " a"]:
        """The point with which base densities begin, with type and device of a tensor."""

    @abstractmethod
    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """The metric, over the last axis."""

    @abstractmethod
    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        """Where the geodesic from x with the tangent vector u is after time 1."""

    @abstractmethod
    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent vector at x with which the shortest geodesic comes to y."""

    @abstractmethod
    def dlog(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """How `log(x, y)` changes when y moves with the tangent vector w."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The point of the space for a vector near it."""

    @abstractmethod
    def tangent_project(self, x: Tensor, u: Tensor) -> Tensor:
        """The part of u that is tangent at x."""

    @abstractmethod
    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """The tangent vector u at x, moved to y along the geodesic without turning."""

    @abstractmethod
    def logdet_exp(self, u: Tensor) -> Tensor:
        """Logarithm of by how much `exp` stretches volume at the tangent vector u, (...)."""

    @abstractmethod
    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """Length of the shortest geodesic."""

    @abstractmethod
    def divergence(self, x: Tensor, f: Tensor, jacobian: Tensor) -> Tensor:
        """Riemannian divergence of the tangent part of a field.

        Args:
            x: Points.
            f: The field there, tangent or not.
            jacobian: Its derivatives in embedded coordinates, (..., A, A).

        Returns:
            (...).
        """

    @abstractmethod
    def tangent(self, v: Tensor) -> Tensor:
        """Coordinates (..., D) to tangent vectors at the origin, orthonormally."""

    @abstractmethod
    def coordinates(self, u: Tensor) -> Tensor:
        """The inverse of `tangent`."""

    @abstractmethod
    def distance_from(self, x: Tensor) -> Tensor:
        """By how much vectors miss the space, (...)."""

    def check(self, x: Tensor, name: str = "x") -> None:
        """Raise unless these are points.

        Raises:
            TypeError: Not floating-point.
            ValueError: Another last axis, none at all, not finite, or off the space by more than 1e-3.
        """
        if not x.is_floating_point():
            raise TypeError(f"{name} has to be floating-point, not {x.dtype}")
        if x.ndim < 1 or x.shape[-1] != self.ambient:
            raise ValueError(f"{name} has the shape {tuple(x.shape)}; (..., {self.ambient}) is accepted for {self}")
        if not x.numel():
            raise ValueError(f"{name} holds no points")
        missed = self.distance_from(x.detach())
        if not bool(torch.isfinite(missed).all()):
            raise ValueError(f"{name} holds NaN or infinite values")
        if float(missed.max()) > 1e-3:
            worst = x.detach().flatten(0, -2)[missed.flatten().argmax()] if x.ndim > 1 else x.detach()
            raise ValueError(f"{name} is off {self} by {float(missed.max()):.4g}: {self.about(worst)}")

    def about(self, x: Tensor) -> str:
        """What a point that is none has, in words."""
        return f"<x, x> is {float(self.inner(x, x)):.4g}"


class ConstantCurvature(Manifold):
    """A space of curvature κ = 1, 0 or -1.

    Points x have <x, x> = κ. With c = cos d or cosh d of the distance, and F(c) = d / sin d or d / sinh d, every map is
    a combination of few vectors.

    Args:
        dim: D, at least 1.

    Raises:
        ValueError: Another dimension.
    """

    curvature: int

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"the dimension has to be at least 1, not {dim}")
        self.dim = dim
        self.ambient = dim + abs(self.curvature)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dim})"

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """Σ u v, without the sign of a time."""
        return (u * v).sum(-1)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        """Cos r x + (sin r / r) u."""
        s = self.curvature * self.inner(u, u).unsqueeze(-1)
        return cosine(s) * x + sinc(s) * u

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """F(c) (y - c x)."""
        e = self._one_minus_c(x, y)
        return angle_over_sine(e) * (y - (1 - e) * x)

    def dlog(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """F'(c) dc (y - c x) + F(c) (w - dc x), with dc = κ <x, w>."""
        e = self._one_minus_c(x, y)
        dc = self.curvature * self.inner(x, w).unsqueeze(-1)
        return angle_over_sine_slope(e) * dc * (y - (1 - e) * x) + angle_over_sine(e) * (w - dc * x)

    def tangent_project(self, x: Tensor, u: Tensor) -> Tensor:
        """U - κ <x, u> x."""
        return u - self.curvature * self.inner(x, u).unsqueeze(-1) * x

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """U - κ <y, u> / (1 + c) (x + y)."""
        e = self._one_minus_c(x, y)
        return u - self.curvature * self.inner(y, u).unsqueeze(-1) / (2 - e) * (x + y)

    def logdet_exp(self, u: Tensor) -> Tensor:
        """(D - 1) log |sin r / r|."""
        s = self.curvature * self.inner(u, u)
        return (self.dim - 1) * sinc(s).abs().log()

    def divergence(self, x: Tensor, f: Tensor, jacobian: Tensor) -> Tensor:
        """Tr J - κ <x, J x> - κ D <x, f>."""
        trace = jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)
        along = self.inner(x, (jacobian @ x.unsqueeze(-1)).squeeze(-1))
        return trace - self.curvature * (along + self.dim * self.inner(x, f))

    def _one_minus_c(self, x: Tensor, y: Tensor) -> Tensor:
        """1 - c = κ |x - y|² / 2, which loses nothing for near points; (..., 1)."""
        apart = x - y
        return self.curvature * self.inner(apart, apart).unsqueeze(-1) / 2


class Sphere(ConstantCurvature):
    """Unit vectors of R^(D+1); the origin is (-1, 0, ..., 0).

    Args:
        dim: D.

    Example:
        >>> sphere = Sphere(2)
        >>> x, y = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
        >>> sphere.dist(x, y), sphere.log(x, y)
        (tensor(1.5708), tensor([0.0000, 1.5708, 0.0000]))
    """

    curvature = 1

    def origin(self, like: Tensor) -> Float[Tensor, " a"]:
        """(-1, 0, ..., 0)."""
        return torch.cat([like.new_full((1,), -1.0), like.new_zeros(self.dim)])

    @property
    def log_area(self) -> float:
        """Log 2 π^(m/2) / Γ(m/2), with m = D + 1."""
        half = (self.dim + 1) / 2
        return math.log(2) + half * math.log(math.pi) - math.lgamma(half)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """As for every curvature.

        Raises:
            ValueError: Antipodal points, between which there is no one shortest geodesic.
        """
        self._not_antipodal(x, y)
        return super().log(x, y)

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """As for every curvature.

        Raises:
            ValueError: Antipodal points.
        """
        self._not_antipodal(x, y)
        return super().transport(x, y, u)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """2 atan2(|x - y|, |x + y|)."""
        return 2 * torch.atan2(length(x - y), length(x + y))

    def project(self, x: Tensor) -> Tensor:
        """Divide by the norm."""
        return x / length(x).unsqueeze(-1)

    def tangent(self, v: Tensor) -> Tensor:
        """A zero in front."""
        return torch.cat([torch.zeros_like(v[..., :1]), v], dim=-1)

    def coordinates(self, u: Tensor) -> Tensor:
        """All but the first."""
        return u[..., 1:]

    def distance_from(self, x: Tensor) -> Tensor:
        """| |x| - 1 |."""
        return (torch.linalg.vector_norm(x, dim=-1) - 1).abs()

    def about(self, x: Tensor) -> str:
        """Its norm."""
        return f"the norm of a point is {float(torch.linalg.vector_norm(x)):.4g}, and 1 is accepted"

    def uniform(self, count: int, generator: torch.Generator | None = None, like: Tensor | None = None) -> Tensor:
        """Points that are spread evenly.

        Args:
            count: How many.
            generator: Of the randomness.
            like: Type and device.

        Returns:
            (count, D + 1).
        """
        like = torch.empty(0) if like is None else like
        drawn = torch.randn(count, self.ambient, generator=generator, dtype=like.dtype, device=like.device)
        return self.project(drawn)

    @staticmethod
    def _not_antipodal(x: Tensor, y: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        if bool((length((x + y).detach()) < 1e-6).any()):
            raise ValueError("points are antipodal: there is no one shortest way between them")


class Hyperboloid(ConstantCurvature):
    """The upper sheet <x, x> = -1 in Lorentz coordinates, <u, v> = -u0 v0 + Σ ui vi; the origin is (1, 0, ..., 0).

    Args:
        dim: D.

    Example:
        >>> space = Hyperboloid(2)
        >>> x = space.exp(space.origin(torch.zeros(1)), torch.tensor([0.0, 1.0, 0.0]))
        >>> x, space.to_poincare(x)
        (tensor([1.5431, 1.1752, 0.0000]), tensor([0.4621, 0.0000]))
    """

    curvature = -1

    def origin(self, like: Tensor) -> Float[Tensor, " a"]:
        """(1, 0, ..., 0)."""
        return torch.cat([like.new_ones(1), like.new_zeros(self.dim)])

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """-u0 v0 + Σ ui vi."""
        return (u[..., 1:] * v[..., 1:]).sum(-1) - u[..., 0] * v[..., 0]

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """2 arsinh(|x - y| / 2)."""
        apart = x - y
        return 2 * torch.asinh(root(self.inner(apart, apart).clamp(min=0)) / 2)

    def project(self, x: Tensor) -> Tensor:
        """x0 = sqrt(1 + Σ xi²)."""
        rest = x[..., 1:]
        return torch.cat([(1 + rest.square().sum(-1, keepdim=True)).sqrt(), rest], dim=-1)

    def tangent(self, v: Tensor) -> Tensor:
        """A zero in front."""
        return torch.cat([torch.zeros_like(v[..., :1]), v], dim=-1)

    def coordinates(self, u: Tensor) -> Tensor:
        """All but the first."""
        return u[..., 1:]

    def distance_from(self, x: Tensor) -> Tensor:
        """|<x, x> + 1|, relative to the size of x; a point of the lower sheet is far off."""
        missed = (self.inner(x, x) + 1).abs() / x[..., 0].square().clamp(min=1)
        return torch.where(x[..., 0] > 0, missed, torch.where(x[..., 0].isnan(), torch.nan, 1 + missed))

    def about(self, x: Tensor) -> str:
        """Its square."""
        square = float(self.inner(x, x))
        return f"<x, x> of a point is {square:.4g} and x0 {float(x[0]):.4g}; -1 and above 0 are accepted"

    def to_poincare(self, x: Tensor) -> Float[Tensor, "*n d"]:
        """Points of the Poincaré ball, of norm below 1."""
        return x[..., 1:] / (1 + x[..., :1])

    def from_poincare(self, ball: Float[Tensor, "*n d"]) -> Tensor:
        """The inverse of `to_poincare`.

        Raises:
            ValueError: A norm of 1 or more.
        """
        square = ball.square().sum(-1, keepdim=True)
        if bool((square >= 1).any()):
            raise ValueError(f"points of the ball have norms below 1, not {float(square.max()) ** 0.5:.4g}")
        return torch.cat([1 + square, 2 * ball], dim=-1) / (1 - square)


class Euclidean(ConstantCurvature):
    """R^D; the origin is 0.

    Args:
        dim: D.

    Example:
        >>> Euclidean(2).log(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]))
        tensor([ 1., -1.])
    """

    curvature = 0

    def origin(self, like: Tensor) -> Float[Tensor, " a"]:
        """0."""
        return like.new_zeros(self.dim)

    def logdet_exp(self, u: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(u[..., 0])

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        """|x - y|."""
        return length(x - y)

    def project(self, x: Tensor) -> Tensor:
        """The same."""
        return x

    def tangent(self, v: Tensor) -> Tensor:
        """The same."""
        return v

    def coordinates(self, u: Tensor) -> Tensor:
        """The same."""
        return u

    def distance_from(self, x: Tensor) -> Tensor:
        """0."""
        return (x * 0).sum(-1)
