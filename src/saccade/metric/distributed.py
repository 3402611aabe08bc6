"""Losses and miners over the batches of all processes.

Embeddings and labels of the other processes are gathered without gradient, and each process puts its own first (into a
memory they go in the order of ranks). The result is multiplied by the number of processes, since
`DistributedDataParallel` averages gradients: together the processes then follow the gradient of one process with the
joined batch.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from saccade.metric.losses import BaseMetricLossFunction, CrossBatchMemory
from saccade.metric.miners import BaseMiner
from saccade.metric.tuples import IndicesTuple, all_pairs, without_self_comparisons


def is_distributed() -> bool:
    """Whether a process group stands."""
    return dist.is_available() and dist.is_initialized()


def gathered(x: Tensor) -> list[Tensor]:
    """The rows of each process, in the order of ranks; their numbers may differ.

    Args:
        x: This process's rows.

    Returns:
        One tensor a process: `x` itself for this one, the others without gradient.
    """
    own, rank, world = x.detach().contiguous(), dist.get_rank(), dist.get_world_size()
    sizes = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    lengths = [int(size) for size in sizes]
    padded = own.new_zeros(max(lengths), *x.shape[1:])
    padded[: len(x)] = own
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return [x if at == rank else part[:length] for at, (part, length) in enumerate(zip(parts, lengths, strict=True))]


def own_first(x: Tensor | None) -> Any:
    """This process's rows, with their gradient, then those of all others; `None` for `None`."""
    if x is None:
        return None
    parts = gathered(x)
    return torch.cat([parts.pop(dist.get_rank()), *parts])


def _tuples_with_others(
    embeddings: Tensor, labels: Tensor, all_emb: Tensor, all_labels: Tensor, miner: nn.Module | None
) -> IndicesTuple:
    """Tuples between this process's samples and all, none of a sample with itself."""
    found = all_pairs(labels, all_labels) if miner is None else miner(embeddings, labels, all_emb, all_labels)
    return without_self_comparisons(found, torch.arange(len(labels), device=labels.device), len(all_labels))


class DistributedLossWrapper(nn.Module):
    """A loss over the joined batch of all processes. Labels that are given have to be given on all of them.

    Args:
        loss: A metric loss, or a `CrossBatchMemory`.
        efficient: Each process compares its own samples with all, instead of all with all: less work, but the
            gradient does not flow through the references.
        distinct_ref: Whether reference i is another sample than sample i where `efficient` meets a reference set.
            The reference library leaves it out as a positive in any case, and so does `False`.

    Raises:
        TypeError: Another loss.
        ValueError: `efficient` with a `CrossBatchMemory`.

    Example:
        >>> from saccade.metric.losses import ContrastiveLoss
        >>> loss = DistributedLossWrapper(ContrastiveLoss())
    """

    def __init__(self, loss: nn.Module, efficient: bool = False, distinct_ref: bool = False) -> None:
        super().__init__()
        if not isinstance(loss, BaseMetricLossFunction | CrossBatchMemory):
            raise TypeError(f"loss is a {type(loss).__name__}; a metric loss or CrossBatchMemory is accepted")
        if isinstance(loss, CrossBatchMemory) and efficient:
            raise ValueError("efficient is True; CrossBatchMemory does not support it")
        self.loss = loss
        self.efficient = efficient
        self.distinct_ref = distinct_ref

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Any = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        enqueue_mask: Tensor | None = None,
    ) -> Any:
        """The loss.

        Args:
            embeddings: Of this process's batch, (b, d).
            labels: Their classes.
            indices_tuple: Indices into the joined batch, this process's samples first.
            ref_emb: This process's references.
            ref_labels: Their classes.
            enqueue_mask: For a `CrossBatchMemory`: which samples of this process go into the memory.

        Returns:
            The loss, times the number of processes.
        """
        memory = isinstance(self.loss, CrossBatchMemory)
        if memory and (ref_emb is not None or ref_labels is not None):
            raise ValueError("ref_emb came; CrossBatchMemory does not take a reference set")
        world = dist.get_world_size() if is_distributed() else 1
        if not is_distributed():
            warnings.warn("no process group is initialised: the loss of this process alone is returned", stacklevel=2)
        if labels is not None:
            labels = labels.to(embeddings.device)
        if world == 1:
            more = (enqueue_mask,) if memory else (ref_emb, ref_labels)
            return self.loss(embeddings, labels, indices_tuple, *more)
        if memory:
            return self._with_memory(embeddings, labels, indices_tuple, enqueue_mask) * world
        all_emb, all_labels = own_first(embeddings), own_first(labels)
        all_ref, all_ref_labels = own_first(ref_emb), own_first(ref_labels)
        if not self.efficient:
            return self.loss(all_emb, all_labels, indices_tuple, all_ref, all_ref_labels) * world
        if all_ref is not None:
            all_emb, all_labels = all_ref, all_ref_labels
        if indices_tuple is None and labels is not None and not (self.distinct_ref and all_ref is not None):
            indices_tuple = _tuples_with_others(embeddings, labels, all_emb, all_labels, None)
        return self.loss(embeddings, labels, indices_tuple, all_emb, all_labels) * world

    def _with_memory(
        self, embeddings: Tensor, labels: Tensor | None, indices_tuple: Any, enqueue_mask: Tensor | None
    ) -> Any:
        """In the order of ranks, so that all processes hold, and forget, the same."""
        parts = gathered(embeddings)
        if indices_tuple is not None:
            numbers = list(torch.arange(sum(map(len, parts)), device=embeddings.device).split([*map(len, parts)]))
            places = torch.cat([numbers.pop(dist.get_rank()), *numbers])
            indices_tuple = tuple(places[index] for index in indices_tuple)
        more = [None if x is None else torch.cat(gathered(x)) for x in (labels, enqueue_mask)]
        return self.loss(torch.cat(parts), more[0], indices_tuple, more[1])


