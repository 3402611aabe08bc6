"""Replays of the MiCo fixtures."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from saccade.adaptation import Classifier, CosinePredictor, DeCoTa, Labelled, decota_losses, inverse_decay_lr
from saccade.adaptation.checkpoints import convert_mico
from saccade.checkpoints import load_strict
from tests.parity.fixtures import Fixture


def predictor(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    part = CosinePredictor(config["in_features"], config["classes"], config["hidden"], config["temperature"])
    state = convert_mico(fixture.weights)
    load_strict(part, {key.removeprefix("head."): value for key, value in state.items()})
    features = fixture.inputs["features"].requires_grad_()
    logits = part(features)
    (logits * fixture.inputs.get("grad_weight", torch.ones(()))).sum().backward()
    authors = dict(zip(state, fixture.weights, strict=True))
    grads = {f"grad/{authors[f'head.{name}']}": value.grad for name, value in part.named_parameters()}
    return {"out/logits": logits, "grad/features": features.grad} | grads


def network(weights: dict[str, Tensor], temperature: float) -> Classifier:
    """`G` and `F1` of the fixture, whose sizes are those of its weights."""
    wide, narrow = weights["G.weight"].shape
    classes, hidden = weights["F1.fc2.weight"].shape
    body = nn.Sequential(nn.Flatten(), nn.Linear(narrow, wide), nn.Tanh())
    return Classifier(body, CosinePredictor(wide, classes, hidden, temperature), wide, classes)


def step(fixture: Fixture) -> dict[str, Tensor]:
    config, given = fixture.config, fixture.inputs
    named = re.search(r"temperature ([\d.]+\d)", config["network"])
    temperature = float(named.group(1)) if named else 0.05
    own = {name: {k.removeprefix(name): v for k, v in fixture.weights.items() if k.startswith(name)} for name in SIDES}
    method = DeCoTa(network(own["net."], temperature), network(own["twin."], temperature))
    state = convert_mico(fixture.weights)
    authors = {key.replace("body.", "body.1."): name for key, name in zip(state, fixture.weights, strict=True)}
    load_strict(method, {key.replace("body.", "body.1."): value for key, value in state.items()})

    def images(name: str) -> Tensor:
        return given[name][:, :, None, None]

    unlabelled = images("x_unlabelled")
    output = decota_losses(
        method.f,
        method.g,
        Labelled(images("x_source"), given["y_source"]),
        Labelled(images("x_target"), given["y_target"]),
        unlabelled,
        config["threshold"],
        float(given["lam"]) if "lam" in given else config["lam"],
        partners_f=given["perm_target"],
        partners_g=given["perm_source"],
    )
    with torch.no_grad():
        ensemble = 2 * method.predict(unlabelled).probabilities
    (output.loss_f + output.loss_g).backward()
    results: dict[str, Any] = {
        "out/pred_net": output.labels_f.labels,
        "out/pred_twin": output.labels_g.labels,
        "out/prob_net": output.labels_f.confidences,
        "out/prob_twin": output.labels_g.confidences,
        "out/mixed_target": output.f.images.flatten(1),
        "out/mixed_source": output.g.images.flatten(1),
        "out/loss_target_sup": output.f.supervised,
        "out/loss_source_sup": output.g.supervised,
        "out/loss_mix_net": output.f.mixed,
        "out/loss_mix_twin": output.g.mixed,
        "out/loss_net": output.loss_f,
        "out/loss_twin": output.loss_g,
        "out/ensemble": ensemble,
    }
    return results | {f"grad/{authors[name]}": value.grad for name, value in method.named_parameters()}


def lr_schedule(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    rates = [
        inverse_decay_lr(step, config["init_lr"], config["gamma"], config["power"])
        for step in fixture.inputs["step"].tolist()
    ]
    return {"out/lr": torch.tensor(rates, dtype=torch.float64)}


SIDES = ("net.", "twin.")
KINDS = {"predictor": predictor, "step": step, "lr_schedule": lr_schedule}
