"""Which filters a narrower layer shares with a wider one, so that every filter is trained equally often."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor


def fair_channel_slices(num_candidates: int, group: int) -> tuple[slice, ...]:
    """The filters of each candidate width, as slices.

    Plain weight sharing gives the candidate of `k` groups the first `k` groups, so that the first filters are trained
    in every sample and the last in one of N. Here the candidates up to the middle take the first groups, those above it
    what the candidate with the missing groups leaves, and the widest takes all. Drawn uniformly, every filter is used
    with the same probability (N + 1) / (2 N).

    Args:
        num_candidates: N, odd and at least 3.
        group: Filters of a group; candidate `k`, from 1 to N, has `k * group`.

    Returns:
        A slice for each candidate, the narrowest first.

    Raises:
        ValueError: An even number of candidates or fewer than 3, or a group below 1.

    Note:
        Source: arXiv:2112.04710, supplement (the probabilities; the construction is derived).

    Example:
        >>> [(s.start, s.stop) for s in fair_channel_slices(5, 2)]
        [(0, 2), (0, 4), (4, 10), (2, 10), (0, 10)]
    """
    if num_candidates < 3 or num_candidates % 2 == 0:
        raise ValueError(
            f"fair channels need an odd number of candidates, at least 3, not {num_candidates}: "
            "every candidate but the widest is paired with the one that has the rest"
        )
    if group < 1:
        raise ValueError(f"group has to be at least 1 filter, not {group}")
    widest, middle = num_candidates * group, (num_candidates - 1) // 2
    first = [slice(0, k * group) for k in range(1, middle + 1)]
    rest = [slice(taken.stop, widest) for taken in reversed(first)]
    return (*first, *rest, slice(0, widest))


def fair_channel_masks(num_candidates: int, group: int) -> Bool[Tensor, "n c"]:
    """The filters of each candidate width, as masks.

    Args:
        num_candidates: N, odd and at least 3.
        group: Filters of a group.

    Returns:
        Row `k - 1` marks the `k * group` filters of candidate `k`, of N * group.

    Raises:
        ValueError: As of [`fair_channel_slices`][saccade.nn.fair_channels.fair_channel_slices].

    Example:
        >>> fair_channel_masks(3, 1).int().tolist()
        [[1, 0, 0], [0, 1, 1], [1, 1, 1]]
    """
    slices = fair_channel_slices(num_candidates, group)
    masks = torch.zeros(num_candidates, num_candidates * group, dtype=torch.bool)
    for row, taken in zip(masks, slices, strict=True):
        row[taken] = True
    return masks
