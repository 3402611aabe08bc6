"""The claim of Correct and Smooth: the paper's table on small graphs, measured again with its own protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.claims import Arm, Axis, Beats, Budget, Cell, Claim, Data, Metric, Outcome, Within
from saccade.graph.adjacency import Graph
from saccade.graph.base import EPOCHS, SparseFeatures, base_predictor, fit_base
from saccade.graph.datasets import NodeData, Split, load_planetoid, random_split
from saccade.graph.pictures import by_known_neighbours, confidence, neighbourhood
from saccade.graph.tuning import draw_settings, tune
from saccade.worlds.graphs import citation_graph


def run(cell: Cell) -> Outcome:
    """One arm on one split: fit the base predictor (once a seed), tune on validation nodes, predict the test nodes."""
    data = _data(cell)
    graph = Graph(data.edge_index, data.num_nodes).to(cell.device)
    labels, split = data.labels.to(cell.device), random_split(data.labels, cell.seed)
    base = cell.options.get("base", "")
    fitted = cell.once(base, lambda: _fit(cell, data, split)) if base else {}
    prob = fitted["prob"].to(cell.device) if base else None
    outcome = Outcome({})
    if not cell.options.get("stages"):
        outcome.metrics = dict.fromkeys(("accuracy", "accuracy_all"), _accuracy(fitted["prob"], data.labels, split))
        outcome.curves = {name: list(enumerate(fitted[name].tolist(), 1)) for name in ("loss", "valid")}
        return outcome
    settings = draw_settings(
        cell.settings["num_trials"], cell.seed, [cell.options.get("mode", "autoscale")], stages=cell.options["stages"]
    )
    best = tune(prob, labels, split.train, split.valid, graph, settings, data.num_classes).best
    start = prob if prob is not None else torch.zeros(data.num_nodes, data.num_classes, device=cell.device)

    def predict(labelled: Tensor, steps: int | None = None) -> Float[Tensor, "n k"]:
        setting = best if steps is None else replace(best, num_smooth_steps=steps)
        # Without a base predictor there is nothing to correct, and nothing that would have to be a distribution.
        step = setting.smooth if prob is None else setting
        return step(start, labels, labelled, graph).cpu()

    scores = predict(split.train)
    with_valid = predict(torch.cat([split.train, split.valid]))
    outcome.metrics = {
        "accuracy": _accuracy(scores, data.labels, split),
        "accuracy_all": _accuracy(with_valid, data.labels, split),
    }
    if best.stages != "correct":
        outcome.curves["steps"] = [
            (steps, _accuracy(predict(split.train, steps), data.labels, split)) for steps in (1, 2, 3, 5, 10, 20, 50)
        ]
    if prob is not None and cell.seed == 0 and cell.options.get("pictures"):
        before = prob.cpu()
        outcome.pictures = {
            "part of the graph before and after; a red ring marks a wrong paper, a square one whose label is known": (
                neighbourhood(data, split, before, scores)
            ),
            "test accuracy by the number of neighbours whose label is known": (
                by_known_neighbours(data, split, before, scores)
            ),
            "confidence of right and wrong test predictions, before and after": confidence(data, split, before, scores),
        }
    return outcome


def _data(cell: Cell) -> NodeData:
    if cell.data != "citations":
        return load_planetoid(cell.data_root / "planetoid", cell.data, features="base" in cell.options)
    world = citation_graph(cell.seed, num_nodes=cell.settings["num_nodes"])
    features = SparseFeatures.of(world.features)
    return NodeData("citations", world.edge_index, world.labels, world.num_classes, features)


def _fit(cell: Cell, data: NodeData, split: Split) -> dict[str, Tensor]:
    kind, features = cell.options["base"], data.features
    if features is None:
        raise ValueError(f"{data.name} has no features to fit a base predictor to")
    model = base_predictor(kind, features.shape[1], data.num_classes, cell.settings["hidden"]).to(cell.device)
    epochs = max(1, round(EPOCHS[kind] * cell.settings["epochs"]))
    labels = data.labels.to(cell.device)
    fitted = fit_base(model, features.to(cell.device), labels, split.train, split.valid, epochs, progress=cell.progress)
    curves: dict[str, Any] = {"loss": fitted.loss, "valid": [100 * share for share in fitted.valid]}
    return {"prob": fitted.prob} | {name: torch.tensor(values) for name, values in curves.items()}


def _accuracy(scores: Float[Tensor, "n k"], labels: Tensor, split: Split) -> float:
    """On test nodes, in percent."""
    return 100 * float((scores[split.test].argmax(1) == labels[split.test]).double().mean())


PROTOCOL = (
    "The paper's protocol: random 60/20/20 splits over all labelled nodes, settings chosen on validation nodes. In the "
    "first column only training labels are known when test nodes are predicted, in the second validation labels too; "
    "the table does not say which of the two it shows. "
)
BEST = (
    "The paper's figure beside both C&S arms is its best over base predictors and scalings; its table is quoted to "
    "within half a point. "
)

CORRECT_AND_SMOOTH = Claim(
    slug="correct-and-smooth",
    statement=(
        "On Cora, Correct and Smooth lifts a linear model by at least 10 points and an MLP by at least 7, and beats "
        "label propagation by at least 2 points: without a graph neural network, in seconds."
    ),
    paper=(
        "Simple models with C&S reach what graph neural networks reach: Cora 89.1 %, Citeseer 76.2 %, where a plain "
        "linear model has 73.9 and 70.3, a plain MLP 74.1 and 68.1, label propagation 86.5 and 70.6, a GCN 85.8 and "
        "73.7, and the best known GNN 88.5 and 78.0 (test accuracy over random splits)."
    ),
    metrics={
        "accuracy": Metric("test accuracy (%)"),
        "accuracy_all": Metric("with validation labels known (%)"),
    },
    arms={
        "lp": Arm("label propagation", {"stages": "smooth"}, baseline=True),
        "linear": Arm("linear", {"base": "linear"}, baseline=True, on=("citations", "cora", "citeseer")),
        "linear_cs": Arm(
            "linear + C&S",
            {"base": "linear", "stages": "both", "pictures": True},
            on=("citations", "cora", "citeseer"),
        ),
        "linear_fixed": Arm(
            "linear + C&S, fixed scale",
            {"base": "linear", "stages": "both", "mode": "fixed"},
            on=("citations", "cora", "citeseer"),
        ),
        "linear_correct": Arm(
            "linear + correct only",
            {"base": "linear", "stages": "correct"},
            on=("citations", "cora", "citeseer"),
        ),
        "linear_smooth": Arm(
            "linear + smooth only",
            {"base": "linear", "stages": "smooth"},
            on=("citations", "cora", "citeseer"),
        ),
        "mlp": Arm("MLP", {"base": "mlp"}, baseline=True, on=("citations", "cora", "citeseer")),
        "mlp_cs": Arm("MLP + C&S", {"base": "mlp", "stages": "both"}, on=("citations", "cora", "citeseer")),
        "mlp_fixed": Arm(
            "MLP + C&S, fixed scale",
            {"base": "mlp", "stages": "both", "mode": "fixed"},
            on=("citations", "cora", "citeseer"),
        ),
    },
    expectations=[
        Beats("linear_cs", "linear", by=10, on=("citations", "cora")),
        Beats("mlp_cs", "mlp", by=7, on=("citations", "cora")),
        Beats("mlp_cs", "lp", by=2, on=("citations", "cora")),
        Beats("linear_cs", "linear", by=3, on=("citeseer",)),
        Beats("mlp_cs", "mlp", by=2, on=("citeseer",)),
        Beats("mlp_cs", "lp", by=2, on=("citeseer",)),
        Within("lp", "accuracy", at_least=80, on=("pubmed",)),
    ],
    data={
        "citations": Data(
            "a citation-like world, drawn anew for each seed: 2,000 papers in 7 fields, 4,000 citations, bags of words",
            note="Sized so that a linear model reads its words about as well as Cora's.",
        ),
        "cora": Data(
            "Cora: 2,708 papers in 7 fields, 5,278 citations, 1,433 words",
            needs="planetoid",
            paper={"lp": 86.5, "linear": 73.9, "linear_cs": 89.1, "mlp": 74.1, "mlp_cs": 89.1},
            seeds=10,
            note=PROTOCOL
            + BEST
            + "Our plain linear model is three points below the paper's (Adam without weight decay on raw words, 1,000 "
            "epochs), the MLP two above it. The paper's label propagation lies one point above our second column and "
            "two and a half above the first: probably it knew validation labels too.",
        ),
        "citeseer": Data(
            "Citeseer: 3,327 papers in 6 fields, 4,552 citations, 3,703 words",
            needs="planetoid",
            paper={"lp": 70.6, "linear": 70.3, "linear_cs": 76.2, "mlp": 68.1, "mlp_cs": 76.2},
            seeds=10,
            note=PROTOCOL
            + BEST
            + "The 15 papers without a label are in no part. All rows agree with the paper's within a point, except "
            "that our MLP (64 hidden units) is four points better.",
        ),
        "pubmed": Data(
            "Pubmed: 19,717 papers in 3 fields, 44,324 citations; label propagation alone",
            needs="planetoid",
            paper={"lp": 83.7},
            seeds=10,
            note=PROTOCOL + "The features of most papers (ind.pubmed.allx) are not among the data, so that the arms "
            "with a base predictor cannot run here.",
        ),
    },
    budgets={
        "smoke": Budget(1, {"num_nodes": 300, "epochs": 0.03, "hidden": 16, "num_trials": 4}),
        "small": Budget(5, {"num_nodes": 2000, "epochs": 1.0, "hidden": 64, "num_trials": 100}),
        "full": Budget(10, {"num_nodes": 4000, "epochs": 1.0, "hidden": 256, "num_trials": 400}),
    },
    run=run,
    axes={
        "loss": Axis("epoch", "training loss (nats)", log_x=True),
        "valid": Axis("epoch", "validation accuracy (%)", log_x=True),
        "steps": Axis("smoothing steps", "test accuracy (%)", log_x=True),
    },
    limits=(
        "Most of the gain on these small graphs comes from smoothing: smoothing alone reaches what both steps reach, "
        "and correcting alone stays below them. Errors can only be spread where the base predictor makes some on its "
        "training nodes, which small graphs with many words hardly leave."
    ),
)
