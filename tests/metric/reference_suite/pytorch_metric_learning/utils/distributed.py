"""`saccade.metric.distributed`."""

import torch

from saccade.metric.distributed import (  # noqa: F401
    DistributedLossWrapper,
    DistributedMinerWrapper,
    gathered,
    is_distributed,
    own_first,
)

from .loss_and_miner_utils import get_all_pairs_indices, remove_self_comparisons


def all_gather(x):
    """Rows of the other processes."""
    parts = gathered(x)
    parts.pop(torch.distributed.get_rank())
    return torch.cat(parts) if parts else None


def get_indices_tuple(labels, ref_labels, embeddings=None, ref_emb=None, miner=None):
    """Tuples of a batch that is the beginning of the references."""
    found = miner(embeddings, labels, ref_emb, ref_labels) if miner else get_all_pairs_indices(labels, ref_labels)
    return remove_self_comparisons(found, torch.arange(len(labels), device=labels.device), len(ref_labels))
