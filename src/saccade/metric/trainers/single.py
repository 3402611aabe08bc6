"""Trainers with one metric loss: alone, beside a classifier, and over two streams."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saccade.metric.trainers.base import BaseTrainer
from saccade.metric.tuples import all_triplets, located


class MetricLossOnly(BaseTrainer):
    """One metric loss on the embeddings.

    Args:
        *args: As for [`BaseTrainer`][saccade.metric.trainers.BaseTrainer].
        **kwargs: The same.

    Example:
        >>> from torch import nn
        >>> from torch.utils.data import TensorDataset
        >>> from saccade.metric.losses import TripletMarginLoss
        >>> trunk = nn.Linear(4, 2)
        >>> trainer = MetricLossOnly(
        ...     {"trunk": trunk}, {"trunk_optimizer": torch.optim.SGD(trunk.parameters(), 0.1)}, 8,
        ...     {"metric_loss": TripletMarginLoss()}, TensorDataset(torch.randn(16, 4), torch.arange(16) % 2),
        ...     dataloader_num_workers=0)
        >>> trainer.train(num_epochs=2)
        >>> trainer.epoch, trainer.iterations_per_epoch
        (2, 2)
    """

    def calculate_loss(self, curr_batch: Any) -> None:
        """The metric loss."""
        data, labels = curr_batch
        embeddings = self.compute_embeddings(data)
        tuples = self.maybe_mine_embeddings(embeddings, labels)
        self.losses["metric_loss"] = self.maybe_get_metric_loss(embeddings, labels, tuples)

    def maybe_get_metric_loss(self, embeddings: Any, labels: Tensor, indices_tuple: Any) -> Any:
        """The metric loss; 0 where its weight is."""
        if self.loss_weights.get("metric_loss", 0) > 0:
            return self.loss_funcs["metric_loss"](embeddings, labels, indices_tuple)
        return 0


class TrainWithClassifier(MetricLossOnly):
    """A metric loss, and a classifier on the embeddings with a loss of its own.

    Args:
        *args: As for [`BaseTrainer`][saccade.metric.trainers.BaseTrainer], with "classifier" in `models` and
            "classifier_loss" in `loss_funcs`.
        **kwargs: The same.
    """

    def calculate_loss(self, curr_batch: Any) -> None:
        """Both losses."""
        data, labels = curr_batch
        embeddings = self.compute_embeddings(data)
        logits = self.maybe_get_logits(embeddings)
        tuples = self.maybe_mine_embeddings(embeddings, labels)
        self.losses["metric_loss"] = self.maybe_get_metric_loss(embeddings, labels, tuples)
        self.losses["classifier_loss"] = self.maybe_get_classifier_loss(logits, labels)

    def maybe_get_classifier_loss(self, logits: Tensor | None, labels: Tensor) -> Any:
        """The classifier's loss; 0 without logits."""
        return 0 if logits is None else self.loss_funcs["classifier_loss"](logits, labels.to(logits.device))

    def maybe_get_logits(self, embeddings: Tensor) -> Tensor | None:
        """The classifier's output, where there is one and its loss has a weight."""
        if "classifier" in self.models and self.loss_weights.get("classifier_loss", 0) > 0:
            return self.models["classifier"](embeddings)
        return None

    def modify_schema(self) -> None:
        """With a classifier."""
        self.schema["models"].keys += ["classifier"]
        self.schema["loss_funcs"].keys += ["classifier_loss"]


class TwoStreamMetricLoss(BaseTrainer):
    """For data sets of (anchor, other, label): anchors are compared with the others, which have the same labels.

    Args:
        *args: As for [`BaseTrainer`][saccade.metric.trainers.BaseTrainer], without "subset_batch_miner".
        **kwargs: The same.
    """

    def get_batch(self) -> Any:
        """((anchors, others), labels) of the next step."""
        anchors, others, labels = self.data_and_label_getter(self.next_of_loader())
        return (anchors, others), self.processed_labels(labels)

    def calculate_loss(self, curr_batch: Any) -> None:
        """The metric loss on both streams, joined."""
        (anchors, others), labels = curr_batch
        embeddings = self.compute_embeddings(anchors), self.compute_embeddings(others)
        tuples = self.maybe_mine_embeddings(embeddings, labels)
        self.losses["metric_loss"] = self.maybe_get_metric_loss(embeddings, labels, tuples)

    def maybe_get_metric_loss(self, embeddings: tuple[Tensor, Tensor], labels: Tensor, indices_tuple: Any) -> Any:
        """The metric loss; 0 where its weight is."""
        if self.loss_weights.get("metric_loss", 0) > 0:
            joined = torch.cat(embeddings)
            second = torch.arange(len(embeddings[0]), len(joined), device=joined.device)
            tuples = located(indices_tuple, second)
            return self.loss_funcs["metric_loss"](joined, torch.cat([labels, labels]), tuples)
        return 0

    def maybe_mine_embeddings(self, embeddings: tuple[Tensor, Tensor], labels: Tensor) -> Any:
        """Anchors of the first stream, positives and negatives of the second; all triplets without a miner."""
        anchors, others = embeddings
        again = labels.clone()  # another tensor: a sample's own partner is a positive
        if "tuple_miner" in self.mining_funcs:
            return self.mining_funcs["tuple_miner"](anchors, labels, others, again)
        return all_triplets(labels.to(anchors.device), again.to(anchors.device))

    def modify_schema(self) -> None:
        """Without a miner of subsets."""
        self.schema["mining_funcs"].keys = ["tuple_miner"]
