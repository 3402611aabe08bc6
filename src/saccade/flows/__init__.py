"""Densities on curved spaces."""

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
from saccade.flows.manifolds import Euclidean, Hyperboloid, Manifold, Product, Sphere

__all__ = [
    "Euclidean",
    "Events",
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
    "integrate_sphere",
    "latlon_to_sphere",
    "load_earth_events",
    "log_bessel",
    "read_events",
    "sphere_to_latlon",
]
