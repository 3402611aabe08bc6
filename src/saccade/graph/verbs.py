"""Correct & Smooth on a person's own graph: CSV or npz files in, a CSV of predictions out."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.graph.adjacency import Graph
from saccade.graph.correct_and_smooth import CorrectAndSmooth
from saccade.graph.nodes import check_probabilities
from saccade.graph.tuning import draw_settings, tune

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class GraphFiles:
    """A person's graph as it was read and checked.

    Args:
        graph: Undirected.
        prob: Base probabilities.
        labels: Class of each node; -1 where it is not known.
        train: Nodes whose label is used.
        valid: Nodes that settings are chosen on.
        test: Nodes whose label is there only to measure with.
        classes: Name of each class.
    """

    graph: Graph
    prob: Float[Tensor, "n k"]
    labels: Int[Tensor, " n"]
    train: Bool[Tensor, " n"]
    valid: Bool[Tensor, " n"]
    test: Bool[Tensor, " n"]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Smoothed:
    """What `saccade smooth` gives.

    Args:
        scores: Corrected and smoothed scores, in [0, 1].
        setting: What was used.
        summary: Counts and accuracies, as JSON.
    """

    scores: Float[Tensor, "n k"]
    setting: CorrectAndSmooth
    summary: dict[str, Any]


def smooth(files: GraphFiles, setting: CorrectAndSmooth, trials: int = 0, keep_valid: bool = False) -> Smoothed:
    """Correct and smooth base predictions, with given settings or with the best of a search.

    Args:
        files: The graph.
        setting: What to use where nothing is searched; its `stages`, `mode` and numbers of steps hold for the search.
        trials: Number of random settings to choose from on the validation nodes; 0: none.
        keep_valid: Keep validation labels out of the final prediction, which otherwise uses them too.

    Returns:
        Scores, settings and a summary.

    Raises:
        ValueError: No training nodes, or a search without validation nodes.
    """
    if not bool(files.train.any()):
        raise ValueError("there are no training nodes: at least one node needs a label to learn the errors from")
    accuracy: dict[str, Any] = {}
    if trials:
        if not bool(files.valid.any()):
            raise ValueError("to choose settings, some nodes of the labels have to be marked `valid`")
        drawn = draw_settings(trials, 0, [setting.mode], stages=setting.stages)
        found = tune(files.prob, files.labels, files.train, files.valid, files.graph, [setting, *drawn])
        setting = found.best
    if bool(files.valid.any()):
        scores = setting(files.prob, files.labels, files.train, files.graph)
        accuracy["valid"] = _before_and_after(files, scores, files.valid)
    labelled = files.train if keep_valid else files.train | files.valid
    scores = setting(files.prob, files.labels, labelled, files.graph)
    if bool(files.test.any()):
        accuracy["test"] = _before_and_after(files, scores, files.test)
    unknown = ~labelled
    changed = (scores.argmax(1) != files.prob.argmax(1)) & unknown
    summary = {
        "nodes": files.graph.num_nodes,
        "edges": files.graph.num_edges,
        "classes": len(files.classes),
        "isolated_nodes": len(files.graph.isolated),
        "labelled_nodes": int(labelled.sum()),
        "predicted_nodes": int(unknown.sum()),
        "changed_predictions": int(changed.sum()),
        "accuracy": accuracy,
        "settings": asdict(setting),
        "trials": trials,
    }
    return Smoothed(scores, setting, summary)


def read_graph(edges: Path, labels: Path | None = None, predictions: Path | None = None) -> GraphFiles:
    """Read a graph from CSV files, or from one npz that holds all.

    Args:
        edges: CSV with two columns of node ids, and a third of weights if wanted; or an npz with `edge_index` (2, e)
            and, where the other two files are not given, `prob` (n, k), `labels` (n,), `train`, and if wanted `valid`
            and `test` (ids or masks).
        labels: CSV with columns `node,label`, and if wanted `split` (`train`, `valid` or `test`; `train` where there is
            no such column).
        predictions: CSV of base probabilities, one row a node in the order of ids; its header names the classes. A
            first column called `node` gives the ids. Or an npz with `prob`.

    Returns:
        The graph.

    Raises:
        ValueError: What is wrong, with file and line.
        FileNotFoundError: A file that is not there.
    """
    for path in filter(None, (edges, labels, predictions)):
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
    archive = _npz(edges) if edges.suffix == ".npz" else {}
    if predictions is None:
        prob, classes = _floats(_entry(archive, "prob", edges)), None
    elif predictions.suffix == ".npz":
        prob, classes = _floats(_entry(_npz(predictions), "prob", predictions)), None
    else:
        prob, classes = _read_predictions(predictions)
    try:
        check_probabilities(prob)
    except ValueError as error:
        raise ValueError(f"{predictions or edges}: {error}") from None
    names = classes or tuple(str(number) for number in range(prob.shape[1]))
    graph = _read_edges(edges, archive, len(prob))
    if labels is None:
        known, parts = _labels_of(archive, edges, len(prob))
    else:
        known, parts = _read_labels(labels, len(prob), names)
    for part, mask in parts.items():
        wrong = mask & ((known < 0) | (known >= prob.shape[1]))
        if bool(wrong.any()):
            node = int(wrong.nonzero()[0])
            raise ValueError(
                f"{labels or edges}: {part} node {node} has label {int(known[node])}, "
                f"but the predictions have {prob.shape[1]} classes (0 to {prob.shape[1] - 1})"
            )
    return GraphFiles(graph, prob, known, parts["train"], parts["valid"], parts["test"], names)


def write_predictions(path: Path, files: GraphFiles, smoothed: Smoothed) -> None:
    """Write `node, prediction, confidence, base_prediction, part` and the scores of all classes, one row a node.

    Args:
        path: The CSV; its folder is made where it is not there.
        files: What was read.
        smoothed: What came out.

    Raises:
        OSError: It cannot be written; the message names it.
    """
    parts = np.full(len(files.prob), "", dtype=object)
    for part in PARTS:
        parts[getattr(files, part).numpy()] = part
    best, base = smoothed.scores.argmax(1).tolist(), files.prob.argmax(1).tolist()
    share = smoothed.scores / smoothed.scores.sum(1, keepdim=True).clamp_min(1e-12)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            scores = [f"score_{name}" for name in files.classes]
            table.writerow(["node", "prediction", "confidence", "base_prediction", "part", *scores])
            for node, row in enumerate(smoothed.scores.tolist()):
                first = [node, files.classes[best[node]], f"{float(share[node, best[node]]):.4f}"]
                table.writerow([*first, files.classes[base[node]], parts[node], *(f"{value:.6g}" for value in row)])
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None


def _before_and_after(files: GraphFiles, scores: Float[Tensor, "n k"], nodes: Bool[Tensor, " n"]) -> dict[str, float]:
    right = {"base": files.prob, "smoothed": scores}
    return {
        name: round(float((values.argmax(1) == files.labels)[nodes].double().mean()), 4)
        for name, values in right.items()
    }


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise ValueError(f"{path} is no npz file of plain arrays: {error}") from None


def _entry(archive: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in archive:
        there = f"it holds {', '.join(archive)}" if archive else "give a file for it"
        raise ValueError(f"{path} has no {name!r}: {there}")
    return archive[name]


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Rows with their line numbers; empty lines and comments are left out."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file)
            rows = [(table.line_num, [field.strip() for field in row]) for row in table]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file") from None
    return [(line, row) for line, row in rows if any(row) and not row[0].startswith("#")]


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _id(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _check_id(path: Path, line: int, node: int, num_nodes: int) -> None:
    if not 0 <= node < num_nodes:
        ids = f"(ids 0 to {num_nodes - 1})"
        raise ValueError(f"{path}, line {line}: node {node}, but there are predictions for {num_nodes} nodes {ids}")


def _read_edges(path: Path, archive: Mapping[str, np.ndarray], num_nodes: int) -> Graph:
    weights: list[float] = []
    if path.suffix == ".npz":
        pairs = np.asarray(_entry(archive, "edge_index", path))
        if pairs.ndim != 2 or pairs.shape[0] != 2 or pairs.dtype.kind not in "iu":
            raise ValueError(f"{path}: edge_index should be integers (2, e), not {pairs.dtype} {pairs.shape}")
        edges = torch.from_numpy(pairs.astype(np.int64))
    else:
        rows = _rows(path)
        if rows and not _number(rows[0][1][0]):
            rows = rows[1:]
        ends: list[tuple[int, int]] = []
        for line, row in rows:
            if len(row) not in (2, 3) or not all(map(_id, row[:2])) or not all(map(_number, row[2:])):
                raise ValueError(f"{path}, line {line}: expected two ids and perhaps a weight, not {','.join(row)}")
            ends.append((int(row[0]), int(row[1])))
            for node in ends[-1]:
                _check_id(path, line, node, num_nodes)
            if len(row) == 3:
                weights.append(float(row[2]))
        if weights and len(weights) != len(ends):
            raise ValueError(f"{path}: some edges have a weight and some have none")
        edges = torch.tensor(ends, dtype=torch.int64).reshape(-1, 2).T
    try:
        if weights:
            size = (num_nodes, num_nodes)
            return Graph(torch.sparse_coo_tensor(edges, torch.tensor(weights), size, check_invariants=False))
        return Graph(edges, num_nodes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_predictions(path: Path) -> tuple[Tensor, tuple[str, ...] | None]:
    rows = _rows(path)
    if not rows:
        raise ValueError(f"{path} is empty")
    header = None if all(map(_number, rows[0][1])) else rows[0][1]
    rows = rows if header is None else rows[1:]
    if not rows:
        raise ValueError(f"{path} has no row of predictions")
    for line, row in rows:
        if len(row) != len(header or rows[0][1]) or not all(map(_number, row)):
            raise ValueError(f"{path}, line {line}: expected {len(header or rows[0][1])} numbers, not {','.join(row)}")
    values = np.array([row for _, row in rows], dtype=np.float64).reshape(len(rows), -1)
    if header and header[0].lower() == "node":
        order = values[:, 0]
        if sorted(order.tolist()) != list(range(len(order))):
            raise ValueError(f"{path}: the column node should hold every id from 0 to {len(order) - 1} once")
        values, header = values[np.argsort(order), 1:], header[1:]
    return _floats(values), tuple(header) if header else None


def _read_labels(path: Path, num_nodes: int, classes: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    known = torch.full((num_nodes,), -1, dtype=torch.int64)
    parts = {part: torch.zeros(num_nodes, dtype=torch.bool) for part in PARTS}
    rows = _rows(path)
    if rows and not _id(rows[0][1][0]):
        rows = rows[1:]
    for line, row in rows:
        if len(row) not in (2, 3) or not _id(row[0]):
            raise ValueError(f"{path}, line {line}: expected node,label or node,label,split, not {','.join(row)}")
        node, part = int(row[0]), row[2] if len(row) == 3 else "train"
        _check_id(path, line, node, num_nodes)
        if part not in PARTS:
            raise ValueError(f"{path}, line {line}: unknown split {part!r}: one of {', '.join(PARTS)}")
        if known[node] >= 0:
            raise ValueError(f"{path}, line {line}: node {node} has a label already")
        if row[1] in classes:
            known[node] = classes.index(row[1])
        elif row[1].isdigit() and int(row[1]) < len(classes):
            known[node] = int(row[1])
        else:
            raise ValueError(
                f"{path}, line {line}: label {row[1]!r} is out of range: the predictions have {len(classes)} classes "
                f"({', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''})"
            )
        parts[part][node] = True
    return known, parts


def _labels_of(archive: Mapping[str, np.ndarray], path: Path, num_nodes: int) -> tuple[Tensor, dict[str, Tensor]]:
    values = _entry(archive, "labels", path)
    if values.shape != (num_nodes,) or values.dtype.kind not in "iu":
        raise ValueError(f"{path}: labels should be {num_nodes} integers, not {values.dtype} {values.shape}")
    parts = {}
    for part in PARTS:
        mask = np.zeros(num_nodes, dtype=bool)
        if part == "train" or part in archive:
            chosen = _entry(archive, part, path)
            if chosen.dtype == bool and chosen.shape != (num_nodes,):
                raise ValueError(f"{path}: the mask {part!r} has {chosen.size} entries for {num_nodes} nodes")
            if chosen.dtype != bool and len(chosen) and (chosen.min() < 0 or chosen.max() >= num_nodes):
                raise ValueError(f"{path}: {part!r} names a node outside 0 to {num_nodes - 1}")
            mask[chosen] = True
        parts[part] = torch.from_numpy(mask)
    return torch.from_numpy(values.astype(np.int64)), parts
