"""Pairs and triplets of a batch, as miners give them and losses take them.

A tuple of index vectors is either *triplets* (anchors, positives, negatives) or *pairs* (anchors, positives, anchors,
negatives). Anchors index the batch; positives and negatives index the references, which are the batch itself where
there is no reference set. A sample is never its own positive: where `ref_labels` is `None` or is `labels`, the
diagonal is left out.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

IndicesTuple = tuple[Tensor, ...]
"""Triplets (anchors, positives, negatives), or pairs (anchors, positives, anchors, negatives): index vectors."""


def matches_and_differences(
    labels: Shaped[Tensor, " b"], ref_labels: Shaped[Tensor, " m"] | None = None
) -> tuple[Bool[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Which references are positives of each sample, and which are negatives.

    Args:
        labels: Of the batch.
        ref_labels: Of the references; where it is `None` or `labels` itself, a sample is not its own positive.

    Returns:
        Two masks.

    Example:
        >>> same, different = matches_and_differences(torch.tensor([0, 0, 1]))
        >>> same.int().tolist()
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    alone = ref_labels is None or ref_labels is labels
    same = labels.unsqueeze(1) == (labels if ref_labels is None else ref_labels)
    different = ~same
    if alone:
        same.fill_diagonal_(False)
    return same, different


def all_pairs(labels: Shaped[Tensor, " b"], ref_labels: Shaped[Tensor, " m"] | None = None) -> IndicesTuple:
    """All pairs, in the order of anchors.

    Args:
        labels: Of the batch.
        ref_labels: Of the references.

    Returns:
        Anchors, positives, anchors, negatives.

    Example:
        >>> [index.tolist() for index in all_pairs(torch.tensor([0, 0, 1]))]
        [[0, 1], [1, 0], [0, 1, 2, 2], [2, 2, 0, 1]]
    """
    same, different = matches_and_differences(labels, ref_labels)
    return (*torch.where(same), *torch.where(different))


def all_triplets(labels: Shaped[Tensor, " b"], ref_labels: Shaped[Tensor, " m"] | None = None) -> IndicesTuple:
    """All triplets, in the order of anchors and then positives; the memory is that of the result.

    Args:
        labels: Of the batch.
        ref_labels: Of the references.

    Returns:
        Anchors, positives, negatives.

    Example:
        >>> [index.tolist() for index in all_triplets(torch.tensor([0, 0, 1]))]
        [[0, 1], [1, 0], [2, 2]]
    """
    return pairs_to_triplets(all_pairs(labels, ref_labels))


def pairs_to_triplets(pairs: IndicesTuple) -> IndicesTuple:
    """Each positive pair with each negative pair of the same anchor.

    Args:
        pairs: Anchors, positives, anchors, negatives.

    Returns:
        Anchors, positives, negatives; in the order of the positive pairs, then of the negative ones.
    """
    anchors, positives, negative_anchors, negatives = pairs
    if anchors.numel() == 0 or negative_anchors.numel() == 0:
        return anchors[:0], positives[:0], negatives[:0]
    order = negative_anchors.argsort(stable=True)
    size = int(torch.maximum(anchors.max(), negative_anchors.max())) + 1
    counts = negative_anchors.bincount(minlength=size)
    firsts = counts.cumsum(0) - counts
    repeats = counts[anchors]
    pair = torch.arange(len(anchors), device=anchors.device).repeat_interleave(repeats)
    within = torch.arange(len(pair), device=anchors.device) - (repeats.cumsum(0) - repeats)[pair]
    return anchors[pair], positives[pair], negatives[order[firsts[anchors[pair]] + within]]


def to_pairs(
    indices_tuple: IndicesTuple | None,
    labels: Shaped[Tensor, " b"] | None,
    ref_labels: Shaped[Tensor, " m"] | None = None,
) -> IndicesTuple:
    """Pairs, whatever comes: all of them for `None`, both sides of triplets.

    Args:
        indices_tuple: `None`, triplets or pairs.
        labels: Needed for `None`.
        ref_labels: Of the references.

    Returns:
        Anchors, positives, anchors, negatives.
    """
    if indices_tuple is None:
        return all_pairs(_needed(labels), ref_labels)
    if _arity(indices_tuple) == 4:
        return indices_tuple
    anchors, positives, negatives = indices_tuple
    return anchors, positives, anchors, negatives


def to_triplets(
    indices_tuple: IndicesTuple | None,
    labels: Shaped[Tensor, " b"] | None,
    ref_labels: Shaped[Tensor, " m"] | None = None,
    t_per_anchor: int | Literal["all"] = 100,
) -> IndicesTuple:
    """Triplets, whatever comes: all or some random ones for `None`, the combinations of pairs.

    Args:
        indices_tuple: `None`, triplets or pairs.
        labels: Needed for `None`.
        ref_labels: Of the references.
        t_per_anchor: For `None`: how many random ones an anchor, or "all".

    Returns:
        Anchors, positives, negatives.
    """
    if indices_tuple is None:
        if t_per_anchor == "all":
            return all_triplets(_needed(labels), ref_labels)
        return random_triplets(_needed(labels), ref_labels, t_per_anchor)
    return indices_tuple if _arity(indices_tuple) == 3 else pairs_to_triplets(indices_tuple)


def random_triplets(
    labels: Shaped[Tensor, " b"],
    ref_labels: Shaped[Tensor, " m"] | None = None,
    t_per_anchor: int | None = None,
    weights: Float[Tensor, "b m"] | None = None,
) -> IndicesTuple:
    """Random triplets of each anchor that has a positive and a negative, drawn with replacement.

    Args:
        labels: Of the batch.
        ref_labels: Of the references.
        t_per_anchor: How many an anchor; as many as references of its class where `None`.
        weights: How likely each reference is drawn as a negative; rows without any weight among the negatives give no
            triplet. Uniform where `None`.

    Returns:
        Anchors, positives, negatives; by class, then by anchor.
    """
    same, different = matches_and_differences(labels, ref_labels)
    alone = ref_labels is None or ref_labels is labels
    likely = None if weights is None else torch.where(different, weights, 0).float()
    able = same.any(dim=1) & (different.any(dim=1) if likely is None else likely.sum(dim=1) > 0)
    rows = able.nonzero().squeeze(1)
    rows = rows[labels[rows].argsort(stable=True)]
    if rows.numel() == 0:
        return rows, rows.clone(), rows.clone()
    repeats = same[rows].sum(dim=1) + int(alone)
    if t_per_anchor is not None:
        repeats = torch.full_like(repeats, t_per_anchor)
    anchors = rows.repeat_interleave(repeats)
    if likely is None:
        return anchors, _draw(same, anchors), _draw(different, anchors)
    drawn = torch.multinomial(likely[rows], int(repeats.max()), replacement=True)
    wanted = torch.arange(drawn.shape[1], device=drawn.device) < repeats.unsqueeze(1)
    return anchors, _draw(same, anchors), drawn[wanted]


def appearance_weights(indices_tuple: IndicesTuple | None, batch: int, using_ref: bool = False) -> Float[Tensor, " b"]:
    """How often each sample is in a tuple, over the largest such count: weights for losses over single elements.

    Args:
        indices_tuple: Triplets or pairs.
        batch: Number of samples.
        using_ref: Whether positives and negatives index a reference set: only anchors count then.

    Returns:
        In [0, 1]; all 1 where the tuple is empty or `None`.

    Raises:
        ValueError: Neither three nor four index vectors, or an index outside the batch.

    Example:
        >>> pairs = tuple(torch.tensor(i) for i in ([0, 0], [1, 2], [1], [3]))
        >>> appearance_weights(pairs, 5)
        tensor([1.0000, 1.0000, 0.5000, 0.5000, 0.0000])
    """
    if indices_tuple is None:
        return torch.ones(batch)
    arity = _arity(indices_tuple)
    named = torch.cat(indices_tuple[:: 2 if arity == 4 else 3] if using_ref else indices_tuple)
    if named.numel() == 0:
        return torch.ones(batch, device=named.device)
    if not torch.compiler.is_compiling() and (int(named.min()) < 0 or int(named.max()) >= batch):
        raise ValueError(f"the tuple names the samples {int(named.min())} to {int(named.max())} of a batch of {batch}")
    counts = torch.bincount(named, minlength=batch).float()
    return counts / counts.max()


def masks_of(
    indices_tuple: IndicesTuple | None,
    labels: Shaped[Tensor, " b"] | None,
    ref_labels: Shaped[Tensor, " m"] | None,
    shape: tuple[int, int],
) -> tuple[Bool[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Masks of the positive and of the negative pairs, for losses that work row by row.

    Args:
        indices_tuple: `None`, triplets or pairs; one that is named twice counts once.
        labels: Needed for `None`.
        ref_labels: Of the references.
        shape: (b, m).

    Returns:
        Two masks.
    """
    if indices_tuple is None:
        return matches_and_differences(_needed(labels), ref_labels)
    anchors, positives, negative_anchors, negatives = to_pairs(indices_tuple, None)
    masks = torch.zeros((2, *shape), dtype=torch.bool, device=anchors.device)
    masks[0, anchors, positives] = True
    masks[1, negative_anchors, negatives] = True
    return masks[0], masks[1]


