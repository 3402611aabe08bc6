"""Densities that are known, on the sphere and the hyperboloid: what flows are tried on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, constraints

from saccade.flows.distributions import WrappedNormal
from saccade.flows.manifolds import Hyperboloid, Sphere

SPHERE = ("1wrapped", "4wrapped", "bigcheckerboard")
HYPERBOLOID = ("1wrapped", "5gaussians", "bigcheckerboard", "mult_wrapped")
SIDE = math.pi / 2 - 0.2
"""Of a cell of the checkerboard on the sphere, in longitude; half of it in latitude."""
CELLS = ((0, 0), (1, 0.5), (1, -0.5), (0, -1), (-1, 0.5), (-1, -0.5), (-2, 0), (-2, -1))
"""Offsets of its cells, in sides; one each of longitude and colatitude."""


class Mixture(Distribution):
    """Components that are equally likely.

    Args:
        components: Densities on one manifold.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

    def __init__(self, components: Sequence[Distribution]) -> None:
        self.components = components
        super().__init__(event_shape=components[0].event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log of the mean density."""
        parts = torch.stack([component.log_prob(value) for component in self.components])
        return parts.logsumexp(0) - math.log(len(self.components))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Points."""
        shape = torch.Size(sample_shape)
        drawn = torch.stack([component.sample((shape.numel(),)) for component in self.components])
        which = torch.randint(len(self.components), (shape.numel(),), device=drawn.device)
        return drawn[which, torch.arange(shape.numel(), device=drawn.device)].view(*shape, -1)


class WrappedPlane(Distribution):
    """A density of the plane, carried to the hyperboloid by `exp` at the origin.

    Args:
        manifold: The hyperboloid.
        plane: The density.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

    def __init__(self, manifold: Hyperboloid, plane: Distribution) -> None:
        self.manifold, self.plane = manifold, plane
        super().__init__(event_shape=torch.Size([manifold.ambient]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """That of the plane, less by how much `exp` stretches."""
        u = self.manifold.log(self.manifold.origin(value), value)
        return self.plane.log_prob(self.manifold.coordinates(u)) - self.manifold.logdet_exp(u)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Points."""
        u = self.manifold.tangent(self.plane.sample(torch.Size(sample_shape)))
        return self.manifold.project(self.manifold.exp(self.manifold.origin(u), u))


class PlaneCheckerboard(Distribution):
    """Uniform on the eight like-coloured of sixteen squares around the origin.

    Args:
        side: Of a square.
        dtype: Of samples.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

    def __init__(self, side: float = 1.5, dtype: torch.dtype = torch.float32) -> None:
        self.side, self.dtype = side, dtype
        super().__init__(event_shape=torch.Size([2]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """-log of the area of eight squares; -inf elsewhere."""
        cell = (value / self.side).floor()
        inside = ((cell >= -2) & (cell < 2)).all(-1) & (cell.sum(-1) % 2 == 0)
        return torch.where(inside, -math.log(8 * self.side**2), -torch.inf)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Places."""
        shape = torch.Size(sample_shape)
        first = torch.randint(-2, 2, shape)
        second = 2 * torch.randint(-1, 1, shape) + first % 2
        corner = torch.stack([first, second], dim=-1).to(self.dtype)
        return (corner + torch.rand(*shape, 2, dtype=self.dtype)) * self.side


class SphereCheckerboard(Distribution):
    """Cells of longitude and colatitude, each uniform in these angles.

    Args:
        dtype: Of samples.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        super().__init__(event_shape=torch.Size([3]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """-log(cells * area of angles * sin of the colatitude); -inf elsewhere."""
        colatitude = torch.atan2(value[..., :2].norm(dim=-1), value[..., 2])
        longitude = torch.atan2(value[..., 1], value[..., 0])
        inside = torch.zeros_like(longitude, dtype=torch.bool)
        for lon, colat in CELLS:
            over = (longitude - math.pi - lon * SIDE) % (2 * math.pi)
            down = colatitude - math.pi / 2 - colat * SIDE
            inside |= (over < SIDE) & (down >= 0) & (down < SIDE / 2)
        density = -math.log(len(CELLS) * SIDE**2 / 2) - colatitude.sin().log()
        return torch.where(inside, density, -torch.inf)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Points."""
        shape = torch.Size(sample_shape)
        offsets = torch.tensor(CELLS, dtype=self.dtype)[torch.randint(len(CELLS), shape)] * SIDE
        within = torch.rand(*shape, 2, dtype=self.dtype) * torch.tensor([SIDE, SIDE / 2])
        longitude, colatitude = (offsets + within + torch.tensor([math.pi, math.pi / 2])).unbind(-1)
        flat = colatitude.sin()
        return torch.stack([flat * longitude.cos(), flat * longitude.sin(), colatitude.cos()], dim=-1)


def synthetic_density(manifold: Sphere | Hyperboloid, name: str, dtype: torch.dtype = torch.float32) -> Distribution:
    """A density of the paper's figures, in two dimensions.

    Args:
        manifold: `Sphere(2)` or `Hyperboloid(2)`.
        name: On the sphere `1wrapped`, `4wrapped`, `bigcheckerboard`; on the hyperboloid also `5gaussians` and
            `mult_wrapped` instead of `4wrapped`.
        dtype: Of samples.

    Returns:
        The density, with `sample` and `log_prob`.

    Raises:
        ValueError: Another name or dimension.

    Example:
        >>> synthetic_density(Sphere(2), "4wrapped").sample((5,)).shape
        torch.Size([5, 3])
    """
    known = SPHERE if isinstance(manifold, Sphere) else HYPERBOLOID
    if manifold.dim != 2 or name not in known:
        raise ValueError(f"densities of {manifold} are, in two dimensions, {', '.join(known)}, not {name!r}")
    if isinstance(manifold, Sphere):
        return _on_sphere(manifold, name, dtype)
    return _on_hyperboloid(manifold, name, dtype)


def _on_sphere(sphere: Sphere, name: str, dtype: torch.dtype) -> Distribution:
    if name == "bigcheckerboard":
        return SphereCheckerboard(dtype)
    corners = [(-1, -1, -1)] if name == "1wrapped" else [(1, 1, 1), (-1, -1, -1), (1, 1, -1), (-1, -1, 1)]
    centres = sphere.project(torch.tensor(corners, dtype=dtype))
    return Mixture([WrappedNormal(sphere, centre, torch.full((2,), 0.3, dtype=dtype)) for centre in centres])


def _on_hyperboloid(space: Hyperboloid, name: str, dtype: torch.dtype) -> Distribution:
    if name == "bigcheckerboard":
        return WrappedPlane(space, PlaneCheckerboard(dtype=dtype))
    if name == "5gaussians":
        means = torch.tensor([(3, 0), (-3, 0), (0, 3), (0, -3), (0, 0)], dtype=dtype)
        normals = Independent(Normal(means, torch.full((5, 2), 0.5, dtype=dtype)), 1)
        return WrappedPlane(space, MixtureSameFamily(Categorical(torch.ones(5, dtype=dtype)), normals))
    if name == "1wrapped":
        placed = [((-1.0, 1.0), (0.75, 0.75))]
    else:
        placed = [((x, y), (0.3, 1.5) if x * y > 0 else (1.5, 0.3)) for x in (-1.3, 1.3) for y in (-1.3, 1.3)]
    components = []
    for place, scale in placed:
        u = space.tangent(torch.tensor(place, dtype=dtype))
        centre = space.project(space.exp(space.origin(u), u))
        components.append(WrappedNormal(space, centre, torch.tensor(scale, dtype=dtype)))
    return Mixture(components)
