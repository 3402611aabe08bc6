"""Replays of the manifold flows."""

import re
from typing import Any

import torch
from torch import Tensor

from saccade.flows import (
    Hyperboloid,
    ManifoldCNF,
    ManifoldODE,
    OriginField,
    Sphere,
    TangentField,
    VonMisesFisher,
    WrappedNormal,
    convert_manifold_ode,
)
from saccade.flows.manifolds import ConstantCurvature
from tests.parity.fixtures import Fixture

LEFT_OUT = {
    "hyperboloid_flow": {
        "out/logdet_official_wrong_sign": "the sign of the chart terms is wrong; out/logdet has it right"
    }
}


def manifold_ops(fixture: Fixture) -> dict[str, Tensor]:
    given, dim = fixture.inputs, fixture.config["dim"]
    results: dict[str, Tensor] = {}
    spaces: dict[str, ConstantCurvature] = {"sphere": Sphere(dim), "hyp": Hyperboloid(dim)}
    for name, space in spaces.items():
        x, y, u = (given[f"{name}_{letter}"] for letter in "xyu")
        basis = torch.eye(space.ambient, dtype=x.dtype)
        # as a map of all vectors: that along y, which is not tangent, has no place in dlog
        columns = [space.dlog(x, y, direction.expand_as(x)) for direction in basis]
        normal = WrappedNormal(space, given[f"{name}_wn_loc"], given["hyp_wn_scale"])
        results |= {
            f"out/{name}_exp": space.exp(x, u),
            f"out/{name}_logdetexp": space.logdet_exp(u),
            f"out/{name}_log": space.log(x, y),
            f"out/{name}_dist": space.dist(x, y),
            f"out/{name}_jacoblog": torch.stack(columns, dim=-1),
            f"out/{name}_transport": space.transport(x, y, u),
            f"out/{name}_wrapped_normal_logprob": normal.log_prob(x),
        }
    results["out/hyp_poincare"] = Hyperboloid(dim).to_poincare(given["hyp_x"])
    for name in fixture.part("out"):
        if name.startswith("vmf_logprob_"):
            loc = Sphere(dim).origin(given["sphere_x"])
            density = VonMisesFisher(loc, float(name.removeprefix("vmf_logprob_")))
            results[f"out/{name}"] = density.log_prob(given["sphere_x"])
    return {key: value for key, value in results.items() if key in fixture.expected}


def sphere_flow(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    sphere = Sphere(config["dim"])
    like = fixture.inputs["x"]
    base = VonMisesFisher(sphere.origin(like), float(re.findall(r"concentration (\S+),", config["base"])[0]))
    field = TangentField(sphere, config["hidden"], config["n_hidden"])
    exact = load(ManifoldODE(field, step_size=1 / 120), base, fixture)
    charts = load(ManifoldODE(field, config["solver"], config["step_size"], charts=config["charts"]), base, fixture)
    x = fixture.inputs["x"]
    z, logdet = charts(x)
    results: dict[str, Any] = {"out/z": z, "out/logdet": logdet}
    results["out/x_reconstructed"], _ = charts.inverse(fixture.part("out")["z"])
    results["out/z_exact"], results["out/logdet_exact"] = exact(x)
    _, results["out/inverse_logdet_exact"] = exact.inverse(fixture.part("out")["z"])
    results["out/logpx_exact"] = exact.log_prob(x)
    nll = -exact.log_prob(x).mean()
    results["out/nll_exact"] = nll.reshape(1)
    return results | gradients(exact, nll, fixture)


def hyperboloid_flow(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    space = Hyperboloid(config["dim"])
    like = fixture.inputs["x"]
    scale = float(re.findall(r"scale (\S+)", config["base"])[0])
    base = WrappedNormal(space, space.origin(like), scale * torch.ones(space.dim).to(like))
    flow = load(ManifoldODE(OriginField(space, config["hidden"], config["n_hidden"]), step_size=1 / 100), base, fixture)
    z, logdet = flow(fixture.inputs["x"])
    back, inverse = flow.inverse(fixture.part("out")["z"])
    logpx = flow.log_prob(fixture.inputs["x"])
    results = {
        "out/z": z,
        "out/logdet": logdet,
        "out/x_reconstructed": back,
        "out/inverse_logdet": inverse,
        "out/logpx": logpx,
    }
    return results | gradients(flow, -logpx.mean(), fixture)


def load(ode: ManifoldODE, base: Any, fixture: Fixture) -> ManifoldCNF:
    flow = ManifoldCNF(ode, base).double()
    flow.load_state_dict(convert_manifold_ode(fixture.weights))
    return flow


def gradients(flow: ManifoldCNF, nll: Tensor, fixture: Fixture) -> dict[str, Tensor]:
    nll.backward()
    ours = dict(flow.named_parameters())
    names = {key: next(iter(convert_one(key))) for key in fixture.weights}
    return {f"grad/{key}": ours[name].grad for key, name in names.items() if ours[name].grad is not None}  # type: ignore[misc]


def convert_one(key: str) -> list[str]:
    place, kind = key.rsplit(".", 2)[1:]
    return [f"ode.field.net.layers.{int(place) // 2}.{kind}"]


KINDS = {"manifold_ops": manifold_ops, "sphere_flow": sphere_flow, "hyperboloid_flow": hyperboloid_flow}
