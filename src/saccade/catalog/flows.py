"""The methods of the domain `flows`."""

from __future__ import annotations

from saccade.catalog.method import NO_LICENCE, Method

METHODS: tuple[Method, ...] = (
    Method(
        slug="neural-manifold-ode",
        name="Neural Manifold ODE",
        title="Neural Manifold Ordinary Differential Equations",
        arxiv="2006.10254",
        domain="flows",
        summary=(
            "Models densities on curved spaces, such as events on the globe, with flows that never leave the surface."
        ),
        repository="CUAI/Neural-Manifold-Ordinary-Differential-Equations",
        licence=NO_LICENCE,
        parts=(
            "saccade.flows:ManifoldODE",
            "saccade.flows:ManifoldCNF",
            "saccade.flows:TangentField",
            "saccade.flows:OriginField",
            "saccade.flows:Sphere",
            "saccade.flows:Hyperboloid",
            "saccade.flows:Product",
            "saccade.flows:VonMisesFisher",
            "saccade.flows:WrappedNormal",
            "saccade.flows:HyperbolicVAE",
        ),
        claim="saccade.flows.claims.neural_manifold_ode:NEURAL_MANIFOLD_ODE",
        recipes=(
            "flows/manifold-ode-volcano",
            "flows/manifold-ode-earthquake",
            "flows/manifold-ode-flood",
            "flows/manifold-ode-fire",
            "flows/manifold-ode-sphere-4wrapped",
            "flows/manifold-ode-sphere-bigcheckerboard",
            "flows/manifold-ode-hyperboloid-5gaussians",
            "flows/manifold-ode-hyperboloid-bigcheckerboard",
            "flows/hyperbolic-vae-bdp",
            "flows/hyperbolic-vae-mnist",
        ),
        converter="saccade.flows.checkpoints:convert_manifold_ode",
        checkpoints="none published; the converter takes those that the authors' code writes",
    ),
)
