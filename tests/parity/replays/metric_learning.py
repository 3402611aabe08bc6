"""Replays of the fixtures of the metric-learning toolkit: losses, distances, reducers, regularisers, tuples."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saccade.checkpoints import load_strict
from saccade.metric import distances, losses, miners, reducers, regularizers, tuples
from saccade.metric.loss_terms import terms
from saccade.metric.losses.sums import masked_logsumexp
from tests.parity.fixtures import Fixture
from tests.parity.replays import metric_learning_toolkit

HOMES: list[Any] = [losses, distances, reducers, regularizers, miners]


def build(spec: dict[str, Any], **sizes: Any) -> Any:
    """A class with its arguments, nested: {"cls": ..., "kwargs": {...}}."""
    home = next(home for home in HOMES if hasattr(home, spec["cls"]))
    return getattr(home, spec["cls"])(**sizes, **{key: argument(given) for key, given in spec["kwargs"].items()})


def argument(given: Any) -> Any:
    if isinstance(given, dict) and "cls" in given:
        return build({"kwargs": {}, **given})
    if isinstance(given, dict) and set(given) == {"tensor"}:
        return torch.tensor(given["tensor"], dtype=torch.float64)
    if isinstance(given, dict):
        return {key: argument(entry) for key, entry in given.items()}
    return float("inf") if given == "inf" else given


def loss_values(fixture: Fixture) -> dict[str, Tensor]:
    """Every loss in every call mode; modes that the fixture says to raise have to raise."""
    config, inputs = fixture.config, fixture.inputs
    results = {}
    for case, told in config["cases"].items():
        name, mode = case.split("/")
        spec = config["specs"][name]
        weights = {key.split("/")[1]: w for key, w in fixture.weights.items() if key.startswith(f"{name}/")}
        accepted = inspect.signature(getattr(losses, spec["cls"])).parameters
        sizes = {"num_classes": config["classes"], "embedding_size": config["dim"]} if weights else {}
        needed = {key for key, parameter in accepted.items() if parameter.default is parameter.empty}
        sizes = {key: size for key, size in sizes.items() if key in needed}
        if spec["cls"] == "AngularLoss":
            sizes = {"normalize_negatives": False}  # as the authors' code has it
        loss = build(spec, **sizes).double()
        if weights:
            load_strict(loss, weights)
        emb = inputs["emb"].clone().requires_grad_()
        ref = inputs["ref_emb"].clone().requires_grad_() if "ref" in mode else None
        labels = None if "nolabel" in mode else inputs["labels"]
        letter = "r" if "ref" in mode else "t"
        arity = 3 if "t3" in mode else 4 if "t4" in mode else 0
        chosen = tuple(inputs[f"{letter}{arity}_{i}"] for i in range(arity)) or None
        call = lambda: loss(emb, labels, chosen, ref, inputs["ref_labels"] if ref is not None else None)  # noqa: E731, B023
        if "raises" in told:
            try:
                call()
            except (ValueError, TypeError, AssertionError):
                continue
            raise AssertionError(f"{case} does not raise")
        value = call()
        results[f"out/{case}"] = value.reshape(fixture.expected[f"out/{case}"].shape)
        value.sum().backward()
        results[f"grad/{case}/emb"] = emb.grad
        if ref is not None:
            results[f"grad/{case}/ref_emb"] = torch.zeros_like(ref) if ref.grad is None else ref.grad
        for key, parameter in loss.named_parameters():
            results[f"grad/{case}/{key}"] = parameter.grad
    return results


def distance_values(fixture: Fixture) -> dict[str, Tensor]:
    results = {}
    a, b, b6 = (fixture.inputs[key] for key in ("a", "b", "b6"))
    for name, case in fixture.config["cases"].items():
        distance = build(case["spec"])
        assert distance.is_inverted == case["is_inverted"]
        assert distance.normalize_embeddings == case["normalize_embeddings"]
        query = a.clone().requires_grad_()
        mat = distance(query, b)
        (mat * torch.arange(1, mat.numel() + 1).reshape(mat.shape)).sum().backward()
        results |= {
            f"out/{name}/mat": mat,
            f"out/{name}/self": distance(a),
            f"out/{name}/pairwise": distance.pairwise_distance(a, b6),
            f"out/{name}/norm": distance.get_norm(a),
            f"out/{name}/margin": distance.margin(mat, 0.3),
            f"grad/{name}/a": query.grad,
        }
    return results


def reducer_values(fixture: Fixture) -> dict[str, Tensor]:
    inputs, cases = fixture.inputs, fixture.config["cases"]
    elements, pairs, triplets = inputs["element_losses"], inputs["pair_losses"], inputs["triplet_losses"]
    pair, triplet = ([inputs[f"{kind}_{i}"] for i in range(n)] for kind, n in (("pair", 2), ("triplet", 3)))
    here = torch.arange(len(elements))
    entries = {
        "element": terms(elements, here, "element"),
        "pos_pair": terms(pairs, tuple(pair), "pos_pair"),
        "neg_pair": terms(pairs, tuple(pair), "neg_pair"),
        "triplet": terms(triplets, tuple(triplet), "triplet"),
        "already_reduced": terms(torch.tensor(1.25, dtype=torch.float64), None, "already_reduced"),
        "zero": terms(0, None, "already_reduced"),
    }
    built: dict[str, Any] = {
        "mean": reducers.MeanReducer(),
        "sum": reducers.SumReducer(),
        "avgnonzero": reducers.AvgNonZeroReducer(),
        "classweighted": reducers.ClassWeightedReducer(inputs["class_weights"]),
        "divisor": reducers.DivisorReducer(),
        "peranchor": reducers.PerAnchorReducer(),
        "peranchor_anz": reducers.PerAnchorReducer(reducers.AvgNonZeroReducer()),
    }
    built |= {name: reducers.ThresholdReducer(**given) for name, given in cases.items() if name.startswith("thresh")}
    results = {}
    for name, reducer in built.items():
        for kind, entry in entries.items():
            if "raises" in cases.get(f"{name}/{kind}", {}):
                continue
            divided = {**entry, "divisor": cases["divisor"]["divisor"]}
            results[f"out/{name}/{kind}"] = reducer({"loss": divided}, inputs["emb"], inputs["labels"])
    several = reducers.MultipleReducers({"a": reducers.SumReducer()}, reducers.AvgNonZeroReducer())
    three = {"a": entries["element"], "b": entries["pos_pair"], "c": entries["triplet"]}
    return results | {"out/multiple": several(three, inputs["emb"], inputs["labels"])}


def regularizer_values(fixture: Fixture) -> dict[str, Tensor]:
    cases = fixture.config["cases"]
    classes = {
        "lp": "LpRegularizer",
        "zeromean": "ZeroMeanRegularizer",
        "center_invariant": "CenterInvariantRegularizer",
        "regularface": "RegularFaceRegularizer",
        "sparse_centers": "SparseCentersRegularizer",
    }
    results = {}
    for key in fixture.part("out"):
        name = next(name for name in sorted(classes, key=len, reverse=True) if key.startswith(name))
        w = fixture.inputs["w"].clone().requires_grad_()
        value = getattr(regularizers, classes[name])(**cases.get(key, {}))(w)
        value.backward()
        results |= {f"out/{key}": value, f"grad/{key}": w.grad}
    return results


def utilities(fixture: Fixture) -> dict[str, Tensor]:
    inputs = fixture.inputs
    labels, ref_labels = inputs["labels"], inputs["ref_labels"]
    sub3 = tuple(inputs[f"sub3_{i}"] for i in range(3))
    pairs = tuples.all_pairs(labels)
    named: dict[str, tuple[Tensor, ...]] = {
        "all_pairs": pairs,
        "all_pairs_ref": tuples.all_pairs(labels, ref_labels),
        "all_triplets": tuples.all_triplets(labels),
        "all_triplets_ref": tuples.all_triplets(labels, ref_labels),
        "pairs_to_triplets": tuples.to_triplets(pairs, labels),
        "triplets_to_pairs": tuples.to_pairs(tuples.all_triplets(labels), labels),
        "shift3": tuples.located(sub3, torch.arange(len(labels), 2 * len(labels))),
        "unique_pos_pairs": tuples.one_positive_per_class(labels),
    }
    standing = {"noself": "mem", "noself_wrap": "mem_wrap"}
    text = fixture.config[
        "what"
    ]  # "noself: current batch occupies memory rows 2..8 of 10; noself_wrap: rows 6,7,... of 10"
    for name, memory in standing.items():
        said = text.split(f"{name}:")[1].split("rows ")[1].split(" of")[0]
        first, *others = said.split("..") if ".." in said else said.split(",")
        rows = range(int(first), int(others[0]) + 1) if ".." in said else [int(row) for row in said.split(",")]
        found = tuples.all_pairs(labels, inputs[memory])
        named[name] = tuples.without_self_comparisons(found, torch.tensor(list(rows)), len(inputs[memory]))
    results = {f"out/{name}_{i}": index for name, indices in named.items() for i, index in enumerate(indices)}
    results["out/weights_none"] = tuples.appearance_weights(None, len(labels))
    results["out/weights_t3"] = tuples.appearance_weights(sub3, len(labels))
    results["out/weights_ref"] = tuples.appearance_weights(sub3, len(labels), using_ref=True)
    x, mask = inputs["x"], inputs["keep_mask"]
    for dim in (0, 1):
        value = masked_logsumexp(x, mask, dim)
        empty = ~mask.any(dim=dim)
        results[f"out/logsumexp_0_{dim}"] = torch.where(empty, 0, value).unsqueeze(dim)
        results[f"out/logsumexp_1_{dim}"] = torch.nn.functional.softplus(value).unsqueeze(dim)
    return results


def special(fixture: Fixture) -> dict[str, Tensor]:
    results: dict[str, Tensor] = {}
    for name, case in fixture.config["cases"].items():
        inputs = {key.split("/")[1]: t for key, t in fixture.inputs.items() if key.startswith(f"{name}/")}
        weights = {key.split("/")[1]: t for key, t in fixture.weights.items() if key.startswith(f"{name}/")}
        for key, given in SPECIAL[case["cls"]](case, inputs, weights).items():
            results[f"grad/{name}/{key[5:]}" if key.startswith("grad/") else f"out/{name}{key}"] = given
    return results


def _kwargs(case: dict[str, Any]) -> dict[str, Any]:
    return {key: given for key, given in case.items() if key not in ("cls", "call", "inner", "miner", "symmetric")}


def _smooth_ap(case: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    emb = inputs["emb"].requires_grad_()
    value = losses.SmoothAPLoss(**_kwargs(case))(emb, inputs["labels"])
    value.backward()
    return {"": value, "grad/emb": emb.grad}


def _dynamic(case: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    loss = losses.DynamicSoftMarginLoss(**_kwargs(case))
    if "labels" not in inputs:
        return {"": loss(inputs["emb"], ref_emb=inputs["ref_emb"]), "/hist": loss.hist_}
    results = {}
    for call in (1, 2):
        results[f"/loss{call}"] = loss(inputs[f"emb{call}"], inputs["labels"])
        results[f"/hist{call}"] = loss.hist_
    return results


def _manifold(case: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    loss = losses.ManifoldLoss(**_kwargs(case)).double()
    load_strict(loss, weights)
    emb = inputs["emb"].requires_grad_()
    value = loss(emb, indices_tuple=inputs["meta_classes"])
    value.backward()
    return {"": value, "grad/emb": emb.grad, "grad/proxies": loss.proxies.grad}


def _two_views(case: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    emb, ref = inputs["emb"].requires_grad_(), inputs["ref_emb"].requires_grad_()
    if case["cls"] == "SelfSupervisedLoss":
        value = losses.SelfSupervisedLoss(build(case["inner"]), symmetric=case["symmetric"])(emb, ref)
    else:
        value = losses.VICRegLoss(**_kwargs(case))(emb, ref_emb=ref)
    value.backward()
    return {"": value, "grad/emb": emb.grad, "grad/ref_emb": ref.grad}


def _p2s(case: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    loss = losses.P2SGradLoss(*weights["weight"].shape).double()
    load_strict(loss, weights)
    emb = inputs["emb"].requires_grad_()
    value = loss(emb, inputs["labels"])
    value.backward()
    return {"": value, "/weight_after": loss.weight, "grad/emb": emb.grad, "grad/weight": loss.weight.grad}


def _multiple(case: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    def made(text: str | None) -> Any:
        if text is None:
            return None
        home = next(home for home in HOMES if hasattr(home, text.split("(")[0]))
        given = [pair.split("=") for pair in text.split("(")[1].rstrip(")").split(",") if pair]
        return getattr(home, text.split("(")[0])(**{key.strip(): float(number) for key, number in given})

    emb = inputs["emb"].requires_grad_()
    inner, chosen = ([made(text) for text in case[key]] for key in ("losses", "miners"))
    value = losses.MultipleLosses(inner, chosen, case["weights"])(emb, inputs["labels"])
    value.backward()
    return {"": value, "grad/emb": emb.grad}


def _sub_centers(case: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    size, columns = weights["W"].shape
    number = case["sub_centers"]
    loss = losses.SubCenterArcFaceLoss(num_classes=columns // number, embedding_size=size, sub_centers=number).double()
    load_strict(loss, weights)
    threshold = float(case["call"].split("threshold=")[1].split(")")[0])
    outliers, dominant = loss.get_outliers(inputs["emb"], inputs["labels"], threshold=threshold)
    return {"/idx": outliers, "/dominant_centers": dominant, "/logits": loss.get_logits(inputs["emb"])}


def _memory(case: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    miner = None if case["miner"] is None else build(case["miner"])
    loss = losses.CrossBatchMemory(build(case["inner"]), inputs["emb0"].shape[1], case["memory_size"], miner)
    results = {}
    for step in [key.removeprefix("emb") for key in inputs if key.startswith("emb") and key != "emb_mask"]:
        emb = inputs[f"emb{step}"].requires_grad_()
        value = loss(emb, inputs[f"labels{step}"])
        value.backward()
        results |= {f"/loss{step}": value, f"grad/emb{step}": emb.grad}
    emb = inputs["emb_mask"].requires_grad_()
    value = loss(emb, inputs["labels_mask"], enqueue_mask=inputs["enqueue_mask"])
    value.backward()
    results |= {"/loss_mask": value, "grad/emb_mask": emb.grad}
    kept = {"/embedding_memory": loss.embedding_memory, "/label_memory": loss.label_memory}
    return results | kept | {"/queue_idx": torch.tensor(loss.queue_idx)}


SPECIAL: dict[str, Callable[..., dict[str, Tensor]]] = {
    "SmoothAPLoss": _smooth_ap,
    "DynamicSoftMarginLoss": _dynamic,
    "ManifoldLoss": _manifold,
    "VICRegLoss": _two_views,
    "SelfSupervisedLoss": _two_views,
    "P2SGradLoss": _p2s,
    "MultipleLosses": _multiple,
    "SubCenterArcFaceLoss": _sub_centers,
    "CrossBatchMemory": _memory,
}


def left_out(fixture: Fixture) -> dict[str, str]:
    """Entries in which the authors' code compares with the wrong samples of a reference set: see the errata."""
    reasons = {
        "ThresholdConsistentMarginLoss": "reads the batch where the references are meant",
        "LiftedStructureLoss": "takes the negatives of another anchor for those of a positive in the reference set",
        "TripletMarginLoss": "with swap, reads the row of another anchor for the distances of a positive",
    }
    entries = dict(metric_learning_toolkit.ACCURACY_LEFT_OUT) if fixture.kind == "accuracy" else {}
    for case in fixture.config.get("cases", ()) if fixture.kind == "losses" else ():
        name, mode = case.split("/")
        spec = fixture.config["specs"][name]
        plain = spec["cls"] == "TripletMarginLoss" and not spec["kwargs"].get("swap")
        if mode.startswith("ref") and spec["cls"] in reasons and not plain:
            keys = (f"out/{case}", f"grad/{case}/emb", f"grad/{case}/ref_emb")
            entries |= dict.fromkeys(keys, reasons[spec["cls"]])
    return entries


KINDS = {
    "losses": loss_values,
    "losses_special": special,
    "distances": distance_values,
    "reducers": reducer_values,
    "regularizers": regularizer_values,
    "utils": utilities,
    "miners": metric_learning_toolkit.miners,
    "accuracy": metric_learning_toolkit.accuracy,
}
