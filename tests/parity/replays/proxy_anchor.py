"""Replays of the Proxy Anchor fixtures."""

import torch
from torch import Tensor, nn

from saccade.checkpoints import load_strict
from saccade.metric import EmbeddingHead, ProxyAnchorLoss, proxy_anchor_param_groups, recall_at_k
from saccade.metric.checkpoints import convert_proxy_anchor
from tests.parity.fixtures import Fixture


def loss(fixture: Fixture) -> dict[str, Tensor]:
    config = fixture.config
    part = ProxyAnchorLoss(config["num_classes"], config["dim"], config["margin"], config["alpha"])
    load_strict(part, fixture.weights)
    embeddings = fixture.inputs["embeddings"].requires_grad_()
    value = part(embeddings, fixture.inputs["labels"])
    value.backward()
    return {"out/loss": value, "grad/embeddings": embeddings.grad, "grad/proxies": part.proxies.grad}


def head(fixture: Fixture) -> dict[str, Tensor]:
    part = EmbeddingHead(fixture.config["shape"][1], fixture.config["dim"])
    state = convert_proxy_anchor({f"model.{key}": value for key, value in fixture.weights.items()})
    load_strict(part, {key.removeprefix("head."): value for key, value in state.items()})
    return {"out/embedding": part(fixture.inputs["features"])}


def recall(fixture: Fixture) -> dict[str, Tensor]:
    embeddings, labels = fixture.inputs["embeddings"], fixture.inputs["labels"]
    queries = int(fixture.config["query"].split()[1])  # "first 30 rows"
    alone = recall_at_k(embeddings, labels, fixture.config["K"])
    searched = recall_at_k(
        embeddings[:queries],
        labels[:queries],
        fixture.config["K_query_gallery"],
        embeddings[queries:],
        labels[queries:],
    )
    results = {"out/recall": alone, "out/recall_query_gallery": searched}
    return {key: torch.tensor(list(values.values()), dtype=torch.float64) for key, values in results.items()}


def train_steps(fixture: Fixture) -> dict[str, Tensor]:
    weight, proxies = fixture.weights["embedding.weight"], fixture.weights["proxies"]
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    part = ProxyAnchorLoss(*proxies.shape)
    load_strict(linear, {"weight": weight})
    load_strict(part, {"proxies": proxies})
    words = fixture.config["optimizer"].replace(",", "").split()  # "AdamW lr 1e-4 weight_decay 1e-4, proxies lr 1e-2"
    lr, decay, proxy_lr = float(words[2]), float(words[4]), float(words[7])
    clip = float(fixture.config["clip"].split("[")[1].split(",")[1].rstrip("]"))
    groups = proxy_anchor_param_groups(linear, part, lr, proxy_lr / lr)
    optimizer = torch.optim.AdamW(groups, weight_decay=decay)
    results = {}
    for step in range(fixture.config["steps"]):
        embeddings = nn.functional.normalize(linear(fixture.inputs[f"x{step}"]))
        value = part(embeddings, fixture.inputs[f"y{step}"])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_value_([*linear.parameters(), *part.parameters()], clip)
        optimizer.step()
        results[f"out/loss{step}"] = value
    return results | {"out/embedding.weight": linear.weight, "out/proxies": part.proxies}


KINDS = {"loss": loss, "head": head, "recall": recall, "train_steps": train_steps}
