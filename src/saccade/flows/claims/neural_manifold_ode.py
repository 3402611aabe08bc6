"""The claim of manifold flows: densities on the globe."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome, Within
from saccade.flows.build import sphere_cnf
from saccade.flows.distributions import VonMisesFisher
from saccade.flows.earth import integrate_sphere, load_earth_events, split_80_10_10
from saccade.flows.fields import TangentField
from saccade.flows.manifold_ode import ManifoldCNF, ManifoldODE
from saccade.flows.manifolds import Euclidean, Sphere
from saccade.flows.pictures import density_map
from saccade.flows.synthetic import synthetic_density


class FlatFlow(nn.Module):
    """The same network as a Euclidean flow on longitude and latitude, which know nothing of poles and date line.

    Angles are scaled to unit deviation; densities are brought back to the area of the sphere.
    """

    def __init__(self, points: Tensor, hidden: int, depth: int) -> None:
        super().__init__()
        angles = self.angles(points)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", angles.mean(0))
        self.register_buffer("std", angles.std(0))
        field = TangentField(Euclidean(2), hidden, depth, scale=0.1)
        base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        self.flow = ManifoldCNF(ManifoldODE(field, step_size=1 / 8), base)

    def log_prob(self, x: Tensor) -> Tensor:
        """With respect to the area of the sphere."""
        angles = self.angles(x)
        flat = x[:, :2].norm(dim=1).clamp(min=1e-6)  # |∂x/∂(longitude, colatitude)|
        return self.flow.log_prob((angles - self.mean) / self.std) - self.std.log().sum() - flat.log()

    @staticmethod
    def angles(x: Tensor) -> Tensor:
        """Longitude and colatitude."""
        return torch.stack([torch.atan2(-x[:, 1], -x[:, 0]), torch.atan2(x[:, :2].norm(dim=1), x[:, 2])], dim=1)


def run_neural_manifold_ode(cell: Cell) -> Outcome:
    """Fit one density to one split."""
    points, truth = _points(cell)
    train, _, test = (points[rows].to(cell.device) for rows in split_80_10_10(len(points), cell.seed))
    kind, settings = cell.options["density"], cell.settings
    losses: list[float] = []
    density: VonMisesFisher | ManifoldCNF | FlatFlow
    if kind == "vmf":
        density = VonMisesFisher.fit(train)
    else:
        size = (settings["hidden"], 1)
        made = FlatFlow(train, *size) if kind == "flat" else sphere_cnf(2, *size, charts=cell.options.get("charts"))
        density = made.to(cell.device)
        flow = density.flow if isinstance(density, FlatFlow) else density
        data = (density.angles(train) - density.mean) / density.std if isinstance(density, FlatFlow) else train
        losses = flow.fit(data, settings["steps"], seed=cell.seed, progress=cell.progress)
        flow.ode.step_size = 1 / 16
    with torch.no_grad():
        nll = float(-density.log_prob(test).mean())
    metrics = {"nll": nll, "excess": nll - truth if truth is not None else 0.0}
    if isinstance(density, ManifoldCNF):
        wide = density.double()
        integral = integrate_sphere(
            lambda x: wide.log_prob(x.to(cell.device)).cpu(), settings["cells"], rounds=2, share=1e-4
        )
        density = density.float()
    else:
        integral = integrate_sphere(lambda x: density.log_prob(x.float().to(cell.device)).cpu(), settings["cells"])
    metrics["integral"] = abs(integral - 1)
    outcome = Outcome(metrics, {"training NLL": _thinned(losses)} if losses else {})
    if cell.seed == 0 and cell.options.get("pictures"):

        def log_prob(x: Tensor) -> Tensor:
            return density.log_prob(x.to(cell.device)).detach().cpu()

        caption = f"the density that was learnt (bright: high, logarithmic), and the {len(train)} events"
        outcome.pictures = {caption: density_map(log_prob, train.cpu(), high=120)}
    return outcome


def _points(cell: Cell) -> tuple[Tensor, float | None]:
    """Points, and the NLL of the density that they come from where that is known."""
    if cell.data in ("wrapped", "checkerboard"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 + cell.seed)
            name = "4wrapped" if cell.data == "wrapped" else "bigcheckerboard"
            known = synthetic_density(Sphere(2), name)
            points = known.sample((cell.settings["points"],))
            test = points[split_80_10_10(len(points), cell.seed)[2]]
            return points, float(-known.log_prob(test).mean())
    return load_earth_events(cell.data_root / "earth", cell.data).float(), None


def _thinned(losses: list[float], window: int = 10) -> list[tuple[float, float]]:
    """Means of ten steps."""
    return [
        (float(start + window), sum(losses[start : start + window]) / window)
        for start in range(0, len(losses) - window + 1, window)
        if all(map(math.isfinite, losses[start : start + window]))
    ]


NEURAL_MANIFOLD_ODE = Claim(
    slug="neural-manifold-ode",
    statement=(
        "A flow on the sphere describes where volcanoes erupt better than the best von Mises-Fisher density, by at "
        "least 0.8 nats an event, and floods by 0.5; its density integrates to 1 within 0.02. Earthquakes, which cross "
        "the date line, it describes better by 0.1 than the same network on longitude and latitude."
    ),
    paper=(
        "Figures of densities that are sharper than those of other flows. Later work measured test NLLs of manifold "
        "flows: volcano -6.05, earthquake 0.14, flood 1.11, fire -0.80 nats, with far longer training (uniform 2.53)."
    ),
    metrics={
        "nll": Metric("test NLL (nats)", higher_is_better=False, digits=2),
        "integral": Metric("|integral - 1|", higher_is_better=False, digits=4),
        "excess": Metric("above the true density (nats)", False, digits=2, on=("wrapped", "checkerboard")),
    },
    arms={
        "vmf": Arm("von Mises-Fisher", {"density": "vmf"}, baseline=True),
        "flat": Arm("flow on longitude and latitude", {"density": "flat"}, baseline=True),
        "charts": Arm("manifold flow, 4 dynamic charts", {"density": "flow", "charts": 4}, on=("wrapped",)),
        "flow": Arm("manifold flow", {"density": "flow", "pictures": True}),
    },
    expectations=[
        Beats("flow", "vmf", by=0.5, on=("wrapped",)),
        Beats("flow", "vmf", by=0.1, on=("checkerboard",)),
        Within("flow", "excess", at_most=0.1, on=("wrapped",)),
        Beats("flow", "vmf", by=0.8, on=("volcano",)),
        Beats("flow", "vmf", by=0.5, on=("flood", "earthquake", "fire")),
        Beats("flow", "flat", by=0.1, on=("earthquake",)),
        Within("flow", "integral", at_most=0.02),
    ],
    data={
        "wrapped": Data("samples of four wrapped normals on the sphere", settings={"points": 6000}),
        "checkerboard": Data("samples of eight cells of a checkerboard on the sphere", settings={"points": 6000}),
        "volcano": Data("826 volcanic eruptions (NOAA)", needs="earth", paper={"flow": -6.05}),
        "earthquake": Data("6,119 significant earthquakes (NOAA)", needs="earth", paper={"flow": 0.14}, seeds=12),
        "flood": Data("4,874 large floods (Dartmouth Flood Observatory)", needs="earth", paper={"flow": 1.11}),
        "fire": Data("12,808 active fires (NASA)", needs="earth", paper={"flow": -0.80}),
    },
    budgets={
        "smoke": Budget(1, {"steps": 12, "hidden": 16, "cells": 2000}),
        "small": Budget(3, {"steps": 250, "hidden": 64, "cells": 3000}),
        "full": Budget(5, {"steps": 20_000, "hidden": 128, "cells": 20_000}),
    },
    run=run_neural_manifold_ode,
    axes={"training NLL": Axis("step", "training NLL (nats)")},
    limits=(
        "Trained for 250 steps of 256 events; the figures of later work come from 100,000 steps in double precision, "
        "and volcano's depends on near-duplicate events. The flow on longitude and latitude has the same network, "
        "steps and rate, on angles scaled to unit deviation. On earthquakes it is behind "
        "the manifold flow, but whether by the 0.1 nats that were expected is open: +0.18 [-0.03, 0.38] with three "
        "seeds, and +0.13 [0.08, 0.17] with twelve. It loses what it puts beyond poles and date line, and little of "
        "that is near the events."
    ),
)
