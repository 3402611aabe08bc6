"""Flows."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.flows import (
    Euclidean,
    Hyperboloid,
    Manifold,
    ManifoldCNF,
    ManifoldODE,
    OriginField,
    Product,
    Sphere,
    SphereUniform,
    TangentField,
    WrappedNormal,
    convert_manifold_ode,
    hyperboloid_cnf,
    integrate_sphere,
    sphere_cnf,
    synthetic_density,
)
from saccade.flows.fields import Perceptron, with_jacobian
from tests.flows.test_distributions import integrate_plane
from tests.flows.test_manifolds import points

FIELDS: dict[str, Callable[[], TangentField | OriginField]] = {
    "sphere": lambda: TangentField(Sphere(2), 16, 1),
    "circle": lambda: TangentField(Sphere(1), 16, 1),
    "sphere 4": lambda: TangentField(Sphere(4), 16, 2),
    "hyperboloid, embedded": lambda: TangentField(Hyperboloid(2), 16, 1, scale=0.3),
    "hyperboloid, chart": lambda: OriginField(Hyperboloid(3), 16, 1),
    "plane": lambda: TangentField(Euclidean(2), 16, 1),
    "product": lambda: TangentField(Product(Sphere(2), Hyperboloid(1)), 16, 1, scale=0.1),
}


def field(name: str, seed: int = 0) -> TangentField | OriginField:
    torch.manual_seed(seed)
    return FIELDS[name]().double()


def frame(space: Manifold, x: Tensor) -> Tensor:
    """Orthonormal tangent vectors at a point: those of the origin, transported."""
    origin = space.origin(x)
    return torch.stack([space.transport(origin, x, space.tangent(v)) for v in torch.eye(space.dim).to(x)])


@pytest.mark.parametrize("name", FIELDS)
def test_the_log_determinant_is_that_of_finite_differences(name: str) -> None:
    ode = ManifoldODE(field(name), step_size=1 / 40)
    space = ode.field.manifold
    x = points(space, 3)
    y, logdet = ode(x)
    step = 1e-5
    for number in range(len(x)):
        start, end = frame(space, x[number]), frame(space, y[number])
        columns = []
        for direction in start:
            ends = [ode(space.exp(x[number], sign * step * direction)[None])[0][0] for sign in (1, -1)]
            moved = (space.log(y[number], ends[0]) - space.log(y[number], ends[1])) / (2 * step)
            columns.append(torch.stack([space.inner(moved, basis) for basis in end]))
        assert float(logdet[number]) == pytest.approx(float(torch.stack(columns).det().abs().log()), abs=1e-6)


@pytest.mark.parametrize("name", FIELDS)
def test_there_and_back(name: str) -> None:
    ode = ManifoldODE(field(name), step_size=1 / 30)
    x = points(ode.field.manifold, 20)
    y, there = ode(x, 0.0, 1.0)
    ode.field.manifold.check(y)
    back, again = ode(y, 1.0, 0.0)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(there + again, torch.zeros_like(there), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["sphere", "sphere 4", "hyperboloid, embedded", "product"])
@pytest.mark.parametrize("charts", [1, 2, 5])
def test_charts_come_to_what_embedded_coordinates_come_to(name: str, charts: int) -> None:
    own = field(name)
    x = points(own.manifold, 10)
    straight, charted = ManifoldODE(own, step_size=1 / 40), ManifoldODE(own, step_size=1 / 40, charts=charts)
    for ours, theirs in zip(charted(x), straight(x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_gradients_go_through_chart_centres() -> None:
    own = field("sphere")
    x = points(own.manifold, 6)
    gradients = []
    for charts in (None, 1, 4):
        own.zero_grad()
        y, logdet = ManifoldODE(own, step_size=1 / 60, charts=charts)(x)
        (y[:, 0].sum() + logdet.sum()).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in own.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients[2], gradients[0], atol=1e-5, rtol=1e-4)


def test_the_papers_chart_formula_is_the_divergence() -> None:
    """The trace in a chart, and log |det d exp| at its end, come to the integral of the Riemannian divergence."""
    own = field("sphere")
    sphere, centre = own.manifold, points(own.manifold, 1)[0]
    basis = frame(sphere, centre)

    def velocity(t: Tensor, a: Tensor) -> Tensor:
        y = sphere.exp(centre, a @ basis)
        w = sphere.dlog(centre, y, own(t, y[None])[0])
        return basis @ w

    a, trace, steps = torch.zeros(2, dtype=torch.float64), torch.zeros((), dtype=torch.float64), 200
    for number in range(steps):
        t = torch.tensor((number + 0.5) / steps, dtype=torch.float64)
        middle = a + 0.5 / steps * velocity(t, a)
        trace = trace + torch.autograd.functional.jacobian(lambda b, t=t: velocity(t, b), middle).trace() / steps
        a = a + velocity(t, middle) / steps
    y, logdet = ManifoldODE(own, step_size=1 / 60)(centre[None])
    torch.testing.assert_close(sphere.exp(centre, a @ basis), y[0], atol=1e-4, rtol=0)
    assert float(trace + sphere.logdet_exp(a @ basis)) == pytest.approx(float(logdet[0]), abs=1e-4)


def test_the_authors_hyperboloid_signs_do_not_give_a_density() -> None:
    torch.manual_seed(0)
    flow = hyperboloid_cnf(hidden=16).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.5)
    space = Hyperboloid(2)
    flow.base = WrappedNormal(space, space.origin(torch.zeros(1).double()), torch.ones(2, dtype=torch.float64))

    def swapped(x: Tensor) -> Tensor:
        z, logdet = flow(x)
        ends = [space.logdet_exp(space.log(space.origin(x), point)) for point in (x, z)]
        return flow.base.log_prob(z) + logdet - 2 * (ends[1] - ends[0])

    with torch.no_grad():
        assert integrate_plane(flow.log_prob, side=300) == pytest.approx(1, abs=5e-3)
        assert abs(integrate_plane(swapped, side=300) - 1) > 0.05


def test_densities_of_the_sphere_integrate_to_one() -> None:
    torch.manual_seed(1)
    flow = sphere_cnf(hidden=16, scale=2.0).double()
    assert integrate_sphere(flow.log_prob, cells=3000, rounds=1) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("name", ["sphere", "hyperboloid, embedded", "hyperboloid, chart", "product"])
def test_fields_are_tangent_and_their_divergence_is_that_of_autograd(name: str) -> None:
    own = field(name)
    x = points(own.manifold, 7)
    state = own.start(x)[0]
    t = torch.tensor(0.3, dtype=torch.float64)
    v, divergence = own.with_divergence(t, state)
    torch.testing.assert_close(v, own(t, state))
    if isinstance(own, TangentField):
        torch.testing.assert_close(own.manifold.tangent_project(state, v), v)
        other = TangentField(own.manifold, net=_Hidden(own.net)).double()
        torch.testing.assert_close(other.with_divergence(t, state)[1], divergence)
    signs = torch.randint(0, 2, (4000, *state.shape), dtype=torch.float64) * 2 - 1
    estimates = torch.stack([own.with_divergence(t, state, noise)[1] for noise in signs[:800]])
    error = estimates.std(0) / len(estimates) ** 0.5
    assert bool(((estimates.mean(0) - divergence).abs() < 5 * error + 1e-9).all())


class _Hidden(nn.Module):
    """A network whose Jacobian is not known."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.net(t, z)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("time", [True, False])
