"""What is known of nodes: which are labelled, with which class, and what a predictor says of each."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Labelled = Int[Tensor, " l"] | Bool[Tensor, " n"]
"""Ids of nodes, or a mask over all of them."""


def labelled_index(labelled: Labelled, num_nodes: int) -> Int[Tensor, " l"]:
    """Ids of the labelled nodes, of a mask or of ids, checked.

    Raises:
        ValueError: A mask of another length, ids out of range or given twice, or none at all.
        TypeError: Neither ids nor a mask.
    """
    if labelled.ndim != 1 or labelled.is_floating_point():
        raise TypeError(
            f"labelled nodes are a vector of ids or a mask, not {labelled.dtype} of shape {tuple(labelled.shape)}"
        )
    if labelled.dtype == torch.bool:
        if len(labelled) != num_nodes:
            raise ValueError(f"the mask of labelled nodes has {len(labelled)} entries for {num_nodes} nodes")
        labelled, duplicates = labelled.nonzero().flatten(), False
    else:
        duplicates = len(labelled.unique()) < len(labelled)
    if len(labelled) == 0:
        raise ValueError("no node is labelled: at least one is needed to learn the errors from")
    if int(labelled.min()) < 0 or int(labelled.max()) >= num_nodes:
        wrong = int(labelled.min()) if int(labelled.min()) < 0 else int(labelled.max())
        raise ValueError(f"labelled names node {wrong}, but there are {num_nodes} nodes (ids 0 to {num_nodes - 1})")
    if duplicates:
        values, counts = labelled.unique(return_counts=True)
        raise ValueError(f"labelled names node {int(values[counts > 1][0])} more than once")
    return labelled.long()


def known_labels(
    prob: Float[Tensor, "n k"], labels: Int[Tensor, " n"], labelled: Labelled
) -> tuple[Int[Tensor, " l"], Float[Tensor, "l k"]]:
    """Ids of the labelled nodes and their one-hot labels, checked against each other and the predictions.

    Raises:
        ValueError: What does not fit, in a sentence.
    """
    check_scores(prob)
    if labels.is_floating_point() or labels.shape != prob.shape[:1]:
        raise ValueError(
            f"labels are {len(prob)} integers, one for each row of the predictions, "
            f"not {labels.dtype} of shape {tuple(labels.shape)}"
        )
    index = labelled_index(labelled, len(prob))
    known = labels[index].long()
    if int(known.min()) < 0 or int(known.max()) >= prob.shape[1]:
        wrong = int(((known < 0) | (known >= prob.shape[1])).nonzero()[0])
        raise ValueError(
            f"labelled node {int(index[wrong])} has label {int(known[wrong])}, "
            f"but the predictions have {prob.shape[1]} classes (0 to {prob.shape[1] - 1})"
        )
    onehot = torch.zeros(len(known), prob.shape[1], dtype=working_dtype(prob), device=prob.device)
    return index, onehot.scatter_(1, known[:, None], 1.0)


def check_scores(prob: Float[Tensor, "n k"]) -> None:
    """Predictions are a matrix of finite numbers.

    Raises:
        ValueError: They are not.
    """
    if prob.ndim != 2 or not prob.is_floating_point():
        raise ValueError(f"predictions are floats of shape (n, k), not {prob.dtype} of shape {tuple(prob.shape)}")
    if not bool(torch.isfinite(prob).all()):
        raise ValueError("predictions are finite numbers, but some are NaN or infinite")


def check_probabilities(prob: Float[Tensor, "n k"]) -> None:
    """Each row is a distribution, within what rounding and 16-bit floats do to it.

    Raises:
        ValueError: The first row that is none.
    """
    check_scores(prob)
    sums = prob.sum(1, dtype=working_dtype(prob))
    off = ((sums - 1).abs() > 0.1) | (prob < -1e-3).any(1)
    if bool(off.any()):
        row = int(off.nonzero()[0])
        raise ValueError(
            f"row {row} of the predictions sums to {float(sums[row]):.3g} or is negative: "
            "pass probabilities: did you forget exp/softmax?"
        )


def working_dtype(prob: Tensor) -> torch.dtype:
    """Sparse products are computed in float32 or float64."""
    return torch.float64 if prob.dtype == torch.float64 else torch.float32
