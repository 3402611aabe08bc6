"""Replays of Correct and Smooth: `graph` (matrices, both stages, label propagation) and `features`."""

import re

import torch
from torch import Tensor

from saccade.graph import (
    CorrectAndSmooth,
    Graph,
    LabelPropagation,
    diffusion_features,
    normalized_adjacency,
    spectral_features,
)
from saccade.graph.features import spectral_basis
from tests.parity.fixtures import Fixture


def graph(fixture: Fixture) -> dict[str, Tensor]:
    tensors, config = fixture.inputs, fixture.config
    prob, labels, edges = tensors["base_prob"], tensors["labels"], tensors["edge_index"]
    known = {"train": tensors["train"], "train+valid": torch.cat([tensors["train"], tensors["valid"]])}
    results = {
        f"out/{kind}": normalized_adjacency(edges, len(prob), kind, torch.float64).to_dense()
        for kind in ("DAD", "DA", "AD")
    }
    together = Graph(edges, len(prob))
    correct_steps, smooth_steps = config["num_propagations"]
    for name, case in config["cases"].items():
        scale = case["scale"] if isinstance(case["scale"], (int, float)) else 1.0
        settings = CorrectAndSmooth(
            correct_alpha=case.get("alpha1", config["alpha1"]),
            smooth_alpha=case.get("alpha2", config["alpha2"]),
            correct_adj=case["A1"],
            smooth_adj=case["A2"],
            num_correct_steps=correct_steps,
            num_smooth_steps=smooth_steps,
            mode=case["mode"],
            scale=scale,
        )
        labelled = known[case["labels"]]
        results[f"out/{name}/corrected"] = settings.correct(prob, labels, labelled, together)
        results[f"out/{name}/smoothed"] = settings(prob, labels, labelled, edges)
    for name in ("label_propagation", "label_propagation_dad_05", "smooth_only"):
        kind, alpha, steps, labelled = _from_note(fixture.json["note"], name)
        if name == "smooth_only":
            smooth = CorrectAndSmooth(smooth_alpha=alpha, smooth_adj=kind, num_smooth_steps=steps, stages="smooth")
            results[f"out/{name}"] = smooth(prob, labels, known[labelled], together)
        else:
            spread = LabelPropagation(alpha, steps, kind)
            results[f"out/{name}"] = spread(labels, known[labelled], edges, prob.shape[1], torch.float64)
    return results


def features(fixture: Fixture) -> dict[str, Tensor]:
    tensors, config = fixture.inputs, fixture.config
    adjacency = tensors["adjacency"].to_sparse()
    steps = re.search(r"(\d+) steps", config["diffusion"])
    alpha = re.search(r"alpha ([\d.]+\d)", config["diffusion"])
    assert steps
    assert alpha
    tau = None if config["tau"] == "mean degree" else float(config["tau"])
    values, vectors = spectral_basis(Graph(adjacency), config["k"], tau)
    return {
        "out/diffusion": diffusion_features(adjacency, tensors["features"], int(steps[1]), float(alpha[1])),
        "out/eigenvalues": values,
        "out/spectral_projector": vectors @ vectors.T,
        "out/spectral_rotated": spectral_features(adjacency, config["k"], tau, dtype=torch.float64),
    }


def _from_note(note: str, name: str) -> tuple[str, float, int, str]:
    """The settings that stand in a fixture's note alone: `NAME: KIND, alpha A[, T steps], LABELS`."""
    found = re.search(rf"\b{name}: (DAD|DA|AD), alpha ([\d.]+\d)(?:, (\d+) steps)?, (train\+valid|train)", note)
    assert found, f"the note does not say how {name} was made"
    kind, alpha, steps, labelled = found.groups()
    return kind, float(alpha), int(steps or 50), labelled


KINDS = {"graph": graph, "features": features}