def test_the_jacobian_of_a_perceptron(depth: int, time: bool) -> None:
    net = Perceptron(3, 4, 8, depth, time).double()
    t, z = torch.tensor(0.7, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    value, jacobian = net.with_jacobian(t, z)
    torch.testing.assert_close(value, net(t, z))
    torch.testing.assert_close(jacobian, with_jacobian(_Hidden(net), t, z)[1])


def test_dopri5_comes_to_what_rk4_comes_to() -> None:
    pytest.importorskip("torchdiffeq")
    for name in ("sphere", "hyperboloid, chart"):
        own = field(name)
        x = points(own.manifold, 10)
        fixed, adaptive = ManifoldODE(own, step_size=1 / 80), ManifoldODE(own, "dopri5", rtol=1e-8, atol=1e-8)
        for ours, theirs in zip(adaptive(x), fixed(x), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_rk4_is_of_fourth_order() -> None:
    own = field("sphere", seed=3)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.mul_(2)
    x = points(own.manifold, 10)
    exact = ManifoldODE(own, step_size=1 / 320)(x)[0]
    errors = [float((ManifoldODE(own, step_size=1 / steps)(x)[0] - exact).abs().max()) for steps in (8, 16, 32)]
    assert errors[0] / errors[1] > 10
    assert errors[1] / errors[2] > 10


def test_steps_that_are_computed_again_have_the_same_gradients() -> None:
    own = field("sphere")
    x = points(own.manifold, 4)
    found = []
    for checkpoint_from in (5, 100):
        own.zero_grad()
        y, logdet = ManifoldODE(own, step_size=1 / 20, checkpoint_from=checkpoint_from)(x)
        (y.sum() + logdet.sum()).backward()
        found.append([parameter.grad.clone() for parameter in own.parameters()])
    torch.testing.assert_close(*found)


def test_the_hutchinson_flow_is_right_on_average() -> None:
    own = field("sphere 4")
    x = points(own.manifold, 4)
    exact = ManifoldODE(own, step_size=1 / 8, divergence="exact")(x)[1]
    estimate = ManifoldODE(own, step_size=1 / 8, divergence="hutchinson")
    with torch.no_grad():
        drawn = torch.stack([estimate(x)[1] for _ in range(60)])
    assert bool(((drawn.mean(0) - exact).abs() < 5 * drawn.std(0) / 60**0.5).all())
    assert ManifoldODE(TangentField(Sphere(12))).hutchinson
    assert not ManifoldODE(TangentField(Sphere(8))).hutchinson


def test_one_point_is_a_batch() -> None:
    flow = sphere_cnf(charts=2)
    assert flow.log_prob(torch.tensor([[0.0, 0.0, 1.0]])).shape == (1,)


def test_a_flow_learns_a_density() -> None:
    torch.manual_seed(0)
    known = synthetic_density(Sphere(2), "4wrapped")
    train, test = known.sample((2000,)), known.sample((500,))
    flow = sphere_cnf(hidden=32)
    losses = flow.fit(train, steps=80, batch_size=128)
    assert losses[0] == pytest.approx(math.log(4 * math.pi), abs=0.1)
    nll = float(-flow.log_prob(test).mean().detach())
    assert nll < 2.2
    drawn = flow.sample(500)
    Sphere(2).check(drawn)
    assert float(-known.log_prob(drawn).mean()) < float(-known.log_prob(Sphere(2).uniform(500)).mean()) - 1


def test_a_killed_fit_comes_to_the_same_result(tmp_path: Path) -> None:
    data = synthetic_density(Sphere(2), "1wrapped").sample((300,))

    def flow() -> ManifoldCNF:
        torch.manual_seed(5)
        return sphere_cnf(hidden=8)

    whole, state = flow(), tmp_path / "state.pt"
    losses = whole.fit(data, steps=12, batch_size=32)

    class KilledError(Exception):
        pass

    def kill(share: float) -> None:
        if share > 0.6:
            raise KilledError

    first = flow()
    with pytest.raises(KilledError):
        first.fit(data, steps=12, batch_size=32, state=state, save_every=3, progress=kill)
    second = flow()
    assert second.fit(data, steps=12, batch_size=32, state=state, save_every=3) == losses
    for ours, theirs in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="another training"):
        flow().fit(data, steps=13, batch_size=32, state=state)


def test_compiles_without_a_graph_break(unchecked: None) -> None:
    own = field("sphere")
    z = points(own.manifold, 5)
    compiled = torch.compile(own.with_divergence, fullgraph=True, backend="eager")
    t = torch.tensor(0.5, dtype=torch.float64)
    for ours, theirs in zip(compiled(t, z), own.with_divergence(t, z), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_authors_weights_convert() -> None:
    for prefix, manifold, make in (
        ("func.func.func.", Sphere(2), lambda: sphere_cnf(hidden=8, depth=2)),
        ("odefunc.diffeq.func.", Hyperboloid(2), lambda: hyperboloid_cnf(hidden=8, depth=2)),
    ):
        flow = make()
        state = {
            f"{prefix}{2 * int(key.split('.')[-2])}.{key.split('.')[-1]}": value
            for key, value in flow.state_dict().items()
        }
        make().load_state_dict(convert_manifold_ode(state))
        assert manifold.dim == 2
    for bad in ({"func.1.weight": torch.ones(1)}, {"func.0.weight": torch.ones(1)}, {"other": torch.ones(1)}, {}):
        with pytest.raises(ValueError, match=r"unknown key|layers are missing"):
            convert_manifold_ode(bad)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ManifoldODE(TangentField(Sphere(2)), "euler"), ValueError, "rk4, dopri5, not 'euler'"),
        (lambda: ManifoldODE(TangentField(Sphere(2)), step_size=0), ValueError, "positive"),
        (lambda: ManifoldODE(TangentField(Sphere(2)), rtol=0), ValueError, "positive"),
        (lambda: ManifoldODE(TangentField(Sphere(2)), charts=0), ValueError, "at least 1"),
        (lambda: ManifoldODE(TangentField(Sphere(2)), divergence="x"), ValueError, "auto, exact, hutchinson"),
        (lambda: ManifoldODE(OriginField(Hyperboloid(2)), charts=2), ValueError, "leave charts out"),
        (lambda: OriginField(Sphere(2)), TypeError, "covers a hyperboloid, not Sphere"),
        (lambda: TangentField(Sphere(2), hidden=0), ValueError, "at least 1"),
        (lambda: sphere_cnf().log_prob(torch.ones(1, 3)), ValueError, "x is off Sphere"),
        (lambda: sphere_cnf().log_prob(torch.ones(3)), ValueError, r"\(n, 3\) is accepted"),
        (lambda: sphere_cnf().sample(0), ValueError, "at least 1 sample"),
        (lambda: sphere_cnf().fit(Sphere(2).uniform(5), steps=0), ValueError, "have to be positive"),
        (lambda: sphere_cnf(base="normal"), ValueError, "'uniform' or 'vmf'"),
        (lambda: _wild()(Sphere(2).uniform(2)), RuntimeError, "not finite any more at t = 1"),
    ],
)
def test_bad_input(unchecked: None, make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def _wild() -> ManifoldODE:
    own = TangentField(Sphere(2))
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.mul_(torch.inf)
    return ManifoldODE(own)


def test_the_uniform_density_is_everywhere_the_same() -> None:
    assert SphereUniform(Sphere(2)).sample((7, 2)).shape == (7, 2, 3)


def test_the_benchmark_compares_at_like_errors() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "neural_manifold_ode.py"
    spec = importlib.util.spec_from_file_location("benchmark", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    flow, x = sphere_cnf(hidden=16, scale=1.0).double(), Sphere(2).uniform(20).double()
    ours, peer = (flow.log_prob(x).detach(), module.charted_log_prob(flow, x).detach())
    flow.ode.step_size = 1 / 100
    exact = flow.log_prob(x).detach()
    assert float((ours - exact).abs().max()) < 1e-5
    assert float((peer - exact).abs().max()) < 1e-5
