"""Replays of the CMSS fixtures."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saccade.adaptation.cmss import CMSSObjective, curriculum_weights, weighted_domain_loss
from saccade.adaptation.schedules import adaptation_factor, inverse_decay_lr
from tests.parity.fixtures import Fixture


def discriminator(weights: dict[str, Tensor]) -> nn.Sequential:
    """Linear layers where the fixture has weights, ReLU between them."""
    state = {key.removeprefix("disc."): value for key, value in weights.items() if key.startswith("disc.")}
    last = max(int(key.partition(".")[0]) for key in state)
    layers = [
        nn.Linear(
            state[f"{at}.weight"].shape[1], len(state[f"{at}.weight"]), bias=f"{at}.bias" in state, dtype=torch.float64
        )
        if f"{at}.weight" in state
        else nn.ReLU()
        for at in range(last + 1)
    ]
    network = nn.Sequential(*layers)
    network.load_state_dict(state)
    return network


def losses(fixture: Fixture) -> dict[str, Tensor]:
    objective = CMSSObjective(fixture.config["lambda"])
    source, target = (fixture.inputs[f"{of}_features"].requires_grad_() for of in ("source", "target"))
    scores, labels = fixture.inputs["manager_scores"].requires_grad_(), fixture.inputs["labels"]
    network = discriminator(fixture.weights)
    on_source, on_target, weights = network(source), network(target), curriculum_weights(scores)
    logits = F.linear(source, fixture.weights["classifier.weight"], fixture.weights.get("classifier.bias"))
    ours = {
        "out/weights": weights,
        "out/disc_logits_source": on_source.squeeze(1),
        "out/disc_logits_target": on_target.squeeze(1),
        "out/domain_loss": weighted_domain_loss(on_source, on_target),
        "out/weighted_domain_loss": weighted_domain_loss(on_source, on_target, weights),
        "out/cls_loss": CMSSObjective(0.0).task_loss(logits, labels, on_source, on_target, weights),
    }
    (ours["grad/manager_scores"],) = torch.autograd.grad(objective.manager_loss(on_source, on_target, weights), scores)
    parameters = dict(network.named_parameters())
    loss = objective.discriminator_loss(network(source.detach()), network(target.detach()))
    found = torch.autograd.grad(loss, list(parameters.values()))
    ours |= {f"grad/disc.{name}": gradient for name, gradient in zip(parameters, found, strict=True)}
    task = objective.task_loss(logits, labels, on_source, on_target, weights)
    ours["grad/source_features"], ours["grad/target_features"] = torch.autograd.grad(task, [source, target])
    return ours


def schedules(fixture: Fixture) -> dict[str, Tensor]:
    config, progress = fixture.config, fixture.inputs["progress"]
    strengths = [adaptation_factor(p, config["gamma"]) for p in progress.tolist()]
    rates = [inverse_decay_lr(p, config["lr0"], config["alpha"], config["beta"]) for p in progress.tolist()]
    return {
        "out/lambda": torch.tensor(strengths, dtype=torch.float64),
        "out/lr": torch.tensor(rates, dtype=torch.float64),
    }


KINDS: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {"losses": losses, "schedules": schedules}
