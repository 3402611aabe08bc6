"""A variational autoencoder whose codes live in hyperbolic space, with a flow as its posterior."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from saccade.flows.build import origin_normal
from saccade.flows.distributions import WrappedNormal
from saccade.flows.fields import OriginField
from saccade.flows.manifold_ode import ManifoldODE
from saccade.flows.manifolds import Hyperboloid


class HyperbolicVAE(nn.Module):
    """Encoder, wrapped normal, flow; a wrapped normal as the prior; decoder.

    Args:
        inputs: Size of a sample.
        dim: D, of the codes.
        hidden: Width of encoder and decoder.
        likelihood: `bernoulli` for values in [0, 1], `gaussian` with deviation 1 for real ones.
        flow_hidden: Width of the flow's field; 0: no flow, the posterior is the wrapped normal.
        flow_depth: Its further hidden layers.
        step_size: Of its solver.

    Raises:
        ValueError: Another likelihood, or sizes below 1.

    Note:
        Source: arXiv:2006.10254, section 5.2; encoder and decoder of one hidden layer after arXiv:1901.06033. The
        architecture is not in the authors' published code.

    Example:
        >>> model = HyperbolicVAE(inputs=10, dim=2, hidden=16, flow_hidden=8)
        >>> model.elbo(torch.rand(4, 10)).shape
        torch.Size([4])
    """

    def __init__(
        self,
        inputs: int,
        dim: int = 2,
        hidden: int = 200,
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        flow_hidden: int = 32,
        flow_depth: int = 1,
        step_size: float = 1 / 8,
    ) -> None:
        super().__init__()
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"a likelihood is 'bernoulli' or 'gaussian', not {likelihood!r}")
        if min(inputs, dim, hidden) < 1 or flow_hidden < 0:
            raise ValueError(f"sizes are at least 1, not {inputs}, {dim} and {hidden}; flow_hidden is 0 for no flow")
        self.manifold, self.likelihood = Hyperboloid(dim), likelihood
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 2 * dim))
        self.decoder = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, inputs))
        self.flow: ManifoldODE | None = None
        if flow_hidden:
            field = OriginField(self.manifold, flow_hidden, flow_depth)
            with torch.no_grad():
                for parameter in field.net.linears[-1].parameters():
                    parameter.mul_(0.1)
            self.flow = ManifoldODE(field, step_size=step_size)

    def posterior(self, x: Float[Tensor, "b i"]) -> WrappedNormal:
        """The wrapped normal before the flow."""
        mean, scale = self.encoder(x).chunk(2, dim=1)
        u = self.manifold.tangent(mean)
        centre = self.manifold.project(self.manifold.exp(self.manifold.origin(u), u))
        return WrappedNormal(self.manifold, centre, F.softplus(scale) + 1e-4)

    def encode(self, x: Float[Tensor, "b i"], samples: int = 1) -> tuple[Float[Tensor, "s b a"], Float[Tensor, "s b"]]:
        """Codes from the posterior.

        Args:
            x: Samples.
            samples: Codes of each.

        Returns:
            Codes, and the logarithm of their density.
        """
        normal = self.posterior(x)
        z = normal.rsample((samples,))
        density = normal.log_prob(z)
        if self.flow is not None:
            moved, logdet = self.flow(z.flatten(0, 1))
            z, density = moved.view_as(z), density - logdet.view_as(density)
        return z, density

    def decode(self, z: Float[Tensor, "*n a"]) -> Float[Tensor, "*n i"]:
        """Logits or means, from the coordinates of codes at the origin."""
        return self.decoder(self.manifold.coordinates(self.manifold.log(self.manifold.origin(z), z)))

    def weights(self, x: Float[Tensor, "b i"], samples: int) -> Float[Tensor, "s b"]:
        """Log p(x | z) + log p(z) - log q(z | x) of drawn codes."""
        z, density = self.encode(x, samples)
        found = self.decode(z)
        if self.likelihood == "bernoulli":
            fit = -F.binary_cross_entropy_with_logits(found, x.expand_as(found), reduction="none")
        else:
            fit = -0.5 * (found - x).square() - 0.5 * math.log(2 * math.pi)
        return fit.sum(-1) + origin_normal(self.manifold, x).log_prob(z) - density

    def elbo(self, x: Float[Tensor, "b i"], samples: int = 1) -> Float[Tensor, " b"]:
        """The lower bound of log p(x), in nats.

        Args:
            x: Samples.
            samples: Codes of each, over which it is averaged.

        Returns:
            One for each.
        """
        return self.weights(x, samples).mean(0)

    @torch.no_grad()
    def log_likelihood(self, x: Float[Tensor, "b i"], samples: int = 500) -> Float[Tensor, " b"]:
        """Log p(x) by importance sampling (arXiv:1509.00519).

        Args:
            x: Samples.
            samples: Codes of each.

        Returns:
            One for each; it grows with the number of codes.
        """
        return self.weights(x, samples).logsumexp(0) - math.log(samples)
