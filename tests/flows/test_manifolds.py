"""Spaces of constant curvature."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jacrev

from saccade.flows import Euclidean, Hyperboloid, Manifold, Product, Sphere
from saccade.flows.ratios import angle_over_sine, angle_over_sine_slope, cosine, sinc

SPACES = [Sphere(1), Sphere(2), Sphere(4), Hyperboloid(1), Hyperboloid(2), Hyperboloid(5), Euclidean(3)]
SPACES_AND_PRODUCTS: list[Manifold] = [*SPACES, Product(Sphere(2), Hyperboloid(2), Euclidean(1))]


def points(space: Manifold, count: int, seed: int = 0) -> Tensor:
    """Points around the origin."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, space.dim, generator=generator, dtype=torch.float64)
    u = space.tangent(v)
    return space.project(space.exp(space.origin(u), u))


def tangents(space: Manifold, x: Tensor, size: float = 0.7, seed: int = 1) -> Tensor:
    """Tangent vectors, shorter than half a circle."""
    generator = torch.Generator().manual_seed(seed)
    u = space.tangent_project(x, torch.randn(x.shape, generator=generator, dtype=x.dtype))
    return size * u / (1 + u.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("space", SPACES_AND_PRODUCTS, ids=str)
def test_exp_and_log_are_inverse(space: Manifold) -> None:
    x = points(space, 40)
    u = tangents(space, x)
    y = space.exp(x, u)
    space.check(y)
    torch.testing.assert_close(space.log(x, y), u, atol=1e-9, rtol=1e-8)
    other = points(space, 40, seed=5)
    torch.testing.assert_close(space.exp(x, space.log(x, other)), other, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("space", SPACES_AND_PRODUCTS, ids=str)
def test_distances_are_lengths_of_logarithms(space: Manifold) -> None:
    x, y = points(space, 40), points(space, 40, seed=5)
    v = space.log(x, y)
    torch.testing.assert_close(space.dist(x, y), space.inner(v, v).clamp(min=0).sqrt(), atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(space.dist(x, y), space.dist(y, x))
    z = points(space, 40, seed=6)
    assert bool((space.dist(x, z) <= space.dist(x, y) + space.dist(y, z) + 1e-9).all())


@pytest.mark.parametrize("space", SPACES_AND_PRODUCTS, ids=str)
def test_transport_keeps_lengths_and_turns_the_geodesic_onto_itself(space: Manifold) -> None:
    x, y = points(space, 40), points(space, 40, seed=5)
    u, w = tangents(space, x), tangents(space, x, seed=9)
    moved, other = space.transport(x, y, u), space.transport(x, y, w)
    torch.testing.assert_close(space.inner(moved, other), space.inner(u, w), atol=1e-8, rtol=1e-7)
    torch.testing.assert_close(space.tangent_project(y, moved), moved, atol=1e-8, rtol=1e-7)
    torch.testing.assert_close(space.transport(x, y, space.log(x, y)), -space.log(y, x), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(space.transport(y, x, moved), u, atol=1e-8, rtol=1e-7)


@pytest.mark.parametrize("space", SPACES_AND_PRODUCTS, ids=str)
def test_dlog_is_the_derivative_of_log(space: Manifold) -> None:
    x, y = points(space, 12), points(space, 12, seed=5)
    w = tangents(space, y)
    step = 1e-5
    difference = (space.log(x, space.exp(y, step * w)) - space.log(x, space.exp(y, -step * w))) / (2 * step)
    torch.testing.assert_close(space.dlog(x, y, w), difference, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("space", SPACES_AND_PRODUCTS, ids=str)
def test_exp_stretches_volume_as_finite_differences_say(space: Manifold) -> None:
    origin = space.origin(torch.empty(0, dtype=torch.float64))
    for v in (
        torch.randn(6, space.dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.8
    ).unbind():
        columns, step = [], 1e-5
        for basis in torch.eye(space.dim, dtype=torch.float64):
            ahead, behind = (space.exp(origin, space.tangent(v + sign * step * basis)) for sign in (1, -1))
            columns.append((ahead - behind) / (2 * step))
        gram = torch.stack([torch.stack([space.inner(a, b) for b in columns]) for a in columns])
        assert float(space.logdet_exp(space.tangent(v))) == pytest.approx(0.5 * float(gram.logdet()), abs=1e-6)


@pytest.mark.parametrize("space", SPACES_AND_PRODUCTS, ids=str)
def test_the_divergence_is_the_growth_of_a_small_volume(space: Manifold) -> None:
    """Coordinates around a point by exp: the trace of the field's derivative there, at its centre."""
    mix = torch.randn(space.ambient, space.ambient, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def field(z: Tensor) -> Tensor:
        return torch.tanh(z @ mix.T) + 0.3

    for x in points(space, 5).unbind():
        jacobian = jacrev(field)(x)
        ours = space.divergence(x, field(x), jacobian)
        frame = [tangents(space, x, seed=seed) for seed in range(space.dim)]
        gram = torch.stack([torch.stack([space.inner(a, b) for b in frame]) for a in frame])
        step, total = 1e-5, 0.0
        moved = []
        for basis in frame:
            ahead, behind = (space.exp(x, sign * step * basis) for sign in (1, -1))
            velocities = [space.transport(y, x, space.tangent_project(y, field(y))) for y in (ahead, behind)]
            moved.append((velocities[0] - velocities[1]) / (2 * step))
        mixed = torch.stack([torch.stack([space.inner(a, b) for b in moved]) for a in frame])
        total = float((torch.linalg.inv(gram) @ mixed).trace())
        assert float(ours) == pytest.approx(total, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(exponent=st.floats(-12, 0.2), sign=st.sampled_from([-1, 1]))
def test_ratios_are_smooth_through_their_series(exponent: float, sign: int) -> None:
    r = 10**exponent
    s = torch.tensor(sign * r * r, dtype=torch.float64)
    trigonometric = sign > 0
    wanted_sinc = math.sin(r) / r if trigonometric else math.sinh(r) / r
    assert float(sinc(s)) == pytest.approx(wanted_sinc, rel=1e-13)
    assert float(cosine(s)) == pytest.approx(math.cos(r) if trigonometric else math.cosh(r), rel=1e-13)
    e = 2 * math.sin(r / 2) ** 2 if trigonometric else -2 * math.sinh(r / 2) ** 2  # 1 - cos r, 1 - cosh r
    found = torch.tensor(e, dtype=torch.float64)
    assert float(angle_over_sine(found)) == pytest.approx(1 / wanted_sinc, rel=1e-12)
    if r > 1e-2:
        c, ratio = 1 - e, 1 / wanted_sinc
        assert float(angle_over_sine_slope(found)) == pytest.approx((c * ratio - 1) / (1 - c * c), rel=1e-7)


@pytest.mark.parametrize("function", [cosine, sinc, angle_over_sine, angle_over_sine_slope])
@pytest.mark.parametrize("value", [0.0, 1e-9, -1e-9, 0.049, 0.051, -0.049, -0.051, 1.0, -1.0])
def test_ratios_have_two_derivatives(function: Callable[[Tensor], Tensor], value: float) -> None:
    s = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (s,))
    assert torch.autograd.gradgradcheck(function, (s,))


@pytest.mark.parametrize("space", [Sphere(2), Hyperboloid(2)], ids=str)
def test_nothing_is_nan_where_points_meet(space: Manifold) -> None:
    x = points(space, 3).requires_grad_()
    total = space.log(x, x.detach()).sum() + space.dist(x, x.detach()).sum() + space.exp(x, 0 * x.detach()).sum()
    total.backward()
    assert bool(torch.isfinite(x.grad).all())


def test_single_precision_is_near_double() -> None:
    for space in (Sphere(2), Hyperboloid(2)):
        x, y = points(space, 200), points(space, 200, seed=7)
        near = space.exp(x, 1e-3 * tangents(space, x))
        for other in (y, near):
            exact = space.log(x, other)
            single = space.log(x.float(), other.float())
            assert float(((single - exact).abs() / (1 + exact.abs())).max()) < 2e-5


def test_the_poincare_ball_and_back() -> None:
    space = Hyperboloid(3)
    x = points(space, 20)
    ball = space.to_poincare(x)
    assert float(ball.norm(dim=1).max()) < 1
    torch.testing.assert_close(space.from_poincare(ball), x)
    a, b = ball[0], ball[1]
    apart = torch.acosh(1 + 2 * (a - b).square().sum() / ((1 - a.square().sum()) * (1 - b.square().sum())))
    torch.testing.assert_close(space.dist(x[0], x[1]), apart)


def test_uniform_points_balance() -> None:
    drawn = Sphere(3).uniform(20_000, torch.Generator().manual_seed(0))
    assert float(drawn.mean(0).norm()) < 0.02
    torch.testing.assert_close(drawn.T @ drawn / len(drawn), torch.eye(4) / 4, atol=0.01, rtol=0)
    assert Sphere(2).log_area == pytest.approx(math.log(4 * math.pi))
    assert Sphere(1).log_area == pytest.approx(math.log(2 * math.pi))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Sphere(0), ValueError, "at least 1"),
        (lambda: Product(), ValueError, "at least one space"),
        (lambda: Sphere(2).check(torch.ones(1, 3)), ValueError, "the norm of a point is 1.732"),
        (lambda: Hyperboloid(2).check(torch.ones(1, 3)), ValueError, "<x, x> of a point is 1 and"),
        (lambda: Hyperboloid(1).check(torch.tensor([[-1.0, 0.0]])), ValueError, "above 0 are accepted"),
        (lambda: Sphere(2).check(torch.ones(1, 4)), ValueError, r"\(..., 3\) is accepted for Sphere\(2\)"),
        (lambda: Sphere(2).check(torch.ones(0, 3)), ValueError, "no points"),
        (lambda: Sphere(2).check(torch.full((1, 3), torch.nan)), ValueError, "NaN"),
        (lambda: Sphere(2).check(torch.ones(1, 3).long()), TypeError, "floating-point"),
        (lambda: Sphere(1).log(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])), ValueError, "antipodal"),
        (
            lambda: Sphere(1).transport(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0]), torch.zeros(2)),
            ValueError,
            "antipodal",
        ),
        (lambda: Hyperboloid(2).from_poincare(torch.tensor([1.0, 0.0])), ValueError, "norms below 1, not 1"),
    ],
)
def test_bad_input(unchecked: None, make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
