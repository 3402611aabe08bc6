"""What all miners share: checks, the absence of gradients, and counts of what was found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from saccade.metric.composed import ModuleWithRecordsAndDistance
from saccade.metric.distances import BaseDistance
from saccade.metric.tuples import IndicesTuple

CELLS = 2**22
"""Cells of a matrix of pairs times references that are looked at together (16 MB in float32)."""


class BaseMiner(ModuleWithRecordsAndDistance, ABC):
    """Chooses pairs or triplets of a batch; a subclass says which in `mine`.

    Args:
        distance: Between embeddings; `get_default_distance()` where `None`.
        collect_stats: Whether figures about each call are noted as attributes, among them `num_pos_pairs`,
            `num_neg_pairs` and `num_triplets`.

    Example:
        >>> class First(BaseMiner):
        ...     def mine(self, embeddings, labels, ref_emb, ref_labels):
        ...         return tuple(index[:1] for index in all_triplets(labels, ref_labels))
        >>> from saccade.metric.tuples import all_triplets
        >>> First()(torch.eye(3), torch.tensor([0, 1, 0]))
        (tensor([0]), tensor([2]), tensor([1]))
    """

    def __init__(self, distance: BaseDistance | None = None, collect_stats: bool | None = None) -> None:
        super().__init__(distance, collect_stats)
        self.add_to_recordable_attributes(
            list_of_names=["num_pos_pairs", "num_neg_pairs", "num_triplets"], is_stat=True
        )

    @abstractmethod
    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> IndicesTuple:
        """The choice; where there is no reference set, `ref_emb is embeddings` and `ref_labels is labels`."""

    def output_assertion(self, output: IndicesTuple) -> None:
        """Raise unless `output` is triplets or pairs, and note their numbers.

        Raises:
            TypeError: Neither three nor four index vectors.
            ValueError: Their lengths do not agree.
        """
        if len(output) not in (3, 4):
            raise TypeError(f"{type(self).__name__} gave {len(output)} index vectors; 3 or 4 are accepted")
        lengths = [len(index) for index in output]
        if len(output) == 3:
            self.num_triplets = lengths[0]
            agree = len(set(lengths)) == 1
        else:
            self.num_pos_pairs, self.num_neg_pairs = lengths[0], lengths[2]
            agree = lengths[0] == lengths[1] and lengths[2] == lengths[3]
        if not agree:
            raise ValueError(f"{type(self).__name__} gave index vectors of the lengths {lengths}, which do not agree")

    def forward(
        self,
        embeddings: Float[Tensor, "b d"],
        labels: Shaped[Tensor, " b"],
        ref_emb: Float[Tensor, "m d"] | None = None,
        ref_labels: Shaped[Tensor, " m"] | None = None,
    ) -> IndicesTuple:
        """Mine a batch, without gradient.

        Args:
            embeddings: Of the batch.
            labels: Their classes.
            ref_emb: Where positives and negatives are sought; the batch itself where `None`.
            ref_labels: Their classes. Where it is `None` or `labels` itself, a sample is not its own positive.

        Returns:
            Triplets or pairs, index vectors on the device of the embeddings.

        Raises:
            ValueError: Labels that are not a vector with one entry for each embedding.
        """
        self.reset_stats()
        with torch.no_grad():
            alone = ref_labels is None or ref_labels is labels
            for of, points, classes in (("labels", embeddings, labels), ("ref_labels", ref_emb, ref_labels)):
                if points is None or classes is None:
                    continue
                if classes.shape != (len(points),):
                    raise ValueError(
                        f"{of} have the shape {tuple(classes.shape)}; one for each of the {len(points)} embeddings is"
                        " accepted"
                    )
            if ref_emb is None and not alone:
                raise ValueError("ref_labels came without ref_emb")
            if ref_emb is not None and alone and len(ref_emb) != len(labels):
                raise ValueError(f"{len(ref_emb)} rows of ref_emb came without ref_labels")
            labels = labels.to(embeddings.device)
            ref_emb = embeddings if ref_emb is None else ref_emb
            ref_labels = labels if alone or ref_labels is None else ref_labels.to(ref_emb.device)
            mined = self.mine(embeddings, labels, ref_emb, ref_labels)
        self.output_assertion(mined)
        return mined

    def set_mean(self, **values: Tensor) -> None:
        """Note the means of vectors as attributes, where statistics are collected and there is something to average."""
        if self.collect_stats:
            for name, value in values.items():
                if value.numel():
                    setattr(self, name, value.double().mean().item())


def positive_pairs_in_chunks(same: Bool[Tensor, "b m"]) -> Iterator[tuple[Tensor, Tensor]]:
    """All positive pairs, so many at a time that a matrix of them by the references stays small.

    Args:
        same: Which references are positives.

    Yields:
        Anchors and positives, in the order of anchors.
    """
    anchors, positives = torch.where(same)
    size = max(1, CELLS // max(1, same.shape[1]))
    yield from zip(anchors.split(size), positives.split(size), strict=True)


def gather_triplets(parts: Sequence[IndicesTuple], like: Tensor) -> IndicesTuple:
    """Join chunks of triplets.

    Args:
        parts: What was found.
        like: On whose device an empty result lies.

    Returns:
        Anchors, positives, negatives.
    """
    if not parts:
        return tuple(torch.empty(0, dtype=torch.long, device=like.device) for _ in range(3))
    anchors, positives, negatives = (torch.cat(index) for index in zip(*parts, strict=True))
    return anchors, positives, negatives