class DistributedMinerWrapper(nn.Module):
    """A miner over the joined batch of all processes; its indices are for the wrapped loss of the same kind.

    Args:
        miner: Any.
        efficient: As for [`DistributedLossWrapper`][saccade.metric.distributed.DistributedLossWrapper].
        distinct_ref: The same.

    Raises:
        TypeError: Not a miner.

    Example:
        >>> from saccade.metric.miners import BatchHardMiner
        >>> miner = DistributedMinerWrapper(BatchHardMiner())
    """

    def __init__(self, miner: nn.Module, efficient: bool = False, distinct_ref: bool = False) -> None:
        super().__init__()
        if not isinstance(miner, BaseMiner):
            raise TypeError(f"miner is a {type(miner).__name__}; a miner is accepted")
        self.miner = miner
        self.efficient = efficient
        self.distinct_ref = distinct_ref

    def forward(
        self, emb: Tensor, labels: Tensor, ref_emb: Tensor | None = None, ref_labels: Tensor | None = None
    ) -> IndicesTuple:
        """The tuples.

        Args:
            emb: Of this process's batch, (b, d).
            labels: Their classes.
            ref_emb: This process's references.
            ref_labels: Their classes.

        Returns:
            Triplets or pairs.
        """
        if not is_distributed():
            warnings.warn("no process group is initialised: this process alone is mined", stacklevel=2)
        if not is_distributed() or dist.get_world_size() == 1:
            return self.miner(emb, labels, ref_emb, ref_labels)
        labels = labels.to(emb.device)
        all_emb, all_labels = own_first(emb), own_first(labels)
        all_ref, all_ref_labels = own_first(ref_emb), own_first(ref_labels)
        if not self.efficient:
            return self.miner(all_emb, all_labels, all_ref, all_ref_labels)
        if all_ref is not None:
            if self.distinct_ref:
                return self.miner(emb, labels, all_ref, all_ref_labels)
            all_emb, all_labels = all_ref, all_ref_labels
        return _tuples_with_others(emb, labels, all_emb, all_labels, self.miner)
