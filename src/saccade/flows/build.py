"""Flows with the usual settings."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from saccade.flows.distributions import SphereUniform, VonMisesFisher, WrappedNormal
from saccade.flows.fields import OriginField, TangentField
from saccade.flows.manifold_ode import ManifoldCNF, ManifoldODE, Method
from saccade.flows.manifolds import Hyperboloid, Manifold, Sphere


def sphere_cnf(
    dim: int = 2,
    hidden: int = 64,
    depth: int = 1,
    base: Literal["uniform", "vmf"] = "uniform",
    concentration: float = 1.0,
    method: Method = "rk4",
    step_size: float = 1 / 8,
    charts: int | None = None,
    scale: float = 0.1,
) -> ManifoldCNF:
    """A flow on the sphere.

    Args:
        dim: D.
        hidden: Width of the field's MLP.
        depth: Its further hidden layers.
        base: Uniform, or von Mises-Fisher around the origin, as in the paper.
        concentration: Of the latter.
        method: Solver.
        step_size: Of rk4.
        charts: Dynamic charts; embedded coordinates where `None`.
        scale: Of the field's last layer at the start.

    Returns:
        The flow.

    Raises:
        ValueError: Another base.

    Example:
        >>> sphere_cnf().log_prob(torch.tensor([[0.0, 0.0, 1.0]])).shape
        torch.Size([1])
    """
    if base not in ("uniform", "vmf"):
        raise ValueError(f"a base is 'uniform' or 'vmf', not {base!r}")
    sphere = Sphere(dim)
    field = TangentField(sphere, hidden, depth, scale=scale)
    density: Distribution = (
        SphereUniform(sphere) if base == "uniform" else VonMisesFisher(sphere.origin(torch.empty(0)), concentration)
    )
    return ManifoldCNF(ManifoldODE(field, method, step_size, charts), density)


def hyperboloid_cnf(
    dim: int = 2,
    hidden: int = 64,
    depth: int = 1,
    chart: bool = True,
    deviation: float = 1.0,
    method: Method = "rk4",
    step_size: float = 1 / 8,
) -> ManifoldCNF:
    """A flow on the hyperboloid, to a wrapped normal at its origin.

    Args:
        dim: D.
        hidden: Width of the field's MLP.
        depth: Its further hidden layers.
        chart: Whether the field lives in the chart at the origin, as in the paper; else in embedded coordinates.
        deviation: Of the wrapped normal.
        method: Solver.
        step_size: Of rk4.

    Returns:
        The flow.

    Example:
        >>> hyperboloid_cnf().sample(3).shape
        torch.Size([3, 3])
    """
    space = Hyperboloid(dim)
    field = OriginField(space, hidden, depth) if chart else TangentField(space, hidden, depth, scale=0.1)
    base = WrappedNormal(space, space.origin(torch.empty(0)), torch.full((dim,), deviation))
    return ManifoldCNF(ManifoldODE(field, method, step_size), base)


def origin_normal(space: Manifold, like: Tensor) -> WrappedNormal:
    """The standard wrapped normal at the origin, with type and device of a tensor."""
    return WrappedNormal(space, space.origin(like), torch.ones(space.dim, dtype=like.dtype, device=like.device))
