"""Base densities."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from saccade.flows import (
    Hyperboloid,
    Sphere,
    SphereUniform,
    VonMisesFisher,
    WrappedNormal,
    integrate_sphere,
    log_bessel,
    synthetic_density,
)
from saccade.flows.synthetic import CELLS, HYPERBOLOID, SIDE, SPHERE


def integrate_plane(log_prob: Callable[[Tensor], Tensor], radius: float = 9.0, side: int = 1200) -> float:
    """A density of the hyperbolic plane, in tangent coordinates at the origin."""
    space = Hyperboloid(2)
    line = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 * radius - radius
    u = space.tangent(torch.cartesian_prod(line, line))
    x = space.exp(space.origin(u), u)
    return float((log_prob(x) + space.logdet_exp(u)).exp().sum() * (2 * radius / side) ** 2)


@pytest.mark.parametrize("kappa", [0.1, 1.0, 20.0, 300.0])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_von_mises_fisher_is_that_of_scipy(kappa: float, dim: int) -> None:
    loc = Sphere(dim).uniform(1, torch.Generator().manual_seed(0), torch.empty(0, dtype=torch.float64))[0]
    x = Sphere(dim).uniform(30, torch.Generator().manual_seed(1), torch.empty(0, dtype=torch.float64))
    wanted = stats.vonmises_fisher(loc.numpy(), kappa).logpdf(x.numpy())
    np.testing.assert_allclose(VonMisesFisher(loc, kappa).log_prob(x).numpy(), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kappa", [0.5, 5.0, 200.0])
def test_samples_have_the_mean_of_the_density(kappa: float) -> None:
    loc = torch.tensor([0.6, 0.0, -0.8])
    drawn = VonMisesFisher(loc, kappa).sample((20_000,))
    length = 1 / math.tanh(kappa) - 1 / kappa
    torch.testing.assert_close(drawn.mean(0), length * loc, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(20_000))
    found = VonMisesFisher.fit(drawn)
    assert float(found.concentration) == pytest.approx(kappa, rel=0.06)


def test_the_fit_has_the_largest_likelihood() -> None:
    drawn = VonMisesFisher(torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64), 3.0).sample((500,))
    best = VonMisesFisher.fit(drawn)
    likelihood = float(best.log_prob(drawn).sum())
    for factor in (0.95, 1.05):
        assert float(VonMisesFisher(best.loc, factor * best.concentration).log_prob(drawn).sum()) < likelihood
    turned = Sphere(3).project(best.loc + 0.05 * torch.eye(4, dtype=torch.float64)[0])
    assert float(VonMisesFisher(turned, best.concentration).log_prob(drawn).sum()) < likelihood


def test_the_concentration_has_a_gradient() -> None:
    kappa = torch.tensor([0.3, 2.0, 30.0], dtype=torch.float64, requires_grad=True)
    for order in (-0.5, 0.0, 0.5, 3.0):
        assert torch.autograd.gradcheck(lambda k, order=order: log_bessel(order, k), (kappa,))


def test_densities_of_the_sphere_integrate_to_one() -> None:
    like = torch.zeros(3, dtype=torch.float64)
    densities = [
        SphereUniform(Sphere(2)),
        VonMisesFisher(Sphere(2).origin(like), 50.0),
        WrappedNormal(Sphere(2), Sphere(2).origin(like), torch.tensor([0.2, 0.4], dtype=torch.float64)),
    ]
    for density in densities:
        assert integrate_sphere(density.log_prob) == pytest.approx(1, abs=2e-3)


def test_a_sharp_peak_is_found_by_dividing_cells() -> None:
    loc = Sphere(2).project(torch.tensor([0.3, -0.5, 0.7], dtype=torch.float64))
    sharp = VonMisesFisher(loc, 2e4)
    assert integrate_sphere(sharp.log_prob) == pytest.approx(1, abs=2e-3)
    assert abs(integrate_sphere(sharp.log_prob, rounds=0) - 1) > 0.005


def test_wrapped_normals_of_the_plane_integrate_to_one() -> None:
    space = Hyperboloid(2)
    u = space.tangent(torch.tensor([0.7, -0.4], dtype=torch.float64))
    normal = WrappedNormal(space, space.exp(space.origin(u), u), torch.tensor([0.4, 0.9], dtype=torch.float64))
    assert integrate_plane(normal.log_prob) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", SPHERE)
def test_known_densities_of_the_sphere(name: str) -> None:
    density = synthetic_density(Sphere(2), name, torch.float64)
    assert integrate_sphere(density.log_prob, rounds=2) == pytest.approx(1, abs=0.01)
    drawn = density.sample((4000,))
    Sphere(2).check(drawn)
    assert bool(torch.isfinite(density.log_prob(drawn)).all())


def test_the_checkerboard_covers_its_cells() -> None:
    density = synthetic_density(Sphere(2), "bigcheckerboard", torch.float64)
    found = float((-density.log_prob(density.sample((20_000,)))).exp().mean())  # E[1 / p] is the area below p
    tops = [math.pi / 2 + colatitude * SIDE for _, colatitude in CELLS]
    area = sum(SIDE * (math.cos(top) - math.cos(top + SIDE / 2)) for top in tops)
    assert found == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("name", HYPERBOLOID)
def test_known_densities_of_the_hyperbolic_plane(name: str) -> None:
    density = synthetic_density(Hyperboloid(2), name, torch.float64)
    assert integrate_plane(density.log_prob) == pytest.approx(1, abs=0.01)
    drawn = density.sample((2000,))
    Hyperboloid(2).check(drawn)
    assert bool(torch.isfinite(density.log_prob(drawn)).all())


def test_samples_of_a_wrapped_normal_have_gradients() -> None:
    space = Hyperboloid(2)
    scale = torch.tensor([0.3, 0.5], dtype=torch.float64, requires_grad=True)
    loc = space.origin(torch.zeros(1, dtype=torch.float64))
    space.dist(WrappedNormal(space, loc, scale).rsample((100,)), loc).mean().backward()
    assert bool((scale.grad > 0).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VonMisesFisher(torch.tensor([1.0, 0.0]), 0.0), "concentration has to be positive"),
        (lambda: VonMisesFisher(torch.tensor([1.0, 1.0]), 1.0), "loc is off"),
        (lambda: WrappedNormal(Sphere(1), torch.tensor([1.0, 0.0]), 0.0), "scale has to be positive"),
        (lambda: WrappedNormal(Sphere(1), torch.tensor([2.0, 0.0]), 1.0), "loc is off"),
        (lambda: VonMisesFisher.fit(torch.tensor([[1.0, 0.0]])), "no concentration fits"),
        (lambda: VonMisesFisher.fit(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), "no concentration fits"),
        (lambda: synthetic_density(Sphere(2), "5gaussians"), "bigcheckerboard, not '5gaussians'"),
    ],
)
def test_bad_input(unchecked: None, make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
