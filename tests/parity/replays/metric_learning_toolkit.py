"""Replays of the miners and of the accuracy calculator, for `metric_learning.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saccade.metric import distances
from saccade.metric import miners as all_miners
from saccade.metric.accuracy import AccuracyCalculator
from saccade.metric.inference import CustomKNN, FaissKNN, FlatL2, MatchFinder
from tests.parity.fixtures import Fixture

ACCURACY_LEFT_OUT = {
    f"out/{key}": "exact ties, in the chance order of a float32 topk (the card: compare knn_incl by dist)"
    for key in (
        "knn_incl/idx",
        "ref_incl/cosknn/mean_average_precision",
        "ref_incl/cosknn/mean_average_precision_at_r",
        "ref_incl/cosknn/mean_reciprocal_rank",
        "ref_incl/cosknn/precision_at_1",
        "ref_incl/cosknn/r_precision",
    )
}


def miners(fixture: Fixture) -> dict[str, Tensor]:
    inputs, expected = fixture.inputs, fixture.expected
    embeddings, labels = inputs["emb"], inputs["labels"]
    modes: dict[str, tuple[Tensor, ...]] = {"self": (embeddings, labels)}
    if "ref_emb" in inputs:
        modes["ref"] = (*modes["self"], inputs["ref_emb"], inputs["ref_labels"])
    results: dict[str, Tensor] = {}
    for name, case in fixture.config["cases"].items():
        miner = _built(case)
        for mode, arguments in modes.items():
            key = f"out/{name}/{mode}"
            if f"{key}_weights" in expected:
                weights = miner.probabilities(*arguments)
                nothing = weights.sum(dim=1, keepdim=True) == 0  # 0 / 0 in the authors' code
                results[f"{key}_weights"] = weights.masked_fill(nothing, torch.nan)
                continue
            stored = [expected[f"{key}_{i}"] for i in range(4) if f"{key}_{i}" in expected]
            if not stored:
                continue
            if case["cls"] == "EmbeddingsAlreadyPackagedAsTriplets":  # called with the rows that make whole triplets
                rows = 3 * len(stored[0])
                arguments = (embeddings[:rows], labels[:rows])
            mined = miner(*arguments)
            sides = [slice(0, 3)] if len(stored) == 3 else [slice(0, 2), slice(2, 4)]
            swaps = case["cls"] == "HDCMiner" and mode == "self"
            for side in sides:
                aligned = _in_stored_order(mined[side], stored[side], swaps)
                results |= {f"{key}_{side.start + i}": index for i, index in enumerate(aligned)}
    return results


def _built(case: Mapping[str, Any]) -> Any:
    kwargs = dict(case.get("kwargs", {}))
    if "distance" in kwargs:
        kwargs["distance"] = getattr(distances, kwargs["distance"]["cls"])(**kwargs["distance"].get("kwargs", {}))
    return getattr(all_miners, case["cls"])(**kwargs)


def _in_stored_order(mined: Sequence[Tensor], stored: Sequence[Tensor], swaps: bool) -> list[Tensor]:
    """The same tuples, in the order in which they are stored; they are compared as sets."""
    ours, theirs = (sorted(zip(*(index.tolist() for index in side), strict=True)) for side in (mined, stored))
    if swaps and ours != theirs:  # d_ij = d_ji: of the last pair either may be kept
        extra, missing = set(ours) - set(theirs), set(theirs) - set(ours)
        if len(extra) == 1 and {pair[::-1] for pair in extra} == missing:
            ours = sorted((set(ours) - extra) | missing)
    if len(ours) != len(theirs):
        return list(mined)
    keys = list(zip(*(index.tolist() for index in stored), strict=True))
    places = sorted(range(len(keys)), key=keys.__getitem__)
    columns = torch.tensor(ours, dtype=torch.int64).reshape(len(ours), len(mined))
    aligned = torch.empty_like(columns)
    aligned[places] = columns
    return list(aligned.T)


def _label_comparison(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs() <= 1


def accuracy(fixture: Fixture) -> dict[str, Tensor]:
    inputs, expected, metrics = fixture.inputs, fixture.expected, tuple(fixture.config["metrics"])
    query, query_labels = inputs["query"], inputs["query_labels"]
    reference, reference_labels = inputs["reference"], inputs["reference_labels"]
    joined = (torch.cat([query, reference]), torch.cat([query_labels, reference_labels]))
    modes: dict[str, tuple[Any, ...]] = {
        "self": (query, query_labels),
        "ref": (query, query_labels, reference, reference_labels),
        "ref_incl": (query, query_labels, *joined, True),
    }
    options: dict[str, dict[str, Any]] = {
        "": {},
        "avg_of_avgs/": {"avg_of_avgs": True},
        "per_class/": {"return_per_class": True},
        "k_maxbin/": {"k": "max_bin_count"},
        "cosknn/": {"knn_func": CustomKNN(distances.CosineSimilarity())},
    }
    options |= {  # k3, and whatever other number a fixture names
        f"{part}/": {"k": int(part[1:])}
        for part in {key.split("/")[2] for key in expected if key.count("/") == 3}
        if part[0] == "k" and part[1:].isdigit()
    }
    results: dict[str, Tensor] = {}

    def add(prefix: str, arguments: tuple[Any, ...], **kwargs: Any) -> None:
        calculator = AccuracyCalculator(include=metrics, device="cpu", **kwargs)
        for name, value in calculator.get_accuracy(*arguments).items():
            results[f"out/{prefix}{name}"] = torch.tensor(value, dtype=torch.float64)

    for mode, arguments in modes.items():
        for part, kwargs in options.items():
            add(f"{mode}/{part}", arguments, **kwargs)
    add("label_fn/", modes["ref"], label_comparison_fn=_label_comparison)

    clusters = {"query_labels": query_labels, "cluster_labels": inputs["cluster_labels"]}
    calculator = AccuracyCalculator(device="cpu")
    results["out/NMI"] = torch.tensor(calculator.calculate_NMI(**clusters), dtype=torch.float64)
    results["out/AMI"] = torch.tensor(calculator.calculate_AMI(**clusters), dtype=torch.float64)

    euclidean = CustomKNN(distances.LpDistance(normalize_embeddings=False))
    k = expected["out/knn/idx"].shape[1]
    results["out/knn/dist"], results["out/knn/idx"] = euclidean(query, k, reference)
    results["out/knn_incl/dist"], results["out/knn_incl/idx"] = euclidean(query, k, joined[0], ref_includes_query=True)
    squared, results["out/knn_faiss/idx"] = FaissKNN(index_init_fn=FlatL2)(query.float(), k, reference.float())
    results["out/knn_faiss/dist_squared_l2"] = squared
    finder = MatchFinder(distances.CosineSimilarity(), threshold=0.5)
    results["out/matches"] = torch.from_numpy(finder.get_matching_pairs(query, reference))
    return results
