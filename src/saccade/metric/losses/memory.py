"""Cross-batch memory: any loss over pairs or triplets, with the embeddings of past batches to compare with."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from saccade.metric.inputs import ArgumentError
from saccade.metric.records import ModuleWithRecords
from saccade.metric.tuples import IndicesTuple, all_pairs, located, to_pairs, to_triplets, without_self_comparisons


class LossWrapper(ModuleWithRecords):
    """A loss around another one, of which only some kinds make sense.

    Args:
        loss: The inner loss.
        collect_stats: Whether statistics are noted.

    Raises:
        ValueError: A loss that is not one of `supported_losses()`.
    """

    def __init__(self, loss: nn.Module, collect_stats: bool | None = None) -> None:
        super().__init__(collect_stats)
        self.check_loss_support(type(loss).__name__)
        self.loss = loss

    @staticmethod
    def supported_losses() -> list[str]:
        """Names of the classes that fit."""
        return [
            "AngularLoss",
            "CircleLoss",
            "ContrastiveLoss",
            "GeneralizedLiftedStructureLoss",
            "IntraPairVarianceLoss",
            "LiftedStructureLoss",
            "MarginLoss",
            "MultiSimilarityLoss",
            "NCALoss",
            "NTXentLoss",
            "SignalToNoiseRatioContrastiveLoss",
            "SupConLoss",
            "TripletMarginLoss",
            "TupletMarginLoss",
        ]

    @classmethod
    def check_loss_support(cls, loss_name: str) -> None:
        """Raise unless the class of that name fits."""
        if loss_name not in cls.supported_losses():
            raise ValueError(f"{cls.__name__} came with {loss_name}; {', '.join(cls.supported_losses())} are accepted")


class CrossBatchMemory(LossWrapper):
    """Cross-batch memory (arXiv:1912.06798): a ring buffer of past embeddings, without gradient.

    Each batch is put into the memory first, and is then compared with all of it, but for each sample with itself.

    Args:
        loss: The inner loss.
        embedding_size: d.
        memory_size: Rows of the memory.
        miner: Chooses tuples between the batch and the memory; all pairs where `None`.
        locate_tuples: Whether the positives and negatives of an `indices_tuple`, which number rows of the batch, are
            looked up where the batch stands in the memory. The reference library takes the numbers as rows of the
            memory, which are other samples in all batches but the first; `False` does as it does.
        collect_stats: Whether statistics are noted.

    Attributes:
        embedding_memory: (memory_size, d).
        label_memory: (memory_size,).
        queue_idx: Where the next batch goes.
        has_been_filled: Whether the memory is full.

    Raises:
        ValueError: A loss that does not fit, a batch larger than the memory, or a tuple together with a mask.

    Example:
        >>> from saccade.metric.losses import ContrastiveLoss
        >>> memory = CrossBatchMemory(ContrastiveLoss(), embedding_size=4, memory_size=64)
        >>> for _ in range(3):
        ...     loss = memory(torch.randn(8, 4), torch.arange(8) // 2)
        >>> memory.queue_idx
        24
    """

    embedding_memory: Tensor
    label_memory: Tensor

    def __init__(
        self,
        loss: nn.Module,
        embedding_size: int,
        memory_size: int = 1024,
        miner: nn.Module | None = None,
        locate_tuples: bool = False,
        collect_stats: bool | None = None,
    ) -> None:
        super().__init__(loss, collect_stats)
        self.miner = miner
        self.locate_tuples = locate_tuples
        self.embedding_size = embedding_size
        self.memory_size = memory_size
        self.reset_queue()
        self.add_to_recordable_attributes(list_of_names=["embedding_size", "memory_size", "queue_idx"])

    def reset_queue(self) -> None:
        """Empty the memory."""
        self.register_buffer("embedding_memory", torch.zeros(self.memory_size, self.embedding_size))
        self.register_buffer("label_memory", torch.zeros(self.memory_size, dtype=torch.long))
        self.has_been_filled = False
        self.queue_idx = 0

    def get_extra_state(self) -> Tensor:
        """Where the next batch goes, and whether the memory is full: a saved run goes on as it would have."""
        return torch.tensor([self.queue_idx, int(self.has_been_filled)])

    def set_extra_state(self, state: Tensor) -> None:
        """As it was saved."""
        self.queue_idx, self.has_been_filled = int(state[0]), bool(state[1])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())  # the reference library saves none
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(
        self,
        embeddings: Float[Tensor, "b d"],
        labels: Shaped[Tensor, " b"],
        indices_tuple: IndicesTuple | None = None,
        enqueue_mask: Bool[Tensor, " b"] | None = None,
    ) -> Any:
        """Put a batch into the memory and compare it with the memory.

        Args:
            embeddings: Of the batch.
            labels: Their classes.
            indices_tuple: Tuples within the batch, that are taken besides those with the memory.
            enqueue_mask: Rows that go into the memory; the others are compared with it. Nothing is left out then.

        Returns:
            What the inner loss returns.
        """
        if indices_tuple is not None and enqueue_mask is not None:
            raise ValueError("indices_tuple and enqueue_mask came; they exclude each other")
        if enqueue_mask is not None and len(enqueue_mask) != len(embeddings):
            raise ArgumentError(f"enqueue_mask has {len(enqueue_mask)} rows, embeddings have {len(embeddings)}")
        queued = len(embeddings) if enqueue_mask is None else int(enqueue_mask.sum())
        if queued > self.memory_size:
            raise ArgumentError(f"a batch of {queued} came; the memory has {self.memory_size} rows")
        self.reset_stats()
        labels = labels.to(embeddings.device)
        self.embedding_memory = self.embedding_memory.to(embeddings)
        self.label_memory = self.label_memory.to(labels)
        if enqueue_mask is None:
            rows = self.add_to_memory(embeddings, labels)
        else:
            self.add_to_memory(embeddings[enqueue_mask], labels[enqueue_mask])
            embeddings, labels = embeddings[~enqueue_mask], labels[~enqueue_mask]
        filled = self.memory_size if self.has_been_filled else self.queue_idx
        memory, memory_labels = self.embedding_memory[:filled], self.label_memory[:filled]
        tuples = self._tuples(embeddings, labels, memory, memory_labels)
        if enqueue_mask is None:
            tuples = without_self_comparisons(tuples, rows, self.memory_size)
        if indices_tuple is not None:
            inner = to_pairs(indices_tuple, labels) if len(tuples) == 4 else to_triplets(indices_tuple, labels)
            if self.locate_tuples:
                inner = located(inner, rows)
            tuples = tuple(torch.cat(pair) for pair in zip(tuples, inner, strict=True))
        return self.loss(embeddings, labels, tuples, memory, memory_labels)

    def add_to_memory(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Put rows into the memory; returns where they stand."""
        rows = (self.queue_idx + torch.arange(len(embeddings), device=labels.device)) % self.memory_size
        self.curr_batch_idx = rows
        with torch.no_grad():
            self.embedding_memory[rows] = embeddings.detach()
            self.label_memory[rows] = labels
        wrapped = self.queue_idx + len(embeddings) >= self.memory_size
        self.has_been_filled = self.has_been_filled or wrapped
        self.queue_idx = (self.queue_idx + len(embeddings)) % self.memory_size
        return rows

    def _tuples(self, embeddings: Tensor, labels: Tensor, memory: Tensor, memory_labels: Tensor) -> IndicesTuple:
        if self.miner is not None:
            return self.miner(embeddings, labels, memory, memory_labels)
        return all_pairs(labels, memory_labels)
