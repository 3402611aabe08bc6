"""Vector fields that stay tangent to a space, and their divergence without autograd."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp

from saccade.flows.manifolds import Hyperboloid, Manifold


class Perceptron(nn.Module):
    """An MLP of z and the time, with tanh between its layers, whose Jacobian is computed along with it.

    Args:
        inputs: Size of z.
        outputs: Size of the result.
        hidden: Width.
        depth: Further hidden layers after the first.
        time: Whether the time is the last input.

    Raises:
        ValueError: Sizes below 1 or a negative depth.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 32, depth: int = 3, time: bool = True) -> None:
        super().__init__()
        if min(inputs, outputs, hidden) < 1 or depth < 0:
            raise ValueError(f"sizes are at least 1 and depth 0, not {inputs}, {outputs}, {hidden} and {depth}")
        self.inputs, self.time = inputs, time
        widths = [inputs + time, *[hidden] * (depth + 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, t: Tensor, z: Float[Tensor, "n a"]) -> Float[Tensor, "n o"]:
        """Args: `t`, a scalar; `z`, points."""
        h = self._with_time(t, z)
        *inner, last = self.linears
        for layer in inner:
            h = torch.tanh(layer(h))
        return last(h)

    def with_jacobian(self, t: Tensor, z: Float[Tensor, "n a"]) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n o a"]]:
        """The value, and its derivatives by z.

        One product a layer carries the derivatives along: (n, a, width) times the layer's matrix.

        Args:
            t: A scalar.
            z: Points.

        Returns:
            Both.
        """
        *inner, last = self.linears
        h = self._with_time(t, z)
        columns = (inner or [last])[0].weight[:, : self.inputs].T
        for number, layer in enumerate(inner):
            h = torch.tanh(layer(h))
            slope = (1 - h.square()).unsqueeze(1)
            columns = slope * columns if number == 0 else slope * (columns @ layer.weight.T)
        if not inner:
            return last(h), columns.T.expand(len(z), -1, -1)
        return last(h), (columns @ last.weight.T).transpose(1, 2)

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def _with_time(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.cat([z, t.to(z).expand(len(z), 1)], dim=1) if self.time else z


class TangentField(nn.Module):
    """A field in embedded coordinates: an MLP of point and time, projected onto the tangent space.

    Args:
        manifold: The space.
        hidden: Width.
        depth: Further hidden layers after the first.
        time: Whether the field changes in time.
        scale: Factor of the last layer at the start: small, and the flow starts near the identity.
        net: Another network f(t, z) -> (n, A) in place of the MLP.

    Note:
        Source: arXiv:2006.10254; divergence of the projected field: tr J - κ <z, J z> - κ D <z, f>.

    Example:
        >>> from saccade.flows.manifolds import Sphere
        >>> field, z = TangentField(Sphere(2)), torch.tensor([[0.0, 0.6, 0.8]])
        >>> v, divergence = field.with_divergence(torch.tensor(0.5), z)
        >>> v.shape, divergence.shape, bool((v * z).sum().abs() < 1e-6)
        (torch.Size([1, 3]), torch.Size([1]), True)
    """

    def __init__(
        self,
        manifold: Manifold,
        hidden: int = 32,
        depth: int = 3,
        time: bool = True,
        scale: float = 1.0,
        net: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.manifold = manifold
        self.net = Perceptron(manifold.ambient, manifold.ambient, hidden, depth, time) if net is None else net
        if isinstance(self.net, Perceptron) and scale != 1:
            with torch.no_grad():
                for parameter in self.net.linears[-1].parameters():
                    parameter.mul_(scale)

    def start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The state of a point, and the log-determinant of that."""
        return x, torch.zeros_like(x[..., 0])

    def finish(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The point of a state, and the log-determinant of that."""
        return state, torch.zeros_like(state[..., 0])

    def project(self, state: Tensor) -> Tensor:
        """Back onto the manifold."""
        return self.manifold.project(state)

    def forward(self, t: Tensor, z: Float[Tensor, "n a"]) -> Float[Tensor, "n a"]:
        """The velocity at z."""
        return self.manifold.tangent_project(z, self.net(t, z))

    def with_divergence(
        self, t: Tensor, z: Float[Tensor, "n a"], noise: Float[Tensor, "n a"] | None = None
    ) -> tuple[Float[Tensor, "n a"], Float[Tensor, " n"]]:
        """Velocity and divergence.

        Args:
            t: A scalar.
            z: Points.
            noise: Random signs for Hutchinson's estimate of the traces; exact where `None`.

        Returns:
            Both.
        """
        if noise is None:
            f, jacobian = with_jacobian(self.net, t, z)
            return self.manifold.tangent_project(z, f), self.manifold.divergence(z, f, jacobian)
        v, moved = pushed(lambda point: self(t, point), z, noise)
        # the trace of the projected derivative of the tangent field is its divergence
        return v, (noise * self.manifold.tangent_project(z, moved)).sum(-1)


class OriginField(nn.Module):
    """A field on the hyperboloid in the one chart at its origin: an MLP of tangent coordinates and time.

    Args:
        manifold: The hyperboloid.
        hidden: Width.
        depth: Further hidden layers after the first.
        time: Whether the field changes in time.

    Raises:
        TypeError: Another space: its chart at the origin does not reach all of it.

    Note:
        Source: arXiv:2006.10254. The log-determinant takes `log |det d exp|` of both ends.

    Example:
        >>> field = OriginField(Hyperboloid(2))
        >>> field(torch.tensor(0.0), torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(self, manifold: Manifold, hidden: int = 32, depth: int = 3, time: bool = True) -> None:
        super().__init__()
        if not isinstance(manifold, Hyperboloid):
            raise TypeError(f"the chart at the origin covers a hyperboloid, not {manifold}")
        self.manifold = manifold
        self.net = Perceptron(manifold.dim, manifold.dim, hidden, depth, time)

    def start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates of log_0 x."""
        u = self.manifold.log(self.manifold.origin(x), x)
        return self.manifold.coordinates(u), -self.manifold.logdet_exp(u)

    def finish(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """exp_0 of the coordinates."""
        u = self.manifold.tangent(state)
        return self.manifold.project(self.manifold.exp(self.manifold.origin(u), u)), self.manifold.logdet_exp(u)

    def project(self, state: Tensor) -> Tensor:
        """Coordinates are free."""
        return state

    def forward(self, t: Tensor, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The velocity of the coordinates."""
        return self.net(t, z)

    def with_divergence(
        self, t: Tensor, z: Float[Tensor, "n d"], noise: Float[Tensor, "n d"] | None = None
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """Velocity and divergence; as for [`TangentField`][saccade.flows.fields.TangentField]."""
        if noise is None:
            f, jacobian = self.net.with_jacobian(t, z)
            return f, jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)
        v, moved = pushed(lambda point: self(t, point), z, noise)
        return v, (noise * moved).sum(-1)


def with_jacobian(net: nn.Module, t: Tensor, z: Float[Tensor, "n a"]) -> tuple[Tensor, Float[Tensor, "n o a"]]:
    """A network's value and its derivatives by each point's own coordinates.

    Args:
        net: Called as `net(t, z)`; forward differentiation where it is no `Perceptron`.
        t: A scalar.
        z: Points.

    Returns:
        Both.
    """
    if isinstance(net, Perceptron):
        return net.with_jacobian(t, z)
    columns, value = [], z
    for basis in torch.eye(z.shape[1], dtype=z.dtype, device=z.device):
        value, column = pushed(lambda point: net(t, point), z, basis.expand_as(z))
        columns.append(column)
    return value, torch.stack(columns, dim=2)


def pushed(call: Callable[[Tensor], Tensor], z: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """A function's value, and its derivative in a direction.

    Args:
        call: Of z.
        z: Where.
        direction: In which.

    Returns:
        Both.
    """
    found: Any = jvp(call, (z,), (direction,))
    return found[0], found[1]
