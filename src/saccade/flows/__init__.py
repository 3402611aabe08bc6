"""Densities on curved spaces."""

from saccade.flows.build import hyperboloid_cnf, sphere_cnf
from saccade.flows.checkpoints import convert_manifold_ode
from saccade.flows.distributions import SphereUniform, VonMisesFisher, WrappedNormal, log_bessel
from saccade.flows.earth import (
    Events,
    integrate_sphere,
    latlon_to_sphere,
    load_earth_events,
    read_events,
    sphere_to_latlon,
)
from saccade.flows.fields import OriginField, Perceptron, TangentField
from saccade.flows.manifold_ode import ManifoldCNF, ManifoldODE
from saccade.flows.manifolds import Euclidean, Hyperboloid, Manifold, Sphere
from saccade.flows.products import Product
from saccade.flows.synthetic import synthetic_density
from saccade.flows.vae import HyperbolicVAE

__all__ = [
    "Euclidean",
    "Events",
    "HyperbolicVAE",
    "Hyperboloid",
    "Manifold",
    "ManifoldCNF",
    "ManifoldODE",
    "OriginField",
    "Perceptron",
    "Product",
    "Sphere",
    "SphereUniform",
    "TangentField",
    "VonMisesFisher",
    "WrappedNormal",
    "convert_manifold_ode",
    "hyperboloid_cnf",
    "integrate_sphere",
    "latlon_to_sphere",
    "load_earth_events",
    "log_bessel",
    "read_events",
    "sphere_cnf",
    "sphere_to_latlon",
    "synthetic_density",
]
