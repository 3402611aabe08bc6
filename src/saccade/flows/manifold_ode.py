"""Neural manifold ODEs: points that flow along a learnt tangent field, and densities that flow with them.

Lou, Lim, Katsman, Huang, Jiang, Lim, De Sa: *Neural Manifold Ordinary Differential Equations* (NeurIPS 2020,
arXiv:2006.10254).

A field whose vectors are tangent everywhere moves points along the manifold, and the Riemannian divergence says how
the volume around them changes. So a simple density, carried by the flow, is an exact density on the manifold. The paper
integrates in charts, tangent spaces at points that the flow has reached; embedded coordinates with a projection after
each step come to the same, and cost less.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils.checkpoint import checkpoint

from saccade.flows.fields import OriginField, TangentField

Method = Literal["rk4", "dopri5"]
Divergence = Literal["auto", "exact", "hutchinson"]
State = tuple[Tensor, Tensor]
"""Coordinates, and the integral of the divergence so far."""


class ManifoldODE(nn.Module):
    """The flow of a field.

    Args:
        field: [`TangentField`][saccade.flows.fields.TangentField] or
            [`OriginField`][saccade.flows.fields.OriginField].
        method: `rk4` in steps of `step_size`, or `dopri5` to tolerances (needs torchdiffeq, extra `flows`).
        step_size: Of rk4, in units of time.
        charts: Integrate in so many charts in turn, each the tangent space at the point reached (the paper's dynamic
            charts); in embedded coordinates where `None`.
        rtol: Of dopri5, relative.
        atol: Of dopri5, absolute.
        divergence: `exact`; `hutchinson`, estimated with one random vector a solution; `auto`: exact up to dimension 8.
        checkpoint_from: Number of rk4 steps from which each step is computed again in the backward pass, so that
            memory does not grow with what is inside of a step.

    Raises:
        ValueError: Unknown method or divergence, steps, tolerances or charts that are not positive, charts of a field
            that has its own.

    Example:
        >>> from saccade.flows.manifolds import Sphere
        >>> ode = ManifoldODE(TangentField(Sphere(2)), step_size=1 / 8)
        >>> x = torch.tensor([[0.0, 0.0, 1.0]])
        >>> y, logdet = ode(x, 0.0, 1.0)
        >>> back, _ = ode(y, 1.0, 0.0)
        >>> bool(torch.allclose(x, back, atol=1e-4))
        True
    """

    def __init__(
        self,
        field: TangentField | OriginField,
        method: Method = "rk4",
        step_size: float = 1 / 16,
        charts: int | None = None,
        rtol: float = 1e-3,
        atol: float = 1e-3,
        divergence: Divergence = "auto",
        checkpoint_from: int = 17,
    ) -> None:
        super().__init__()
        if method not in get_args(Method):
            raise ValueError(f"a solver is one of {', '.join(get_args(Method))}, not {method!r}")
        if divergence not in get_args(Divergence):
            raise ValueError(f"divergence is one of {', '.join(get_args(Divergence))}, not {divergence!r}")
        if not step_size > 0 or rtol <= 0 or atol <= 0:
            raise ValueError(f"step size and tolerances have to be positive, not {step_size}, {rtol} and {atol}")
        if charts is not None and charts < 1:
            raise ValueError(f"charts have to be at least 1, not {charts}")
        if charts is not None and isinstance(field, OriginField):
            raise ValueError("a field at the origin has its one chart: leave charts out")
        self.field, self.method, self.step_size, self.charts = field, method, step_size, charts
        self.rtol, self.atol, self.checkpoint_from = rtol, atol, checkpoint_from
        few = field.manifold.dim <= 8
        self.hutchinson = divergence == "hutchinson" or (divergence == "auto" and not few)

    def forward(
        self, x: Float[Tensor, "n a"], t0: float = 0.0, t1: float = 1.0
    ) -> tuple[Float[Tensor, "n a"], Float[Tensor, " n"]]:
        """Where points are at another time, and how the volume around them has changed.

        Args:
            x: Points.
            t0: When they are there.
            t1: When they are wanted; before `t0` for the inverse.

        Returns:
            Points, and log |det| of the map with respect to the Riemannian volume.

        Raises:
            ValueError: No points of the manifold.
            RuntimeError: The flow does not stay finite.
        """
        if x.ndim != 2:
            raise ValueError(f"points have the shape {tuple(x.shape)}; (n, {self.field.manifold.ambient}) is accepted")
        self.field.manifold.check(x)
        noise = None
        if self.charts is None:
            state, first = self.field.start(x)
            if self.hutchinson:
                noise = torch.randint(0, 2, state.shape, device=x.device).to(x) * 2 - 1
            state, middle = self._solve(
                self._embedded(noise), (state, torch.zeros_like(first)), t0, t1, self.field.project
            )
            y, last = self.field.finish(state)
            return self._finite(y, t1), first + middle + last
        if self.hutchinson:
            noise = torch.randint(0, 2, x.shape, device=x.device).to(x) * 2 - 1
        logdet = torch.zeros_like(x[:, 0])
        for segment in range(self.charts):
            begin, end = (t0 + (t1 - t0) * (segment + part) / self.charts for part in (0, 1))
            x, logdet = self._through_chart(x, logdet, begin, end, noise)
        return self._finite(x, t1), logdet

    def _through_chart(self, centre: Tensor, logdet: Tensor, t0: float, t1: float, noise: Tensor | None) -> State:
        """dv/dt = d log_c(y) f(t, y), with y = exp_c(v).

        The paper integrates the trace in the chart, and adds log |det d exp_c| at its end: the same as the Riemannian
        divergence along y, which is integrated here.
        """
        manifold = self.field.manifold

        def velocity(t: Tensor, state: State) -> State:
            y = manifold.exp(centre, state[0])
            f, divergence = self.field.with_divergence(t, y, noise)
            return manifold.dlog(centre, y, f), divergence

        start = (torch.zeros_like(centre), logdet)
        v, logdet = self._solve(velocity, start, t0, t1, lambda v: manifold.tangent_project(centre, v))
        return manifold.project(manifold.exp(centre, v)), logdet

    def _embedded(self, noise: Tensor | None) -> Callable[[Tensor, State], State]:
        return lambda t, state: self.field.with_divergence(t, state[0], noise)

    def _solve(
        self,
        velocity: Callable[[Tensor, State], State],
        state: State,
        t0: float,
        t1: float,
        project: Callable[[Tensor], Tensor],
    ) -> State:
        if self.method == "dopri5":
            return self._adaptive(velocity, state, t0, t1, project)
        steps = max(1, math.ceil(abs(t1 - t0) / self.step_size - 1e-9))
        size = (t1 - t0) / steps

        def step(t: Tensor, z: Tensor, logdet: Tensor) -> State:
            return rk4_step(velocity, t, size, (z, logdet), project)

        for number in range(steps):
            t = torch.as_tensor(t0 + number * size, dtype=state[0].dtype, device=state[0].device)
            if steps >= self.checkpoint_from and torch.is_grad_enabled():
                state = checkpoint(step, t, *state, use_reentrant=False)
            else:
                state = step(t, *state)
        return state

    def _adaptive(
        self,
        velocity: Callable[[Tensor, State], State],
        state: State,
        t0: float,
        t1: float,
        project: Callable[[Tensor], Tensor],
    ) -> State:
        try:
            from torchdiffeq import odeint
        except ImportError:
            raise ImportError("dopri5 needs torchdiffeq: install the extra `flows`, or take method='rk4'") from None
        times = torch.tensor([t0, t1], dtype=state[0].dtype, device=state[0].device)
        try:
            z, logdet = odeint(velocity, state, times, rtol=self.rtol, atol=self.atol, method="dopri5")
        except AssertionError as error:
            raise RuntimeError(f"dopri5 came to no end between t = {t0:g} and {t1:g}: {error}") from None
        return project(z[-1]), logdet[-1]

    @staticmethod
    def _finite(y: Tensor, t: float) -> Tensor:
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(y.detach()).all()):
            raise RuntimeError(f"the flow is not finite any more at t = {t:g}: take a smaller step_size")
        return y


class ManifoldCNF(nn.Module):
    """A continuous normalizing flow: an exact density on a manifold, from data at t = 0 to a base density at t = 1.

    Args:
        ode: The flow.
        base: A density of the manifold, such as [`SphereUniform`][saccade.flows.distributions.SphereUniform].

    Example:
        >>> from saccade.flows.distributions import SphereUniform
        >>> from saccade.flows.manifolds import Sphere
        >>> flow = ManifoldCNF(ManifoldODE(TangentField(Sphere(2), scale=0.0)), SphereUniform(Sphere(2)))
        >>> flow.log_prob(torch.tensor([[0.0, 0.0, 1.0]])), flow.sample(5).shape
        (tensor([-2.5310], grad_fn=<AddBackward0>), torch.Size([5, 3]))
    """

    def __init__(self, ode: ManifoldODE, base: Distribution) -> None:
        super().__init__()
        self.ode, self.base = ode, base

    def forward(self, x: Float[Tensor, "n a"]) -> tuple[Float[Tensor, "n a"], Float[Tensor, " n"]]:
        """Data to base: points, and log |det|."""
        return self.ode(x, 0.0, 1.0)

    def inverse(self, z: Float[Tensor, "n a"]) -> tuple[Float[Tensor, "n a"], Float[Tensor, " n"]]:
        """Base to data: points, and log |det|."""
        return self.ode(z, 1.0, 0.0)

    def log_prob(self, x: Float[Tensor, "n a"]) -> Float[Tensor, " n"]:
        """Log-density in nats, with respect to the Riemannian volume."""
        z, logdet = self(x)
        return self.base.log_prob(z) + logdet

    @torch.no_grad()
    def sample(self, count: int) -> Float[Tensor, "n a"]:
        """Points from the density.

        Raises:
            ValueError: Fewer than one.
        """
        if count < 1:
            raise ValueError(f"at least 1 sample has to be asked for, not {count}")
        like = next(self.parameters())
        return self.inverse(self.base.sample((count,)).to(like))[0]

    def fit(
        self,
        points: Float[Tensor, "n a"],
        steps: int = 250,
        batch_size: int = 256,
        lr: float = 1e-2,
        clip: float = 5.0,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        state: str | Path | None = None,
        save_every: int = 25,
    ) -> list[float]:
        """Maximise the likelihood, with Adam and a one-cycle schedule.

        Args:
            points: Data.
            steps: Of training.
            batch_size: Points a step, drawn with replacement where there are fewer.
            lr: Highest rate.
            clip: Largest norm of the gradient.
            seed: Of the batches.
            progress: Called with the share done.
            state: A file in which training is kept, and from which it is continued where it is there.
            save_every: Steps from one writing of it to the next.

        Returns:
            The negative log-likelihood of each batch, in nats.

        Raises:
            ValueError: No points of the manifold, numbers that are not positive, or the state of another training.
        """
        self.ode.field.manifold.check(points, "points")
        if min(steps, batch_size) < 1 or min(lr, clip) <= 0:
            raise ValueError(
                f"steps, batch_size, lr and clip have to be positive, not {steps}, {batch_size}, {lr}, {clip}"
            )
        optimizer = torch.optim.Adam(self.parameters(), lr=lr)
        schedule: Any = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, lr, total_steps=max(steps, 2), cycle_momentum=False
        )
        about = {"steps": steps, "batch_size": batch_size, "lr": lr, "clip": clip, "seed": seed, "points": len(points)}
        parts: dict[str, Any] = {"model": self, "optimizer": optimizer, "schedule": schedule}
        losses = _resume(Path(state), about, parts) if state is not None else []
        for number in range(len(losses), steps):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            chosen = torch.randint(len(points), (batch_size,), generator=generator)
            loss = -self.log_prob(points[chosen.to(points.device)]).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters(), clip)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if state is not None and ((number + 1) % save_every == 0 or number + 1 == steps):
                _save(Path(state), about, parts, losses)
            if progress is not None:
                progress((number + 1) / steps)
        return losses


def rk4_step(
    velocity: Callable[[Tensor, State], State],
    t: Tensor,
    size: float,
    state: State,
    project: Callable[[Tensor], Tensor],
) -> State:
    """One classical Runge-Kutta step of coordinates and log-determinant, and back onto the manifold.

    Args:
        velocity: Of time and state.
        t: Where the step begins.
        size: Of the step, negative backwards in time.
        state: At its beginning.
        project: Takes coordinates back.

    Returns:
        The state at its end.
    """
    z, logdet = state
    k1, d1 = velocity(t, (z, logdet))
    k2, d2 = velocity(t + size / 2, (z + size / 2 * k1, logdet))
    k3, d3 = velocity(t + size / 2, (z + size / 2 * k2, logdet))
    k4, d4 = velocity(t + size, (z + size * k3, logdet))
    z = project(z + size / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    return z, logdet + size / 6 * (d1 + 2 * d2 + 2 * d3 + d4)


def _save(path: Path, about: dict[str, Any], parts: dict[str, Any], losses: list[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    content = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"about": about, "losses": losses, **content}, partial)
    partial.replace(path)


def _resume(path: Path, about: dict[str, Any], parts: dict[str, Any]) -> list[float]:
    if not path.is_file():
        return []
    content = torch.load(path, weights_only=True)
    if content.get("about") != about:
        raise ValueError(f"{path} belongs to another training, {content.get('about')}: remove it, or name another file")
    for name, part in parts.items():
        part.load_state_dict(content[name])
    return list(content["losses"])
