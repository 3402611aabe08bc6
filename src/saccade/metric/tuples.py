"""Tuples of batch indices, as miners give them and losses take them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

IndicesTuple = tuple[Tensor, ...]
"""Triplets (anchors, positives, negatives), or pairs (anchors, positives, anchors, negatives): index vectors."""


def appearance_weights(indices_tuple: IndicesTuple, batch: int) -> Float[Tensor, " b"]:
    """How often each sample is in a tuple, over the largest such count: weights for losses over single elements.

    Args:
        indices_tuple: Triplets or pairs.
        batch: Number of samples.

    Returns:
        In [0, 1]; all 1 where the tuple is empty.

    Raises:
        ValueError: Neither three nor four index vectors, or an index outside the batch.

    Example:
        >>> pairs = tuple(torch.tensor(i) for i in ([0, 0], [1, 2], [1], [3]))
        >>> appearance_weights(pairs, 5)
        tensor([1.0000, 1.0000, 0.5000, 0.5000, 0.0000])
    """
    if len(indices_tuple) not in (3, 4):
        raise ValueError(f"a tuple of {len(indices_tuple)} index vectors came; 3 (triplets) or 4 (pairs) are accepted")
    anchors = indices_tuple[0] if len(indices_tuple) == 3 else torch.cat([indices_tuple[0], indices_tuple[2]])
    if anchors.numel() == 0:
        return torch.ones(batch, device=anchors.device)
    if not torch.compiler.is_compiling() and not (int(anchors.min()) >= 0 and int(anchors.max()) < batch):
        raise ValueError(f"the tuple names sample {int(anchors.max())} of a batch of {batch}")
    counts = torch.bincount(anchors, minlength=batch).float()
    return counts / counts.max()
