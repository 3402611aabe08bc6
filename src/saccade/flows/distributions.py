"""Base densities on curved spaces, with respect to their volume."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Distribution, constraints

from saccade.flows.manifolds import Manifold, Sphere


class SphereUniform(Distribution):
    """The uniform density.

    Args:
        manifold: The sphere.
        dtype: Of samples.
        device: Of samples.

    Example:
        >>> SphereUniform(Sphere(2)).log_prob(torch.tensor([[0.0, 0.0, 1.0]]))
        tensor([-2.5310])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

    def __init__(
        self, manifold: Sphere, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> None:
        self.manifold = manifold
        self._like = torch.empty(0, dtype=dtype, device=device)
        super().__init__(event_shape=torch.Size([manifold.ambient]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """-log of the area."""
        return torch.full_like(value[..., 0], -self.manifold.log_area)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Points, (*sample_shape, D + 1)."""
        shape = torch.Size(sample_shape)
        return self.manifold.uniform(shape.numel(), like=self._like).view(*shape, -1)


class VonMisesFisher(Distribution):
    """Density exp(κ <μ, x>) on the sphere, normalised.

    Args:
        loc: μ, a unit vector (D + 1).
        concentration: κ, above 0.

    Raises:
        ValueError: A concentration that is not positive, or a mean direction that is no unit vector.

    Example:
        >>> density = VonMisesFisher(torch.tensor([-1.0, 0.0, 0.0]), torch.tensor(1.0))
        >>> density.log_prob(torch.tensor([[-1.0, 0.0, 0.0]]))
        tensor([-1.6925])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

    def __init__(self, loc: Tensor, concentration: Tensor | float) -> None:
        concentration = torch.as_tensor(concentration, dtype=loc.dtype, device=loc.device)
        if not bool((concentration > 0).all()):
            raise ValueError(f"the concentration has to be positive, not {concentration.tolist()}")
        Sphere(loc.shape[-1] - 1).check(loc, "loc")
        self.loc, self.concentration = loc, concentration
        super().__init__(event_shape=loc.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """κ <μ, x> + (m/2 - 1) log κ - (m/2) log 2π - log I_(m/2-1)(κ), with m = D + 1."""
        kappa, m = self.concentration, self.loc.shape[-1]
        norm = (m / 2 - 1) * kappa.log() - m / 2 * math.log(2 * math.pi) - log_bessel(m / 2 - 1, kappa)
        return kappa * (value * self.loc).sum(-1) + norm

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Points, by rejection (Wood, 1994)."""
        shape = torch.Size(sample_shape)
        count, m, kappa = shape.numel(), self.loc.shape[-1], float(self.concentration)
        b = (m - 1) / (2 * kappa + math.sqrt(4 * kappa**2 + (m - 1) ** 2))
        x0 = (1 - b) / (1 + b)
        bound = kappa * x0 + (m - 1) * math.log(1 - x0**2)
        beta = torch.distributions.Beta(torch.tensor((m - 1) / 2.0), torch.tensor((m - 1) / 2.0))
        kept: list[Tensor] = []
        while sum(map(len, kept)) < count:
            z = beta.sample((2 * count + 16,)).double()
            w = (1 - (1 + b) * z) / (1 - (1 - b) * z)
            fits = kappa * w + (m - 1) * (1 - x0 * w).log() - bound >= torch.rand(len(w), dtype=torch.float64).log()
            kept.append(w[fits])
        w = torch.cat(kept)[:count].to(self.loc).unsqueeze(-1)
        across = torch.randn(count, m, dtype=self.loc.dtype, device=self.loc.device)
        across = across - (across * self.loc).sum(-1, keepdim=True) * self.loc
        across = across / across.norm(dim=-1, keepdim=True)
        return (w * self.loc + (1 - w.square()).clamp(min=0).sqrt() * across).view(*shape, m)

    @classmethod
    def fit(cls, points: Tensor) -> VonMisesFisher:
        """The density of largest likelihood.

        Args:
            points: (n, D + 1).

        Returns:
            The density.

        Raises:
            ValueError: All points are one, or they balance: the concentration would be infinite or 0.
        """
        mean = points.double().mean(0)
        length = float(mean.norm())
        if not 1e-9 < length < 1 - 1e-9:
            raise ValueError(f"the mean of the points has the length {length:.3g}: no concentration fits")
        m = points.shape[-1]
        kappa = length * (m - length**2) / (1 - length**2)
        for _ in range(50):  # Newton's method on I_(m/2) / I_(m/2-1) = length
            ratio = float(special.ive(m / 2, kappa) / special.ive(m / 2 - 1, kappa))
            step = (ratio - length) / (1 - ratio**2 - (m - 1) / kappa * ratio)
            kappa = max(kappa - step, kappa / 10)
            if abs(step) < 1e-12 * kappa:
                break
        return cls((mean / length).to(points), torch.tensor(kappa).to(points))


class WrappedNormal(Distribution):
    """A normal in the tangent space at a point, carried to the manifold by `exp` (arXiv:1902.02992).

    A vector is drawn in coordinates at the origin, transported to μ, and wrapped. On the sphere, mass beyond the
    antipode is not folded back into the density: deviations should stay well below π.

    Args:
        manifold: The space.
        loc: μ, (..., A).
        scale: Standard deviations of the coordinates at the origin, broadcast to (..., D).

    Raises:
        ValueError: A scale that is not positive, or a mean off the space.

    Example:
        >>> from saccade.flows.manifolds import Hyperboloid
        >>> space = Hyperboloid(2)
        >>> density = WrappedNormal(space, space.origin(torch.zeros(1)), torch.ones(2))
        >>> density.log_prob(density.loc)
        tensor(-1.8379)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, manifold: Manifold, loc: Tensor, scale: Tensor | float) -> None:
        scale = torch.as_tensor(scale, dtype=loc.dtype, device=loc.device)
        if not bool((scale > 0).all()):
            raise ValueError(f"the scale has to be positive; the smallest is {float(scale.min()):.4g}")
        manifold.check(loc, "loc")
        self.manifold, self.loc = manifold, loc
        self.scale = scale.expand(*loc.shape[:-1], manifold.dim)
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Points, (*sample_shape, ..., A), with gradients for mean and scale."""
        shape = torch.Size(sample_shape) + self.scale.shape
        drawn = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device) * self.scale
        return self.from_coordinates(drawn)

    def from_coordinates(self, v: Tensor) -> Tensor:
        """Coordinates at the origin to points."""
        moved = self.manifold.transport(self.manifold.origin(v), self.loc, self.manifold.tangent(v))
        return self.manifold.project(self.manifold.exp(self.loc, moved))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log N(v) - log |det d exp_μ|."""
        u = self.manifold.log(self.loc, value)
        v = self.manifold.coordinates(self.manifold.transport(self.loc, self.manifold.origin(u), u))
        normal = -0.5 * (v / self.scale).square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        return normal.sum(-1) - self.manifold.logdet_exp(u)


class _LogBessel(torch.autograd.Function):
    """log I_v(κ), by scipy; d/dκ = I_(v+1) / I_v + v / κ."""

    @staticmethod
    def forward(ctx: Any, order: float, kappa: Tensor) -> Tensor:
        values = kappa.detach().double().cpu().numpy()
        scaled = special.ive(order, values)
        ratio = special.ive(order + 1, values) / scaled
        ctx.save_for_backward(torch.as_tensor(ratio + order / values).to(kappa))
        return torch.as_tensor(np.log(scaled) + values).to(kappa)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (slope,) = ctx.saved_tensors
        return None, grad * slope


def log_bessel(order: float, kappa: Tensor) -> Tensor:
    """Logarithm of the modified Bessel function of the first kind.

    Args:
        order: Above -1.
        kappa: Positive.

    Returns:
        Of the shape of `kappa`, differentiable in it.

    Example:
        >>> log_bessel(0.5, torch.tensor(1.0))
        tensor(-0.0644)
    """
    return _LogBessel.apply(order, kappa)
