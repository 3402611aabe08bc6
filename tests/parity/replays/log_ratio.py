"""Replays of the log-ratio fixtures."""

import re

import torch
from torch import Tensor, nn

from saccade.metric import DenseTripletLoss, LogRatioLoss, mean_label_distance_at_k, ndcg_continuous
from saccade.metric.label_triplets import triplet_hinge
from tests.parity.fixtures import Fixture


def loss(fixture: Fixture) -> dict[str, Tensor]:
    raw, distances = fixture.inputs["embeddings"], fixture.inputs["label_distances"]
    floor = quotient(fixture.config["eps_dist"].replace("dim", str(raw.shape[1])))
    parts: dict[str, tuple[nn.Module, Tensor, tuple[Tensor, ...]]] = {
        "logratio": (LogRatioLoss(fixture.config["eps_log"], floor), raw, (distances,))
    }
    margins = [float(number) for number in re.findall(r"\d*\.\d+", fixture.config["dense_triplet"])]
    for name, margin in zip(("dense_triplet", "dense_triplet_m2"), margins, strict=False):
        # "in the given order": no label distances are handed over
        parts[name] = DenseTripletLoss(margin, normalize=False), nn.functional.normalize(raw, dim=1), ()
    results = {}
    for name, (part, given, rest) in parts.items():
        embeddings = given.clone().requires_grad_()
        value = part(embeddings, *rest)
        value.backward()
        results |= {f"out/{name}": value, f"grad/{name}": embeddings.grad}
    return results


def naive_triplet(fixture: Fixture) -> dict[str, Tensor]:
    triplets = fixture.inputs["triplets"].requires_grad_()
    value = triplet_hinge(*triplets, fixture.config["margin"])
    value.backward()
    return {"out/loss": value, "grad/triplets": triplets.grad}


def evaluation(fixture: Fixture) -> dict[str, Tensor]:
    count = fixture.config["num_query"]
    embeddings, distances = fixture.inputs["embeddings"], fixture.inputs["label_distance_matrix"][:count, count:]
    scale = quotient(re.findall(r"\d+\s*/\s*\d+", fixture.config["scale"])[0])
    split = embeddings[:count], embeddings[count:], distances
    means = mean_label_distance_at_k(*split, numbers(fixture.config["K_mean_distance"]))
    gains = ndcg_continuous(*split, numbers(fixture.config["K_ndcg"]))
    return {
        "out/mean_distance": scale * torch.tensor(list(means.values()), dtype=torch.float64),
        "out/ndcg": torch.tensor(list(gains.values()), dtype=torch.float64),
    }


def quotient(text: str) -> float:
    """The value of `a / b`."""
    over, under = (float(number) for number in text.split("/"))
    return over / under


def numbers(text: str) -> list[int]:
    """From `1..10`, or `10,20,..,100`."""
    parts = [int(part) for part in re.findall(r"\d+", text)]
    if ".." not in text:
        return parts
    step = parts[1] - parts[0] if len(parts) > 2 else 1
    return list(range(parts[0], parts[-1] + 1, step))


KINDS = {"loss": loss, "naive_triplet": naive_triplet, "evaluation": evaluation}
