"""Manifold flows: a training step against the formulation with autograd for each coordinate, in charts.

Limit: three products of (points x coordinates) with the widths of the network, for each evaluation of the field.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from saccade.bench import Comparison
from saccade.flows.build import sphere_cnf
from saccade.flows.manifold_ode import ManifoldCNF
from saccade.flows.manifolds import Sphere

CHARTS, STEP = 4, 1 / 16


def charted_log_prob(flow: ManifoldCNF, x: Tensor) -> Tensor:
    """The paper's formulation: the trace of the field in a chart, one backward pass for each coordinate."""
    field, sphere = flow.ode.field, flow.ode.field.manifold
    total = torch.zeros_like(x[:, 0])
    steps = round(1 / STEP / CHARTS)
    for chart in range(CHARTS):
        centre = x

        def velocity(t: Tensor, v: Tensor, centre: Tensor = centre) -> tuple[Tensor, Tensor]:
            v = v if v.requires_grad else v.requires_grad_()
            y = sphere.exp(centre, v)
            dv = sphere.tangent_project(centre, sphere.dlog(centre, y, field(t, y)))
            trace = torch.zeros_like(v[:, 0])
            for coordinate in range(v.shape[1]):
                trace = trace + torch.autograd.grad(dv[:, coordinate].sum(), v, create_graph=True)[0][:, coordinate]
            return dv, trace

        v = torch.zeros_like(x)
        for number in range(steps):
            t = torch.tensor(chart / CHARTS + number * STEP)
            k1, d1 = velocity(t, v)
            k2, d2 = velocity(t + STEP / 2, v + STEP / 2 * k1)
            k3, d3 = velocity(t + STEP / 2, v + STEP / 2 * k2)
            k4, d4 = velocity(t + STEP, v + STEP * k3)
            v = sphere.tangent_project(centre, v + STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
            total = total + STEP / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        total = total + sphere.logdet_exp(v)
        x = sphere.project(sphere.exp(centre, v))
    return flow.base.log_prob(x) + total


def comparisons() -> Iterator[Comparison]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    x = Sphere(2).uniform(200).to(device)
    for hidden, depth in ((32, 3), (64, 1)):
        flow = sphere_cnf(hidden=hidden, depth=depth, scale=1.0).to(device)

        def step(log_prob: Any, flow: ManifoldCNF = flow) -> None:
            flow.zero_grad()
            (-log_prob(x).mean()).backward()

        yield Comparison(
            name=f"a training step on the sphere, batch 200, {depth + 1} hidden layers of {hidden}",
            ours=lambda step=step, flow=flow: step(flow.log_prob),
            peer=lambda step=step, flow=flow: step(lambda points: charted_log_prob(flow, points)),
            peer_name="autograd for each coordinate, in charts",
            target=4.0,
            limit="products of points, coordinates and widths",
        )
