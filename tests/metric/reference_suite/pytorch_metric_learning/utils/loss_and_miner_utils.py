"""`saccade.metric.tuples` under the reference library's names."""

import torch

from saccade.metric.losses.sums import masked_logsumexp  # noqa: F401
from saccade.metric.tuples import (
    all_pairs,
    all_triplets,
    appearance_weights,
    matches_and_differences,
    one_positive_per_class,
    pairs_to_triplets,
    random_triplets,
    to_pairs,
    to_triplets,
    without_self_comparisons,
)


def logsumexp(x, keep_mask=None, add_one=True, dim=1):
    """log(1 + sum exp) of what the mask keeps; 0 where it keeps nothing."""
    kept = torch.ones_like(x, dtype=torch.bool) if keep_mask is None else keep_mask
    masked = x.masked_fill(~kept, torch.finfo(x.dtype).min)
    if add_one:
        masked = torch.cat([masked, torch.zeros_like(masked.narrow(dim, 0, 1))], dim=dim)
    total = masked.logsumexp(dim=dim, keepdim=True)
    return total if keep_mask is None else total.masked_fill(~kept.any(dim=dim, keepdim=True), 0)


def get_matches_and_diffs(labels, ref_labels=None):
    """Masks as bytes."""
    return tuple(mask.byte() for mask in matches_and_differences(labels, ref_labels))


def get_all_pairs_indices(labels, ref_labels=None):
    """All pairs."""
    return all_pairs(labels, ref_labels)


def get_all_triplets_indices(labels, ref_labels=None):
    """All triplets."""
    return all_triplets(labels, ref_labels)


def get_all_triplets_indices_vectorized_method(all_matches, all_diffs):
    """All triplets of two masks."""
    return pairs_to_triplets((*torch.where(all_matches), *torch.where(all_diffs)))


def get_all_triplets_indices_loop_method(labels, all_matches, all_diffs):
    """The same."""
    return get_all_triplets_indices_vectorized_method(all_matches, all_diffs)


def get_random_triplet_indices(labels, ref_labels=None, t_per_anchor=None, weights=None):
    """Random triplets."""
    return random_triplets(labels, ref_labels, t_per_anchor, weights)


def convert_to_pairs(indices_tuple, labels, ref_labels=None):
    """Pairs, whatever comes."""
    return to_pairs(indices_tuple, labels, ref_labels)


def convert_to_triplets(indices_tuple, labels, ref_labels=None, t_per_anchor=100):
    """Triplets, whatever comes."""
    return to_triplets(indices_tuple, labels, ref_labels, t_per_anchor)


def convert_to_weights(indices_tuple, labels, dtype, using_ref=False):
    """How often each sample is named, over the largest count."""
    weights = appearance_weights(indices_tuple, len(labels), using_ref)
    return weights.to(device=labels.device, dtype=dtype)


def convert_to_pos_pairs_with_unique_labels(indices_tuple, labels):
    """The first positive pair of each class."""
    if indices_tuple is None:
        return one_positive_per_class(labels)
    anchors, positives = to_pairs(indices_tuple, labels)[:2]
    _, firsts = torch.unique(labels[anchors], return_inverse=True)
    chosen = [int((firsts == at).nonzero()[0]) for at in range(int(firsts.max()) + 1)] if len(firsts) else []
    return anchors[chosen], positives[chosen]


def remove_self_comparisons(indices_tuple, curr_batch_idx, ref_size, ref_is_subset=False):
    """Without the samples that stand in the memory themselves."""
    return without_self_comparisons(indices_tuple, curr_batch_idx, ref_size, ref_is_subset)


def pos_pairs_from_tuple(indices_tuple):
    """Anchors and positives."""
    return indices_tuple[:2]


def neg_pairs_from_tuple(indices_tuple):
    """Anchors and negatives."""
    return indices_tuple[2:]


def get_anchors(indices_tuple):
    """All anchors."""
    return indices_tuple[0] if len(indices_tuple) == 3 else torch.cat([indices_tuple[0], indices_tuple[2]])
