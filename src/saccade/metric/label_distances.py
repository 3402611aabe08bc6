"""How far labels are apart, where labels are continuous: poses, room layouts, whatever a distance can be given for."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saccade.metric.inputs import check_embeddings


def joint_distances(a: Float[Tensor, "n j 2"], b: Float[Tensor, "m j 2"]) -> Float[Tensor, "n m"]:
    """Distance of poses: the sum over joints of the Euclidean distance between the two places (arXiv:1904.09626).

    Args:
        a: Joints in pixels.
        b: Others with as many joints.

    Returns:
        In pixels.

    Example:
        >>> joint_distances(torch.zeros(1, 14, 2), torch.ones(2, 14, 2) * torch.tensor([3.0, 4.0]))
        tensor([[70., 70.]])
    """
    return torch.cdist(a.transpose(0, 1).contiguous(), b.transpose(0, 1).contiguous(), compute_mode=EXACT).sum(dim=0)


def segmentation_distances(a: Int[Tensor, "n h w"], b: Int[Tensor, "m h w"]) -> Float[Tensor, "n m"]:
    """Distance of segmentations, such as room layouts: 1 - mean IoU over the classes that either of the two has.

    Args:
        a: Class of every pixel, 0 or above.
        b: Others of the same size.

    Returns:
        In [0, 1].

    Example:
        >>> left, right = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 0, 0, 0]]])
        >>> segmentation_distances(left, right)  # IoU 1/2 and 0
        tensor([[0.7500]])
    """
    total, seen = (torch.zeros(len(a), len(b), device=a.device) for _ in range(2))
    for label in torch.cat([a.unique(), b.unique()]).unique():
        own, other = (a == label).flatten(1).float(), (b == label).flatten(1).float()
        both = own @ other.T
        union = own.sum(1)[:, None] + other.sum(1) - both
        total += both / union.clamp(min=1)
        seen += union > 0
    return 1 - total / seen


EXACT = "donot_use_mm_for_euclid_dist"
"""The mode of `torch.cdist` that takes differences: logarithms of small distances want all their digits."""


def check_single(embeddings: Tensor, targets: Tensor, anchors: Tensor | None = None) -> None:
    """Raise unless `targets` holds the label distance of every row but the first to the first.

    Args:
        embeddings: The batch, the anchor first.
        targets: (n - 1,).
        anchors: Has to be `None`: row 0 is the anchor.

    Raises:
        ValueError: Shapes that do not agree, fewer than 2 neighbours, distances that are negative or not finite.
        TypeError: Not floating point.
    """
    _check_shapes(embeddings, targets)
    if anchors is not None:
        raise ValueError("anchors are given, but the targets are distances to row 0 alone")
    if not torch.compiler.is_compiling():
        _check_values(targets)


def to_anchors(
    embeddings: Float[Tensor, "n d"], targets: Float[Tensor, "n k"], anchors: Int[Tensor, " a"] | None
) -> tuple[Int[Tensor, " a"], Float[Tensor, "a n"]]:
    """Rows that serve as anchors, and the label distance of every row to each of them.

    Args:
        embeddings: The batch.
        targets: Label distances of all pairs, (n, n); or labels, (n, k), whose Euclidean distances are taken.
        anchors: Rows; every row where `None`.

    Returns:
        Rows (a,), and distances (a, n), 0 from an anchor to itself.

    Raises:
        ValueError: Shapes that do not agree, fewer than 2 neighbours, distances that are negative or not finite.
        TypeError: Not floating point.
    """
    _check_shapes(embeddings, targets)
    rows = len(embeddings)
    if anchors is None:
        anchors = torch.arange(rows, device=embeddings.device)
    elif anchors.ndim != 1 or anchors.is_floating_point() or len(anchors) == 0:
        raise ValueError(f"anchors are {anchors.dtype} {tuple(anchors.shape)}; a vector of row numbers is accepted")
    if targets.shape[1] == rows:
        distances = targets[anchors]
        own = distances.gather(1, anchors[:, None])
        if not torch.compiler.is_compiling() and bool((own != 0).any()):
            raise ValueError(
                f"targets of shape ({rows}, {rows}) are read as label distances, and their diagonal is not 0; "
                "for labels of that many numbers give torch.cdist(labels, labels)"
            )
    else:
        distances = torch.cdist(targets[anchors], targets, compute_mode=EXACT)
    if not torch.compiler.is_compiling():
        _check_values(distances[others(anchors, rows)])
    return anchors, distances.detach()


def squared_to_first(x: Float[Tensor, "n d"]) -> Float[Tensor, " m"]:
    """Squared Euclidean distances of all other rows to the first, by differences.

    Example:
        >>> squared_to_first(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([25.])
    """
    anchor, rest = x.split([1, len(x) - 1])
    difference = rest - anchor
    return torch.linalg.vecdot(difference, difference)


def others(anchors: Int[Tensor, " a"], rows: int) -> Bool[Tensor, "a n"]:
    """False where a row is the anchor itself."""
    return anchors[:, None] != torch.arange(rows, device=anchors.device)


def _check_shapes(embeddings: Tensor, targets: Tensor) -> None:
    check_embeddings(embeddings)
    rows = len(embeddings)
    if not targets.is_floating_point():
        raise TypeError(f"label distances are {targets.dtype}; a floating-point tensor is accepted")
    if rows < 3:
        raise ValueError(f"at least 2 neighbours are needed to form a triplet; the batch has {max(rows - 1, 0)}")
    if targets.shape != (rows - 1,) and not (targets.ndim == 2 and targets.shape[0] == rows):
        raise ValueError(
            f"targets have the shape {tuple(targets.shape)} and embeddings {tuple(embeddings.shape)}: accepted are "
            f"({rows - 1},) distances to row 0, ({rows}, {rows}) distances, or ({rows}, k) labels"
        )


def _check_values(distances: Tensor) -> None:
    """One look at the least and the greatest; NaN is both."""
    low, high = (float(bound) for bound in torch.aminmax(distances))
    if not low >= 0 or high == float("inf"):
        bad = low if not low >= 0 else high
        raise ValueError(f"a label distance is {bad}; finite numbers of 0 and above are accepted")
    if low == 0:
        count = int((distances == 0).sum())
        warnings.warn(
            f"{count} label distance(s) between different samples are 0: their logarithm is that of `eps` alone",
            stacklevel=4,
        )
