"""Replays of the DSBN fixtures."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from saccade.adaptation.adversary import DomainDiscriminator
from saccade.adaptation.checkpoints import convert_dsbn_checkpoint, convert_dsbn_discriminator
from saccade.adaptation.dsbn import DomainSpecificBatchNorm2d, convert_dsbn
from saccade.adaptation.dsbn_networks import DSBNNetwork, LeNet, ResNet
from saccade.adaptation.mstn import MSTN, MovingCentroids
from saccade.adaptation.schedules import adaptation_factor, inverse_decay_lr
from saccade.adaptation.self_training import SelfTrainingLoss
from saccade.checkpoints import load_strict
from tests.parity.fixtures import Fixture, fill


def layer(fixture: Fixture) -> dict[str, Tensor]:
    config, given = fixture.config, fixture.inputs
    part = DomainSpecificBatchNorm2d(config["channels"], config["domains"]).double()
    load_strict(part, fixture.weights)
    found: dict[str, Tensor] = {}
    for call, domain in enumerate(config["sequence_of_domains"]):
        domains = given.get(f"domain{call}", torch.tensor([domain]))
        # theirs runs a mixed batch through the branch of its first image: see the errata
        alone = len(domains.unique()) == 1 and len(domains) == len(given[f"x{call}"])
        x = given[f"x{call}"].requires_grad_()
        out = part(x, domains if alone else domain)
        weight = part.bns[domain].weight
        weight.grad = None
        (out * given[f"cotangent{call}"]).sum().backward()
        found |= {f"out/train{call}": out, f"grad/x{call}": x.grad, f"grad/weight{call}": weight.grad.clone()}
    found |= {f"out/state/{key}": value for key, value in part.state_dict().items()}
    part.eval()
    return found | {f"out/eval_domain{d}": part(given["x_eval"], d) for d in range(config["domains"])}


def run_network(fixture: Fixture, network: DSBNNetwork, features_are_logits: bool) -> dict[str, Tensor]:
    config = fixture.config
    convert_dsbn(network, config["domains"])
    weights = fill(fixture.json["weights"]["rule"], config["state_dict_keys"])
    load_strict(network, convert_dsbn_checkpoint(weights))
    network.double().eval()
    found = {}
    for d in range(config["domains"]):
        logits = network(fixture.inputs["x"], domain=d)
        found[f"out/logits_domain{d}"] = logits
        if features_are_logits:
            found[f"out/feat_domain{d}"] = logits
        else:
            seen: list[Tensor] = []
            hook = network.head.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
            network(fixture.inputs["x"], domain=d)
            hook.remove()
            found[f"out/feat_domain{d}"] = seen[0]
    return found


def lenet(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    last = "fc3.weight" if config["in_features"] else "fc2.weight"
    classes, channels = config["state_dict_keys"][last][0], config["state_dict_keys"]["conv1.weight"][1]
    return run_network(fixture, LeNet(classes, config["in_features"], channels), not config["in_features"])


def resnet(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    kind = "basic" if config["block"] == "BasicBlock" else "bottleneck"
    network = ResNet(kind, config["layers"], config["num_classes"], config["in_features"])
    return run_network(fixture, network, not config["in_features"])


def centroids(fixture: Fixture) -> dict[str, Tensor]:
    config, given = fixture.config, fixture.inputs
    part = MovingCentroids(config["classes"], config["dim"], config["decay"]).double()
    part.centroids.copy_(fixture.weights["centroids"])
    found: dict[str, Tensor] = {}
    for call in range(sum(name.startswith("x") for name in given)):
        x = given[f"x{call}"].requires_grad_()
        out = part(x, given[f"y{call}"])
        (out * given[f"cotangent{call}"]).sum().backward()
        found |= {f"out/centroids{call}": out, f"grad/x{call}": x.grad}
    return found


def stage1_losses(fixture: Fixture) -> dict[str, Tensor]:
    config, given = fixture.config, fixture.inputs
    sources, targets, classes = config["sources"], config["targets"], config["classes"]
    hidden = int(re.search(r"Linear C-(\d+)", config["discriminator"])[1])  # type: ignore[index]
    part = MSTN(
        classes,
        classes,
        sources,
        targets,
        decay=config.get("decay", 0.3),
        adversarial_weight=config["domain_loss_adjust_factor"],
        semantic_weight=config["sm_etha"],
        discriminator=lambda dim: DomainDiscriminator(dim, hidden, 0.0),
    ).double()
    for discriminator in part.discriminators:
        shapes = {f"discriminator.{key}": tuple(value.shape) for key, value in discriminator.state_dict().items()}
        weights = fill(fixture.json.get("weights", {}).get("rule", "sine"), shapes)
        load_strict(discriminator, convert_dsbn_discriminator(weights))
    for name, modules in (("src", part.source_centroids), ("trg", part.target_centroids)):
        for number, module in enumerate(modules):
            module.centroids.copy_(fixture.weights[f"{name}_centroids{number}"])
    source_logits = [given[f"src_logits{s}"].requires_grad_() for s in range(sources)]
    target_logits = [given[f"trg_logits{t}"].requires_grad_() for t in range(targets)]
    labels = [given[f"src_labels{s}"] for s in range(sources)]
    pseudo = [given[f"trg_pseudo_logits{t}"].argmax(1) for t in range(targets)]
    lambda_ = adaptation_factor((config["iteration"] - config["warmup"]) / config["max_step"])
    class_loss = torch.stack(
        [part.class_loss(x, y, s) for s, (x, y) in enumerate(zip(source_logits, labels, strict=True))]
    )
    aligned = part(source_logits, labels, target_logits, pseudo)
    total = class_loss.mean() + lambda_ * aligned.total
    total.backward()
    found = {
        "out/cls_loss": class_loss.mean(),
        "out/gen_loss": aligned.generator,
        "out/semantic_loss": aligned.semantic,
        "out/total": total,
        "out/lambda": torch.tensor(lambda_),
        "out/dis_loss": lambda_ * part.discriminator_loss(source_logits, target_logits),
    }
    found |= {f"grad/src_logits{s}": x.grad for s, x in enumerate(source_logits)}
    return found | {f"grad/trg_logits{t}": x.grad for t, x in enumerate(target_logits)}


def stage2_loss(fixture: Fixture) -> dict[str, Tensor]:
    config, given = fixture.config, fixture.inputs
    mode, share = config.get("mode", "default_ensemble with no_lambda"), config["pseudo_label_lambda"]
    found: dict[str, Tensor] = {}
    for threshold in config["thresholds"]:
        name = f"th{threshold}".replace(".", "_")
        source, target = given["src_logits"].clone().requires_grad_(), given["trg_logits"].clone().requires_grad_()
        kind = "ensemble_fix" if "ensemble_fix" in mode else "ensemble"
        loss = SelfTrainingLoss(threshold, kind, scale_logits="score" in mode)(
            [source],
            [given["src_labels"]],
            [target],
            [given["teacher_logits"]],
            [given["student_eval_logits"]],
            share=share,
            weight=1.0 if "no_lambda" in mode else share,
        )
        loss.total.backward()
        found |= {
            "out/pseudo": loss.pseudo[0].labels,
            f"out/selected_{name}": loss.selected[0],
            f"out/total_{name}": loss.total,
            f"grad/src_{name}": source.grad,
            f"grad/trg_{name}": target.grad,
        }
    return found


def schedules(fixture: Fixture) -> dict[str, Tensor]:
    config, given = fixture.config, fixture.inputs
    rates = [
        inverse_decay_lr(t, config["base_lr"], config["alpha"] / config["num_steps"], config["beta"])
        for t in given["iteration"].tolist()
    ]
    factors = [adaptation_factor(p, config["gamma"]) for p in given["p"].tolist()]
    return {
        "out/lr": torch.tensor(rates, dtype=torch.float64),
        "out/adaptation_factor": torch.tensor(factors, dtype=torch.float64),
    }


KINDS: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {
    "layer": layer,
    "lenet": lenet,
    "resnet": resnet,
    "centroids": centroids,
    "stage1_losses": stage1_losses,
    "stage2_loss": stage2_loss,
    "schedules": schedules,
}
