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
    named = torch.cat(indices_tuple)
    if named.numel() == 0:
        return torch.ones(batch, device=named.device)
    if not torch.compiler.is_compiling() and (int(named.min()) < 0 or int(named.max()) >= batch):
        raise ValueError(f"the tuple names the samples {int(named.min())} to {int(named.max())} of a batch of {batch}")
    counts = torch.bincount(named, minlength=batch).float()
    return counts / counts.max()