def without_self_comparisons(
    indices_tuple: IndicesTuple, batch_rows: Tensor, ref_size: int, ref_is_subset: bool = False
) -> IndicesTuple:
    """Leave out the pairs or triplets whose positive is the anchor itself, standing in a memory.

    Args:
        indices_tuple: Anchors index the batch, the others the memory.
        batch_rows: Where in the memory the samples of the batch stand, in order.
        ref_size: Number of rows of the memory.
        ref_is_subset: Whether the memory holds the anchors, and the batch is what is compared with them.

    Returns:
        A tuple of the same kind.
    """
    standing = torch.full((ref_size,), -1, dtype=torch.long, device=batch_rows.device)
    standing[batch_rows] = torch.arange(len(batch_rows), device=batch_rows.device)
    anchors, positives = indices_tuple[0], indices_tuple[1]
    kept = (standing[anchors] != positives) if ref_is_subset else (standing[positives] != anchors)
    if _arity(indices_tuple) == 3:
        return tuple(index[kept] for index in indices_tuple)
    return anchors[kept], positives[kept], indices_tuple[2], indices_tuple[3]


def located(indices_tuple: IndicesTuple, rows: Tensor) -> IndicesTuple:
    """Positives and negatives that number samples, as the rows where these stand among the references.

    Args:
        indices_tuple: Within a batch.
        rows: The row of each sample.

    Returns:
        A tuple of the same kind; anchors are as they were.

    Example:
        >>> triplet = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
        >>> [index.tolist() for index in located(triplet, torch.arange(5, 8))]
        [[0], [6], [7]]
    """
    if _arity(indices_tuple) == 3:
        return indices_tuple[0], rows[indices_tuple[1]], rows[indices_tuple[2]]
    return indices_tuple[0], rows[indices_tuple[1]], indices_tuple[2], rows[indices_tuple[3]]


