"""Replays of the Auto-X3D fixtures: the X3D backbone, the update of the distribution, fair channels."""

from collections.abc import Callable

import torch
from torch import Tensor

from saccade.action.checkpoints import convert_x3d
from saccade.checkpoints import load_strict
from saccade.nn.architectures import ArchitectureSpace, CategoricalArchitectureDistribution, CostTables
from saccade.nn.fair_channels import fair_channel_masks
from saccade.nn.probabilistic_search import architecture_gradient, cost_penalty, importance_weights, num_samples
from saccade.nn.x3d import X3D, X3DBlock
from tests.parity.fixtures import Fixture
from tests.parity.replays.motion_squeeze import keep_counters, ramp


def block(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    ours = X3DBlock(
        config["dim_in"],
        config["dim_out"],
        config["dim_inner"],
        (config["temporal_kernel"], 3, 3),
        config["stride"],
        config["squeeze_excitation"],
    ).eval()
    state = convert_x3d(fixture.weights)
    load_strict(ours, keep_counters(state, ours))
    x = fixture.inputs["x"].requires_grad_()
    y = ours(x)
    ramp(y).backward()
    authors = dict(zip(state, fixture.weights, strict=True))
    named = {f"grad/{authors[name]}": parameter.grad for name, parameter in ours.named_parameters()}
    return {"out/y": y, "grad/x": x.grad} | named


def network(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    state = convert_x3d(fixture.weights)
    depths = [len({key.split(".")[1] for key in state if key.startswith(f"layer{n}.")}) for n in range(1, 5)]
    stages = [state[f"layer{n}.0.project.weight"].shape[0] for n in range(1, 5)]
    model = X3D(
        config["frames"],
        config["crop"],
        config["width_factor"],
        config["depth_factor"],
        config["bottleneck_factor"],
        config["dim_c1"],
        config["dim_c5"],
        config["classes"],
        widths=[state["stem.spatial.weight"].shape[0], *stages],
        depths=depths,
        norm_embed="head.embed_norm.weight" in state,
    ).eval()
    load_strict(model, keep_counters(state, model))
    video = fixture.inputs["video"]
    maps = {}
    x = model.stem(video)
    for n in range(1, 5):
        x = getattr(model, f"layer{n}")(x)
        maps[f"out/s{n + 1}"] = x
    logits = model(video)
    return maps | {"out/logits": logits, "out/probs": torch.softmax(logits, 1)}


def update(fixture: Fixture) -> dict[str, Tensor]:
    """One update, by the functions that the search calls."""
    config, given = fixture.config, fixture.inputs
    sizes, target, weight = config["choices"], config["cost_target"], config["cost_weight"]
    factor, least, most = (config[key] for key in ("sample_factor", "min_samples", "max_samples"))
    space = ArchitectureSpace({f"decision{i}": range(size) for i, size in enumerate(sizes)})
    distribution = CategoricalArchitectureDistribution(space).double()
    with torch.no_grad():
        for i, size in enumerate(sizes):
            distribution.logits[i, :size] = given[f"alpha{i}"]
    tables = CostTables(space, [given[f"cost{i}"] for i in range(len(sizes))])
    drawn, likelihood = given["architectures"], given["log_likelihood"]
    cost = tables(drawn)
    weights = importance_weights(likelihood, cost, target, weight)
    gradient = architecture_gradient(distribution, drawn, weights)
    named = {}
    for i, (size, probability) in enumerate(zip(sizes, distribution.probabilities().values(), strict=True)):
        named |= {f"out/prob{i}": probability, f"out/grad_alpha{i}": gradient[i, :size]}
    return named | {
        "out/log_prob": distribution.log_prob(drawn),
        "out/cost": cost,
        "out/penalty": cost_penalty(cost, target),
        "out/weights": weights,
        "out/weights_no_cost": importance_weights(likelihood),
        "out/entropy": distribution.entropy()[None],
        "out/num_samples": torch.tensor([num_samples(distribution.entropy(), factor, least, most)]),
        "out/expected_cost": distribution.expected_cost(tables)[None],
        "out/mode": distribution.mode(),
    }


def fair_channels(fixture: Fixture) -> dict[str, Tensor]:
    cases = [(case["candidates"], case["group"]) for case in fixture.config["cases"]]
    return {f"out/mask_n{n}_g{group}": fair_channel_masks(n, group).double() for n, group in cases}


KINDS: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {
    "x3d_block": block,
    "x3d_slowfast": network,
    "x3d_pytorchvideo": network,
    "probabilistic_update": update,
    "fair_channels": fair_channels,
}
