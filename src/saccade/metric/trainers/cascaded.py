"""Hard-aware deeply cascaded embeddings (arXiv:1611.05720): parts of the embedding, each trained on harder pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from saccade.metric.miners import HDCMiner
from saccade.metric.trainers.base import BaseTrainer


class CascadedEmbeddings(BaseTrainer):
    """Each part of the embedding has "metric_loss_i", "tuple_miner_i", "classifier_i" and "classifier_loss_i".

    An [`HDCMiner`][saccade.metric.miners.HDCMiner] looks only at the pairs that the part before was trained on.

    Args:
        embedding_sizes: Of the parts.
        *args: As for [`BaseTrainer`][saccade.metric.trainers.BaseTrainer].
        **kwargs: The same.
    """

    def __init__(self, embedding_sizes: Sequence[int], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.embedding_sizes = embedding_sizes

    def calculate_loss(self, curr_batch: Any) -> None:
        """The losses of all parts."""
        data, labels = curr_batch
        embeddings = self.compute_embeddings(data)
        if embeddings.shape[1] < sum(self.embedding_sizes):
            raise ValueError(f"embeddings have the width {embeddings.shape[1]}; the parts {self.embedding_sizes}")
        tuples = None
        for at, part in enumerate(embeddings[:, : sum(self.embedding_sizes)].split(list(self.embedding_sizes), dim=1)):
            tuples = self.maybe_mine_embeddings(part, labels, tuples, f"tuple_miner_{at}")
            if self.loss_weights.get(f"metric_loss_{at}", 0) > 0:
                self.losses[f"metric_loss_{at}"] = self.loss_funcs[f"metric_loss_{at}"](part, labels, tuples)
            classifier = self.models.get(f"classifier_{at}")
            if classifier is not None and self.loss_weights.get(f"classifier_loss_{at}", 0) > 0:
                logits = classifier(part)
                loss = self.loss_funcs[f"classifier_loss_{at}"](logits, labels.to(logits.device))
                self.losses[f"classifier_loss_{at}"] = loss

    def maybe_mine_embeddings(  # type: ignore[override]
        self, embeddings: Tensor, labels: Tensor, prev_indices_tuple: Any, curr_miner_name: str
    ) -> Any:
        """What the part's miner finds; `None` without one."""
        miner = self.mining_funcs.get(curr_miner_name)
        if not isinstance(miner, HDCMiner):
            return None if miner is None else miner(embeddings, labels)
        miner.set_idx_externally(prev_indices_tuple, labels.to(embeddings.device))
        tuples = miner(embeddings, labels)
        miner.reset_idx()
        return tuples

    def modify_schema(self) -> None:
        """With numbered names."""
        self.schema["models"].keys += ["classifier_[0-9]+"]
        self.schema["loss_funcs"].keys = ["metric_loss_[0-9]+", "classifier_loss_[0-9]+"]
        self.schema["mining_funcs"].keys = ["tuple_miner_[0-9]+"]