def one_positive_per_class(labels: Shaped[Tensor, " b"]) -> tuple[Tensor, Tensor]:
    """The first pair of samples of each class that has two, in the order of labels.

    Args:
        labels: Of the batch.

    Returns:
        Anchors and positives.

    Example:
        >>> [index.tolist() for index in one_positive_per_class(torch.tensor([1, 0, 1, 2, 0]))]
        [[1, 0], [4, 2]]
    """
    order = labels.argsort(stable=True)
    sizes = labels.unique(return_counts=True)[1]
    firsts = (sizes.cumsum(0) - sizes)[sizes >= 2]
    return order[firsts], order[firsts + 1]


def _draw(mask: Tensor, rows: Tensor) -> Tensor:
    """For each row that is named, a random column where the mask holds."""
    counts = mask.sum(dim=1)
    columns = mask.nonzero()[:, 1]
    firsts = counts.cumsum(0) - counts
    chance = (torch.rand(len(rows), dtype=torch.float64, device=mask.device) * counts[rows]).long()
    return columns[firsts[rows] + chance]


def _arity(indices_tuple: IndicesTuple) -> int:
    if len(indices_tuple) not in (3, 4):
        raise ValueError(f"a tuple of {len(indices_tuple)} index vectors came; 3 (triplets) or 4 (pairs) are accepted")
    return len(indices_tuple)


def _needed(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("neither labels nor an indices_tuple came; one of them is needed")
    return labels
